"""BERT in ONNX Runtime: a graph of a few kilobytes, made when the model is loaded, around the weights that are there.

No file of it is kept: nothing can be damaged, go stale or be put in its place, and the weights are shared, not copied.
The operators are the fastest of those that ONNX Runtime has on processors. In int8 a matrix has a scale for each
output, and each token's activations one of their own: nothing is calibrated, so no text decides about another.
"""

from __future__ import annotations

import logging
import os
import sys
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..errors import ModelError, missing_dependency
from ..runtime import Compute
from .bert import Bert

logger = logging.getLogger(__name__)

# Part of the fingerprint of every int8 encoder: whoever changes how its vectors are made changes it.
INT8 = "int8-1"
_OPSET, _IR, _OWN = 20, 10, "com.microsoft"
# Largest weight in int8, and the least that is taken for the largest of a row.
_MOST, _TINY = np.float32(127), np.float32(1e-12)
# Axes, and of activations in int8 their step and their zero.
_CONSTANTS: dict[str, Any] = {
    **{"first": [0], "second": [1], "last": [-1]},
    **{"step": 1 / _MOST, "middle": np.uint8(128), "tiny": _TINY},
}


def is_installed() -> bool:
    """Whether the packages of the extra `onnx` are there."""
    return all(find_spec(name) is not None for name in ("onnxruntime", "onnx"))


def uses_onnx(compute: Compute, name: str, known: bool) -> bool:
    """Whether ONNX Runtime computes a model; `known` says whether this package has a graph of it."""
    wanted = compute.runtime == "onnx" or compute.precision == "int8"
    if known and wanted and not is_installed():
        raise missing_dependency("onnxruntime", "onnx")
    if not known and compute.precision == "int8":
        raise ModelError(
            f"precision='int8' is for BERT models in a directory, in float32 and on the processor; {name} is another. "
            "Leave it out."
        )
    if compute.runtime == "torch" or not is_installed():
        return False
    if not known:
        _say_once(name, logging.WARNING if wanted else logging.INFO)
    return known


@lru_cache(maxsize=1_000)
def _say_once(name: str, level: int) -> None:
    logger.log(level, "%s is no model that ONNX Runtime computes here: torch computes it.", name)


def threads() -> int:
    """As many threads as torch uses, where it is there, or would use."""
    if "torch" in sys.modules:
        return int(sys.modules["torch"].get_num_threads())
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    affinity = getattr(os, "sched_getaffinity", None)
    return int(given) if given.isdigit() and int(given) else len(affinity(0)) if affinity else os.cpu_count() or 1


class OnnxBert:
    """The vectors of a :class:`~.bert.Bert`, computed by ONNX Runtime on the processor.

    Each text is computed by itself, without padding: attention without a mask takes two thirds of the time, and a
    text's vector does not depend on what stands beside it, to the bit.
    """

    def __init__(self, bert: Bert, *, int8: bool = False) -> None:
        self._bert, self._int8, self._normalizes = bert, int8, bert.lengths > 0
        self._session: tuple[int, Any] = (-1, None)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": (-1, None)}

    def __call__(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Token ids and mask (b, t), longest text first, to vectors (b, h)."""
        process, session = self._session
        if process != os.getpid():  # a forked child has none of its parent's threads
            session = _open(self._bert, int8=self._int8, threads=threads() if process < 0 else 1)
            self._session = os.getpid(), session
        parts: list[np.ndarray] = []
        for row, length in enumerate(mask.sum(axis=1)):
            parts += session.run(None, {"ids": ids[row : row + 1, :length]})
        vectors: np.ndarray = np.concatenate(parts)
        if self._normalizes:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors


def _open(bert: Bert, *, int8: bool, threads: int) -> Any:
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # releases of 2026 would report sessions to their maker
    graph = _Graph(bert, int8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads  # noqa: V101
    options.log_severity_level = 3  # noqa: V101
    options.enable_mem_pattern = False  # noqa: V101 (shapes differ from batch to batch)
    outside = {name: array for name, array in graph.arrays.items() if array.ndim and array.dtype != np.int64}
    values = map(onnxruntime.OrtValue.ortvalue_from_numpy, outside.values())
    options.add_external_initializers(list(outside), list(values))
    return onnxruntime.InferenceSession(graph.model(set(outside)), options, providers=["CPUExecutionProvider"])


class _Graph:
    """Nodes from "ids" (texts, tokens) to "vectors", and weights, which stay outside of it."""

    def __init__(self, bert: Bert, int8: bool) -> None:
        self.nodes: list[Any] = []
        self.arrays: dict[str, np.ndarray] = {}
        self._bert, self._tensors = bert, bert.tensors
        self._linear = self._linear_int8 if int8 else self._linear_float32
        for name, value in _CONSTANTS.items():
            self.array(name, np.array(value))
        states = self._embed()
        for layer in range(bert.config.num_hidden_layers):
            states = self._layer(states, f"encoder.layer.{layer}")
        if bert.pooling == "cls":
            self.node("Gather", [states, self.array("zero", np.array(0))], "vectors", axis=1)
        else:
            self.node("ReduceMean", [states, "second"], "vectors", keepdims=0)

    def array(self, name: str, array: np.ndarray) -> str:
        """Add weights."""
        self.arrays[name] = np.asarray(array, order="C")
        return name

    def node(self, kind: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> str:
        """Add a node, and give the name of its output."""
        from onnx.helper import make_node

        self.nodes.append(make_node(kind, inputs, [output], domain=domain, **attributes))
        return output

    def _embed(self) -> str:
        table = "embeddings.{}_embeddings.weight".format
        positions = self._tensors[table("position")] + self._tensors[table("token_type")][0]
        words = self.node("Gather", [self.array("word", self._tensors[table("word")]), "ids"], "words")
        length = self.node("Shape", ["ids"], "length", start=1)
        places = self.node("Slice", [self.array("position", positions), "first", length], "places")
        return self._norm(words, places, "embeddings")

    def _layer(self, states: str, place: str) -> str:
        tensors, part = self._tensors, f"{place}.attention.self.{{}}.{{}}".format
        weight, bias = (
            np.concatenate([tensors[part(name, kind)] for name in ("query", "key", "value")])
            for kind in ("weight", "bias")
        )
        together = self._linear(states, f"{place}.qkv", weight, bias)
        parts = [f"{place}.{name}" for name in ("query", "key", "value")]
        self.node("Split", [together], parts[0], axis=2, num_outputs=3)
        self.nodes[-1].output.extend(parts[1:])
        heads = self._bert.config.num_attention_heads
        found = self.node("MultiHeadAttention", parts, f"{place}.found", _OWN, num_heads=heads)
        states = self._norm(self._dense(found, f"{place}.attention.output"), states, f"{place}.attention.output")
        inner = self.node("Gelu", [self._dense(states, f"{place}.intermediate")], f"{place}.inner", _OWN)
        return self._norm(self._dense(inner, f"{place}.output"), states, f"{place}.output")

    def _norm(self, first: str, second: str, place: str) -> str:
        total = self.node("Add", [first, second], f"{place}.total")
        names = {f"{place}.{name}": f"{place}.LayerNorm.{name}" for name in ("weight", "bias")}
        weights = [self.array(name, self._tensors[full]) for name, full in names.items()]
        epsilon = self._bert.config.layer_norm_eps
        return self.node("LayerNormalization", [total, *weights], f"{place}.states", epsilon=epsilon)

    def _dense(self, states: str, place: str) -> str:
        weight, bias = (self._tensors[f"{place}.dense.{name}"] for name in ("weight", "bias"))
        return self._linear(states, f"{place}.dense", weight, bias)

    def _linear_float32(self, states: str, name: str, weight: np.ndarray, bias: np.ndarray) -> str:
        product = self.node("MatMul", [states, self.array(f"{name}.weight", weight.T)], f"{name}.product")
        return self.node("Add", [product, self.array(f"{name}.bias", bias)], f"{name}.sum")

    def _linear_int8(self, states: str, name: str, weight: np.ndarray, bias: np.ndarray) -> str:
        """Weights with a scale for each output, activations with one for each token, found anew for each."""
        scale = np.maximum(np.abs(weight).max(axis=1), _TINY) / _MOST
        numbers = np.rint(weight / scale[:, None]).astype(np.int8)
        size = self.node("ReduceMax", [self.node("Abs", [states], f"{name}.abs"), "last"], f"{name}.max")
        size = self.node("Max", [size, "tiny"], f"{name}.size")
        unit = self.node("Div", [states, size], f"{name}.unit")
        rounded = self.node("QuantizeLinear", [unit, "step", "middle"], f"{name}.rounded")
        weights = [self.array(f"{name}.numbers", numbers.T), "step", self.array(f"{name}.scale", scale), "middle"]
        product = self.node("MatMulIntegerToFloat", [rounded, *weights], f"{name}.product", _OWN)
        product = self.node("Mul", [product, size], f"{name}.scaled")
        return self.node("Add", [product, self.array(f"{name}.bias", bias)], f"{name}.sum")

    def model(self, outside: set[str]) -> bytes:
        """The serialised model; the arrays of these names are given to the session."""
        from onnx import TensorProto, helper, numpy_helper

        arrays = [
            _declared(name, array) if name in outside else numpy_helper.from_array(array, name)
            for name, array in self.arrays.items()
        ]
        ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["texts", "tokens"])
        vectors = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", None])
        graph = helper.make_graph(self.nodes, "bert", [ids], [vectors], arrays)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_OWN, 1)]
        return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=_IR).SerializeToString())


def _declared(name: str, array: np.ndarray) -> Any:
    from onnx import StringStringEntryProto, TensorProto, helper

    place = {"location": "memory", "offset": "0", "length": str(array.nbytes)}
    return TensorProto(
        name=name,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        dims=array.shape,
        data_location=TensorProto.EXTERNAL,
        external_data=[StringStringEntryProto(key=key, value=value) for key, value in place.items()],
    )
