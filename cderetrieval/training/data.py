"""Training pairs as memory-mapped columns: queries, documents, mined negatives, domains.

Sources are read once into raw columns (see :mod:`~cderetrieval.training.columns`) beside a manifest that holds the
sha256 of every source; from then on opening takes milliseconds, and a changed source is a different data set with
another fingerprint. A domain belongs to one data set: batches are made inside domains.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import ConfigError, InputError
from ..files import sha256_file
from .cache import cached_directory, digest_of, map_array, read_info
from .columns import TextColumn, TextWriter
from .sources import Row, Source, find_sources, read_rows

logger = logging.getLogger(__name__)

# Numbers kept for each row; NaN where a row has no teacher's score.
_NUMBERS = {"dataset": "<i4", "domain": "<i4", "line": "<i8", "negatives_end": "<i8", "score": "<f4"}
# Raised when the files of a directory change; it is no part of the fingerprint, which runs are resumed by.
_LAYOUT = 2
SMALL_DOMAINS = ("error", "skip", "merge")


class PairData:
    """Training pairs on disk; ``data[row]`` is what a batch collates.

    Parameters
    ----------
    directory
        Written by :func:`load_pairs`.
    negatives
        Most mined negatives to give with a row, the first ones.

    Attributes
    ----------
    dataset, domain
        Code of each row's data set and domain, shape (n,), int32.
    dataset_names, domain_names
        Names behind the codes; a domain is called ``"<data set>/<domain>"``.
    weights
        Weight of each data set, or None.
    fingerprint
        Digest of the sources' bytes and of how they were read.
    """

    def __init__(self, directory: Path, negatives: int = 0) -> None:
        info = read_info(directory)
        rows = info["rows"]
        self.directory = directory
        self.fingerprint: str = info["fingerprint"]
        self.dataset_names: list[str] = info["datasets"]
        self.domain_names: list[str] = info["domains"]
        self.weights: list[float] | None = info["weights"]
        self.sources: list[str] = info["sources"]
        self.negatives = negatives
        self.queries = TextColumn(directory, "query", rows)
        self.documents = TextColumn(directory, "document", rows)
        self.mined = TextColumn(directory, "negative", info["mined"])
        arrays = {name: map_array(directory / f"{name}.raw", dtype, (rows,)) for name, dtype in _NUMBERS.items()}
        self.dataset, self.domain = arrays["dataset"], arrays["domain"]
        self._line, self._negatives_end, self._score = arrays["line"], arrays["negatives_end"], arrays["score"]
        self._mined_scores = map_array(directory / "mined_score.raw", "<f4", (info["mined"],))
        self._prompts: list[list[str] | None] = info["prompts"]

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, row: int) -> dict[str, Any]:
        row = int(row)
        prompts = self._prompts[self.domain[row]]
        return {
            "query": self.queries[row],
            "document": self.documents[row],
            "negatives": self.mined.take(self.negatives_of(row)),
            "prompts": prompts,
            "label": row,
        }

    def negatives_of(self, row: int) -> range:
        """Positions of a row's negatives in :attr:`mined`, at most :attr:`negatives` of them."""
        start = int(self._negatives_end[row - 1]) if row else 0
        return range(start, min(int(self._negatives_end[row]), start + self.negatives))

    def scores(self, row: int) -> list[float]:
        """The teacher's scores of a row's document and negatives; NaN where there are none."""
        mined = self.negatives_of(row)
        return [float(self._score[row]), *self._mined_scores[mined.start : mined.stop].tolist()]

    def check_complete(self, purpose: str, *, scored: bool) -> None:
        """Check that every row has as many mined negatives as are used, and, where that is asked, scores.

        Raises
        ------
        InputError
            If one has not; the message names file and line.
        """
        counts = np.diff(np.asarray(self._negatives_end), prepend=0)
        lacks = {f"fewer than {self.negatives} negatives": counts < self.negatives}
        if scored:
            lacks["no 'scores' of a teacher"] = np.isnan(self._score)
        for what, wrong in lacks.items():
            if wrong.any():
                raise InputError(
                    f"{self.where(int(wrong.argmax()))} has {what}, as {int(wrong.sum())} of {len(self)} rows: "
                    f"{purpose} needs them in every row. Leave such rows out, or use fewer negatives."
                )

    def where(self, row: int) -> str:
        """File and line that a row came from."""
        return f"{self.dataset_names[self.dataset[row]]}, line {self._line[row]}"

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, for sentence-transformers' trainer."""
        return ["query", "document", "negatives", "label"]


def load_pairs(names: Sequence[str | Path | Source], cache: str | Path, *, negatives: int = 0) -> PairData:
    """Read training pairs into columns, or open the columns of an earlier call.

    Parameters
    ----------
    names
        Sources, or what :func:`~cderetrieval.training.sources.find_sources` takes.
    cache
        Directory of the columns.
    negatives
        Most mined negatives to give with a row.

    Raises
    ------
    InputError
        If a line cannot be used, or there is none; the message names file, line and field.
    """
    named = [name for name in names if not isinstance(name, Source)]
    sources = [name for name in names if isinstance(name, Source)] + (find_sources(named) if named else [])
    if not sources:
        raise InputError("no training data: name a file, a folder, or a hub data set.")
    key = {"sources": [_describe(source) for source in sources]}
    layout = {**key, "layout": _LAYOUT}
    directory = cached_directory(cache, "pairs", layout, lambda path: _write(path, sources, digest_of(key)))
    return PairData(directory, negatives)


def _describe(source: Source) -> dict[str, Any]:
    path = Path(source.path)
    if not path.is_file():
        raise InputError(f"training data {source.path!r}: there is no such file.")
    described = {**dataclasses.asdict(source), "path": path.name, "sha256": sha256_file(path)}
    if source.scores == "scores":
        del described["scores"]  # fingerprints of data without a teacher stay what they were
    return described


class _Numbers:
    """Codes of names in the order in which they were met."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._codes: dict[str, int] = {}

    def code(self, name: str) -> int:
        if name not in self._codes:
            self._codes[name] = len(self.names)
            self.names.append(name)
        return self._codes[name]


def _write(directory: Path, sources: Sequence[Source], fingerprint: str) -> dict[str, Any]:
    datasets, domains = _Numbers(), _Numbers()
    prompts: list[Sequence[str] | None] = []
    weights: list[float | None] = []
    names = [*_NUMBERS, "mined_score"]
    files = {name: open(directory / f"{name}.raw", "wb") for name in names}  # noqa: SIM115 - closed below
    try:
        with (
            TextWriter(directory, "query") as queries,
            TextWriter(directory, "document") as documents,
            TextWriter(directory, "negative") as mined,
        ):
            for source in sources:
                dataset = datasets.code(source.name)
                if dataset == len(weights):
                    weights.append(source.weight)
                before = queries.count
                for line, row in read_rows(source):
                    _append(row, queries, documents, mined)
                    score, *mined_scores = row.scores or [math.nan] * (1 + len(row.negatives))
                    domain = domains.code(f"{source.name}/{row.domain}")
                    if domain == len(prompts):
                        prompts.append(source.prompts.get(row.domain, source.prompts.get("*")))
                    _append_numbers(files, dataset, domain, line, mined.count, score)
                    files["mined_score"].write(np.array(mined_scores, dtype="<f4").tobytes())
                if queries.count == before:
                    raise InputError(f"{source.path} holds no pair.")
                logger.info("%s: %d pairs.", source.name, queries.count - before)
    finally:
        for file in files.values():
            file.close()
    return {
        "fingerprint": fingerprint,
        "rows": queries.count,
        "mined": mined.count,
        "datasets": datasets.names,
        "domains": domains.names,
        "weights": None if None in weights else weights,
        "prompts": prompts,
        "sources": [Path(source.path).name for source in sources],
    }


def _append(row: Row, queries: TextWriter, documents: TextWriter, mined: TextWriter) -> None:
    queries.append(row.query)
    documents.append(row.document)
    for text in row.negatives:
        mined.append(text)


def _append_numbers(files: Mapping[str, BinaryIO], *values: float) -> None:
    for (name, dtype), value in zip(_NUMBERS.items(), values, strict=True):
        files[name].write(np.array([value], dtype=dtype).tobytes())


def usable_domains(data: PairData, batch_size: int, small: str = "error") -> np.ndarray:
    """Domain of each row, once those that are smaller than a batch are dealt with.

    Parameters
    ----------
    data
        The pairs.
    batch_size
        Rows of a batch, over all processes that share its negatives.
    small
        ``"error"``; ``"skip"``: leave them out, code -1; ``"merge"``: pool the small domains of one data set into one,
        and leave out the pool where it is still too small.

    Raises
    ------
    ConfigError
        If a domain is too small and `small` is ``"error"``, or no domain is left.
    """
    if small not in SMALL_DOMAINS:
        raise ConfigError(f"small_domains={small!r} is unknown; use one of {', '.join(SMALL_DOMAINS)}.")
    domain = np.array(data.domain)
    counts = np.bincount(domain, minlength=len(data.domain_names))
    too_small = counts < batch_size
    if small == "error" and too_small.any():
        listing = ", ".join(f"{data.domain_names[code]} ({counts[code]})" for code in np.flatnonzero(too_small)[:5])
        raise ConfigError(
            f"{int(too_small.sum())} domains are smaller than a batch of {batch_size}: {listing}. Take smaller "
            "batches, or set small_domains to 'merge' or 'skip'."
        )
    rows = too_small[domain]
    if small == "merge":
        domain[rows] = len(data.domain_names) + np.asarray(data.dataset)[rows]
        rows = np.bincount(domain)[domain] < batch_size
    domain[rows] = -1
    if rows.all():
        raise ConfigError(f"no domain has {batch_size} pairs, one batch. Take smaller batches or more data.")
    if rows.any():
        logger.info("%d of %d pairs are left out: their domains are smaller than a batch.", int(rows.sum()), len(rows))
    return domain
