"""Training pairs as memory-mapped columns: queries, documents, mined negatives, domains.

Sources are read once. Each kind of text becomes one file of UTF-8 bytes; ``rows.raw`` and ``mined.raw`` are arrays of
records that say, among other things, where each text ends in it. So any text is found in constant time, a data set
larger than memory costs nothing to open, and all processes of a machine share its pages. A changed source is another
data set with another fingerprint. A domain belongs to one data set: batches are made inside domains.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import ConfigError, InputError
from ..files import json_digest, sha256_file
from .cache import Info, cached_directory, map_array
from .sources import Source, find_sources, read_rows

logger = logging.getLogger(__name__)

# A row: codes of its data set and domain, its line, where its texts and its mined negatives end, the teacher's score
# (NaN: none). A mined negative: where its text ends, and its score.
_ENDS = ("query", "document", "mined")
ROW = np.dtype(
    [("dataset", "<i4"), ("domain", "<i4"), ("line", "<i8"), *((name, "<i8") for name in _ENDS), ("score", "<f4")]
)
MINED = np.dtype([("negative", "<i8"), ("score", "<f4")])
# Raised when the files of a directory change; it is no part of the fingerprint, which runs are resumed by.
_LAYOUT = 3


class TextColumn:
    """Texts mapped into memory: a file of UTF-8 bytes, and where each text ends in it."""

    def __init__(self, path: Path, ends: np.ndarray) -> None:
        self._ends = ends
        self._bytes = map_array(path, "u1", (int(ends[-1]) if len(ends) else 0,))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> str:
        start = int(self._ends[row - 1]) if row else 0
        return self._bytes[start : int(self._ends[row])].tobytes().decode("utf-8", "surrogatepass")

    def take(self, rows: Iterable[int]) -> list[str]:
        """Texts of some rows."""
        return [self[int(row)] for row in rows]


class PairData:
    """Training pairs on disk, as :func:`load_pairs` opens them; ``data[row]`` is what a batch collates.

    `dataset` and `domain` are codes of each row, (n,) int32, of `dataset_names` and `domain_names`; a domain is called
    ``"<data set>/<domain>"``. `weights` are those of the data sets, `fingerprint` is a digest of the sources.
    """

    def __init__(self, directory: Path, info: Info, negatives: int = 0) -> None:
        self.directory = directory
        self.fingerprint: str = info["fingerprint"]
        self.dataset_names: list[str] = info["datasets"]
        self.domain_names: list[str] = info["domains"]
        self.weights: list[float] | None = info["weights"]
        self.sources: list[str] = info["sources"]
        self.negatives = negatives
        self._prompts: list[list[str] | None] = info["prompts"]
        self._rows = map_array(directory / "rows.raw", ROW, (info["rows"],))
        self._mined = map_array(directory / "mined.raw", MINED, (info["mined"],))
        self.dataset, self.domain = self._rows["dataset"], self._rows["domain"]
        self.queries = TextColumn(directory / "query.bin", self._rows["query"])
        self.documents = TextColumn(directory / "document.bin", self._rows["document"])
        self.mined = TextColumn(directory / "negative.bin", self._mined["negative"])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        row = int(row)
        return {
            "query": self.queries[row],
            "document": self.documents[row],
            "negatives": self.mined.take(self.negatives_of(row)),
            "prompts": self._prompts[self.domain[row]],
            "label": row,
        }

    @property
    def columns(self) -> dict[str, TextColumn]:
        """The texts of each kind."""
        return {"query": self.queries, "document": self.documents, "negative": self.mined}

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, for sentence-transformers' trainer."""
        return ["query", "document", "negatives", "label"]

    def negatives_of(self, row: int) -> range:
        """Positions of a row's negatives in :attr:`mined`, at most :attr:`negatives` of them."""
        start = int(self._rows["mined"][row - 1]) if row else 0
        return range(start, min(int(self._rows["mined"][row]), start + self.negatives))

    def scores(self, row: int) -> list[float]:
        """The teacher's scores of a row's document and negatives; NaN where there are none."""
        mined = self.negatives_of(row)
        return [float(self._rows["score"][row]), *self._mined["score"][mined.start : mined.stop].tolist()]

    def where(self, row: int) -> str:
        """File and line that a row came from."""
        return f"{self.dataset_names[self.dataset[row]]}, line {self._rows['line'][row]}"

    def check_complete(self, purpose: str, *, scored: bool) -> None:
        """Refuse data with a row that has fewer mined negatives than are used or, if `scored`, no scores."""
        counts = np.diff(self._rows["mined"], prepend=0)
        lacks = {f"fewer than {self.negatives} negatives": counts < self.negatives}
        if scored:
            lacks["no 'scores' of a teacher"] = np.isnan(self._rows["score"])
        for what, wrong in lacks.items():
            if wrong.any():
                raise InputError(
                    f"{self.where(int(wrong.argmax()))} has {what}, as {int(wrong.sum())} of {len(self)} rows: "
                    f"{purpose} needs them in every row. Leave such rows out, or use fewer negatives."
                )


def load_pairs(names: Sequence[str | Path | Source], cache: str | Path, *, negatives: int = 0) -> PairData:
    """Read training pairs into columns, or open those of an earlier call; a row gives at most `negatives` negatives.

    `names` are sources, or what :func:`~cderetrieval.training.sources.find_sources` takes.
    """
    sources = [name for name in names if isinstance(name, Source)]
    sources += find_sources([name for name in names if not isinstance(name, Source)])
    if not sources:
        raise InputError("no training data: name a file, a folder, or a hub data set.")
    key = {"sources": [_describe(source) for source in sources]}
    directory, info = cached_directory(
        cache, "pairs", {**key, "layout": _LAYOUT}, lambda path: _write(path, sources, json_digest(key))
    )
    return PairData(directory, info, negatives)


def _describe(source: Source) -> dict[str, Any]:
    path = Path(source.path)
    if not path.is_file():
        raise InputError(f"training data {source.path!r}: there is no such file.")
    described = {**dataclasses.asdict(source), "path": path.name, "sha256": sha256_file(path)}
    if source.scores == "scores":
        del described["scores"]  # fingerprints of data without a teacher stay what they were
    return described


def _write(directory: Path, sources: Sequence[Source], fingerprint: str) -> Info:
    weights: dict[str, float | None] = {}
    domains: dict[str, tuple[int, Sequence[str] | None]] = {}  # name to code and prompts
    rows = mined = 0
    with ExitStack() as stack:
        names = ("rows.raw", "mined.raw", "query.bin", "document.bin", "negative.bin")
        row_file, mined_file, queries, documents, negatives = (
            stack.enter_context(open(directory / name, "wb")) for name in names
        )
        for source in sources:
            before = rows
            weights.setdefault(source.name, source.weight)
            dataset = list(weights).index(source.name)
            for line, row in read_rows(source):
                prompts = source.prompts.get(row.domain, source.prompts.get("*"))
                domain, _ = domains.setdefault(f"{source.name}/{row.domain}", (len(domains), prompts))
                score, *scores = row.scores or [math.nan] * (1 + len(row.negatives))
                for text, mined_score in zip(row.negatives, scores, strict=True):
                    mined_file.write(np.array((append(negatives, text), mined_score), MINED).tobytes())
                rows, mined = rows + 1, mined + len(row.negatives)
                ends = append(queries, row.query), append(documents, row.document), mined
                row_file.write(np.array((dataset, domain, line, *ends, score), ROW).tobytes())
            if rows == before:
                raise InputError(f"{source.path} holds no pair.")
            logger.info("%s: %d pairs.", source.name, rows - before)
    return {
        "fingerprint": fingerprint,
        "rows": rows,
        "mined": mined,
        "datasets": list(weights),
        "domains": list(domains),
        "weights": None if None in weights.values() else list(weights.values()),
        "prompts": [prompts for _, prompts in domains.values()],
        "sources": [Path(source.path).name for source in sources],
    }


def append(file: BinaryIO, text: str) -> int:
    """Write a text and return where it ends. A lone surrogate survives; tokenizers are given its replacement."""
    file.write(text.encode("utf-8", "surrogatepass"))
    return file.tell()


def usable_domains(data: PairData, batch_size: int, small: str = "error") -> np.ndarray:
    """Domain of each row once the domains that are smaller than a batch are dealt with.

    ``"error"`` refuses them; ``"skip"`` leaves them out, code -1; ``"merge"`` pools those of one data set, and leaves
    out a pool that is still too small.
    """
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
