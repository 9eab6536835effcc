"""Index a few documents, search them, keep the index on disk and open it again."""

import tempfile

from cderetrieval import Retriever

DOCUMENTS = [
    {"id": 17, "title": "merge", "text": "Join two frames on one or more columns, as a database does.", "year": 2019},
    {"id": 23, "title": "ffill", "text": "Fill missing values with the last valid one before them.", "year": 2023},
    {"id": 42, "title": "pivot", "text": "Turn the values of a column into columns of their own.", "year": 2021},
]

with tempfile.TemporaryDirectory() as directory:
    with Retriever("cde-minilm", key="id", on=["title", "text"], path=directory) as retriever:
        retriever.add(DOCUMENTS)  # on disk when the call returns
        for hit in retriever("combine tables by a shared key", k=2, documents=True)[0]:
            print(f"{hit['similarity']:.3f}  {hit['document']['title']}")
        retriever.remove([42])
        print(retriever.context_report()["documents"], "documents are the context")

    with Retriever.load(directory) as retriever:  # nothing is embedded again
        print(retriever("missing values", filter={"year": {">=": 2020}}).to_frame())
