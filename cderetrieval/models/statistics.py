"""A context without training: what the statistics of a corpus do to the vectors of any dense encoder.

    u        vector of a text, length 1                 m_d, m_q   means of sampled documents and of pseudo-queries
    v        u - centre * (m_q for a query, m_d for a document)
    v        v - contrast * sum_j softmax_j(scale * v0.(c_j - m_d)) (c_j - m_d),   c_j the sampled documents
    query    normalise([normalise(v) | term_weight * sketch of its terms | 0])
    document [normalise(v) | term_weight * sketch of its terms | rest] / its greatest possible length

All texts of a narrow corpus share a direction that tells none of them apart: the mean takes it out (arXiv 2511.11041),
the soft mean of the nearest sampled documents does the same for each topic. Queries have a mean of their own; nobody
has them in advance, so short spans of the sampled documents stand for them. And a corpus says which terms are rare:
`term_sketch` gives those a place. The statistics of 512 documents are computed once; a text then costs what it costs
without them. In the null context all of this is absent, and the vectors are the encoder's own.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, InputError
from ..files import as_path, atomic_write, read_json, write_json
from ..vectors import unit
from .card import statistics_card
from .dense import DenseEncoder
from .encoder import EncodingSettings
from .locate import STATISTICS_FILE
from .term_sketch import (
    LONGEST,
    document_frequencies,
    rarity,
    sign_vectors,
    sketch,
    term_counts,
    weighed,
    words_of_tokens,
)
from .usable import Usable

# Part of every fingerprint: whoever changes how vectors are made changes it, and earlier indexes are refused by name.
_METHOD = "statistics-2"
# Queries and documents whose nearest context documents are weighted together: 16 MB at 512 of these.
_CHUNK = 8_192


@dataclass(frozen=True)
class StatisticsConfig:
    """Which statistics of a context are used, and how strongly; chosen on held-out slices of training sets.

    Parameters
    ----------
    centre
        Share of the mean that is subtracted, 0 to 1.
    contrast, contrast_scale
        Share of the soft mean of the nearest context documents that is subtracted, and how sharply they are chosen.
    term_dimensions, term_weight
        Dimensions that are added for terms (0: none; of others the last is the rest), and how long the terms of a text
        with 24 of them are beside the encoder's 1.
    query_words
        Words of a pseudo-query.
    context_size
        Number of context documents.

    Raises
    ------
    ConfigError
        If a value is out of range, or only one of `term_dimensions` and `term_weight` is set.

    Examples
    --------
    >>> StatisticsConfig(term_dimensions=640, term_weight=0.7).context_size
    512
    """

    centre: float = 0.5
    contrast: float = 0.3
    contrast_scale: float = 8.0
    term_dimensions: int = 0
    term_weight: float = 0.0
    query_words: int = 8
    context_size: int = 512

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, whole = getattr(self, field.name), field.type == "int"
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise ConfigError(f"{field.name}={value!r} must be a {'whole ' if whole else ''}number.")
        for name in ("centre", "contrast"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)!r} must lie between 0 and 1.")
        for name in ("contrast_scale", "query_words", "context_size"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)!r} must be above 0.")
        if self.term_dimensions < 0 or self.term_dimensions == 1:
            raise ConfigError(f"term_dimensions={self.term_dimensions!r} must be 2 or more, or 0 for none.")
        if self.term_weight < 0 or (self.term_weight > 0) != (self.term_dimensions > 0):
            raise ConfigError(
                f"term_weight={self.term_weight!r} and term_dimensions={self.term_dimensions!r} belong together: both "
                "above 0, or both 0."
            )


def read_settings(values: Mapping[str, Any], source: str) -> StatisticsConfig:
    """Settings from JSON values; an unknown one is an error that names it and `source`."""
    known = {field.name for field in dataclasses.fields(StatisticsConfig)}
    if unknown := sorted(set(values) - known):
        raise ConfigError(f"{source}: unknown settings {', '.join(unknown)}; known are {', '.join(sorted(known))}.")
    return StatisticsConfig(**values)


def write_settings(config: StatisticsConfig, path: str | Path) -> None:
    """Put a dense model's directory under the statistics of its corpus."""
    write_json(Path(path) / STATISTICS_FILE, asdict(config))


def pseudo_query(text: str, words: int) -> str:
    """A few words in a row from somewhere in a text; where they start is decided by the text itself."""
    found = text.split()
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    start = int.from_bytes(digest, "little") % max(1, len(found) - words + 1)
    return " ".join(found[start : start + words]) or text


class _NamedAfter:
    """Fingerprints that are made of those of another encoder, `named_after`."""

    named_after: Any

    def _named(self, other: str) -> str:
        raise NotImplementedError

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the encoder and what is added to it."""
        return self._named(self.named_after.fingerprint)

    @property
    def other_fingerprints(self) -> tuple[str, ...]:
        """Other fingerprints of the encoder, and what is added to it."""
        return tuple(map(self._named, self.named_after.other_fingerprints))

    @property
    def is_known_by_vectors(self) -> bool:
        """Whether only its vectors can tell what the encoder made."""
        return bool(self.named_after.is_known_by_vectors)


class StatisticsModel(Usable, _NamedAfter):
    """A dense encoder that takes the statistics of a corpus as its context.

    Parameters
    ----------
    encoder
        Any encoder of vectors of length 1.
    config
        Which statistics.

    Raises
    ------
    ConfigError
        If the encoder's vectors do not have length 1, or terms are wanted of a model that has no tokenizer.

    Examples
    --------
    >>> from cderetrieval import Context, load
    >>> from cderetrieval.testing import tiny_dense_directory
    >>> model = StatisticsModel(load(tiny_dense_directory()))
    >>> context = Context.from_texts(model, ["owls hunt at night", "bees make honey"])
    >>> context.encoder(model).encode_query(["what do bees make?"]).shape
    (1, 32)
    """

    exact_context_size = False

    def __init__(self, encoder: DenseEncoder, config: StatisticsConfig | None = None) -> None:
        self.encoder = self.named_after = encoder
        self.config = config or StatisticsConfig()
        if not encoder.settings.normalize:
            raise ConfigError(
                "this model compares vectors by inner product; statistics of a corpus need vectors of length 1. Use a "
                "model with cosine similarity, or no context."
            )
        if self.config.term_dimensions and not callable(encoder.tokenizer):
            raise ConfigError(f"{type(encoder.tokenizer).__name__} counts no terms: set term_dimensions=0.")

    @classmethod
    def from_pretrained(cls, path: str | Path, **compute: Any) -> StatisticsModel:
        """Read a directory that :meth:`save_pretrained` wrote; any sentence-transformers directory is one without it.

        Parameters
        ----------
        path
            The directory.
        **compute
            `device`, `dtype`, `runtime` and `precision` of a :class:`~.dense.DenseEncoder`.

        Raises
        ------
        ConfigError
            If ``statistics.json`` holds an unknown setting.
        """
        path = as_path(path)
        file = path / STATISTICS_FILE
        config = read_settings(read_json(file) if file.is_file() else {}, str(file))
        return cls(DenseEncoder(str(path), **compute), config)

    def save_pretrained(self, path: str | Path) -> None:
        """Write the encoder as a sentence-transformers directory, and the settings beside it as ``statistics.json``."""
        path = as_path(path)
        self.encoder.model.save_pretrained(str(path), create_model_card=False)
        with atomic_write(path / "README.md") as temporary:
            temporary.write_text(statistics_card(self.encoder, asdict(self.config), name=path.name), encoding="utf-8")
        write_settings(self.config, path)

    @property
    def context_size(self) -> int:
        """Number of context documents."""
        return self.config.context_size

    def _named(self, other: str) -> str:
        settings = json.dumps(asdict(self.config), sort_keys=True)
        return hashlib.sha256(f"{_METHOD}:{other}:{settings}".encode()).hexdigest()

    def embed_context(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """Vectors of each sampled document and of a pseudo-query made from it, shape (J, 2, H), float32."""
        queries = [pseudo_query(text, self.config.query_words) for text in texts]
        documents = self.encoder.encode_sample(texts, show_progress=show_progress)
        return np.stack([documents, self.encoder.encode_query(queries)], axis=1)

    def count_terms(self, texts: Sequence[str]) -> np.ndarray | None:
        """In how many of the texts each token occurs, shape (vocabulary,); None where terms are not used."""
        if not self.config.term_dimensions:
            return None
        return document_frequencies(term_counts(texts, self.encoder.tokenizer, self.encoder.settings.max_length))

    def in_context(
        self,
        embeddings: np.ndarray | None,
        digest: str = "",
        *,
        terms: np.ndarray | None = None,
        dtype: str = "auto",
    ) -> StatisticsEncoder:
        """The encoder under these statistics.

        Parameters
        ----------
        embeddings
            From :meth:`embed_context`; None: the null context.
        digest
            Names the context inside the encoder's fingerprint.
        terms
            From :meth:`count_terms`.
        dtype
            Number format of the computation; ``"auto"``: the encoder's own.
        """
        return StatisticsEncoder(self, embeddings, digest, terms, dtype)


class StatisticsEncoder(_NamedAfter):
    """A dense encoder under the statistics of one corpus: an encoder like any other."""

    kind = "dense"

    def __init__(
        self, model: StatisticsModel, embeddings: np.ndarray | None, digest: str, terms: np.ndarray | None, dtype: str
    ) -> None:
        self.model = self.named_after = model
        self.context_digest = digest or _digest(embeddings, terms)
        self._encoder = copy.copy(model.encoder)
        if dtype != "auto":
            self.settings = dataclasses.replace(self.settings, dtype=dtype)
        self._means: dict[bool, np.ndarray] = {}
        self._idf = None
        if embeddings is not None and len(embeddings):
            if embeddings.shape[1:] != (2, model.encoder.dimension):
                raise InputError(
                    f"context embeddings have shape {embeddings.shape}; expected (documents, 2, "
                    f"{model.encoder.dimension}), the output of embed_context."
                )
            documents, queries = embeddings[:, 0], embeddings[:, 1]
            self._means = {False: documents.mean(axis=0), True: queries.mean(axis=0)}
            self._documents = documents - self._means[False]
            if terms is not None:
                self._idf = rarity(terms, len(embeddings))

    @property
    def settings(self) -> EncodingSettings:
        """Length limit, prompts and number format of the encoder."""
        return self._encoder.settings

    @settings.setter
    def settings(self, settings: EncodingSettings) -> None:
        self._encoder.settings = settings

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.model.encoder.dimension) + self.model.config.term_dimensions

    def _named(self, other: str) -> str:
        return hashlib.sha256(f"{other}:{self.context_digest}".encode()).hexdigest()

    @property
    def cache_bytes(self) -> int:
        """Memory of the statistics that all texts share."""
        held = [*self._means.values(), *([] if self._idf is None else [self._idf])]
        return sum(array.nbytes for array in held) + (self._documents.nbytes if self._means else 0)

    def encode_query(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """Vectors of queries, shape (n, dimension), float32."""
        return self.encode(texts, prompt_name="query", show_progress=show_progress)

    def encode_document(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """Vectors of documents, shape (n, dimension), float32."""
        return self.encode(texts, prompt_name="document", show_progress=show_progress)

    def query_terms(self, text: str, vector: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Words of a query and what each adds to its vector, shape (words, dimension); none where terms do not count.

        The rows add up to the vector's term dimensions; tokens count to the first word that they are in.
        """
        size = self.model.config.term_dimensions
        if not size or self._idf is None:
            return [], np.zeros((0, self.dimension))
        tokenizer, first, most = self._encoder.tokenizer, self.dimension - size, self.settings.max_length
        found = weighed(term_counts([text], tokenizer, most), self._idf)
        rows = np.zeros((len(found.indices), self.dimension))
        rows[:, first:-1] = found.data[:, None] * sign_vectors(found.shape[1], size - 1)[found.indices]
        length = np.linalg.norm(rows.sum(axis=0))
        rows *= np.linalg.norm(vector[first:]) / (length or 1)
        words = words_of_tokens(text, tokenizer, most)
        names = [words[token] for token in found.indices.tolist()]
        distinct = list(dict.fromkeys(names))
        together = np.zeros((len(distinct), self.dimension))
        np.add.at(together, [distinct.index(name) for name in names], rows)
        return distinct, together

    def encode(self, texts: Sequence[str], *, prompt_name: str = "document", show_progress: bool = False) -> np.ndarray:
        """Vectors of texts under a prompt of the encoder, shape (n, dimension), float32, length 1.

        Texts of any prompt but ``"query"`` and ``"document"`` are taken for documents that are to be compared with each
        other: as documents, without the rest.
        """
        config = self.model.config
        vectors = self._encoder.encode(texts, prompt_name=prompt_name, show_progress=show_progress)
        if self._means:
            mean = self._means[prompt_name == "query"]
            for start in range(0, len(vectors), _CHUNK):
                part = vectors[start : start + _CHUNK]
                adapted = part - config.centre * mean
                if config.contrast:
                    nearness = config.contrast_scale * part @ self._documents.T
                    nearness = np.exp(nearness - nearness.max(axis=1, keepdims=True))
                    nearness /= nearness.sum(axis=1, keepdims=True)
                    adapted -= config.contrast * (nearness @ self._documents)
                part[:] = unit(adapted)
        if not config.term_dimensions:
            return vectors
        if self._idf is None:  # where no term is known to be rare, terms are left out
            return np.pad(vectors, ((0, 0), (0, config.term_dimensions)))
        counts = term_counts(texts, self._encoder.tokenizer, self._encoder.settings.max_length)
        terms = config.term_weight * sketch(counts, self._idf, config.term_dimensions - 1)
        joined = np.hstack([vectors, terms, np.zeros((len(vectors), 1), dtype=np.float32)])
        if prompt_name != "document":
            return unit(joined)
        # Length 1 again, by the rest: one factor for all documents keeps the order of their inner products with a
        # query, and not every index and metric takes vectors of different lengths.
        joined /= np.float32(np.hypot(1, config.term_weight * LONGEST))
        joined[:, -1] = np.sqrt(np.maximum(0, 1 - (joined**2).sum(axis=1)))
        return joined


def _digest(embeddings: np.ndarray | None, terms: np.ndarray | None) -> str:
    """Name a context that came without a name."""
    if embeddings is None:
        return "null"
    digest = hashlib.sha256(np.ascontiguousarray(embeddings).data)
    if terms is not None:
        digest.update(np.ascontiguousarray(terms).data)
    return digest.hexdigest()
