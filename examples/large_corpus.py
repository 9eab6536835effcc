"""Embed a corpus into a folder of vectors, then index the folder: each step goes on where a crash ended it."""

import json
import tempfile
from pathlib import Path

from cderetrieval.distributed import embed_corpus, index_vectors

with tempfile.TemporaryDirectory() as temporary:
    corpus = Path(temporary) / "corpus.jsonl"
    corpus.write_text("\n".join(json.dumps({"id": n, "text": f"document {n} is about {n % 7}"}) for n in range(200)))
    # engine="ray" spreads the work over the workers of a cluster; the vectors are the same.
    vectors = embed_corpus(corpus, Path(temporary) / "vectors", "cde-minilm", block=64)
    print(len(vectors), "documents embedded")
    with index_vectors(vectors, Path(temporary) / "index") as retriever:
        print(retriever("document 5", k=3)[0])
