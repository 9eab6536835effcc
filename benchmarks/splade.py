"""SPLADE on real text of mixed length, against sentence-transformers' `SparseEncoder` with the same weights.

Three things are compared: encoding from strings, the forward pass of one batch of 32 texts in the order of the corpus,
and a training step (forward and backward) on it. Weights must be equal but for float noise. The model is
all-MiniLM-L6-v2 with its word embeddings as output layer; texts are the embedded corpus, docstrings cut at 256 tokens.
One thread, and CPU seconds of the process, so that what else the machine does counts little. `kept_mb` is what the
forward pass of the training step keeps for the backward pass, parameters left out; most of it is the backbone's.

    python benchmarks/splade.py [--quick]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from common import arguments, bar, finish, interleaved, ratio
from sentence_transformers import SparseEncoder

from cderetrieval.corpora import pydocs
from cderetrieval.models.mlm import masked_lm
from cderetrieval.models.splade import Splade

DOCUMENTS = 400
BATCH = 32
MAX_LENGTH = 256
PEER = "SparseEncoder"
OURS = "Splade"


def documents(count: int) -> list[str]:
    """Draw as many texts from each package of the embedded corpus, one corpus after the other."""
    names = pydocs.packages()
    corpora = [pydocs.load(name, max_documents=count // len(names)).corpus for name in names]
    return [document["text"] for corpus in corpora for document in corpus]


def mixed(texts: list[str], size: int) -> list[str]:
    """A batch from all over the corpus."""
    return texts[:: max(1, len(texts) // size)][:size]


def forward(model: Any, texts: list[str]) -> torch.Tensor:
    """Weights of one batch, with what a backward pass needs."""
    return model(model.preprocess(texts))["sentence_embedding"]


def kept_megabytes(model: Any, texts: list[str]) -> float:
    """Size of the tensors that a forward pass keeps for the backward pass, each storage once, parameters left out."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        weights = forward(model, texts)
    weights.sum().backward()
    model.zero_grad()
    return round(sum(sizes.values()) / 2**20, 1)


def compare(what: str, calls: dict[str, Callable[[], Any]], repeats: int, **more: Any) -> dict[str, Any]:
    """CPU seconds of ours and the peer's, in turn."""
    times = interleaved(calls, repeats, clock=time.process_time)
    medians = {name: sorted(seconds)[repeats // 2] for name, seconds in times.items()}
    return {
        "what": what,
        "cpu_seconds": medians[OURS],
        "peer_cpu_seconds": medians[PEER],
        "speed": ratio(times, PEER, OURS),
        **more,
        "raw": times,
    }


def without_dropout(model: Any) -> None:
    """Put a model into training mode, in which it computes what it would otherwise."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def main() -> None:
    """Compare encoding, a forward pass and a training step."""
    quick = arguments(__doc__ or "").quick
    torch.set_num_threads(1)
    texts, size = documents(40 if quick else DOCUMENTS), 8 if quick else BATCH
    repeats = 1 if quick else 3
    mlm, tokenizer = masked_lm()
    splade = Splade(model=mlm, tokenizer=tokenizer, max_length=MAX_LENGTH, device="cpu")
    ours, peer = splade.model, SparseEncoder(modules=list(splade.model.children()), device="cpu")
    batch = mixed(texts, size)

    def difference(mine: torch.Tensor, theirs: torch.Tensor) -> float:
        return float((mine - theirs).abs().max())

    vectors = torch.from_numpy(splade.encode_document(texts).toarray())
    calls = {PEER: lambda: peer.encode_document(texts), OURS: lambda: splade.encode_document(texts)}
    largest = difference(vectors, peer.encode_document(texts).to_dense())
    rows = [compare("encode", calls, repeats, largest_difference=largest)]
    with torch.no_grad():
        largest = difference(forward(ours, batch), forward(peer, batch))
        calls = {PEER: lambda: forward(peer, batch), OURS: lambda: forward(ours, batch)}
        rows.append(compare(f"forward, {size} texts", calls, repeats, largest_difference=largest))
    for model in (ours, peer):
        without_dropout(model)
    calls = {name: lambda one=one: forward(one, batch).sum().backward() for name, one in ((PEER, peer), (OURS, ours))}
    kept = {"kept_mb": kept_megabytes(ours, batch), "peer_kept_mb": kept_megabytes(peer, batch)}
    rows.append(compare(f"training step, {size} texts", calls, repeats, **kept))
    bars = [bar(f"{row['what']} against {PEER}", row["speed"]["median"], 1.0) for row in rows]
    largest = max(row.get("largest_difference", 0.0) for row in rows)
    bars.append(bar("largest difference of a weight", largest, 1e-4, at_most=True))
    settings = {"threads": 1, "documents": len(texts), "batch": size, "max_length": MAX_LENGTH}
    finish("splade", settings=settings, rows=rows, bars=bars, quick=quick)


if __name__ == "__main__":
    main()
