"""False negatives: documents of the batch that answer a query as well as its own, and must not be pushed away.

A surrogate that has seen neither model nor batch scores every query against every document. Where s(q, d') >= s(q, d)
for another row's document d', the pair is left out of the loss. A row's own mined negatives stay: they were chosen to
score high. In clustered batches this matters more than in random ones, because likeness is what clusters are made of.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .surrogate import Vectors


class FalseNegativeFilter:
    """Finds false negatives by the vectors of a surrogate.

    Parameters
    ----------
    vectors
        Stored, or computed when asked for.
    margin
        Leave out d' where s(q, d') >= s(q, d) - margin; above 0 leaves out more.
    """

    def __init__(self, vectors: Vectors, margin: float = 0.0) -> None:
        self._vectors = vectors
        self.margin = margin

    def vectors(self, rows: Tensor, negatives: Tensor | None, device: torch.device) -> tuple[Tensor, Tensor]:
        """Surrogate vectors of a batch.

        Parameters
        ----------
        rows
            Rows of the batch, shape (b,).
        negatives
            Positions of the mined negatives, shape (m,); None: there are none.
        device
            Where to put them.

        Returns
        -------
        tuple
            Of queries, shape (b, d), and of candidates, shape (b + m, d): the documents, then the negatives.
        """
        index = rows.cpu().numpy()
        candidates = [self._vectors.document(index)]
        if negatives is not None and len(negatives):
            candidates.append(self._vectors.negative(negatives.cpu().numpy()))
        queries = self._vectors.query(index)
        return torch.from_numpy(queries).to(device), torch.from_numpy(np.concatenate(candidates)).to(device)

    def mask(self, queries: Tensor, candidates: Tensor, positive: Tensor, kept: Tensor) -> Tensor:
        """Find the pairs to leave out.

        Parameters
        ----------
        queries, candidates
            Surrogate vectors, shapes (b, d) and (c, d).
        positive
            Position of each query's own document among the candidates, shape (b,).
        kept
            Pairs that stay whatever their score, shape (b, c), bool.

        Returns
        -------
        Tensor
            Shape (b, c), bool; never the query's own document.

        Examples
        --------
        >>> vectors = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> nothing = torch.zeros(1, 3, dtype=torch.bool)
        >>> FalseNegativeFilter(None).mask(vectors[:1], vectors, torch.tensor([1]), nothing)
        tensor([[ True, False, False]])
        """
        scores = queries @ candidates.T
        own = scores.gather(1, positive[:, None])
        found = (scores >= own - self.margin) & ~kept
        return found.scatter(1, positive[:, None], False)
