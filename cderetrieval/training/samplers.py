"""Which rows make a batch: for sentence-transformers' trainer, or any `DataLoader`.

The batches of an epoch follow from (seed, epoch) alone: every process computes the same list, a run that was killed
finds it again, and each epoch has another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sentence_transformers.base.sampler import DefaultBatchSampler

from ..errors import ConfigError
from .batches import TextNumbers, distinct_batches, pack


@dataclass(frozen=True)
class Groups:
    """Domain (n,; -1 leaves a row out), cluster (n,) and data set (n,) of each row, and the clusters' centres (c, d).

    With `weights`, one for each data set, a batch comes from a data set with probability weight / sum of weights;
    without, an epoch has every batch once.
    """

    domain: np.ndarray
    cluster: np.ndarray
    centres: np.ndarray
    dataset: np.ndarray | None = None
    weights: tuple[float, ...] | None = None

    @classmethod
    def without_clusters(
        cls, domain: np.ndarray, dataset: np.ndarray | None = None, weights: tuple[float, ...] | None = None
    ) -> Groups:
        """One cluster for each domain: random batches inside domains."""
        _, cluster = np.unique(domain, return_inverse=True)
        return cls(domain, cluster, np.zeros((int(cluster.max()) + 1, 1), dtype=np.float32), dataset, weights)


class _Domain(NamedTuple):
    rows: np.ndarray
    cluster: np.ndarray
    centres: np.ndarray
    dataset: int


class ClusteredBatchSampler(DefaultBatchSampler):
    """Batches inside domains, made of clusters that lie close together.

    Parameters
    ----------
    dataset
        What the rows index; only its length is used.
    batch_size
        Rows of one process's batch.
    drop_last, valid_label_columns, generator
        Accepted as sentence-transformers passes them; batches are always full.
    seed
        With the epoch, all that decides the batches.
    groups
        Domains, clusters, weights.
    packing
        ``"random"`` or ``"tour"``.
    ranks
        Processes that share their negatives: so many consecutive batches are cut from one, so that what each process
        takes in turn is of the same domain and region.
    texts
        Keeps a text from coming twice in what is cut as one; None: the loss masks repetitions.

    Raises
    ------
    ConfigError
        If `groups` is of another data set, or no domain holds a batch.

    Examples
    --------
    >>> groups = Groups.without_clusters(np.array([0, 0, 0, 1, 1, 1]))
    >>> sampler = ClusteredBatchSampler(range(6), 3, groups=groups)
    >>> sorted(sorted(batch) for batch in sampler)
    [[0, 1, 2], [3, 4, 5]]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        drop_last: bool = True,
        valid_label_columns: list[str] | None = None,
        generator: Any = None,
        seed: int = 0,
        *,
        groups: Groups,
        packing: str = "tour",
        ranks: int = 1,
        texts: TextNumbers | None = None,
    ) -> None:
        super().__init__(dataset, batch_size, True, valid_label_columns, generator, seed)
        if len(groups.domain) != len(dataset):
            raise ConfigError(f"groups are of {len(groups.domain)} rows, the data set has {len(dataset)}.")
        self.packing = packing
        self.ranks = ranks
        self._rows = int(batch_size) * ranks
        self._groups = groups
        self._texts = texts
        self._domains = list(_split(groups))
        # Batches of a domain in an epoch: all that fit, or what its repeated texts let the first packing find.
        self._counts = [
            len(domain.rows) // self._rows if texts is None else len(self._pack(number, 0))
            for number, domain in enumerate(self._domains)
        ]
        self._count = sum(self._counts)
        if not self._count:
            distinct = " without repeated texts" if texts is not None else ""
            raise ConfigError(
                f"no domain has {self._rows} rows{distinct}, one batch. Take smaller batches or more data."
            )
        self._plan: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self._count * self.ranks

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self.plan(self.epoch):
            for part in rows.reshape(self.ranks, self.batch_size):
                yield part.tolist()

    def plan(self, epoch: int) -> np.ndarray:
        """Rows of every batch of an epoch, over all ranks, shape (batches, ranks * batch_size)."""
        if self._plan is None or self._plan[0] != epoch:
            if self._groups.weights is not None:
                batches = self._draw(np.array(self._groups.weights, dtype=float), epoch)
            else:
                batches = self._all(range(len(self._domains)), epoch)
                batches = batches[self._rng(epoch).permutation(self._count)]
            self._plan = (epoch, batches)
        return self._plan[1]

    def _draw(self, weights: np.ndarray, epoch: int) -> np.ndarray:
        """Draw the data set of each batch; a data set that runs out is packed again."""
        filled = {domain.dataset for domain, count in zip(self._domains, self._counts, strict=True) if count}
        weights[[code for code in range(len(weights)) if code not in filled]] = 0.0
        if not weights.any():
            raise ConfigError("every data set that holds a batch has weight 0.")
        drawn = self._rng(epoch).choice(len(weights), size=self._count, p=weights / weights.sum())
        streams = {int(code): self._stream(int(code), epoch) for code in np.unique(drawn)}
        return np.stack([next(streams[int(code)]) for code in drawn])

    def _stream(self, dataset: int, epoch: int) -> Iterator[np.ndarray]:
        """Batches of one data set without end."""
        numbers = [n for n, domain in enumerate(self._domains) if domain.dataset == dataset and self._counts[n]]
        turn = 0
        while True:
            batches = self._all(numbers, epoch, turn)
            yield from batches[self._rng(epoch, dataset, turn).permutation(len(batches))]
            turn += 1

    def _all(self, numbers: Iterable[int], epoch: int, turn: int = 0) -> np.ndarray:
        """As many batches of each domain as every epoch has; where one has fewer, some of the first epoch."""
        batches = []
        for number in numbers:
            packed = self._pack(number, epoch, turn)
            if len(packed) < self._counts[number]:
                packed = np.concatenate([packed, self._pack(number, 0)])
            batches.append(packed[: self._counts[number]])
        return np.concatenate(batches)

    def _pack(self, number: int, epoch: int, turn: int = 0) -> np.ndarray:
        rows, cluster, centres, _ = self._domains[number]
        packed = pack(rows, cluster, centres, self._rows, self.packing, self._rng(epoch, number, turn, 1))
        return packed if self._texts is None else distinct_batches(packed.reshape(-1), self._rows, self._texts)

    def _rng(self, *path: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *path])


def _split(groups: Groups) -> Iterator[_Domain]:
    """Rows, clusters, centres and data set of each domain."""
    domain = np.asarray(groups.domain)
    order = np.argsort(domain, kind="stable")
    codes, starts = np.unique(domain[order], return_index=True)
    for code, rows in zip(codes, np.split(order, starts[1:]), strict=True):
        if code >= 0:
            names, cluster = np.unique(np.asarray(groups.cluster)[rows], return_inverse=True)
            dataset = 0 if groups.dataset is None else int(groups.dataset[rows[0]])
            yield _Domain(rows, cluster, np.asarray(groups.centres)[names], dataset)
