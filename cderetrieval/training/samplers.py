"""Which rows make a batch: for sentence-transformers' trainer, or any `DataLoader`.

    groups = Groups.from_clusters(data.domain, clusters)
    arguments = SentenceTransformerTrainingArguments(batch_sampler=partial(ClusteredBatchSampler, groups=groups), ...)

The batches of an epoch follow from (seed, epoch) alone: every process computes the same list, a run that was killed
finds it again, and each epoch has another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sentence_transformers.base.sampler import DefaultBatchSampler

from ..errors import ConfigError
from .cluster import Clusters
from .distinct import TextNumbers, distinct_batches
from .packing import pack


@dataclass(frozen=True)
class Groups:
    """What the sampler must know of each row.

    Parameters
    ----------
    domain
        Domain of each row, shape (n,); batches stay inside one; -1 leaves a row out.
    cluster
        Cluster of each row, shape (n,).
    centres
        Centre of each cluster, shape (c, d).
    dataset, weights
        Data set of each row, and the weight of each data set: a batch comes from a data set with probability
        weight / sum of weights. None: every batch of an epoch once.
    """

    domain: np.ndarray
    cluster: np.ndarray
    centres: np.ndarray
    dataset: np.ndarray | None = None
    weights: tuple[float, ...] | None = None

    @classmethod
    def from_clusters(
        cls,
        domain: np.ndarray,
        clusters: Clusters,
        dataset: np.ndarray | None = None,
        weights: tuple[float, ...] | None = None,
    ) -> Groups:
        """Groups of clustered pairs."""
        return cls(domain, clusters.assignment, clusters.centres, dataset, weights)

    @classmethod
    def without_clusters(
        cls, domain: np.ndarray, dataset: np.ndarray | None = None, weights: tuple[float, ...] | None = None
    ) -> Groups:
        """One cluster for each domain: random batches inside domains."""
        _, cluster = np.unique(domain, return_inverse=True)
        return cls(domain, cluster, np.zeros((int(cluster.max()) + 1, 1), dtype=np.float32), dataset, weights)


class ClusteredBatchSampler(DefaultBatchSampler):
    """Batches inside domains, made of clusters that lie close together.

    Parameters
    ----------
    dataset
        What the rows index; only its length is looked at.
    batch_size
        Rows of one process's batch.
    drop_last, valid_label_columns, generator
        Taken for sentence-transformers' sake; batches are always full.
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
        Keep texts from standing twice in what was cut as one; None: the loss masks them.

    Raises
    ------
    ConfigError
        If `groups` is of another data set, or no domain holds a batch.
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
        self._groups = groups
        self._texts = texts
        self._domains = self._split()
        self._counts = [self._batches_of(number) for number in range(len(self._domains))]
        self._count = sum(self._counts)
        if not self._count:
            distinct = " without repeated texts" if texts is not None else ""
            raise ConfigError(
                f"no domain has {batch_size * ranks} rows{distinct}, one batch. Take smaller batches or more data."
            )
        self._plan: tuple[int, np.ndarray] | None = None

    def _split(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, int]]:
        """Rows, clusters, centres and data set of each domain."""
        groups = self._groups
        domain = np.asarray(groups.domain)
        order = np.argsort(domain, kind="stable")
        codes, starts = np.unique(domain[order], return_index=True)
        domains = []
        for code, rows in zip(codes, np.split(order, starts[1:]), strict=True):
            if code >= 0:
                names, cluster = np.unique(np.asarray(groups.cluster)[rows], return_inverse=True)
                dataset = 0 if groups.dataset is None else int(groups.dataset[rows[0]])
                domains.append((rows, cluster, np.asarray(groups.centres)[names], dataset))
        return domains

    def _batches_of(self, number: int) -> int:
        """Batches of a domain in an epoch: all that fit, or what its repeated texts let the first packing find."""
        if self._texts is None:
            return len(self._domains[number][0]) // self._rows
        return len(self._pack(number, 0))

    def __len__(self) -> int:
        return self._count * self.ranks

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self.plan(self.epoch):
            for part in rows.reshape(self.ranks, self.batch_size):
                yield part.tolist()

    def plan(self, epoch: int) -> np.ndarray:
        """Rows of every batch of an epoch, over all ranks, shape (batches, ranks * batch_size)."""
        if self._plan is None or self._plan[0] != epoch:
            plan = self._plan_weighted(epoch) if self._groups.weights is not None else self._plan_all(epoch)
            self._plan = (epoch, plan)
        return self._plan[1]

    def _plan_all(self, epoch: int) -> np.ndarray:
        batches = [self._filled(number, epoch) for number in range(len(self._domains))]
        return np.concatenate(batches)[self._rng(epoch).permutation(self._count)]

    def _filled(self, number: int, epoch: int, turn: int = 0) -> np.ndarray:
        """As many batches of a domain as every epoch has; where repeated texts leave fewer, some of the first epoch."""
        packed = self._pack(number, epoch, turn)
        if len(packed) < self._counts[number]:
            packed = np.concatenate([packed, self._pack(number, 0)])
        return packed[: self._counts[number]]

    def _plan_weighted(self, epoch: int) -> np.ndarray:
        """Draw the data set of each batch; a data set that runs out is packed anew."""
        weights = np.array(self._groups.weights, dtype=float)
        for code in range(len(weights)):
            if not any(domain[3] == code and count for domain, count in zip(self._domains, self._counts, strict=True)):
                weights[code] = 0.0
        if not weights.any():
            raise ConfigError("every data set that holds a batch has weight 0.")
        drawn = self._rng(epoch).choice(len(weights), size=self._count, p=weights / weights.sum())
        streams = {int(code): self._stream(int(code), epoch) for code in np.unique(drawn)}
        return np.stack([next(streams[int(code)]) for code in drawn])

    def _stream(self, dataset: int, epoch: int) -> Iterator[np.ndarray]:
        """Batches of one data set without end."""
        numbers = [n for n, entry in enumerate(self._domains) if entry[3] == dataset and self._counts[n]]
        turn = 0
        while True:
            batches = np.concatenate([self._filled(number, epoch, turn) for number in numbers])
            yield from batches[self._rng(epoch, dataset, turn).permutation(len(batches))]
            turn += 1

    @property
    def _rows(self) -> int:
        return int(self.batch_size) * self.ranks

    def _pack(self, number: int, epoch: int, turn: int = 0) -> np.ndarray:
        rows, cluster, centres, _ = self._domains[number]
        packed = pack(rows, cluster, centres, self._rows, self.packing, self._rng(epoch, number, turn, 1))
        return packed if self._texts is None else distinct_batches(packed.reshape(-1), self._rows, self._texts)

    def _rng(self, *path: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *path])
