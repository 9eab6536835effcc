"""Damaged files of every format that is read: a named error or the right answer, never anything else.

A subject is a folder that the package wrote or a user would bring, and a question. Of a copy one file is damaged: bits
flipped, cut short, bytes overwritten, JSON values of other types, nesting too deep, numbers too large. The question is
then asked in a child. What has a checksum or a fingerprint must answer as before or be refused by name; what a user
could have written just so (documents, qrels) may also be read as it now stands.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from damage import damage

from .child import ANSWER, NAMED, Report, in_child

# A damaged file is read in milliseconds, or it hangs.
TIMEOUT = 30.0


@dataclass(frozen=True)
class Subject:
    """A folder, and a question to it.

    Attributes
    ----------
    name
        What the table calls it.
    write
        Fills an empty folder.
    ask
        Answers, as JSON, from such a folder.
    exact
        Whether an answer must be that of the whole files.
    share
        How many of the cases it gets, against the others.
    """

    name: str
    write: Callable[[Path], Any]
    ask: Callable[[Path], Any]
    exact: bool = True
    share: int = 1


def run(subjects: list[Subject], cases: int, seed: int) -> Report:
    """Damage so many files, of each subject its share."""
    report, shares = Report(), sum(subject.share for subject in subjects)
    for number, subject in enumerate(subjects):
        rng, share = np.random.default_rng([seed, number]), -(-cases * subject.share // shares)
        with tempfile.TemporaryDirectory() as folder:
            _attack(subject, Path(folder), share, rng, report)
    return report


def _attack(subject: Subject, folder: Path, cases: int, rng: np.random.Generator, report: Report) -> None:
    whole, copy = folder / "whole", folder / "copy"
    whole.mkdir()
    subject.write(whole)
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    outcome, expected = in_child(lambda: subject.ask(whole))
    if outcome != ANSWER:
        report.failures.append(f"{subject.name}, nothing damaged: {outcome}: {expected}")
        return
    for number in range(cases):
        # Each question finds the folder as it was written: some open files for writing.
        shutil.copytree(whole, copy)
        file = files[int(rng.integers(len(files)))]
        what = damage(copy / file, rng)
        outcome, found = in_child(lambda: subject.ask(copy), TIMEOUT)
        shutil.rmtree(copy)
        report.counts["files"] += 1
        same = outcome == ANSWER and found == expected
        word = "right answers" if same else "named errors" if outcome == NAMED else "read as they stand"
        if outcome in (ANSWER, NAMED) and (same or outcome == NAMED or not subject.exact):
            report.counts[word] += 1
        else:
            shown = f"answered {found!r:.300}" if outcome == ANSWER else f"{outcome}: {found}"
            report.failures.append(f"{subject.name}, case {number}, {file}: {what}: {shown}")
