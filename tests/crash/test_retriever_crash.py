"""A process that changes an index is killed with SIGKILL at random moments; the next one finds all it acknowledged.

The child says "start" before each change (add, replace, remove, refresh, save) and "done" once the call has returned.
After the kill the index holds the state after the last "done", or that and the one change that had started: nothing
between, in documents, vectors and context alike.
"""

import os
import random
import signal
import threading

import numpy as np
import pytest

from cderetrieval.index.exact import exact_search
from cderetrieval.testing import HashEncoder
from cderetrieval.vectors import join, kind_of, weights_of

from ..changes import Changes, expected_vectors
from ..children import Child

ROUNDS = 6
INDEXES = [*(("dense", seed) for seed in range(4)), ("sparse", 4), ("sparse", 5), ("sparse-embed", 6)]
PROBES = [f"text {i} of probe {i}" for i in range(8)]


def killed(path, kind, seed, first, delay):
    """Run changes in a child, kill it, and return the numbers of the last change started and the last one done."""
    child = Child(kind, path, seed, first)
    assert child.stdout.readline() == "open\n"
    killer = threading.Timer(delay, os.kill, (child.pid, signal.SIGKILL))
    killer.start()
    lines = [line.split() for line in child.stdout if line.endswith("\n")]
    killer.join()
    assert child.wait() == -signal.SIGKILL
    child.close()
    last = {word: int(number) for word, number in lines}
    return last.get("start", first - 1), last.get("done", first - 1)


def by_brute_force(documents, queries, k):
    """Positions and scores of the best documents for each query, vectors of any one kind."""
    if kind_of(documents) == "dense":
        return [(row, score) for score, row in zip(*exact_search(documents, queries, k), strict=True)]
    answers = []
    for query in range(queries.shape[0]):
        scores = np.round([product(documents, row, queries, query) for row in range(documents.shape[0])], 6)
        best = np.lexsort((np.arange(len(scores)), -scores))[:k]
        best = best[scores[best] > 0]
        answers.append((best, scores[best]))
    return answers


def product(documents, row, queries, query):
    ours, theirs = terms(queries, query), terms(documents, row)
    return sum(np.dot(ours[term], theirs[term]) for term in ours.keys() & theirs.keys())


def terms(vectors, row):
    """Term to weight, or to embedding where there are any, of one row."""
    weights = weights_of(vectors)
    span = slice(weights.indptr[row], weights.indptr[row + 1])
    values = weights.data if weights is vectors else vectors.embeddings
    return dict(zip(weights.indices[span].tolist(), values[span].astype(np.float64), strict=True))


def same_vectors(found, expected):
    if kind_of(expected) == "dense":
        return np.array_equal(found, expected)
    return (abs(weights_of(found) - weights_of(expected)).nnz == 0) and (
        weights_of(found) is found or np.array_equal(found.embeddings, expected.embeddings)
    )


def verify(path, candidates, kind):
    """The index holds one of the candidates, whole; return it."""
    retriever = Changes(kind).open(path)
    if not len(retriever):
        assert {} in candidates
        retriever.close()
        return {}
    retriever.collection.check()
    found = {i: text for i, (_, text) in zip(retriever.collection.live()[1], retriever.collection.texts(), strict=True)}
    assert [list(found.items())] in [[list(candidate.items())] for candidate in candidates]
    encoder = retriever.encoder
    vectors, owners = expected_vectors(retriever.collection, encoder)
    stored = [chunk for _, chunk in retriever.collection.iter_vectors()]
    stored = np.concatenate(stored) if kind == "dense" else join(stored)
    assert same_vectors(stored, vectors), "vectors and context belong together"
    assert retriever.context.embeddings.shape == (len(retriever.context), HashEncoder.dimension)
    hits = retriever(PROBES, k=10)
    ids = list(found)
    answers = by_brute_force(vectors, encoder.encode_query(PROBES), len(owners))
    for ranking, (rows, scores) in zip(hits, answers, strict=True):
        best = {}
        for row, score in zip(rows, scores, strict=True):
            best.setdefault(ids[owners[row]], score)
        assert [hit["id"] for hit in ranking] == list(best)[:10]
        np.testing.assert_allclose([hit["similarity"] for hit in ranking], list(best.values())[:10], atol=1e-6)
    retriever.collection.close()  # without saving the index: the next process must cope with the old one
    return found


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize(("kind", "seed"), INDEXES)
def test_nothing_acknowledged_is_lost_and_nothing_is_half_done(kind, seed, tmp_path):
    rng, changes = random.Random(seed), Changes(kind)
    path, documents, first, acknowledged = tmp_path / "index", {}, 0, 0
    for _ in range(ROUNDS):
        started, done = killed(path, kind, seed, first, rng.uniform(0, 0.3))
        for number in range(first, done + 1):
            documents = changes.expected(documents, seed, number)
        candidates = [documents]
        if started > done:
            candidates.append(changes.expected(documents, seed, started))
        found = verify(path, candidates, kind)
        acknowledged += done - first + 1
        # A started change of which nothing shows is the next child's first; add and remove are told by what they did.
        first = done + 1 if found == documents else started + 1
        documents = found
    assert acknowledged > ROUNDS, "children were killed before they did anything"
