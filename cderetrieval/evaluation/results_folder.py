"""Results on disk: each evaluation is written once, as a whole, and the next run finds it.

    manifest.json, results.csv, table.md, mteb/    runs and what they evaluated; all numbers; tables; mteb's own files
    MODEL/CONTEXT/seed-N/setting.json              fingerprint of the model, and all that makes the context
    MODEL/CONTEXT/seed-N/DATASET.json              a cell; beside it .queries.csv, .run.txt (best hits), .context.json

DATASET.json is written last: where it exists, the evaluation is finished. Results of another model, context or revision
of the data under the same name are refused, since they would be averaged into one number. A file that is damaged, or
missing although the manifest lists it, is an error that names it.
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
from ..files import as_path, make_directory, reading, write_sealed
from ..queries import Hits
from .cell import Cell, queries_path, read_cell, read_queries, read_sealed, write_cell, write_queries
from .metrics import PerQuery, Run
from .variants import ContextVariant

logger = logging.getLogger(__name__)

# 2: files carry a checksum.
FORMAT = 2
MANIFEST, SETTING, CONTEXT = "manifest.json", "setting.json", ".context.json"
# Fields of an evaluation in the manifest that together identify it.
NAMES = ("model", "context", "seed", "dataset", "subset", "split", "revision", "candidates")
ANOTHER = "Restore it from a copy, or evaluate into another folder."
PACKAGES = ("cderetrieval", "torch", "transformers", "sentence-transformers", "faiss-cpu", "mteb", "datasets", "numpy")


class NoFolder:
    """Finds nothing and keeps nothing: what an evaluation writes to where the user wants no folder."""

    mteb: Path | None = None

    def finished(self, name: str, revision: str, candidates: str | None) -> Cell | None:
        """Return no cell."""
        return None

    def write_queries(self, name: str, scores: PerQuery, run: Run) -> None:
        """Drop metrics and hits of single queries."""

    def read_queries(self, name: str) -> PerQuery | None:
        """Return no metrics."""
        return None

    def write_audit(self, name: str, audit: Mapping[str, Any]) -> None:
        """Drop what a context was made of."""

    def read_audit(self, name: str) -> dict[str, Any]:
        """Return an empty audit."""
        return {}

    def write(self, name: str, cell: Cell) -> None:
        """Drop a cell."""


class ModelFolder(NoFolder):
    """Results of one model in one context; `mteb` is where mteb keeps its own, `tag` names the TREC runs."""

    def __init__(self, directory: Path, mteb: Path, tag: str) -> None:
        self.directory, self.mteb, self._tag = directory, mteb, tag

    def finished(self, name: str, revision: str, candidates: str | None) -> Cell | None:
        """The cell of a finished evaluation; one of other data or candidates is refused."""
        path = self._path(name)
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

    def write_queries(self, name: str, scores: PerQuery, run: Run) -> None:
        """Write metrics and hits of single queries."""
        write_queries(queries_path(self._path(name)), scores)
        hits = [[{"id": document, "similarity": score} for document, score in one.items()] for one in run.values()]
        try:
            Hits(hits, list(run)).to_trec(self._path(name, ".run.txt"), safe(self._tag) or "run")
        except InputError as error:
            logger.warning("%s: the TREC run is left out, everything else is kept: %s", name, error)

    def read_queries(self, name: str) -> PerQuery | None:
        """Metrics of single queries that an earlier run, perhaps one that was killed, has written."""
        path = queries_path(self._path(name))
        try:
            return read_queries(path, "They are computed again.") if path.exists() else None
        except StoreError as error:
            logger.warning("%s", error)
            return None

    def write_audit(self, name: str, audit: Mapping[str, Any]) -> None:
        """Write what a context was made of, for a run that may be killed before its cell is written."""
        write_sealed(self._path(name, CONTEXT), audit)

    def read_audit(self, name: str) -> dict[str, Any]:
        """What a context was made of, as an earlier run has written it."""
        path = self._path(name, CONTEXT)
        return read_sealed(path, f"Remove {self.directory} and {self.mteb}.") if path.exists() else {}

    def write(self, name: str, cell: Cell) -> None:
        """Write the cell of a finished evaluation."""
        write_cell(self._path(name), cell)

    def _path(self, name: str, ending: str = ".json") -> Path:
        return self.directory / f"{safe(name)}{ending}"


class ResultsFolder:
    """A folder of results; with `about`, the settings of a run that will write to it."""

    def __init__(self, directory: str | Path, about: Mapping[str, Any] | None = None) -> None:
        self.directory = as_path(directory)
        self._manifest = self.directory / MANIFEST
        if self.directory.is_file():
            raise StoreError(f"{directory} is a file; results need a folder.")
        is_new = not self._manifest.exists()
        if is_new and about is None:
            raise StoreError(f"{directory} holds no results: {MANIFEST} is missing. Evaluate with --out {directory}.")
        if is_new and self.directory.is_dir() and any(self.directory.iterdir()):
            raise StoreError(f"{directory} is not empty and no results folder. Choose a new one.")
        self._runs, self._listed = ([], []) if is_new else _read_manifest(self._manifest)
        if about is not None:
            make_directory(self.directory)
            self._runs, self._listed = [*self._runs, {**environment(), **about}], []
            self._write_manifest([])

    def model(self, name: str, fingerprint: str, variant: ContextVariant, dtype: str) -> ModelFolder:
        """Folder of one model in one context; one that another model or context has written is refused."""
        folder = self.directory / safe(name) / variant.folder
        identity = {"model": name, "fingerprint": fingerprint, "dtype": dtype, **variant.identity()}
        path = folder / SETTING
        if not path.exists():
            write_sealed(path, identity)
        stored = read_sealed(path, f"Remove {folder} and evaluate again.")
        for field, value in identity.items():
            if stored.get(field) != value:
                raise MismatchError(
                    f"{folder} holds results of {field} {_short(stored.get(field))}, this run has {_short(value)}. "
                    "Results of two settings are not mixed: choose another --out, or remove that folder."
                )
        return ModelFolder(folder, self.directory / "mteb", f"{name}-{variant.name}")

    def cells(self) -> list[Cell]:
        """All finished evaluations; one that is damaged, there twice, or no longer there is an error."""
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
        return cells

    def list_cells(self, cells: list[Cell]) -> None:
        """Write into the manifest which evaluations there are, and what each was made of."""
        self._write_manifest([_provenance(cell) for cell in cells])

    def _write_manifest(self, evaluations: list[dict[str, Any]]) -> None:
        write_sealed(self._manifest, {"format": FORMAT, "runs": self._runs, "evaluations": evaluations})


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
            raise ValueError("a run is not an object")
        for one in listed:
            hash(_identity(one))
    if newer:
        raise StoreError(f"{path.parent} was written by a newer version; upgrade cderetrieval to read it.")
    return runs, listed


def _short(value: Any) -> str:
    return repr(value)[:20]
