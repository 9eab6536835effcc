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
or revision of the data under a name that is taken are refused: they would be averaged into one number.
"""

from __future__ import annotations

import datetime
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MismatchError, StoreError
from ..files import as_path, atomic_write, read_json, write_json
from ..types import Hits
from .forms import Run
from .metrics import PerQuery
from .results import Cell, Results
from .setting import ContextSetting

FORMAT = 1
MANIFEST, SETTING, CONTEXT = "manifest.json", "setting.json", ".context.json"
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
        runs = read_json(manifest)["runs"] if manifest.exists() else []
        self._runs = runs if about is None else [*runs, {**environment(), **about}]
        if about is not None:
            write_json(manifest, {"format": FORMAT, "runs": self._runs, "evaluations": []})

    @classmethod
    def open(cls, directory: str | Path) -> ResultsFolder:
        """Open a folder to read it."""
        manifest = as_path(directory) / MANIFEST
        if not manifest.exists():
            raise StoreError(f"{directory} holds no results: {MANIFEST} is missing. Evaluate with --out {directory}.")
        if read_json(manifest).get("format", 0) > FORMAT:
            raise StoreError(f"{directory} was written by a newer version; upgrade cderetrieval to read it.")
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
            write_json(path, identity)
            return folder
        stored = read_json(path)
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
        cell = _read_cell(path)
        for what, stored, wanted in (
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
        with atomic_write(folder / f"{safe(name)}.queries.csv") as temporary:
            scores.to_frame().to_csv(temporary, float_format="%.8g")
        hits = [
            [{"id": document, "similarity": score} for document, score in ranking.items()] for ranking in run.values()
        ]
        Hits(hits, list(run)).to_trec(folder / f"{safe(name)}.run.txt", tag)

    def read_queries(self, folder: Path, name: str) -> PerQuery | None:
        """Read metrics of each query, where there are any."""
        path = folder / f"{safe(name)}.queries.csv"
        return _read_queries(path) if path.exists() else None

    def write_audit(self, folder: Path, name: str, audit: Mapping[str, Any]) -> None:
        """Write what a context was made of, for a run that may be killed before its cell is written."""
        write_json(folder / f"{safe(name)}{CONTEXT}", audit)

    def read_audit(self, folder: Path, name: str) -> dict[str, Any]:
        """Read what a context was made of; empty where nothing was written."""
        path = folder / f"{safe(name)}{CONTEXT}"
        return dict(read_json(path)) if path.exists() else {}

    def write(self, folder: Path, name: str, cell: Cell) -> None:
        """Write the cell of a finished evaluation."""
        values = {key: value for key, value in asdict(cell).items() if key != "scores"}
        write_json(folder / f"{safe(name)}.json", values)

    def results(self) -> Results:
        """All finished evaluations."""
        paths = sorted(self.directory.glob("*/*/seed-*/*.json"), key=lambda path: path.stat().st_mtime_ns)
        cells = [path for path in paths if path.name != SETTING and not path.name.endswith(CONTEXT)]
        return Results([_read_cell(path) for path in cells], self.directory)

    def write_tables(self) -> None:
        """Write the tables of all finished evaluations, and into the manifest what each was made of."""
        results = self.results()
        if not len(results):
            return
        evaluations = [_provenance(cell) for cell in results.cells]
        write_json(self.directory / MANIFEST, {"format": FORMAT, "runs": self._runs, "evaluations": evaluations})
        with atomic_write(self.directory / "results.csv") as temporary:
            results.to_frame().to_csv(temporary, index=False)
        with atomic_write(self.directory / "table.md") as temporary:
            temporary.write_text(results.markdown() + "\n", encoding="utf-8")


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
    names = ("model", "context", "seed", "dataset", "subset", "split", "revision", "candidates")
    audit = {f"context_{name}": cell.audit.get(name) for name in ("digest", "documents", "pool", "equal_to_query")}
    return {**{name: getattr(cell, name) for name in names}, **audit}


def _read_cell(path: Path) -> Cell:
    values = read_json(path)
    queries = path.with_name(f"{path.stem}.queries.csv")
    try:
        return Cell(**values, scores=_read_queries(queries) if queries.exists() else None)
    except TypeError as error:
        raise StoreError(f"{path} is no result of this version ({error}). Remove it to evaluate again.") from error


def _read_queries(path: Path) -> PerQuery:
    import pandas as pd

    frame = pd.read_csv(path, dtype={"query_id": str}, keep_default_na=False, na_values={}).set_index("query_id")
    values = {str(name): np.asarray(frame[name], dtype=np.float64) for name in frame.columns}
    return PerQuery(tuple(frame.index), values, ())


def _short(value: Any) -> str:
    return repr(value)[:20]
