"""The embedded corpus: docstrings of installed Python packages, a retrieval task in real prose without a download.

The query is the first paragraph of a docstring, the document the rest of it (see `docstrings`). Exact duplicates are
dropped. A query must ask for one document, so repeated queries, documents with a near-duplicate (Jaccard 0.75) and
documents of fewer than 30 words are not asked for, but stay in the corpus. The sample is drawn by a digest of the
content, so it is the same on every machine with the same versions; the dataset's revision tells them apart.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
import sysconfig
from collections import Counter
from pathlib import Path

import numpy as np

from ..errors import InputError, StoreError
from ..files import read_json, unsealed, write_sealed
from .dataset import Dataset, make_dataset
from .docstrings import count_words, normalized, source_docstrings

logger = logging.getLogger(__name__)

EXTRACTOR_VERSION = 2
NEAR_DUPLICATE = 0.75
MIN_ANSWER_WORDS = 30

# Dependencies of this project with at least 500 documents each.
_DEFAULT = ("networkx", "numpy", "pandas", "python", "scipy", "sklearn", "sympy", "torch")

# Vendored code belongs to other packages, and transformers/models repeats one file for each model.
_SKIP = frozenset({"vendored", "externals", "extern", "site-packages", "dist-packages", "idlelib", "lib2to3"})
_SKIP_IN = {"transformers": frozenset({"models"})}


def packages() -> list[str]:
    """Import names of the default corpora that are installed here; ``"python"`` is the standard library."""
    return [name for name in _DEFAULT if name == "python" or importlib.util.find_spec(name) is not None]


def load(
    package: str,
    max_documents: int = 2_000,
    max_queries: int = 200,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Build the retrieval task of one package.

    Parameters
    ----------
    package
        Import name of an installed package (``"sklearn"``, not ``"scikit-learn"``), or ``"python"``.
    max_documents, max_queries
        Larger corpora are sampled down, by a digest of seed and content.
    seed
        Which sample.
    cache
        Folder for the extracted docstrings; by default the environment's CDE_CACHE, else ``~/.cache/cderetrieval``.

    Raises
    ------
    InputError
        If the package is not installed or holds no docstring that makes a fair question and answer.
    """
    rows = sorted(_rows(package, cache_folder(cache)), key=lambda row: _draw(row, seed))[:max_documents]
    rows.sort(key=lambda row: row["id"])
    if not rows:
        raise InputError(f"{package!r} holds no usable docstring; use one of {', '.join(packages())}.")
    asked = sorted(_askable(rows), key=lambda row: _draw(row, seed + 1))[:max_queries]
    queries = {f"q:{row['id']}": row["query"] for row in sorted(asked, key=lambda row: row["id"])}
    return make_dataset(f"pydocs-{package}", rows, queries, {query: {query[2:]: 1} for query in queries})


def _askable(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    n_same = Counter(normalized(row["query"]) for row in rows)
    crowded = near_duplicates([row["text"] for row in rows])
    return [
        row
        for row, near in zip(rows, crowded, strict=True)
        if not near and n_same[normalized(row["query"])] == 1 and count_words(row["text"]) >= MIN_ANSWER_WORDS
    ]


def near_duplicates(texts: list[str], threshold: float = NEAR_DUPLICATE) -> np.ndarray:
    """Whether each text shares at least `threshold` of its words with another one (Jaccard), shape (n,), bool.

    >>> near_duplicates(["the sum of all rows", "the sum of all columns", "a graph"], threshold=0.6).tolist()
    [True, True, False]
    """
    from scipy.sparse import csr_matrix

    words = [sorted(set(normalized(text).split())) for text in texts]
    vocabulary = {word: i for i, word in enumerate(sorted({word for row in words for word in row}))}
    columns = [vocabulary[word] for row in words for word in row]
    starts = np.cumsum([0, *map(len, words)])
    # float32: scipy multiplies it as fast as integers, and counts below 2**24 are exact
    matrix = csr_matrix((np.ones(len(columns), np.float32), columns, starts), shape=(len(texts), len(vocabulary)))
    shared = (matrix @ matrix.T).toarray()
    sizes = np.diff(starts)
    jaccard = shared / np.maximum(sizes[:, None] + sizes[None, :] - shared, 1)
    np.fill_diagonal(jaccard, 0)
    return np.asarray((jaccard >= threshold).any(axis=1))


def _draw(row: dict[str, str], seed: int) -> str:
    return hashlib.sha256(json.dumps([seed, row["id"], row["query"], row["text"]]).encode()).hexdigest()


def cache_folder(cache: str | os.PathLike[str] | None = None) -> Path:
    """Where extracted docstrings are kept: the folder given, or the environment's, or the user's."""
    return Path(cache or os.environ.get("CDE_CACHE") or Path.home() / ".cache" / "cderetrieval").expanduser()


def _rows(package: str, folder: Path) -> list[dict[str, str]]:
    root, version = _locate(package)
    path = folder / "pydocs" / f"{package}-{version}-x{EXTRACTOR_VERSION}.json"
    if path.exists():
        try:
            return list(unsealed(path, read_json(path))["rows"])
        except (StoreError, KeyError, TypeError, RecursionError) as error:
            logger.warning("The cache %s is damaged and is built again (%s).", path, error)
    rows = _extract(package, root)
    try:
        write_sealed(path, {"rows": rows})
    except OSError as error:
        logger.warning("Docstrings of %s are not cached: %s", package, error)
    return rows


def _locate(package: str) -> tuple[Path, str]:
    """Folder (or file) and version of a package, found without importing it."""
    if package == "python":
        return Path(sysconfig.get_path("stdlib")), platform.python_version()
    # find_spec would import the parent of a dotted name
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise InputError(f"No package {package!r} is installed; use an import name such as {', '.join(packages())}.")
    root = Path(spec.submodule_search_locations[0]) if spec.submodule_search_locations else Path(spec.origin)
    try:
        return root, importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        distributions = importlib.metadata.packages_distributions().get(package)
        return root, importlib.metadata.version(distributions[0]) if distributions else "unknown"


def _extract(package: str, root: Path) -> list[dict[str, str]]:
    module = "" if package == "python" else package
    rows: dict[str, dict[str, str]] = {}
    bodies: set[str] = set()
    found = source_docstrings(root, module, _SKIP | _SKIP_IN.get(package, frozenset()))
    for docstring in sorted(found, key=lambda docstring: docstring.name):
        body = normalized(docstring.body)
        if body not in bodies and docstring.name not in rows:
            bodies.add(body)
            rows[docstring.name] = {"id": docstring.name, "query": docstring.summary, "text": docstring.body}
    return list(rows.values())
