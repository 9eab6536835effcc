"""Make the small scale of the ablations: a base model, training pairs with mined negatives, development folders.

python notebooks/prepare.py PAIRS small           PAIRS: a folder of <set>.jsonl.gz of {"query", "document"}
python run_train.py notebooks/first.json --out small/first

small/start/   a BERT of two layers and width 128; its word embeddings are principal components of all-MiniLM-L6-v2's
small/early/   <set>.jsonl, the pairs that turn it into a bi-encoder, which all ablations start from
small/pairs/   <set>.jsonl, other pairs of the same sets, each with one negative mined by BM25 inside its set
small/dev/     <set>/, BEIR folders of pairs that no training file holds; three of the six sets are not trained on

All sizes are below. The domain of a pair is its set: clusters have to find the topics inside it themselves.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

SEED = 0
# Pairs for the ablations, and at most so many more of each set for the bi-encoder that they start from.
EARLY = 12_000
TRAINED = {
    "arxiv-title-abstract": 3500,
    "medquad": 2000,
    "techdocs-powershell": 1500,
    "techdocs-peps": 1500,
    "tldr-commands": 2000,
    "nqg-squad": 2000,
    "wikipedia-title-passage": 2000,
    "selqa": 1000,
}
# Sets with a development folder; those that are not trained on are other domains.
DEVELOPMENT = ("arxiv-title-abstract", "medquad", "tldr-commands", "scitldr", "techdocs-rust", "covid-faq")
DOCUMENTS, QUERIES = 400, 150
# Characters of a text that are kept: more than 32 tokens.
CHARACTERS = 300
WIDTH, LAYERS, HEADS = 128, 2, 4
Pair = dict[str, Any]


def main() -> None:
    """Write the three folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="PAIRS")
    parser.add_argument("out", type=Path, metavar="OUT")
    arguments = parser.parse_args()
    source, out = arguments.source, arguments.out
    write_start(out / "start")
    for name in sorted({*TRAINED, *DEVELOPMENT}):
        pairs = read_pairs(source / f"{name}.jsonl.gz")
        held = DOCUMENTS if name in DEVELOPMENT else 0
        if held:
            write_development(out / "dev" / name, pairs[:held])
        if count := TRAINED.get(name, 0):
            early = pairs[held + count :][:EARLY]
            if early:
                write_lines(out / "early" / f"{name}.jsonl", early)
            write_lines(out / "pairs" / f"{name}.jsonl", mined(pairs[held : held + count]))


def read_pairs(path: Path) -> list[Pair]:
    """Pairs of one file in a seeded order, each document once, texts cut."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    pairs = {}
    for row in rows:
        query, document = row["query"][:CHARACTERS].strip(), row["document"][:CHARACTERS].strip()
        if len(query) > 8 and len(document) > 40:
            pairs.setdefault(document, {"query": query, "document": document})
    order = np.random.default_rng(SEED).permutation(len(pairs))
    distinct = list(pairs.values())
    return [distinct[place] for place in order]


def mined(pairs: list[Pair]) -> list[Pair]:
    """Give each pair the document that BM25 ranks first among those of other queries."""
    from cderetrieval import Retriever

    retriever = Retriever("bm25", key="id", on=["document"])
    retriever.add([{"id": row, "document": pair["document"]} for row, pair in enumerate(pairs)])
    rankings = retriever([pair["query"] for pair in pairs], k=5)
    for row, (pair, ranking) in enumerate(zip(pairs, rankings, strict=True)):
        others = [hit["id"] for hit in ranking if hit["id"] != row and pairs[hit["id"]]["query"] != pair["query"]]
        pair["negatives"] = [pairs[others[0] if others else (row + 1) % len(pairs)]["document"]]
    return pairs


def write_development(folder: Path, pairs: list[Pair]) -> None:
    """A BEIR folder: all documents, the first queries, their own documents as the judgements."""
    from cderetrieval.corpora.beir_folder import write_beir
    from cderetrieval.corpora.dataset import make_dataset

    documents = [{"id": f"d{place}", "text": pair["document"]} for place, pair in enumerate(pairs)]
    queries = {f"q{place}": pair["query"] for place, pair in enumerate(pairs[:QUERIES])}
    qrels = {query: {f"d{place}": 1} for place, query in enumerate(queries)}
    write_beir(make_dataset(folder.name, documents, queries, qrels, "dev"), folder)


def write_lines(path: Path, rows: list[Pair]) -> None:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_start(folder: Path) -> None:
    """A small BERT whose embeddings come from all-MiniLM-L6-v2 and whose layers are drawn at random.

    Random layers of BERT's usual size (0.02) change little, so the model starts as about the mean of its word vectors.
    """
    import torch
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    from cderetrieval.models.locate import find

    source = find("all-MiniLM-L6-v2")
    weights = load_file(source / "model.safetensors")
    words = weights["embeddings.word_embeddings.weight"]
    words = torch.nn.functional.layer_norm(words, words.shape[1:]) * weights["embeddings.LayerNorm.weight"]
    centred = words - words.mean(dim=0)
    _, directions = torch.linalg.eigh(centred.T @ centred)
    small = centred @ directions.flip(1)[:, :WIDTH]
    config = BertConfig(
        vocab_size=len(small),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        max_position_embeddings=128,
    )
    torch.manual_seed(SEED)
    model = BertModel(config, add_pooling_layer=False)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.copy_(small / small.std())
    model.save_pretrained(folder)
    for file in source.iterdir():
        if file.name.startswith(("tokenizer", "vocab", "special_tokens")):
            shutil.copy(file, folder / file.name)


if __name__ == "__main__":
    main()
