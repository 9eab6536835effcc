"""SIGKILL at random moments: what was acknowledged is there, and nothing is half done.

A child opens an index and changes it without end: adds, replaces, removes, refreshes, saves, by a plan that its number
decides. It says "start" before each change and "done" after. It is killed; the next process must find the documents
after the last "done", or those and the one change that had started, all of them with their own vectors, and go on.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from .child import ANSWER, TIMEOUT, Report, in_child

HERE = Path(__file__).resolve().parent
# What the processes do is beside the tests that kill a few of them in each run.
CHANGES = HERE.parent.parent / "tests"
KINDS = ("dense", "sparse", "sparse-embed", "hybrid")
# Longest time from the moment at which a child is let go to its end, in seconds: ten changes or so.
DELAY = 0.08
# An index lives for so many kills; then the next one begins.
LIFE = 25


def run(kills: int, seed: int) -> Report:
    """Kill so many processes; of each kind of index its share."""
    report, rng = Report(), random.Random(seed)
    while report.counts["kills"] < kills:
        kind = KINDS[report.counts["indexes"] % len(KINDS)]
        report.counts["indexes"] += 1
        with tempfile.TemporaryDirectory() as folder:
            _one_life(Path(folder) / "index", kind, rng, min(LIFE, kills - report.counts["kills"]), report)
    return report


def _one_life(path: Path, kind: str, rng: random.Random, kills: int, report: Report) -> None:
    changes = changes_of(kind)
    seed, first = rng.randrange(2**30), 0
    documents: dict[int, str] = {}
    for _ in range(kills):
        started, done = _killed(path, kind, seed, first, rng)
        report.counts["kills"] += 1
        report.counts["changes acknowledged"] += done - first + 1
        for number in range(first, done + 1):
            documents = changes.expected(documents, seed, number)
        candidates = [documents]
        if started > done:
            candidates.append(changes.expected(documents, seed, started))
        outcome, found = in_child(lambda c=candidates: _verify(path, kind, c))
        if outcome != ANSWER or found is None:
            report.failures.append(f"{kind}, seed {seed}, change {started}: {outcome}: {found}")
            return
        documents = candidates[found]
        first = started + 1 if found else done + 1


def _killed(path: Path, kind: str, seed: int, first: int, rng: random.Random) -> tuple[int, int]:
    """Numbers of the last change that a child had started and of the last one done, when it was killed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            sys.stdout = os.fdopen(write, "w")
            changes_of(kind).run(path, seed, first)
        finally:
            os._exit(1)
    os.close(write)
    wanted = f"done {first + rng.randint(0, 3) - 1}\n".encode()
    text, deadline = b"", time.monotonic() + TIMEOUT
    while not (text.startswith(b"open") and (wanted.endswith(b" %d\n" % (first - 1)) or wanted in text)):
        if not select.select([read], [], [], max(0.0, deadline - time.monotonic()))[0]:
            break
        part = os.read(read, 1 << 16)
        if not part:
            break
        text += part
    time.sleep(rng.uniform(0, DELAY))
    os.kill(child, signal.SIGKILL)
    while part := os.read(read, 1 << 16):
        text += part
    os.close(read)
    os.waitpid(child, 0)
    lines = [line.split() for line in text.decode().splitlines(keepends=True)[1:] if line.endswith("\n")]
    last = {word: int(number) for word, number in lines}
    return last.get("start", first - 1), last.get("done", first - 1)


def _verify(path: Path, kind: str, candidates: list[dict[int, str]]) -> int | None:
    """Which of the candidates the index holds, whole; None if neither."""
    with changes_of(kind).open(path) as retriever:
        for number, documents in enumerate(candidates):
            if holds(retriever, documents, kind):
                return number
    return None


def holds(retriever: Any, documents: dict[int, str], kind: str) -> bool:
    """Whether an index holds these documents and no others, and finds each by its own text, with that very text.

    By a dense vector a text in one piece is found before all others. Another may stand before one that is cut, whose
    passages are not its text, and before one of a sparse vector: words can share a term.
    """
    if len(retriever) != len(documents) or not all(i in retriever for i in documents):
        return False
    if not documents:
        return True
    is_short = _changes().is_short
    rankings = retriever(list(documents.values()), k=len(documents), documents=True)
    for (wanted, text), ranking in zip(documents.items(), rankings, strict=True):
        found = [hit for hit in ranking if hit["id"] == wanted and hit["document"]["text"] == text]
        first = kind != "dense" or not is_short(text) or not found
        if not found or (not first and found[0]["similarity"] < ranking[0]["similarity"] - 1e-6):
            return False
    return True


def changes_of(kind: str) -> Any:
    """What the processes do to an index of this kind."""
    return _changes().Changes(kind)


def _changes() -> Any:
    if str(CHANGES) not in sys.path:
        sys.path.insert(0, str(CHANGES))
    return import_module("changes")
