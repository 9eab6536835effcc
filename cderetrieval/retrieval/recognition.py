"""Whether an encoder made the vectors of an index, where their fingerprints differ.

Some weights determine no vector: BERT's pooler, of which many checkpoints have none, so that it is drawn anew at each
loading. Earlier versions took such weights into the fingerprint, and nobody can compute that one again; and they left
out settings that do determine vectors. There the vectors themselves are asked: a few documents are embedded anew and
compared with what the index holds.
"""

from __future__ import annotations

import logging
from itertools import islice
from typing import Any

import numpy as np

from ..types import Encoder
from ..vectors import Layout, take, weights_of
from .collection import Collection

logger = logging.getLogger(__name__)

# Documents that are embedded anew, of all lengths, among the first of the index.
SAMPLE, AMONG = 16, 1_000
# Largest distance from a stored vector, as a share of its length: bfloat16 moves those of MiniLM by up to 0.009.
TOLERANCE = 0.02


def may_be(model: Any, fingerprint: str) -> bool:
    """Whether a fingerprint is, or may be, one of this model or encoder."""
    return fingerprint in (model.fingerprint, *getattr(model, "other_fingerprints", ())) or _is_unsure(model)


def has_made(encoder: Encoder, collection: Collection, part: int, fingerprint: str) -> bool:
    """Whether an encoder made the vectors of a part, for which the collection holds this fingerprint.

    Where only the vectors can tell, queries stay unproved: an index holds none, nor its model's prompt for them.
    """
    if fingerprint in (encoder.fingerprint, *getattr(encoder, "other_fingerprints", ())):
        return True
    if not _is_unsure(encoder) or collection.layout_of(part) not in (None, Layout.of_encoder(encoder)):
        return False
    texts, held = _sample(collection, part)
    if not texts:
        return collection.count() == 0
    given = _dense(encoder.encode_document(texts))
    distances = np.linalg.norm(given - held, axis=1)
    if not (distances <= TOLERANCE * np.linalg.norm(held, axis=1)).all():
        return False
    logger.warning(
        "This index knows its model by a fingerprint of an earlier version, which cannot be made again. %d of its "
        "documents were embedded anew, and their vectors are the same: the model is taken for the one that built it.",
        len(texts),
    )
    return True


def _is_unsure(model: Any) -> bool:
    return bool(getattr(model, "is_known_by_vectors", False))


def _sample(collection: Collection, part: int) -> tuple[list[str], np.ndarray]:
    """Texts and vectors of a few documents, from the shortest to the longest of the first ones."""
    texts = dict(islice(collection.texts(), AMONG))
    for number in collection.spans_of(list(texts)):  # its first vector is that of a passage
        del texts[number]
    nothing = np.empty(0, dtype=np.int64), np.empty((0, 0))
    numbers, vectors = next(collection.iter_vectors(chunk=AMONG, part=part), nothing)
    found = [(texts[number], row) for row, number in enumerate(numbers.tolist()) if number in texts]
    found.sort(key=lambda pair: len(pair[0]))
    chosen = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, SAMPLE).round().astype(int))] if found else []
    return [text for text, _ in chosen], _dense(take(vectors, [row for _, row in chosen]))


def _dense(vectors: Any) -> np.ndarray:
    weights = vectors if isinstance(vectors, np.ndarray) else weights_of(vectors).toarray()
    return np.asarray(weights, dtype=np.float32)
