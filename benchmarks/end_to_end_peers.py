"""The peers of `end_to_end.py`: what one writes with sentence-transformers and FAISS, and with txtai.

    python benchmarks/end_to_end_peers.py faiss|txtai MODEL DOCUMENTS QUERIES

Needs nothing of this package, so that it runs in an environment of its own.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

K = 10


def faiss(model: str, documents: list[dict[str, str]], queries: list[str]) -> list[list[str]]:
    """Encode, put into a flat index, search."""
    from faiss import IndexFlatIP
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(model, device="cpu")
    vectors = encoder.encode([document["text"] for document in documents], normalize_embeddings=True)
    index = IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    _, rows = index.search(encoder.encode(queries, normalize_embeddings=True), K)
    return [[documents[row]["id"] for row in ranking] for ranking in rows]


def txtai(model: str, documents: list[dict[str, str]], queries: list[str]) -> list[list[str]]:
    """Index, search."""
    from txtai import Embeddings

    embeddings = Embeddings(path=model, gpu=False)
    embeddings.index((document["id"], document["text"], None) for document in documents)
    return [[found for found, _ in ranking] for ranking in embeddings.batchsearch(queries, K)]


def main(system: str, model: str, documents: str, queries: str) -> None:
    """Answer, and say how much memory it took."""
    with open(documents, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    found = {"faiss": faiss, "txtai": txtai}[system](model, rows, json.loads(Path(queries).read_text(encoding="utf-8")))
    print(json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "answers": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
