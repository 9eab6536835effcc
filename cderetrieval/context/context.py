"""The context of a corpus: which documents stand for it, and their first-stage embeddings.

A context is computed once and then shared by every query and document of an index. It is a value: made by a function
below, saved to one safetensors file, compared by its digest, and refused by any model but the one that made it.

Where it can come from: a sample of the corpus (``"own"``), a list of texts, a file, this package's neutral sentences
(``"random"``, for a corpus that is not known yet), or nothing (``"null"``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as resource_files
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ContextError, InputError, StoreError
from ..files import as_path, private_mode, read_tensors, reading, write_tensors
from ..notebook import html_table
from ..types import ContextualModel, Encoder, TermCounting
from .sample import sample_texts

FORMAT = 1
_KINDS: dict[str, type[Any]] = {
    **{"format": int, "seed": int, "ids": list},
    **dict.fromkeys(("source", "model", "text_digest"), str),
}


@dataclass(frozen=True)
class Context:
    """What a corpus looks like to a contextual model.

    Attributes
    ----------
    embeddings
        First-stage embeddings, shape (J, H), float32; None for the null context.
    ids
        Ids of the sampled documents, in the order of `embeddings`; empty where the texts had none.
    source
        ``"own"``, ``"texts"``, ``"file"``, ``"random"`` or ``"null"``.
    seed
        Seed of the sample.
    model
        Fingerprint of the model whose first stage made it.
    text_digest
        Digest of the texts, in order.
    terms
        In how many of the documents each token occurs, shape (vocabulary,), where the model asks for that.

    Examples
    --------
    >>> from cderetrieval.testing import tiny_model
    >>> model = tiny_model()
    >>> context = Context.from_texts(model, ["on birds", "on bees", "on trees"])
    >>> context
    Context(texts, 3 documents, seed 0)
    >>> context.encoder(model).encode_document(["a nest"]).shape
    (1, 32)
    """

    embeddings: np.ndarray | None
    ids: tuple[Hashable, ...]
    source: str
    seed: int
    model: str
    text_digest: str
    terms: np.ndarray | None = None

    def __repr__(self) -> str:
        return f"Context({self.source}, {len(self)} documents, seed {self.seed})"

    def _repr_html_(self) -> str:
        """The documents that were sampled."""
        return html_table([{"sampled": identity} for identity in self.ids], repr(self))

    def __len__(self) -> int:
        return 0 if self.embeddings is None else len(self.embeddings)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Context) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def digest(self) -> str:
        """Name of the context: model, texts and their order. Part of every fingerprint."""
        return hashlib.sha256(f"{self.model}:{self.text_digest}".encode()).hexdigest()

    @classmethod
    def from_texts(
        cls,
        model: ContextualModel,
        texts: Sequence[str],
        *,
        ids: Sequence[Hashable] = (),
        source: str = "texts",
        seed: int = 0,
        size: int | None = None,
        show_progress: bool = False,
    ) -> Context:
        """Embed texts as a context.

        Parameters
        ----------
        model
            A contextual model.
        texts
            Documents, without prompt; duplicates count once, and more than `size` are sampled down to it, unless
            `ids` are given: then the texts are a sample already and taken as they are.
        ids
            Ids of the texts.
        source, seed
            Recorded with the context.
        size
            Number of documents; None: what the model was made for.
        show_progress
            Show a progress bar on a terminal.

        Raises
        ------
        InputError
            If there is no text, or one is empty or no string.
        """
        if isinstance(texts, str):
            raise InputError("a context is a list of texts, not one string; for a file pass a pathlib.Path.")
        for row, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"context text {row} is {'empty' if isinstance(text, str) else type(text).__name__}.")
        size = size or model.context_size
        chosen = list(texts) if ids else sample_texts(texts, size, seed)
        if not chosen:
            raise InputError("a context needs at least one text; for no context pass context=None.")
        if model.exact_context_size and len(chosen) < model.context_size:
            # Published weights have only ever seen exactly J documents: a small corpus is repeated until it has J.
            copies = -(-model.context_size // len(chosen))
            chosen = (chosen * copies)[: model.context_size]
            ids = (list(ids) * copies)[: model.context_size]
        digest = hashlib.sha256("\0".join(chosen).encode("utf-8", "surrogatepass")).hexdigest()
        embeddings = model.embed_context(chosen, show_progress=show_progress)
        terms = model.count_terms(chosen) if isinstance(model, TermCounting) else None
        return cls(embeddings, tuple(ids), source, seed, model.fingerprint, digest, terms)

    @classmethod
    def random(cls, model: ContextualModel, *, seed: int = 0, size: int | None = None) -> Context:
        """Neutral sentences that come with this package, for a corpus that is not known yet."""
        return cls.from_texts(model, neutral_sentences(), source="random", seed=seed, size=size)

    @classmethod
    def null(cls, model: ContextualModel) -> Context:
        """No context: the model's learned null token, or no context document where it has none."""
        return cls(None, (), "null", 0, model.fingerprint, "null")

    def check(self, model: ContextualModel) -> None:
        """Refuse any model but the one that made this context.

        Raises
        ------
        ContextError
            If the fingerprints differ.
        """
        if self.model != model.fingerprint:
            raise ContextError(
                f"this context was made by model {self.model[:12]}, not by {model.fingerprint[:12]}: first-stage "
                "embeddings of one model mean nothing to another. Make it anew with Context.from_texts(model, texts)."
            )

    def encoder(self, model: ContextualModel, *, dtype: str = "auto", checked: bool = False) -> Encoder:
        """The model's second stage in this context; `checked` where the caller knows that it is this context's."""
        if not checked:
            self.check(model)
        if isinstance(model, TermCounting):
            return model.in_context(self.embeddings, self.digest, terms=self.terms, dtype=dtype)
        return model.in_context(self.embeddings, self.digest, dtype=dtype)

    def plot(self, labels: Sequence[str] | None = None, *, axes: Any = None) -> Any:
        """Draw the sampled documents on a plane, near ones beside each other; needs matplotlib.

        Parameters
        ----------
        labels
            What to write beside each, in the order of `ids`.
        axes
            Axes of matplotlib to draw into; None: those of a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes; ``axes.figure.savefig("context.png")`` writes them.

        Raises
        ------
        ContextError
            If this is the null context.
        """
        from .plane import plot_context

        return plot_context(self, labels, axes)

    def describe(self) -> dict[str, Any]:
        """Everything but the embeddings, as JSON values."""
        return {
            "format": FORMAT,
            "source": self.source,
            "documents": len(self),
            "ids": list(self.ids),
            "seed": self.seed,
            "model": self.model,
            "text_digest": self.text_digest,
            "digest": self.digest,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """Embeddings and terms by name; empty for the null context."""
        arrays = {"embeddings": self.embeddings, "terms": self.terms}
        return {name: array for name, array in arrays.items() if array is not None}

    @classmethod
    def restore(cls, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Context:
        """Rebuild a context from :meth:`describe` and :meth:`arrays`.

        Raises
        ------
        ContextError
            If it is of a newer version, or holds what no context does.
        """
        description = {"format": 0, **description}
        for name, kind in _KINDS.items():
            if not isinstance(description.get(name), kind):
                raise ContextError(f"{name!r} of this context is no {kind.__name__}; make the context anew.")
        if description["format"] > FORMAT:
            raise ContextError(f"this context has format {description['format']}; upgrade cderetrieval to read it.")
        for name, array in arrays.items():
            if array.dtype.kind != "f" or not np.isfinite(array).all():
                raise ContextError(f"the {name} of this context are no finite numbers; make the context anew.")
        return cls(
            arrays.get("embeddings"),
            tuple(description["ids"]),
            description["source"],
            description["seed"],
            description["model"],
            description["text_digest"],
            arrays.get("terms"),
        )

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, atomically, which only its owner can read until its permissions are changed."""
        path, description = as_path(path), json.dumps(self.describe())
        metadata = {"context": description, "sha256": _checksum(description, self.arrays())}
        write_tensors(path, self.arrays(), metadata, mode=private_mode(path))

    @classmethod
    def load(cls, path: str | Path) -> Context:
        """Read a file that :meth:`save` wrote.

        Raises
        ------
        StoreError
            If the file is missing or damaged.
        ContextError
            If it is a safetensors file of something else.
        """
        path = as_path(path)
        arrays, metadata = read_tensors(path)
        if "context" not in metadata:
            raise ContextError(f"{path} is not a context: it was not written by Context.save.")
        # safetensors notices a truncated file, not a flipped bit.
        if metadata.get("sha256") != _checksum(metadata["context"], arrays):
            raise StoreError(f"{path} does not match its checksum. Restore it from a copy, or make it anew.")
        with reading(path):
            return cls.restore(json.loads(metadata["context"]), arrays)


def _checksum(description: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(description.encode("utf-8", "surrogatepass"))
    for name in sorted(arrays):
        digest.update(f"{name}{arrays[name].shape}{arrays[name].dtype}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def neutral_sentences() -> list[str]:
    """512 sentences about nothing in particular, the stand-in for an unknown corpus."""
    text = (resource_files("cderetrieval.context") / "neutral.txt").read_text(encoding="utf-8")
    return text.splitlines()


def read_texts(path: str | Path) -> list[str]:
    """Texts of a context file: one a line, or in JSONL the fields ``title`` and ``text`` of one object a line."""
    path = as_path(path)
    try:
        # Not splitlines(): a document may hold U+2028, a form feed, and other characters that end a line there.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ContextError(f"context file {path} cannot be read ({error}).") from error
    if path.suffix != ".jsonl":
        return [line.strip() for line in lines if line.strip()]
    texts = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            texts.append(" ".join([row.get("title") or "", row["text"]]).strip())
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise ContextError(f"{path} line {number}: expected a JSON object with 'text' ({error!r}).") from error
    return texts
