"""False negatives: documents of the batch that answer a query as well as its own, and must not be pushed away.

A surrogate that has seen neither model nor batch scores every query against every document. Where s(q, d') >= s(q, d)
for another row's document d', the pair is left out of the loss. A row's own mined negatives stay: they were chosen to
score high. In clustered batches this matters more than in random ones, because likeness is what clusters are made of.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .surrogate import SurrogateVectors, some


class FalseNegativeFilter:
    """Finds false negatives by the vectors of a surrogate.

    Parameters
    ----------
    vectors
        Stored, or computed at every step; see :class:`~cderetrieval.training.surrogate.SurrogateVectors`.
    margin
        Leave out d' where s(q, d') >= s(q, d) - margin; above 0 leaves out more.

    Examples
    --------
    >>> vectors = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> kept = torch.zeros(1, 3, dtype=torch.bool)
    >>> FalseNegativeFilter(None).mask(vectors[:1], vectors, torch.tensor([1]), kept)
    tensor([[ True, False, False]])
    """

    def __init__(self, vectors: SurrogateVectors, margin: float = 0.0) -> None:
        self._vectors = vectors
        self.margin = margin

    def vectors(self, rows: Tensor, negatives: Tensor | None, device: torch.device) -> tuple[Tensor, Tensor]:
        """Vectors of the queries (b, d) and candidates (b + m, d), documents before mined negatives, of a batch.

        `rows` (b,) are its row numbers, `negatives` (m,) the positions of its mined negatives.
        """
        index = rows.cpu().numpy()
        candidates = [some(self._vectors.documents, index)]
        if negatives is not None and len(negatives):
            candidates.append(some(self._vectors.negatives, negatives.cpu().numpy()))
        queries = some(self._vectors.queries, index)
        return torch.from_numpy(queries).to(device), torch.from_numpy(np.concatenate(candidates)).to(device)

    def mask(self, queries: Tensor, candidates: Tensor, positive: Tensor, kept: Tensor) -> Tensor:
        """Pairs (b, c) to leave out, from vectors (b, d) and (c, d): never a query's own document, never one `kept`.

        `positive` (b,) is the position of each query's own document among the candidates.
        """
        scores = queries @ candidates.T
        own = scores.gather(1, positive[:, None])
        found = (scores >= own - self.margin) & ~kept
        return found.scatter(1, positive[:, None], False)
