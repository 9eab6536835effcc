"""Qrels and runs in whatever form they come, made one: query id to document id to grade or score.

The forms are those that `ir_measures` accepts, and this package's own hits: nested dictionaries, data frames, tuples or
named tuples, TREC and BEIR files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import judgements
from ..corpora.qrels import read_qrels, read_rows
from ..errors import InputError
from ..files import as_path
from ..values import shown

Run = dict[str, dict[str, float]]
SCORE_COLUMNS = ("score", "similarity", "sim")


def as_qrels(qrels: Any) -> dict[str, dict[str, int]]:
    """Judgements as nested dictionaries.

    Parameters
    ----------
    qrels
        Any form that :func:`cderetrieval.judgements.as_qrels` reads, or the path of a TREC or BEIR file.

    Raises
    ------
    InputError
        If a grade is no whole number, or the form is none of these.

    Examples
    --------
    >>> as_qrels([("q1", "d1", 1), ("q1", "d2", 0)])
    {'q1': {'d1': 1, 'd2': 0}}
    """
    return read_qrels(qrels) if isinstance(qrels, str | Path) else judgements.as_qrels(qrels)


def as_run(run: Any) -> Run:
    """Scored documents as nested dictionaries.

    Parameters
    ----------
    run
        Nested dictionary, data frame or tuples, as for :func:`as_qrels`, with scores; a
        :class:`~cderetrieval.types.Hits`; or the path of a TREC run file.

    Raises
    ------
    InputError
        If a score is no number, or the form is none of these.

    Examples
    --------
    >>> as_run({"q1": {"d1": 0.5}})
    {'q1': {'d1': 0.5}}
    """
    if isinstance(run, str | Path):
        run = _read_run(as_path(run))
    return judgements.nested(run.to_run() if hasattr(run, "to_run") else run, SCORE_COLUMNS, "run", _score)


def _score(value: Any, where: str) -> float:
    try:
        score = float(value)
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if math.isnan(score):
        raise InputError(f"run: the score of {where} is no number: {shown(value)}.")
    return score


def _read_run(path: Path) -> Iterator[tuple[str, str, str]]:
    for number, fields in read_rows(path):
        if len(fields) != 6:
            form = "query Q0 document rank score tag"
            raise InputError(f"{path}, line {number}: {len(fields)} columns; a TREC run has six: {form}.")
        yield fields[0], fields[2], fields[4]
