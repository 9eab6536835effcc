"""Search with two models at once, and choose their weights on development queries."""

from cderetrieval import Retriever

DOCUMENTS = [
    {"id": "a", "text": "ffill fills missing values with the last valid one before them."},
    {"id": "b", "text": "merge joins two frames on one or more columns, as a database does."},
    {"id": "c", "text": "ERR_0x80070057 is raised where an argument has the wrong type."},
    {"id": "d", "text": "pivot turns the values of a column into columns of their own."},
]
# Development queries with judgements: never the queries that the result is reported on.
QUERIES = {"q1": "combine tables by a shared key", "q2": "ERR_0x80070057"}
QRELS = {"q1": {"b": 1}, "q2": {"c": 1}}

retriever = Retriever(["cde-minilm", "bm25"], fusion="weighted")  # or Retriever("hybrid:cde-minilm+bm25")
retriever.add(DOCUMENTS)  # stored once, embedded by each model
print(retriever.tune(QUERIES, QRELS))
print(retriever("what does ERR_0x80070057 mean?", k=1)[0])
print(retriever.parts["bm25"]("ERR_0x80070057", k=1)[0])  # one of the models by itself
