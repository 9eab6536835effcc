"""A contextual transformer whose context holds what its texts lack: clusters of texts that withhold what they share.

    python benchmarks/corpus_context.py FOLDER --prepare DATA
    python run_train.py minilm --data FOLDER/train --out RUN --first-stage frozen --clusters false --filter off \
        --negatives 0 --batch-size 64 --context-size 64 --max-length 64 --null-probability 0.2 --max-steps 300 \
        --learning-rate 2e-5 --learning-rates '{"gates": 0.01}' --warmup-steps 20 --save-steps 100 --keep 10
    python benchmarks/corpus_context.py FOLDER --run RUN [--quick]

DATA holds ``train``. Pairs of each set are clustered as in training. Words that are frequent in a cluster and rare
outside are left out of half of its documents, and never out of queries. In training, a batch is a part of one cluster,
and its documents are the context: about half of them say what the others withhold. One cluster in ten is held out: half
of it is a context in full, the other half is searched in that context, in none, and in that of a cluster of another
set. Points are nDCG@10 x 100.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import finish
from folders import difference

from cderetrieval import Context
from cderetrieval.models.contextual import ContextualTransformer
from cderetrieval.training.families.contextual import start_model
from cderetrieval.training.prepare import prepare
from cderetrieval.training.recipes import load_recipe

SETS = (
    *("nqg-squad", "medquad", "techdocs-powershell", "techdocs-peps", "techdocs-rust", "tldr-commands"),
    *("wikipedia-title-passage", "arxiv-title-abstract"),
)
# Pairs of each set, about so many of each cluster, and fewest.
PAIRS, CLUSTER, FEWEST = 4_000, 160, 96
# A word is shared by a cluster in so many of its documents, and in so few of all others; it is left out of so many.
SHARED, OUTSIDE, WITHHELD = 0.1, 0.02, 0.5
HELD_OUT = 10
CONTEXT = 48
TOKENS = 64
WORD = re.compile(r"[^\W\d_][\w-]{2,}")
Pair = dict[str, Any]


def chance(text: str) -> float:
    """A number in [0, 1) that follows from a text."""
    return int.from_bytes(hashlib.md5(text.encode("utf-8", "surrogatepass")).digest()[:6], "big") / 2**48


def pairs_of(path: Path) -> list[Pair]:
    """Some pairs of a set, each document once."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    found = {row["document"]: {"query": row["query"], "document": row["document"]} for row in rows}
    return sorted(found.values(), key=lambda row: chance(row["document"]))[:PAIRS]


def clusters_of(data: Path, folder: Path) -> Iterator[tuple[str, list[Pair]]]:
    """Name of the set and pairs of each cluster that is large enough."""
    source = folder / "pairs"
    source.mkdir(parents=True)
    for name in SETS:
        rows = pairs_of(data / "train" / f"{name}.jsonl.gz")
        (source / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = {"negatives": 0, "filter": "off", "surrogate_length": TOKENS, "batch_size": 64, "cluster_size": CLUSTER}
    prepared = prepare(load_recipe("minilm").replace(data=[str(source)], **settings), folder / "cache")
    pairs, groups = prepared.pairs, prepared.groups
    for number in range(len(groups.centres)):
        inside = np.flatnonzero(groups.cluster == number).tolist()
        if len(inside) >= FEWEST:
            texts = [{"query": pairs.queries[row], "document": pairs.documents[row]} for row in inside]
            yield pairs.dataset_names[pairs.dataset[inside[0]]], texts


def words_of(text: str) -> set[str]:
    """Words of a text, in lower case."""
    return {word.lower() for word in WORD.findall(text)}


def shared_words(counts: Counter[str], size: int, every: Counter[str], total: int) -> set[str]:
    """Words that are frequent in a cluster and rare outside."""
    frequent = {word for word, count in counts.items() if count >= SHARED * size}
    return {word for word in frequent if every[word] - counts[word] <= OUTSIDE * (total - size)}


def without(text: str, words: set[str]) -> str:
    """A text without some words."""
    return " ".join(WORD.sub(lambda found: "" if found[0].lower() in words else found[0], text).split())


def write_data(data: Path, folder: Path) -> None:
    """Write clusters to train on, and those held out with their full texts."""
    (folder / "train").mkdir(parents=True)
    held: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        clusters = list(clusters_of(data, Path(scratch)))
    counts = [Counter(word for pair in pairs for word in words_of(pair["document"])) for _, pairs in clusters]
    every, total = sum(counts, Counter()), sum(len(pairs) for _, pairs in clusters)
    changed = asked = 0
    with open(folder / "train" / "clusters.jsonl", "w", encoding="utf-8") as file:
        for number, (name, pairs) in enumerate(clusters):
            shared = shared_words(counts[number], len(pairs), every, total)
            for pair in pairs:
                bare = without(pair["document"], shared)
                lacks = chance(f"withhold {pair['document']}") < WITHHELD and len(bare) > 20
                pair["withheld"] = lacks and bare != " ".join(pair["document"].split())
                pair["shown"] = bare if lacks else pair["document"]
                changed += pair["withheld"]
                asked += pair["withheld"] and bool(words_of(pair["query"]) & shared)
            if number % HELD_OUT == 0:
                held.append({"set": name, "words": len(shared), "pairs": pairs})
                continue
            for pair in pairs:
                row = {"query": pair["query"], "document": pair["shown"], "domain": f"{name}-{number}"}
                file.write(json.dumps(row) + "\n")
    facts = {"clusters": len(clusters), "pairs": total, "withheld": changed, "withheld and asked for": asked}
    (folder / "held-out.json").write_text(json.dumps({"facts": facts, "clusters": held}), encoding="utf-8")
    print(facts)


def scores(encoder: Any, pairs: Sequence[Pair]) -> dict[str, np.ndarray]:
    """nDCG@10 of each query among all documents as they are shown, and among them in full."""
    asked = encoder.encode_query([pair["query"] for pair in pairs])
    texts = list(dict.fromkeys(pair[kind] for kind in ("shown", "document") for pair in pairs))
    vectors = dict(zip(texts, encoder.encode_document(texts), strict=True))
    found = {}
    for kind in ("shown", "document"):
        similar = asked @ np.stack([vectors[pair[kind]] for pair in pairs]).T
        ranks = (similar > np.diagonal(similar)[:, None]).sum(axis=1)
        found[kind] = np.where(ranks < 10, 1 / np.log2(ranks + 2), 0.0)
    return found


def measured(model: ContextualTransformer, held: Sequence[dict[str, Any]]) -> dict[str, list[np.ndarray]]:
    """Scores of each cluster by context: of withheld documents, of the others beside them, and of full texts."""
    found: dict[str, list[np.ndarray]] = {}
    contexts = [
        Context.from_texts(model, [pair["document"] for pair in one["pairs"][:CONTEXT]], size=CONTEXT) for one in held
    ]
    for number, one in enumerate(held):
        other = next(
            place % len(held)
            for place in range(number + 1, number + len(held) + 1)
            if held[place % len(held)]["set"] != one["set"]
        )
        pairs = one["pairs"][CONTEXT : 2 * CONTEXT]
        lacks = np.array([pair["withheld"] for pair in pairs])
        for name, context in {"own": contexts[number], "null": None, "other": contexts[other]}.items():
            encoder = (Context.null(model) if context is None else context).encoder(model)
            by_kind = scores(encoder, pairs)
            shown = by_kind["shown"]
            for level, some in {"withheld": shown[lacks], "told": shown[~lacks], "full": by_kind["document"]}.items():
                if len(some):
                    found.setdefault(f"{level}, {name}", []).append(some)
    return found


def row_of(step: int, model: ContextualTransformer, held: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a checkpoint finds in each context, the differences with intervals, and its gates by layer."""
    found = measured(model, held)
    row: dict[str, Any] = {"step": step}
    row |= {name: 100 * float(np.mean([some.mean() for some in values])) for name, values in found.items()}
    for level in ("withheld", "told", "full"):
        for before in ("null", "other"):
            gain = difference(found[f"{level}, {before}"], found[f"{level}, own"])
            row |= {f"{level}, own over {before}, {part}": gain[part] for part in ("mean", "low", "high")}
    gates = torch.tanh(model.second_stage_model.gates.detach()).abs().mean(dim=1)
    return row | {f"gate {layer}": float(gate) for layer, gate in enumerate(gates, start=1)}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="clusters to train on, and those held out")
    parser.add_argument("--prepare", type=Path, metavar="DATA", help="write them, from DATA/train")
    parser.add_argument("--run", type=Path, help="measure the checkpoints of a run")
    parser.add_argument("--quick", action="store_true", help="few clusters, no JSON: does it run?")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.prepare:
        write_data(options.prepare, options.folder)
    if not options.run:
        return
    kept = json.loads((options.folder / "held-out.json").read_text(encoding="utf-8"))
    held = kept["clusters"][:: 6 if options.quick else 1]
    rows = [row_of(0, start_model(load_recipe("minilm").replace(first_stage="frozen", max_length=TOKENS)), held)]
    for folder in sorted(options.run.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2])):
        model = ContextualTransformer.from_pretrained(str(folder), device="cpu")
        rows.append(row_of(int(folder.name.rpartition("-")[2]), model, held))
        print({name: round(value, 3) for name, value in rows[-1].items()}, flush=True)
    settings = {**kept["facts"], "held out": len(held), "sets": list(SETS), "context": CONTEXT}
    finish("corpus_context", settings=settings, rows=rows, bars=[], quick=options.quick)


if __name__ == "__main__":
    main()
