"""Late chunking, as it is and trained in the way of InSeNT, as the vectors that `document_training.py` compares.

    python benchmarks/late_chunking.py DATA FILE [--quick]
    python benchmarks/late_chunking.py DATA FILE --train FOLDER [--steps 80] [--quick]

Tokens of a whole text go through MiniLM in windows of 510 that overlap by 128; a passage is the mean of its tokens
(arXiv 2409.04701). Trained: the same data, loss and in-sequence share as recipe ``cde-doc-minilm``, all weights of
MiniLM at 2e-5, each document as far as one window reads (arXiv 2505.24782), bfloat16 where the processor has it. On a
processor a step costs a hundred times one of the recipe, so there are fewer and smaller ones: 80 of 8 documents.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from document_forms import Embedded, development_sets
from folders import Models
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from cderetrieval.files import write_tensors
from cderetrieval.models.dense import DenseEncoder
from cderetrieval.models.locate import find
from cderetrieval.runtime import supports_bfloat16
from cderetrieval.training.documents import DocumentData, load_documents
from cderetrieval.training.losses import MASKED

MODEL = "all-MiniLM-L6-v2"
WINDOW, OVERLAP = 510, 128
# Of a step: documents, and the in-sequence share of the loss.
BATCH, SHARE, RATE = 8, 0.5, 2e-5
logger = logging.getLogger(__name__)


def states(model: Any, tokenizer: Any, ids: Sequence[Sequence[int]]) -> list[Tensor]:
    """Token states of texts of at most a window, without those of the special tokens."""
    longest = max(map(len, ids)) + 2
    rows = torch.full((len(ids), longest), tokenizer.pad_token_id)
    mask = torch.zeros_like(rows)
    for row, some in enumerate(ids):
        rows[row, : len(some) + 2] = torch.tensor([tokenizer.cls_token_id, *some, tokenizer.sep_token_id])
        mask[row, : len(some) + 2] = 1
    found = model(input_ids=rows, attention_mask=mask).last_hidden_state
    return [found[row, 1 : len(some) + 1] for row, some in enumerate(ids)]


def late(model: Any, tokenizer: Any, text: str, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Vectors of the spans of a text."""
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False)
    ids, starts = found["input_ids"], np.array([start for start, _ in found["offset_mapping"]])
    whole: list[Tensor] = []
    with torch.inference_mode():
        for first in range(0, max(1, len(ids) - OVERLAP), WINDOW - OVERLAP):
            (part,) = states(model, tokenizer, [ids[first : first + WINDOW]])
            whole.append(part if first == 0 else part[OVERLAP:])
    tokens = torch.cat(whole).numpy()
    vectors = np.zeros((len(spans), tokens.shape[1]), dtype=np.float32)
    for row, (start, stop) in enumerate(spans):
        inside = (starts >= start) & (starts < stop)
        if inside.any():
            vectors[row] = tokens[inside].mean(axis=0)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def of_set(model: Any, tokenizer: Any, one: Embedded, every: bool) -> np.ndarray:
    """Vectors of all units of a set; unless `every`, documents in one piece and heads keep those of MiniLM."""
    vectors, row = one.own.copy(), 0
    for text, spans, _ in one.texts:
        units = [(span.start, span.stop) for span in spans] or [(0, len(text))]
        inside = [number for number in range(len(units)) if every or (spans and not spans[number].head)]
        if inside:
            vectors[[row + number for number in inside]] = late(model, tokenizer, text, [units[n] for n in inside])
        row += len(units)
    return vectors


def batch(data: DocumentData, tokenizer: Any, rows: Sequence[int], draw: np.random.Generator) -> tuple[list, ...]:
    """Token ids of documents, bounds of passages as far as a window goes, and rows of passages and a query of each."""
    ids, bounds, taken, queries = [], [], [], []
    for row in rows:
        tokens: list[int] = list(tokenizer(data.columns["lead"][row], add_special_tokens=False)["input_ids"][:32])
        inside = []
        for passage in data.passages_of(row):
            more = tokenizer(data.columns["document"][passage], add_special_tokens=False)["input_ids"]
            if len(tokens) + len(more) > WINDOW:
                break
            inside.append((len(tokens), len(tokens) + len(more)))
            taken.append(passage)
            queries.append(int(draw.choice(data.queries_of(passage))))
            tokens += more
        ids.append(tokens)
        bounds.append(inside)
    return ids, bounds, taken, queries


def trained(model: Any, tokenizer: Any, data: DocumentData, steps: int) -> None:
    """Train all weights, in place."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    draw = np.random.default_rng(0)
    model.train()
    for step in range(steps):
        rows = np.sort(draw.choice(len(data), BATCH, replace=False))
        ids, bounds, taken, queries = batch(data, tokenizer, rows.tolist(), draw)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 5) * 0.5 * (1 + np.cos(np.pi * step / steps))
        texts = [data.columns["query"][number] for number in queries]
        asked = [tokenizer(text, add_special_tokens=False)["input_ids"][:64] for text in texts]
        query = normalize(torch.stack([one.mean(dim=0) for one in states(model, tokenizer, asked)]), dim=1)
        tokens = states(model, tokenizer, ids)
        passages = [one[a:b].mean(dim=0) for one, some in zip(tokens, bounds, strict=True) for a, b in some]
        scores = 20 * query @ normalize(torch.stack(passages), dim=1).T
        owner = torch.from_numpy(np.repeat(np.arange(len(bounds)), [len(some) for some in bounds]))
        target = torch.arange(len(owner))
        # All passages of a section answer a query by its heading.
        section = torch.from_numpy(data.section[taken].astype(np.int64))
        by_heading = torch.from_numpy(data.by_heading[queries] > 0)
        same = (owner[:, None] == owner) & (section[:, None] == section) & by_heading[:, None]
        scores = scores.masked_fill(same & (target[:, None] != target), MASKED)
        inside = scores.masked_fill(owner[:, None] != owner, MASKED)
        loss = SHARE * cross_entropy(inside, target) + (1 - SHARE) * cross_entropy(scores, target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        logger.info("step %d of %d: loss %.4f", step + 1, steps, float(loss.detach()))
    model.eval()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="holds docs/eval")
    parser.add_argument("file", type=Path, help="vectors are written here")
    parser.add_argument("--train", type=Path, metavar="FOLDER", help="training documents, of document_training.py")
    parser.add_argument("--steps", type=int, default=80, help="steps of training")
    parser.add_argument("--cache", type=Path, help="directory of vectors that are computed once")
    parser.add_argument("--quick", action="store_true", help="few documents: does it run?")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    encoder = DenseEncoder(find(MODEL), device="cpu")
    model, tokenizer = encoder.model[0].auto_model, encoder.model.tokenizer
    models = Models(options.cache)
    sets = development_sets(options.data, models(MODEL), 8 if options.quick else 80)
    models.keep()
    if options.train:
        half = supports_bfloat16(torch.device("cpu"))
        with tempfile.TemporaryDirectory() as folder, torch.autocast("cpu", torch.bfloat16, enabled=half):
            trained(model, tokenizer, load_documents([options.train], folder), 2 if options.quick else options.steps)
        encoder = DenseEncoder(encoder.model, device="cpu")
    vectors = {}
    for one in sets:
        name = f"{'trained ' if options.train else ''}late chunking/{one.some.name}/{one.titled:d}"
        vectors[name] = of_set(model, tokenizer, one, every=bool(options.train))
        if options.train:
            vectors[f"{name}/queries"] = encoder.encode_query(list(one.some.queries.values()))
    write_tensors(options.file, vectors)


if __name__ == "__main__":
    main()
