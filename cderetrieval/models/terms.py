"""Weights of terms as sparse rows: cut to the heaviest, and checked."""

from __future__ import annotations

import logging

import numpy as np
from scipy.sparse import csr_array

from ..errors import ConfigError, ModelError

logger = logging.getLogger(__name__)

# This many documents without any term are no accident; fewer can be a few lines of punctuation.
COLLAPSED = 32


def check_k_tokens(k: int | None, dimension: int, name: str = "k_tokens") -> None:
    """Refuse a number of terms that no text can have."""
    if k is not None and (isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= dimension):
        raise ConfigError(
            f"{name}={k!r} must be a whole number from 1 to {dimension}, the size of the vocabulary; None: all terms."
        )


def heaviest(weights: np.ndarray, limit: int | None) -> csr_array:
    """The heaviest terms of each text, or all, of weights of shape (texts, terms), which are changed.

    >>> heaviest(np.array([[0.5, 0, 2, 1]]), 2).toarray().tolist()
    [[0.0, 0.0, 2.0, 1.0]]
    """
    if limit is not None and limit < weights.shape[1]:
        light = np.argpartition(weights, -limit, axis=1)[:, :-limit]
        np.put_along_axis(weights, light, 0, axis=1)
    return csr_array(weights)


def check_terms(weights: csr_array, *, expected: bool) -> None:
    """Check that weights are finite and, where terms are `expected`, that texts have some."""
    finite = np.isfinite(weights.data)
    if not finite.all():
        row = int(np.searchsorted(weights.indptr, np.argmin(finite), side="right")) - 1
        raise ModelError(
            f"the model gave a weight that is not finite for text {row}. Its weights are damaged, or its activations "
            "overflow: try dtype='float32'."
        )
    if not expected or not weights.shape[0] or weights.nnz:
        return
    found = f"the model activates no term for any of {weights.shape[0]} texts"
    if weights.shape[0] >= COLLAPSED:
        raise ModelError(
            f"{found}: it has collapsed, or its head was never trained. Train it again with smaller FLOPS weights or a "
            "slower ramp, or use another model."
        )
    logger.warning("%s; where these are ordinary texts, it has collapsed, or its head was never trained.", found)
