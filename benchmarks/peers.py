"""Peers that run in environments of their own: they load once and answer, a line of JSON for a line of JSON.

    python benchmarks/peers.py BACKEND MODEL THREADS TEXTS      {"texts": FILE, "vectors": FILE}, at last {}
    python benchmarks/peers.py seismic DOCUMENTS QUERIES        {"k": 10, "query_cut": 10, "heap_factor": 0.8}

At the other end is `common.Peer`; of this package nothing is needed here. The first line says what was loaded; each
answer has the seconds of the processor. BACKEND is onnx, openvino, one of these with -int8, fastembed or txtai; {} asks
for the most memory.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = (
    "sentence-transformers",
    "transformers",
    "optimum-onnx",
    "onnxruntime",
    "optimum-intel",
    "openvino",
    "pyseismic-lsr",
    "fastembed",
    "txtai",
)

Answer = Callable[..., dict[str, Any]]
Encode = Callable[[list[str]], Any]


def encoder(backend: str, model: str, threads: str, calibration: str) -> tuple[dict[str, Any], Answer]:
    """Load a model and encode texts at the defaults of a library."""
    with open(calibration, encoding="utf-8") as file:
        encode = BACKENDS[backend](model, int(threads), json.load(file))

    def answer(texts: str = "", vectors: str = "") -> dict[str, Any]:
        if not texts:
            # That of getrusage begins with the parent's.
            status = Path("/proc/self/status").read_text(encoding="utf-8")
            return {"peak_mb": round(int(status.partition("VmHWM:")[2].split()[0]) / 1024)}
        with open(texts, encoding="utf-8") as file:
            asked = json.load(file)
        start = time.process_time()
        found = np.asarray(encode(asked))
        seconds = time.process_time() - start
        np.save(vectors, found)
        return {"seconds": seconds}

    return {}, answer


def _onnx(model: str, threads: int, calibration: list[str], *, int8: bool = False) -> Encode:
    """sentence-transformers, exported, and for int8 quantized for this processor."""
    import torch
    from onnxruntime import SessionOptions
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    torch.set_num_threads(threads)
    session = SessionOptions()
    session.intra_op_num_threads = threads
    options: dict[str, Any] = {"provider": "CPUExecutionProvider", "session_options": session}
    made = SentenceTransformer(model, device="cpu", backend="onnx", model_kwargs={"export": True, **options})
    if int8:
        folder = tempfile.mkdtemp()
        made.save_pretrained(folder)
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            kind = "avx512_vnni" if "avx512_vnni" in file.read() else "avx2"
        export_dynamic_quantized_onnx_model(made, kind, folder)
        options["file_name"] = f"onnx/model_{'qint8' if kind.startswith('avx512') else 'quint8'}_{kind}.onnx"
        made = SentenceTransformer(folder, device="cpu", backend="onnx", model_kwargs=options)
    return partial(made.encode, show_progress_bar=False)


def _openvino(model: str, threads: int, calibration: list[str], *, int8: bool = False) -> Encode:
    """sentence-transformers, exported, and for int8 quantized statically."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    precision = {} if int8 else {"INFERENCE_PRECISION_HINT": "f32"}
    options = {"export": True, "ov_config": {"INFERENCE_NUM_THREADS": threads, **precision}}
    made = SentenceTransformer(model, device="cpu", backend="openvino", model_kwargs=options)
    if int8:
        import nncf

        inner: Any = made[0].auto_model
        names = {name for value in inner.model.inputs for name in value.names}

        def inputs(text: str) -> dict[str, Any]:
            found = made.tokenizer(text, truncation=True, max_length=made.max_seq_length, return_tensors="np")
            return {name: value for name, value in found.items() if name in names}

        data = nncf.Dataset(calibration, inputs)
        inner.model = nncf.quantize(inner.model, data, model_type=nncf.ModelType.TRANSFORMER)
        inner.clear_requests()
        inner.compile()
    return partial(made.encode, show_progress_bar=False)


def _fastembed(model: str, threads: int, calibration: list[str]) -> Encode:
    """fastembed, which is given the model that sentence-transformers exports."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType
    from sentence_transformers import SentenceTransformer

    folder = tempfile.mkdtemp()
    SentenceTransformer(model, device="cpu", backend="onnx", model_kwargs={"export": True}).save_pretrained(folder)
    TextEmbedding.add_custom_model(
        model="local/minilm",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="local/minilm"),
        dim=384,
        model_file="onnx/model.onnx",
    )
    made = TextEmbedding("local/minilm", specific_model_path=folder, threads=threads)
    return lambda texts: np.array(list(made.embed(texts)))


def _txtai(model: str, threads: int, calibration: list[str]) -> Encode:
    """txtai, which runs torch."""
    import torch
    from txtai import Embeddings

    torch.set_num_threads(threads)
    return Embeddings(path=model, gpu=False).batchtransform


BACKENDS: dict[str, Callable[[str, int, list[str]], Encode]] = {
    "onnx": _onnx,
    "onnx-int8": partial(_onnx, int8=True),
    "openvino": _openvino,
    "openvino-int8": partial(_openvino, int8=True),
    "fastembed": _fastembed,
    "txtai": _txtai,
}


def seismic(documents: str, queries: str) -> tuple[dict[str, Any], Answer]:
    """Build an index with default settings and search it, all on one thread."""
    os.environ["RAYON_NUM_THREADS"] = "1"  # `batch_search(num_threads=1)` alone was seen to take two
    from seismic import SeismicDataset, SeismicIndex, get_seismic_string

    dataset = SeismicDataset()
    with np.load(documents) as file:
        indptr, indices, values = file["indptr"], file["indices"], file["data"]
    names = [str(number) for number in range(len(indptr) - 1)]
    dataset.add_documents_by_id(names, indices.astype(np.int64), values, indptr.astype(np.int64))
    start = time.process_time()
    index = SeismicIndex.build_from_dataset(dataset, num_threads=1)
    seconds = time.process_time() - start
    with np.load(queries) as file:
        spans = list(zip(file["indptr"][:-1].tolist(), file["indptr"][1:].tolist(), strict=True))
        terms = file["indices"].astype(get_seismic_string())
        asked = [terms[low:high] for low, high in spans]
        weights = [file["data"][low:high] for low, high in spans]
    numbers = np.array([str(number) for number in range(len(spans))], dtype=get_seismic_string())

    def search(k: int, query_cut: int, heap_factor: float) -> dict[str, Any]:
        start = time.process_time()
        found = index.batch_search(
            numbers, asked, weights, k=k, query_cut=query_cut, heap_factor=heap_factor, num_threads=1
        )
        seconds = time.process_time() - start
        # Rankings come in the order in which threads finished them, and name their query; one may be empty.
        rankings = {int(ranking[0][0]): [int(document) for _, _, document in ranking] for ranking in found if ranking}
        return {"seconds": seconds, "found": [rankings.get(number, []) for number in range(len(spans))]}

    return {"build_seconds": seconds}, search


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of those packages that this environment has; by default the peers' own."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main(system: str, *values: str) -> None:
    """Load, say so, and answer until there are no more requests."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not stand between the answers
    loaded, answer = seismic(*values) if system == "seismic" else encoder(system, *values)
    print(json.dumps({**loaded, "versions": versions()}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
