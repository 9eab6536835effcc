"""Training pairs without any data: questions and docstrings of installed packages, one domain each.

``pydocs:numpy,pandas`` names the same questions that :mod:`cderetrieval.corpora.pydocs` evaluates on, all of them: a
model that was trained on a package must not be scored on it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

from ..files import atomic_write
from .sources import Source

logger = logging.getLogger(__name__)


def docstring_sources(packages: str) -> list[Source]:
    """Write the pairs of some packages, by name and comma; ``"python"`` is the standard library.

    Raises
    ------
    InputError
        If a package is not installed or holds no docstring that makes a fair question and answer.
    """
    logger.warning("trained on the docstrings of %s: do not evaluate on them.", packages)
    return [_source(package.strip()) for package in packages.split(",")]


def _source(package: str) -> Source:
    from ..corpora import pydocs

    dataset = pydocs.load(package, max_documents=sys.maxsize, max_queries=sys.maxsize)
    documents = {row["id"]: f"{row['title']} {row['text']}".strip() for row in dataset.corpus}
    lines = [
        json.dumps({"query": dataset.queries[query], "document": documents[document], "domain": package})
        for query, judged in dataset.qrels.items()
        for document in judged
    ]
    root = Path(os.environ.get("CDE_CACHE") or Path.home() / ".cache" / "cderetrieval").expanduser()
    path = root / "pairs" / f"pydocs-{package}.jsonl"
    with atomic_write(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return Source(str(path), f"pydocs-{package}")
