"""The protocols that models fulfil (`Encoder`, `ContextualModel`), and `Hits`, what a retriever answers with."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, runtime_checkable

import numpy as np

from .errors import InputError
from .files import atomic_write
from .notebook import html_table
from .values import id_name, shown
from .vectors import TermEmbeddings as TermEmbeddings

if TYPE_CHECKING:
    import pandas as pd


@runtime_checkable
class Encoder(Protocol):
    """Text to vectors; the one contract between models and everything else."""

    @property
    def dimension(self) -> int:
        """Length of a vector; of a sparse one the size of its vocabulary."""

    @property
    def kind(self) -> str:
        """``"dense"``, ``"sparse"`` or ``"sparse-embed"``."""

    @property
    def fingerprint(self) -> str:
        """Digest of all that determines a vector: weights, tokenizer, prompts, length limit and context."""

    def encode_query(self, texts: Sequence[str], *, show_progress: bool = False) -> Any:
        """Vectors of queries (`Vectors` of this encoder's kind), shape (n, dimension), float32."""

    def encode_document(self, texts: Sequence[str], *, show_progress: bool = False) -> Any:
        """Vectors of documents (`Vectors` of this encoder's kind), shape (n, dimension), float32."""


@runtime_checkable
class ContextualModel(Protocol):
    """A model that becomes an :class:`Encoder` once it is given a context."""

    @property
    def context_size(self) -> int:
        """Number of context documents the model was made for (J)."""

    @property
    def exact_context_size(self) -> bool:
        """Whether the weights need exactly that many, so that a smaller corpus is repeated."""

    @property
    def fingerprint(self) -> str:
        """Digest of weights, tokenizer and prompts, without a context."""

    def embed_context(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """First stage: one embedding for each sampled document, shape (J, H), float32."""

    def in_context(self, embeddings: np.ndarray | None, digest: str = "", *, dtype: str = "auto") -> Encoder:
        """Second stage under these context embeddings; `None` is the null context."""


@runtime_checkable
class TermCounting(Protocol):
    """A contextual model that also reads which terms are rare among the context documents."""

    @property
    def fingerprint(self) -> str:
        """Digest of weights, tokenizer and prompts, without a context."""

    def count_terms(self, texts: Sequence[str]) -> np.ndarray | None:
        """In how many of the texts each token occurs, shape (vocabulary,), float32; None: not needed."""

    def in_context(
        self,
        embeddings: np.ndarray | None,
        digest: str = "",
        *,
        terms: np.ndarray | None = None,
        dtype: str = "auto",
    ) -> Encoder:
        """Second stage under these context embeddings and terms; `None` is the null context."""


class Hits(list[list[dict[str, Any]]]):
    """Answers to a list of queries: one list of ``{"id", "similarity"}`` for each, best first.

    Examples
    --------
    >>> hits = Hits([[{"id": "d7", "similarity": 0.9}]], query_ids=["q1"])
    >>> hits.to_frame()
      query_id  rank  id  similarity
    0       q1     1  d7         0.9
    >>> hits.to_run()
    {'q1': {'d7': 0.9}}
    """

    def __init__(self, hits: Sequence[list[dict[str, Any]]], query_ids: Sequence[Hashable] | None = None) -> None:
        super().__init__(hits)
        self.query_ids = list(range(len(self))) if query_ids is None else list(query_ids)

    def to_frame(self) -> pd.DataFrame:
        """One row for each hit: query_id, rank (from 1), id, similarity, and the document where it was asked for."""
        import pandas as pd

        rows = [
            {"query_id": query_id, "rank": rank, **hit}
            for query_id, ranking in zip(self.query_ids, self, strict=True)
            for rank, hit in enumerate(ranking, start=1)
        ]
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["query_id", "rank", "id", "similarity"])

    def _repr_html_(self) -> str:
        """A table of all hits; of a document that was asked for its title, of a passage its heading and text."""
        rows = []
        for query_id, ranking in zip(self.query_ids, self, strict=True):
            for rank, hit in enumerate(ranking, start=1):
                row = {"query": query_id, "rank": rank, "id": hit["id"], "similarity": hit["similarity"]}
                document, passage = hit.get("document") or {}, hit.get("passage") or {}
                found = {"title": document.get("title"), "heading": passage.get("heading")}
                found["text"] = passage.get("text") or document.get("text")
                rows.append({**row, **{name: value for name, value in found.items() if value}})
        return html_table(rows or [{"query": query_id} for query_id in self.query_ids])

    def to_run(self) -> dict[str, dict[str, float]]:
        """The run as pytrec_eval, beir and ir_measures take it: query id to document id to score.

        Raises
        ------
        InputError
            If two ids are one as text, 1 and "1" for example.
        """
        run = {}
        for query_id, ranking in zip(text_ids(self.query_ids, "queries"), self, strict=True):
            names = text_ids([hit["id"] for hit in ranking], f"documents of query {query_id!r}")
            run[query_id] = {name: float(hit["similarity"]) for name, hit in zip(names, ranking, strict=True)}
        text_ids({hit["id"]: None for ranking in self for hit in ranking}, "documents")
        return run

    def to_trec(self, path: str | Path, tag: str = "cderetrieval") -> None:
        """Write a TREC run file: ``query_id Q0 document_id rank score tag``, one hit a line.

        Raises
        ------
        InputError
            If an id or the tag holds white space, which separates the fields of that format.
        """
        run = self.to_run()
        names = {tag, *run, *(name for ranking in run.values() for name in ranking)}
        broken = [name for name in sorted(names) if name.split() != [name] or not _is_text(name)]
        if broken:
            raise InputError(
                f"id {broken[0]!r} is empty or holds white space, which a TREC run cannot hold; use to_frame()."
            )
        lines = [
            f"{query_id} Q0 {name} {rank} {_score(similarity)} {tag}\n"
            for query_id, ranking in run.items()
            for rank, (name, similarity) in enumerate(ranking.items(), start=1)
        ]
        with atomic_write(path) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")


def text_ids(ids: Iterable[Hashable], what: str) -> list[str]:
    """Ids as runs and judgements have them, as text."""
    names: dict[str, Hashable] = {}
    for identity in ids:
        name = id_name(identity)
        if name in names:
            raise InputError(f"{what}: ids {shown(names[name])} and {shown(identity)} are one as text, {name!r}.")
        names[name] = identity
    return list(names)


def _is_text(name: str) -> bool:
    """Whether a name can be written: half of a surrogate pair cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _score(similarity: float) -> str:
    """Six decimals, and all digits where they would lose some."""
    text = f"{similarity:.6f}"
    return text if float(text) == similarity else repr(float(similarity))


def is_contextual(model: Any) -> TypeGuard[ContextualModel]:
    """Whether a model needs a context to become an encoder."""
    return hasattr(model, "in_context")
