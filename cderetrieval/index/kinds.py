"""FAISS indexes by their factory strings: those that can be synced, searched, thinned out, saved and opened here.

FAISS makes many more. Some cannot add without ids (``IDMap,Flat``) or search without what was removed (``PQ16``,
``NSG32``), some cannot be read back, and some end the whole process, ``HNSW1`` or ``IVF4,PQ4x4fs`` for example. Each
kind in these lists was tried; what is not in them is refused before a document is stored for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import faiss

from ..errors import ConfigError

FLAT = ("IndexFlat", "IndexFlatIP", "IndexFlatL2")
CODES = ("IndexScalarQuantizer", "IndexRaBitQ")
GRAPHS = ("IndexHNSWFlat", "IndexHNSWSQ", "IndexHNSWPQ")
LISTS = ("IndexIVFFlat", "IndexIVFScalarQuantizer", "IndexIVFPQ", "IndexIVFRaBitQ")
REFINED = ("IndexRefine", "IndexRefineFlat")
PLAIN = (*FLAT, *CODES, *GRAPHS, *LISTS)
# What an index wraps, and which kinds that may be.
WRAPPED: dict[str, dict[str, tuple[str, ...]]] = {
    "IndexPreTransform": {"index": PLAIN},
    **{
        name: {"base_index": (*PLAIN, "IndexPreTransform"), "refine_index": (*FLAT, *CODES, *GRAPHS, "IndexPQ")}
        for name in REFINED
    },
    **{name: {"quantizer": (*FLAT, "IndexHNSWFlat")} for name in LISTS},
    **{name: {"storage": (*FLAT, "IndexScalarQuantizer", "IndexPQ")} for name in GRAPHS},
}
# No setting of a kind is larger: four million lists or links take gigabytes before a vector is added.
LARGEST = 2**22
LINKS = range(2, 2_049)
# Centres that a sample for training can place, for each part of a vector.
CENTRES = 2**14
PADDING = 8
ADVICE = "use 'auto', or a kind such as 'Flat', 'SQ8', 'HNSW32' or 'IVF256,SQ8'"


def check_factory(factory: Any) -> None:
    """Refuse what is no factory string of a kind that works here, as far as that shows without a dimension."""
    if not isinstance(factory, str):
        raise ConfigError(f"index={factory!r} is {type(factory).__name__}, not a string; {ADVICE}.")
    if re.search(r"(^|,)\s*IDMap", factory):
        raise _refused(factory, "an IDMap keeps numbers of its own")
    if large := [digits for digits in re.findall(r"\d+", factory) if len(digits) > 7 or int(digits) > LARGEST]:
        raise _refused(factory, f"{large[0][:20]} is above {LARGEST}")


def make(dimension: int, factory: str) -> Any:
    """An empty FAISS index of a kind that works here."""
    check_factory(factory)
    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
        reason = _unfit(index, (*PLAIN, *REFINED, "IndexPreTransform"))
    except (RuntimeError, MemoryError, TypeError) as error:
        raise ConfigError(
            f"factory={factory!r} is no FAISS index of {dimension} dimensions ({str(error).splitlines()[0]}); {ADVICE}."
        ) from error
    if reason:
        raise _refused(factory, reason)
    return index


def parts(index: Any) -> Iterator[Any]:
    """The index and, from the outside in, those it wraps."""
    index = faiss.downcast_index(index)
    yield index
    for name in WRAPPED.get(type(index).__name__, ()):
        yield from parts(getattr(index, name))


def centres(index: Any) -> int:
    """Centres that the codes of an index place in each part of a vector, at most; 0 where they are no product codes."""
    return max(int(part.pq.ksub) if hasattr(part, "pq") else 0 for part in parts(index))


def widths(index: Any) -> list[tuple[Any, int, int]]:
    """Each transformation before an index, with the dimensions that go in and come out."""
    chains = [part.chain for part in parts(index) if isinstance(part, faiss.IndexPreTransform)]
    steps = [faiss.downcast_VectorTransform(chain.at(i)) for chain in chains for i in range(chain.size())]
    return [(step, step.d_in, step.d_out) for step in steps]


def _unfit(index: Any, allowed: tuple[str, ...]) -> str:
    """Why an index is none of those that work here; empty where it is one."""
    index = faiss.downcast_index(index)
    name = type(index).__name__
    if name not in allowed:
        return f"a FAISS {name} does not do all that is needed"
    if name in GRAPHS and index.hnsw.nb_neighbors(1) not in LINKS:
        return f"HNSW takes {LINKS[0]} to {LINKS[-1]} links"
    if name in LISTS and index.nlist < 1:
        return "there is no list"
    for step, before, after in widths(index):
        free = isinstance(step, faiss.RandomRotationMatrix | faiss.RemapDimensionsTransform)
        if not 1 <= after <= (PADDING * before if free else before):
            return f"{before} dimensions do not become {after}"
    if centres(index) > CENTRES:
        return f"{centres(index)} centres for each part of a vector are more than a sample of the vectors places"
    reasons = (_unfit(getattr(index, part), kinds) for part, kinds in WRAPPED.get(name, {}).items())
    return next(filter(None, reasons), "")


def _refused(factory: str, reason: str) -> ConfigError:
    return ConfigError(
        f"factory={factory!r} is no index that can be searched, changed and saved here: {reason}; {ADVICE}."
    )
