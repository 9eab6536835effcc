"""BERT in ONNX Runtime: a graph of a few kilobytes, made when the model is loaded, around the weights that are there.

No file of it is kept: nothing can be damaged, go stale or be put in its place, and the weights are shared, not copied.
The operators are the fastest of those that ONNX Runtime has on processors. In int8 a matrix has a scale for each
output, and each token's activations one of their own, so no text decides about another. A few channels of the states
are far larger than the others, which would be left with few of the 255 steps: half of that is moved into the weights,
as SmoothQuant does (arXiv 2211.10438).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..errors import ModelError, missing_dependency
from ..runtime import Compute
from .bert import HEAD, Bert

logger = logging.getLogger(__name__)

_OPSET, _IR, _OWN = 20, 10, "com.microsoft"
# Tokens of texts that are computed together, if they are of equal length: more do not fit the processor's cache.
_TOGETHER = 256
_NONE = (-1, 1, None)
# Largest weight in int8, and the least that is taken for the largest of a row, and of a channel of states.
_MOST, _TINY = np.float32(127), np.float32(1e-12)
_LEAST = np.float32(1e-4)
# Axes, and of activations in int8 their step, their zero, and the least that is taken for the largest of a token. GELU
# is never below -0.17, so nearly all steps of its values are above zero.
_CONSTANTS: dict[str, Any] = {
    **{"first": [0], "second": [1], "last": [-1]},
    **{"step": 1 / _MOST, "zero": np.uint8(128), "least": _TINY},
    **{"gelu.step": 1 / np.float32(218), "gelu.zero": np.uint8(37), "gelu.least": np.float32(1)},
}
# Random tokens that show which channels are large: that is the model's doing, and not the text's.
_SHOWN = (8, 32)


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

    Only texts of the same length are computed together: attention without padding and mask takes two thirds of the
    time, and a text's vector does not depend on what stands beside it, to the bit. Each such group is computed by one
    thread, and threads share groups: a short text has too little work for two.
    """

    def __init__(self, bert: Bert, *, int8: bool = False) -> None:
        self._bert, self._int8, self._normalizes = bert, int8, bert.lengths > 0
        # Process that made the session, how many threads use it, and the session.
        self._session: tuple[int, int, Any] = _NONE

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": _NONE}

    def __call__(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Token ids and mask (b, t), longest text first, to vectors (b, h)."""
        process, workers, session = self._session
        if process != os.getpid():  # what another thread of the parent held is locked in a forked child
            workers, session = threads() if process < 0 else 1, _open(self._bert, int8=self._int8)
            self._session = os.getpid(), workers, session

        def compute(group: np.ndarray) -> np.ndarray:
            (found,) = session.run(None, {"ids": group})
            # ONNX Runtime's own mean adds in another order where there is one text.
            return np.asarray(found.mean(axis=1) if self._bert.pooling == "mean" else found)

        groups = list(_groups(ids, mask.sum(axis=1)))
        if workers > 1 and len(groups) > 1:
            with ThreadPoolExecutor(workers) as pool:
                vectors = np.concatenate(list(pool.map(compute, groups)))
        else:
            vectors = np.concatenate(list(map(compute, groups)))
        if self._normalizes:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors


def _groups(ids: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Token ids of texts of equal length, in their order."""
    start = 0
    while start < len(lengths):
        length = lengths[start]
        end = min(start + max(1, _TOGETHER // length), len(lengths))
        same = lengths[start:end] == length
        end = end if same.all() else start + int(same.argmin())
        yield ids[start:end, :length]
        start = end


def _open(bert: Bert, *, int8: bool) -> Any:
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # releases of 2026 would report sessions to their maker
    largest = _largest(bert) if int8 else None
    graph = _Graph(bert, largest)
    return _session(graph, [graph.output])


def _largest(bert: Bert) -> dict[str, np.ndarray]:
    """The greatest magnitude of each channel of the normalised states, by the name of these."""
    graph = _Graph(bert)
    names = [node.output[0] for node in graph.nodes if node.op_type == "LayerNormalization"]
    texts, tokens = _SHOWN
    shape = texts, min(tokens, bert.max_length)
    ids = np.random.RandomState(0).randint(bert.config.vocab_size, size=shape)  # its stream is frozen
    found = _session(graph, names).run(None, {"ids": ids.astype(np.int64)})
    return {name: np.abs(states).max(axis=(0, 1)) for name, states in zip(names, found, strict=True)}


def _session(graph: _Graph, outputs: list[str]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # noqa: V101
    options.log_severity_level = 3  # noqa: V101
    options.enable_mem_pattern = False  # noqa: V101 (shapes differ from batch to batch)
    outside = {name: array for name, array in graph.arrays.items() if array.ndim and array.dtype != np.int64}
    values = map(onnxruntime.OrtValue.ortvalue_from_numpy, outside.values())
    options.add_external_initializers(list(outside), list(values))
    model = graph.model(set(outside), outputs)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class _Graph:
    """Nodes from "ids" (texts, tokens) to `output`, and weights, which stay outside of it.

    `largest` has the greatest magnitudes of the channels of states, by their name: then the weights are in int8.
    """

    def __init__(self, bert: Bert, largest: Mapping[str, np.ndarray] | None = None) -> None:
        self.nodes: list[Any] = []
        self.arrays: dict[str, np.ndarray] = {}
        self._bert, self._tensors = bert, bert.tensors
        self._linear = self._linear_float32 if largest is None else self._linear_int8
        self._largest = largest or {}
        for name, value in _CONSTANTS.items():
            self.array(name, np.array(value))
        states = self._embed()
        for layer in range(bert.config.num_hidden_layers):
            states = self._layer(states, f"encoder.layer.{layer}")
        if bert.is_masked:
            states = self._score(states)
        elif bert.pooling == "cls":
            states = self.node("Gather", [states, self.array("begin", np.array(0))], "vectors", axis=1)
        self.output = states

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
        return self._norm(self.node("Add", [words, places], "sum"), "embeddings")

    def _score(self, states: str) -> str:
        """The greatest logit of each term, without its bias, which the maximum leaves alone."""
        inner = self.node("Gelu", [self._dense(states, HEAD)], f"{HEAD}.inner", _OWN)
        logits = self.node("FusedMatMul", [self._norm(inner, HEAD), "word"], "logits", _OWN, transB=1)
        return self.node("ReduceMax", [logits, "second"], "vectors", keepdims=0)

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
        states = self._after(found, states, f"{place}.attention.output")
        inner = self.node("Gelu", [self._dense(states, f"{place}.intermediate")], f"{place}.inner", _OWN)
        return self._after(inner, states, f"{place}.output")

    def _after(self, found: str, states: str, place: str) -> str:
        return self._norm(self.node("Add", [self._dense(found, place), states], f"{place}.total"), place)

    def _norm(self, total: str, place: str) -> str:
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
        states, weight = self._smooth(states, name, weight)
        positive = "gelu." if states.endswith(".inner") else ""
        step, zero = f"{positive}step", f"{positive}zero"
        scale = np.maximum(np.abs(weight).max(axis=1), _TINY) / _MOST
        numbers = np.rint(weight / scale[:, None]).astype(np.int8)
        sizes = states if positive else self.node("Abs", [states], f"{name}.abs")
        size = self.node("ReduceMax", [sizes, "last"], f"{name}.max")
        size = self.node("Max", [size, f"{positive}least"], f"{name}.size")
        unit = self.node("Div", [states, size], f"{name}.unit")
        rounded = self.node("QuantizeLinear", [unit, step, zero], f"{name}.rounded")
        weights = [self.array(f"{name}.numbers", numbers.T), step, self.array(f"{name}.scale", scale), zero]
        product = self.node("MatMulIntegerToFloat", [rounded, *weights], f"{name}.product", _OWN)
        product = self.node("Mul", [product, size], f"{name}.scaled")
        return self.node("Add", [product, self.array(f"{name}.bias", bias)], f"{name}.sum")

    def _smooth(self, states: str, name: str, weight: np.ndarray) -> tuple[str, np.ndarray]:
        """Channels of large states made smaller, and their weights larger."""
        if states not in self._largest:
            return states, weight
        # Rounded, so that the last bits of what another processor computes change no weight.
        factor = np.sqrt(np.maximum(self._largest[states], _LEAST)).astype(np.float16).astype(np.float32)
        return self.node("Mul", [states, self.array(f"{name}.factor", 1 / factor)], f"{name}.smooth"), weight * factor

    def model(self, outside: set[str], outputs: list[str]) -> bytes:
        """The serialised model with these outputs; the arrays of the names `outside` are given to the session."""
        from onnx import TensorProto, helper, numpy_helper

        arrays = [
            _declared(name, array) if name in outside else numpy_helper.from_array(array, name)
            for name, array in self.arrays.items()
        ]
        ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["texts", "tokens"])
        found = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "bert", [ids], found, arrays)
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
