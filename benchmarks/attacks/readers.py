"""Readers beside a writer: each answer is of one state, none goes back in time, and none waits for the writer.

One process writes version after version: a version is a text of all documents, put by one `add`. Other processes, and
threads of the writer's own process, search all the while. Every answer must hold all documents, of one version, and
none older than the version that the same reader saw last.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cderetrieval import Retriever
from cderetrieval.errors import StoreError
from cderetrieval.testing import HashEncoder

from .child import Report, joined, together

DOCUMENTS = 30
PROCESSES = 3
THREADS = 2
# The writer's encoder takes so long for each add: a reader that waits for it would show.
SLOW = 0.25
# A search of 30 documents takes a millisecond; beside two cores' worth of other processes many times that.
PATIENCE = 0.15


class SlowEncoder(HashEncoder):
    """Takes its time over documents, none over queries."""

    def encode_document(self, texts: Any, *, show_progress: bool = False) -> Any:
        """Vectors, after a while."""
        time.sleep(SLOW)
        return super().encode_query(texts)


def run(seconds: float, on_disk: bool = True) -> Report:
    """Write and read for so long; in memory there are only the threads."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index" if on_disk else None
        end = time.monotonic() + seconds
        calls: list[Callable[[], Any]] = [lambda: _write(path, end)]
        if path is not None:
            calls += [lambda: _watch(lambda: _opened(path), end).plain()] * PROCESSES
        report = joined(together(calls, seconds + 60))
    # A busy machine delays a few.
    if report.counts["searches that waited"] > report.counts["versions written"] / 2:
        report.failures.append(f"readers waited for the writer: {dict(report.counts)}")
    return report


def _write(path: Path | None, end: float) -> list[Any]:
    retriever, report, lock, version = Retriever(SlowEncoder(), on="text", path=path), Report(), threading.Lock(), 0
    _add(retriever, version)

    def watch() -> None:
        found = _watch(lambda: retriever, end)
        with lock:
            report.add(found)

    threads = [threading.Thread(target=watch) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    while time.monotonic() < end:
        version += 1
        _add(retriever, version)
    for thread in threads:
        thread.join()
    report.counts["versions written"] += version
    return report.plain()


def _opened(path: Path) -> Any:
    """The index, once its first version has been written."""
    while True:
        try:
            return Retriever.load(path, model=HashEncoder())
        except StoreError as error:
            if "is missing" not in str(error) and "never ended" not in str(error):
                raise
            time.sleep(0.01)


def _add(retriever: Any, version: int) -> None:
    retriever.add([{"id": i, "text": f"document {i}", "version": version} for i in range(DOCUMENTS)])


def _watch(open_index: Callable[[], Any], end: float) -> Report:
    """Search until the end: number of answers, and what was wrong with them."""
    retriever, last, report = open_index(), -1, Report()
    while time.monotonic() < end and len(report.failures) < 3:
        started = time.monotonic()
        try:
            [ranking] = retriever(["document 3"], k=DOCUMENTS, documents=True)
        except Exception as error:  # whatever it is, it is what this looks for
            report.failures.append(f"a reader got {type(error).__name__}: {error}")
            continue
        report.counts["searches"] += 1
        report.counts["searches that waited"] += time.monotonic() - started > PATIENCE
        versions = {hit["document"]["version"] for hit in ranking}
        if len(ranking) != DOCUMENTS or len(versions) != 1 or min(versions) < last:
            report.failures.append(f"{len(ranking)} hits of versions {sorted(versions)} after version {last}")
        else:
            last = versions.pop()
    return report
