"""Model directories made to run code, to ask a question or to reach a network when they are loaded.

Each of `hostile_models.HOSTILE` is loaded in a child, by itself and as the family that it belongs to; so is an index
whose model has become one. It may be refused by a named error, or load: what it names is never run, asked or fetched.
"""

from __future__ import annotations

import builtins
import shutil
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hostile_models import EVERY, Hostile, base, write

from cderetrieval import Retriever, load

from .child import ANSWER, NAMED, Report, in_child

DOCUMENTS = [{"id": "a", "text": "owls hunt at night"}, {"id": "b", "text": "bees make honey"}]
PREFIXES = {"dense": "dense:", "centre": "centre:", "splade": "splade:", "sparse-embed": "sparse-embed:"}


def prepare() -> None:
    """Write a good directory of every family, once, for children to copy."""
    for family in EVERY:
        base(family)


def run(hostiles: Sequence[Hostile]) -> Report:
    """Load some of them."""
    report = Report()
    for hostile in hostiles:
        for way, call in (("load", _load), ("family", _load_family), ("index", _load_index)):
            with tempfile.TemporaryDirectory() as folder:
                marker = Path(folder) / "RAN"
                outcome, found = in_child(lambda c=call, h=hostile, m=marker: c(h, m.parent, m))
                report.counts["directories loaded"] += 1
                report.counts["refused by name" if outcome == NAMED else "loaded"] += 1
                if marker.exists() or outcome not in (ANSWER, NAMED):
                    what = "its code ran" if marker.exists() else f"{outcome}: {found}"
                    report.failures.append(f"{hostile.name}, {way}: {what}")
    return report


def _load(hostile: Hostile, folder: Path, marker: Path) -> None:
    directory = write(hostile, folder / "model", marker)
    _guard(marker)
    _use(load(directory, device="cpu"))


def _load_family(hostile: Hostile, folder: Path, marker: Path) -> None:
    directory = write(hostile, folder / "model", marker)
    _guard(marker)
    _use(load(PREFIXES.get(hostile.family, "") + str(directory), device="cpu"))


def _load_index(hostile: Hostile, folder: Path, marker: Path) -> None:
    """The index was written with a good model; it lies where the hostile one is put."""
    directory = folder / "model"
    shutil.copytree(base(hostile.family), directory)
    with Retriever(str(directory), path=folder / "index", on="text", device="cpu", context=None) as retriever:
        retriever.add(DOCUMENTS)
    shutil.rmtree(directory)
    write(hostile, directory, marker)
    _guard(marker)
    with Retriever.load(folder / "index", device="cpu") as retriever:
        retriever("owls", k=1)


def _guard(marker: Path) -> None:
    """Let questions and connections of this child leave the marker."""

    def ran(*_: Any, **__: Any) -> Any:
        marker.touch()
        raise OSError("tried")

    builtins.input = ran
    socket.getaddrinfo = ran  # type: ignore[assignment]
    socket.socket.connect = socket.socket.connect_ex = ran  # type: ignore[method-assign]


def _use(model: Any) -> None:
    encoder = model.in_context(None) if hasattr(model, "in_context") else model
    encoder.encode_query(["owls hunt at night"])
