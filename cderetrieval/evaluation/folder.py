"""Results on disk: each evaluation is written once, whole, and found again by the next run.

    DIR/manifest.json                                  for each run its date, versions, device and settings; for each
                                                       evaluation the revision of its data and the digest of its context
    DIR/results.csv, table.md                          all numbers in long form; main scores, models by datasets
    DIR/MODEL/CONTEXT/seed-N/setting.json              fingerprint of the model, and all that makes the context
    DIR/MODEL/CONTEXT/seed-N/DATASET.json              means, wall time, audit of the context
    DIR/MODEL/CONTEXT/seed-N/DATASET.queries.csv       metrics of each query
    DIR/MODEL/CONTEXT/seed-N/DATASET.run.txt           the best 100 hits of each query, as a TREC run
    DIR/MODEL/CONTEXT/seed-N/DATASET.context.json      the same audit, written before mteb scores a subset
    DIR/mteb/                                          mteb's own result files

DATASET.json comes last, so that its presence means that the evaluation is finished. Results of another model, context
or revision of the data under a name that is taken are refused: they would be averaged into one number. What is damaged,
or vanished after the manifest named it, is an error with the file (:mod:`.stored`).
"""

from __future__ import annotations

import datetime
import logging
import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..errors import InputError, MismatchError, StoreError
from ..files import as_path, atomic_write, make_directory, reading
from ..types import Hits
from .forms import Run
from .metrics import PerQuery
from .results import Cell, Results
from .setting import ContextSetting
from .stored import queries_path, read_cell, read_queries, read_sealed, write_cell, write_queries, write_sealed

logger = logging.getLogger(__name__)

# 2: files carry a checksum.
FORMAT = 2
MANIFEST, SETTING, CONTEXT = "manifest.json", "setting.json", ".context.json"
# What of an evaluation stands in the manifest, and tells it from all others.
NAMES = ("model", "context", "seed", "dataset", "subset", "split", "revision", "candidates")
ANOTHER = "Restore it from a copy, or evaluate into another folder."
PACKAGES = ("cderetrieval", "torch", "transformers", "sentence-transformers", "faiss-cpu", "mteb", "datasets", "numpy")


class ResultsFolder:
    """A folder of results that is being written.

    Parameters
    ----------
    directory
        A new or empty folder, or one that an evaluation wrote.
    about
        Settings of this run, for the manifest.
    """

    def __init__(self, directory: str | Path, about: Mapping[str, Any] | None = None) -> None:
        self.directory = as_path(directory)
        if self.directory.is_file():
            raise StoreError(f"{directory} is a file; results need a folder.")
        manifest = self.directory / MANIFEST
        if not manifest.exists() and self.directory.is_dir() and any(self.directory.iterdir()):
            raise StoreError(f"{directory} is not empty and no results folder. Choose a new one.")
        self._runs, self._listed = _read_manifest(manifest) if manifest.exists() else ([], [])
        if about is not None:
            make_directory(self.directory)
            self._runs, self._listed = [*self._runs, {**environment(), **about}], []
            write_sealed(manifest, {"format": FORMAT, "runs": self._runs, "evaluations": []})

    @classmethod
    def open(cls, directory: str | Path) -> ResultsFolder:
        """Open a folder to read it."""
        manifest = as_path(directory) / MANIFEST
        if not manifest.exists():
            raise StoreError(f"{directory} holds no results: {MANIFEST} is missing. Evaluate with --out {directory}.")
        return cls(directory)

    def claim(self, model: str, fingerprint: str, setting: ContextSetting, dtype: str) -> Path:
        """Folder of one model in one context; made, or checked to be the same one's.

        Raises
        ------
        MismatchError
            If it was written by another model or context.
        """
        folder = self.directory / safe(model) / setting.folder
        identity = {"model": model, "fingerprint": fingerprint, "dtype": dtype, **setting.identity()}
        path = folder / SETTING
        if not path.exists():
            write_sealed(path, identity)
            return folder
        stored = read_sealed(path, f"Remove {folder} and evaluate again.")
        for name, value in identity.items():
            if stored.get(name) != value:
                raise MismatchError(
                    f"{folder} holds results of {name} {_short(stored.get(name))}, this run has {_short(value)}. "
                    "Results of two settings are not mixed: choose another --out, or remove that folder."
                )
        return folder

    def finished(self, folder: Path, name: str, revision: str, candidates: str | None) -> Cell | None:
        """The cell of a finished evaluation; None where there is none.

        Raises
        ------
        MismatchError
            If it is of another revision of the data, or of other candidates.
        """
        path = folder / f"{safe(name)}.json"
        if not path.exists():
            return None
        cell = read_cell(path)
        for what, stored, wanted in (
            ("file", safe(cell.file_name), path.stem),
            ("revision of the data", cell.revision, revision),
            ("candidates", cell.candidates, candidates),
        ):
            if stored != wanted:
                raise MismatchError(
                    f"{path} holds results of {what} {stored}, this run has {wanted}. Choose another --out, or remove "
                    "that file."
                )
        return cell

    def write_queries(self, folder: Path, name: str, scores: PerQuery, run: Run, tag: str) -> None:
        """Write what belongs to single queries: metrics and run."""
        path = folder / f"{safe(name)}.json"
        write_queries(queries_path(path), scores)
        hits = [
            [{"id": document, "similarity": score} for document, score in ranking.items()] for ranking in run.values()
        ]
        try:
            Hits(hits, list(run)).to_trec(folder / f"{safe(name)}.run.txt", safe(tag) or "run")
        except InputError as error:
            logger.warning("%s: the TREC run is left out, everything else is kept: %s", name, error)

    def read_queries(self, folder: Path, name: str) -> PerQuery | None:
        """Read metrics of each query, where there are any that are whole."""
        path = queries_path(folder / f"{safe(name)}.json")
        try:
            return read_queries(path, "They are made again.") if path.exists() else None
        except StoreError as error:
            logger.warning("%s", error)
            return None

    def write_audit(self, folder: Path, name: str, audit: Mapping[str, Any]) -> None:
        """Write what a context was made of, for a run that may be killed before its cell is written."""
        write_sealed(folder / f"{safe(name)}{CONTEXT}", audit)

    def read_audit(self, folder: Path, name: str) -> dict[str, Any]:
        """Read what a context was made of; empty where nothing was written."""
        path = folder / f"{safe(name)}{CONTEXT}"
        return read_sealed(path, f"Remove {folder} and {self.directory / 'mteb'}.") if path.exists() else {}

    def write(self, folder: Path, name: str, cell: Cell) -> None:
        """Write the cell of a finished evaluation."""
        write_cell(folder / f"{safe(name)}.json", cell)

    def results(self) -> Results:
        """All finished evaluations.

        Raises
        ------
        StoreError
            If one is damaged, there twice, or no longer there.
        """
        paths = sorted(self.directory.glob("*/*/seed-*/*.json"), key=lambda path: path.stat().st_mtime_ns)
        paths = [path for path in paths if path.name != SETTING and not path.name.endswith(CONTEXT)]
        cells = [read_cell(path) for path in paths]
        found: dict[tuple[Any, ...], Path] = {}
        for path, cell in zip(paths, cells, strict=True):
            other = found.setdefault(_identity(_provenance(cell)), path)
            if other != path:
                raise StoreError(f"{other} and {path} hold the same evaluation. Remove one of them.")
        lost = next((one for one in self._listed if _identity(one) not in found), None)
        if lost is not None:
            raise StoreError(
                f"{self.directory} lacks the results of {lost['model']}/{lost['context']}, seed {lost['seed']}, on "
                f"{lost['dataset']}, which {MANIFEST} lists. Restore them from a copy, or evaluate again with the same "
                "--out."
            )
        return Results(cells, self.directory)

    def write_tables(self) -> None:
        """Write the tables of all finished evaluations, and into the manifest what each was made of."""
        results = self.results()
        if not len(results):
            return
        evaluations = [_provenance(cell) for cell in results.cells]
        write_sealed(self.directory / MANIFEST, {"format": FORMAT, "runs": self._runs, "evaluations": evaluations})
        with atomic_write(self.directory / "results.csv") as temporary:
            results.to_frame().to_csv(temporary, index=False, errors="backslashreplace")
        with atomic_write(self.directory / "table.md") as temporary:
            temporary.write_text(results.markdown() + "\n", encoding="utf-8", errors="backslashreplace")


def environment() -> dict[str, Any]:
    """Date, machine and versions of a run."""
    import torch

    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
        "versions": versions,
    }


def safe(name: str) -> str:
    """Turn a name into a file name.

    >>> safe("jxm/cde-small-v2 (en)")
    'jxm__cde-small-v2-en'
    """
    return re.sub(r"[^\w.@=-]+", "-", name.replace("/", "__")).strip("-.")


def _provenance(cell: Cell) -> dict[str, Any]:
    """Data and context of an evaluation; `equal_to_query` counts context texts that are also a query's."""
    audit = {f"context_{name}": cell.audit.get(name) for name in ("digest", "documents", "pool", "equal_to_query")}
    return {**{name: getattr(cell, name) for name in NAMES}, **audit}


def _identity(provenance: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(provenance[name] for name in NAMES)


def _read_manifest(path: Path) -> tuple[list[Any], list[dict[str, Any]]]:
    """The runs, and what was evaluated."""
    values = read_sealed(path, ANOTHER)
    with reading(path, remedy=ANOTHER):
        newer = values.get("format", 0) > FORMAT
        runs, listed = list(values["runs"]), list(values.get("evaluations", []))
        if not all(isinstance(run, dict) for run in runs):
            raise ValueError("a run is no object")
        for one in listed:
            hash(_identity(one))
    if newer:
        raise StoreError(f"{path.parent} was written by a newer version; upgrade cderetrieval to read it.")
    return runs, listed


def _short(value: Any) -> str:
    return repr(value)[:20]
