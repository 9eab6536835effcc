"""Costs of training: clustering against `faiss.Kmeans` alone, the tour, the gradient cache, the cached context.

python benchmarks/training.py                  clustering, tour, steps (about an hour on two cores)
python benchmarks/training.py --part steps     one of them; the rows of the others stay as they were
python benchmarks/training.py --quick          the same, smaller

Clustering is timed with 10 iterations and one start in place of 100 and three: both sides do the same number, and what
is ours, building the points and assigning the pairs, weighs thirty times as much in the ratio as it does in a real run.
Steps are timed, and their peak memory taken, in a process of their own for each form.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from common import RESULTS, bar, finish, in_fresh_process, interleaved, ratio

from cderetrieval.files import read_json

WIDTH = 128
CLUSTER_SIZE = 512
QUERY_TOKENS, DOCUMENT_TOKENS = 16, 64
FORMS = ("biencoder", "cached context", "cached context, no gradient cache", "joint context")
PARTS = ("clustering", "growth", "tour", "steps")


def main() -> None:
    """Measure and report."""
    if len(sys.argv) > 2 and sys.argv[1] == "step":
        print(json.dumps(measure_step(sys.argv[2], *map(int, sys.argv[3:]))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer repeats, no JSON: does it run?")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this; may be repeated")
    given = parser.parse_args()
    sizes = (5_000, 10_000) if given.quick else (100_000, 1_000_000)
    centres = 4_000 if given.quick else 20_000
    batch, context = (64, 16) if given.quick else (512, 64)
    measures = {
        "clustering": lambda: [clustering(sizes[0], repeats=2 if given.quick else 3)],
        "growth": lambda: [clustering(sizes[1], repeats=1)],
        "tour": lambda: [tour(centres)],
        "steps": lambda: [in_fresh_process("training.py", "step", form, str(batch), str(context)) for form in FORMS],
    }
    rows = {} if given.quick or not given.part else kept(given.part)
    for part in given.part or PARTS:
        rows |= {row["what"]: {"part": part, **row} for row in measures[part]()}
    ordered = sorted(rows.values(), key=lambda row: PARTS.index(row["part"]))
    tokens = {"query_tokens": QUERY_TOKENS, "document_tokens": DOCUMENT_TOKENS}
    finish(
        "training",
        settings={"pairs": sizes, "centres": centres, "batch": batch, "context": context, **tokens},
        rows=ordered,
        bars=bars(ordered),
        quick=given.quick,
    )


def kept(parts: Sequence[str]) -> dict[str, dict]:
    """Rows of the last run that are not measured again."""
    path = RESULTS / "training.json"
    rows = read_json(path)["rows"] if path.is_file() else []
    return {row["what"]: row for row in rows if row["part"] not in parts}


def bars(rows: Sequence[dict]) -> list[dict]:
    """The bars of all parts that were measured."""
    parts = {part: [row for row in rows if row["part"] == part] for part in PARTS}
    found = []
    if parts["clustering"]:
        found.append(bar("clustering / faiss.Kmeans", parts["clustering"][0]["ratio"]["median"], 1.3, at_most=True))
    if parts["tour"]:
        found.append(bar("tour, seconds", parts["tour"][0]["seconds"], 60, at_most=True))
    if parts["steps"]:
        plain, cached, whole = ({row["what"]: row for row in parts["steps"]}[form] for form in FORMS[:3])
        found += [
            bar("gradient cache / whole graph, time", cached["seconds"] / whole["seconds"], 1.5, at_most=True),
            bar("gradient cache / whole graph, memory", cached["megabytes"] / whole["megabytes"], 1 / 8, at_most=True),
            bar("cached context / bi-encoder, time", cached["seconds"] / plain["seconds"], 1.3, at_most=True),
        ]
    return found


def clustering(pairs: int, repeats: int) -> dict:
    """Time paired k-means and `faiss.Kmeans` on the same points."""
    from cderetrieval.training.clusters import (
        ClusterSettings,
        normalized,
        paired_kmeans,
        paired_points,
        spherical_kmeans,
    )

    rng = np.random.default_rng(0)
    queries, documents = (normalized(rng.normal(size=(pairs, WIDTH))) for _ in range(2))
    settings = ClusterSettings(CLUSTER_SIZE, None, iterations=10, restarts=1)
    points, k = paired_points(queries, documents), -(-pairs // CLUSTER_SIZE)
    calls = {
        "ours": partial(paired_kmeans, queries, documents, settings),
        "faiss": partial(spherical_kmeans, points, k, settings),
    }
    # Processor time: the ratio then does not depend on who else is at work.
    times = interleaved(calls, repeats, warmup=False, clock=time.process_time)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "what": f"clustering {pairs} pairs",
        "seconds": min(times["ours"]),
        "ratio": ratio(times, "ours", "faiss"),
        "megabytes": memory,
        "raw": times,
    }


def tour(centres: int) -> dict:
    """Time one tour."""
    from cderetrieval.training.batches import greedy_tour

    points = np.random.default_rng(0).normal(size=(centres, WIDTH)).astype(np.float32)
    start = time.perf_counter()
    greedy_tour(points, 0)
    return {"what": f"tour of {centres} centres", "seconds": time.perf_counter() - start}


def measure_step(form: str, batch: int, context: int) -> dict:
    """Time of a training step of one form, and the memory that it adds."""
    import torch

    step = build_step(form, batch, context)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(1 if form.startswith("joint") else 2):
        start = time.process_time()
        step()
        times.append(time.process_time() - start)
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"what": form, "seconds": min(times), "megabytes": added, "threads": torch.get_num_threads()}


def build_step(
    form: str, batch: int, context: int, *, device: str = "cpu", dtype: str = "float32", chunk_tokens: int = 2_048
) -> Callable[[], None]:
    """A step of a model of MiniLM's shape with random weights."""
    import torch
    from sentence_transformers import SentenceTransformer

    from cderetrieval.models.config import ContextualConfig
    from cderetrieval.models.contextual import ContextualTransformer
    from cderetrieval.models.sentence_transformer import ContextualModule
    from cderetrieval.testing import tiny_tokenizer
    from cderetrieval.training.gradcache import Caching
    from cderetrieval.training.losses import ContextualLoss

    backbone = {"model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12}
    backbone |= {"intermediate_size": 1536, "vocab_size": 30522, "max_position_embeddings": 512, "pad_token_id": 0}
    config = ContextualConfig(
        backbone,
        first_stage="tied",
        attention="joint" if form.startswith("joint") else "cached",
        context_positions="separate",
        soft_prompt_tokens=0,
        first_stage_head="none",
        head="none",
        context_size=context,
    )
    model = SentenceTransformer(
        modules=[ContextualModule(ContextualTransformer(config, tiny_tokenizer()))], device=device
    )
    tokens = None if form.endswith("no gradient cache") else chunk_tokens
    size = 0 if form == "biencoder" else context
    loss = ContextualLoss(model.train(), context_size=size, caching=Caching(tokens, None, dtype))
    rng = torch.Generator().manual_seed(0)
    columns = [
        {
            "input_ids": torch.randint(5, 30_000, (batch, length), generator=rng).to(device),
            "attention_mask": torch.ones(batch, length, dtype=torch.long, device=device),
        }
        for length in (QUERY_TOKENS, DOCUMENT_TOKENS)
    ]

    def step() -> None:
        model.zero_grad()
        loss(columns).backward()

    return step


if __name__ == "__main__":
    main()
