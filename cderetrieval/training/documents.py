"""Training documents with all of their passages: what a document context learns from.

    document ──> lead (title, or beginning), passages in reading order, queries of each passage

A line is ``{"title"?, "sections": [{"heading", "text", "queries"?}, ...]}``. From most documents the words of the title
are withheld, but for the first passage: so is text written, and only the context tells what such a passage is about.
Half of the leads are the title, half are the beginning, as where a document has no title. Where a section brings no
queries of its own, three of each passage are made: its heading with the title, words with or without the title, and
words alone. All choices follow from the text of the document.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..context.context import Context
from ..corpora.jsonl import read_json_lines
from ..errors import InputError
from ..files import json_digest, sha256_file
from ..models.document_context import means
from ..models.load import load
from ..models.trained_context import meaning_of, plain_encoder
from ..passages import words
from ..runtime import pick_device, progress, supports_bfloat16
from ..splitting import split
from ..types import is_contextual
from ..values import shown
from ..vectors import unit
from .cache import Info, cached_directory, map_array
from .data import TextColumn, append
from .sections import bare_title, is_document, sections_of, without_name
from .sources import Source, find_sources
from .surrogate import BLOCK, SurrogateVectors

# Words of a passage: its limit is drawn for each document, as models and users cut differently.
LONGEST, SHORTEST = (50, 150), 12
# Most passages of a document; its first, and others in a row.
MOST = 40
# Shares of documents whose passages do not name them, whose lead is the title, and whose passages begin with headings.
WITHHELD, TITLED, HEADED = 0.65, 0.5, 0.4
# Words of a beginning.
BEGINNING = 24
FORMS = (
    *("{heading} of {title}", "{title} {heading}", "{title}: {heading}", "{heading} in {title}", "{heading} ({title})"),
    *("what is the {heading} of {title}?", "What are the {heading} of {title} ?"),
)
STAND_INS = ("it", "they", "this")
WORD = re.compile(r"[^\W\d_][\w'-]{2,}")
COMMON = frozenset(
    re.findall(
        r"\w+",
        "the and for with from their this that was were are has have had which who she his her not but also into than "
        "then been such will can may would when while after before other some more most one two its they",
    )
)

DOCUMENT = np.dtype([("dataset", "<i4"), ("line", "<i8"), ("lead", "<i8"), ("passages", "<i8")])
PASSAGE = np.dtype([("section", "<i4"), ("text", "<i8"), ("queries", "<i8")])
QUERY = np.dtype([("heading", "<i4"), ("text", "<i8")])
_LAYOUT = 1


class Asked(NamedTuple):
    """A query of a passage, and whether all passages of the section answer it."""

    text: str
    of_section: bool = False


class TrainingPassage(NamedTuple):
    """A passage, the number of its section, and its queries."""

    section: int
    text: str
    queries: tuple[Asked, ...]


class DocumentData:
    """Training documents on disk, as :func:`load_documents` opens them; ``data[row]`` is what a batch collates."""

    def __init__(self, directory: Path, info: Info) -> None:
        self.fingerprint: str = info["fingerprint"]
        self.dataset_names: list[str] = info["datasets"]
        self.sources: list[str] = info["sources"]
        self._documents = map_array(directory / "documents.raw", DOCUMENT, (info["documents"],))
        self._passages = map_array(directory / "passages.raw", PASSAGE, (info["passages"],))
        self._queries = map_array(directory / "queries.raw", QUERY, (info["queries"],))
        self.dataset, self.section = self._documents["dataset"], self._passages["section"]
        self.by_heading = self._queries["heading"]
        self.columns = {
            "lead": TextColumn(directory / "lead.bin", self._documents["lead"]),
            "document": TextColumn(directory / "document.bin", self._passages["text"]),
            "query": TextColumn(directory / "query.bin", self._queries["text"]),
        }

    def __len__(self) -> int:
        return len(self._documents)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"label": int(row)}

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, for sentence-transformers' trainer."""
        return ["label"]

    def passages_of(self, row: int) -> range:
        """Numbers of a document's passages."""
        return _between(self._documents["passages"], row)

    def queries_of(self, passage: int) -> range:
        """Numbers of a passage's queries."""
        return _between(self._passages["queries"], passage)

    def texts_of(self, dataset: int) -> dict[str, list[str]]:
        """The texts of each column that come from a data set; its documents lie together."""
        rows = np.flatnonzero(self.dataset == dataset)
        passages = range(self.passages_of(rows[0]).start, self.passages_of(rows[-1]).stop)
        queries = range(self.queries_of(passages[0]).start, self.queries_of(passages[-1]).stop)
        places: dict[str, Iterable[int]] = {"lead": rows, "document": passages, "query": queries}
        return {name: column.take(places[name]) for name, column in self.columns.items()}

    def where(self, row: int) -> str:
        """File and line that a document came from."""
        return f"{self.dataset_names[self.dataset[row]]}, line {self._documents['line'][row]}"


def _between(ends: np.ndarray, row: int) -> range:
    return range(int(ends[row - 1]) if row else 0, int(ends[row]))


def load_documents(names: Sequence[str | Path], cache: str | Path) -> DocumentData:
    """Read training documents into columns, or open those of an earlier call."""
    sources = find_sources(names)
    key = {"sources": [{"name": one.name, "sha256": sha256_file(one.path)} for one in sources]}
    directory, info = cached_directory(
        cache, "documents", {**key, "layout": _LAYOUT}, lambda path: _write(path, sources, json_digest(key))
    )
    return DocumentData(directory, info)


def _write(directory: Path, sources: Sequence[Source], fingerprint: str) -> Info:
    counts = dict.fromkeys(("documents", "passages", "queries"), 0)
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(open(directory / name, "wb"))
            for name in ("documents.raw", "passages.raw", "queries.raw", "lead.bin", "document.bin", "query.bin")
        }
        for number, source in enumerate(sources):
            before = counts["documents"]
            for line, lead, passages in _read(source):
                for passage in passages:
                    for query in passage.queries:
                        ends = np.array((query.of_section, append(files["query.bin"], query.text)), QUERY)
                        files["queries.raw"].write(ends.tobytes())
                    counts["queries"] += len(passage.queries)
                    place = passage.section, append(files["document.bin"], passage.text), counts["queries"]
                    files["passages.raw"].write(np.array(place, PASSAGE).tobytes())
                counts["documents"] += 1
                counts["passages"] += len(passages)
                row = number, line, append(files["lead.bin"], lead), counts["passages"]
                files["documents.raw"].write(np.array(row, DOCUMENT).tobytes())
            if counts["documents"] == before:
                raise InputError(f"{source.path} holds no document of two passages or more. {NEEDED}")
    names = {"datasets": [source.name for source in sources], "sources": [Path(one.path).name for one in sources]}
    return {**counts, **names, "fingerprint": fingerprint}


NEEDED = (
    "A document context is trained on whole documents: JSON lines {'title', 'sections': [{'heading', 'text'}, ...]}."
)


def _read(source: Source) -> Iterator[tuple[int, str, list[TrainingPassage]]]:
    """Line, lead and passages of each document that has two passages or more."""
    path = Path(source.path)
    if path.suffix == ".parquet":
        raise InputError(f"{path} is a Parquet file. {NEEDED}")
    for line, values in read_json_lines(path):
        where = f"{path}, line {line}"
        if not is_document(values):
            raise InputError(f"{where}: no whole document, found {shown(values)}. {NEEDED}")
        lead, passages = passages_of(values, where)
        if len(passages) > 1:
            yield line, lead, passages


def passages_of(document: Mapping[str, Any], where: str) -> tuple[str, list[TrainingPassage]]:
    """Lead and passages of a document; errors name the section.

    >>> text = "Owls hunt at night, and they sleep by day in a hollow tree or in a barn."
    >>> sections = [{"heading": "Habits", "text": text}, {"heading": "Food", "text": text}]
    >>> lead, passages = passages_of({"title": "Owls", "sections": sections}, "line 1")
    >>> [passage.section for passage in passages], len(passages[0].queries)
    ([0, 1], 3)
    """
    title, sections = document.get("title") or "", list(sections_of(document, where))
    if not isinstance(title, str):
        raise InputError(f"{where}: 'title' is {shown(title)}, not a text.")
    everything = "\0".join((title, *(text for _, text, _ in sections)))
    chance = random.Random(hashlib.sha256(everything.encode("utf-8", "surrogatepass")).digest())
    limit, withheld, titled, headed = (
        chance.randint(*LONGEST),
        chance.random() < WITHHELD,
        chance.random() < TITLED,
        chance.random() < HEADED,
    )
    found: list[TrainingPassage] = []
    beginning = ""
    for number, (heading, section, asked) in enumerate(sections):
        leaf = heading.split(" > ")[-1].strip()
        for span in split(section, limit, words):
            text = section[span.start : span.stop].strip()
            beginning = beginning or text
            if not asked and len(text.split()) < SHORTEST:
                continue
            if withheld and found and title:
                text = without_name(text, title, chance.choice(STAND_INS))
            queries = tuple(map(Asked, asked)) or tuple(_queries(bare_title(title), leaf, text, chance))
            found.append(TrainingPassage(number, f"{leaf}\n{text}" if headed and leaf else text, queries))
    if len(found) > MOST:
        first = chance.randint(1, len(found) - MOST + 1)
        found = [found[0], *found[first : first + MOST - 1]]
    return title if title and titled else " ".join(beginning.split()[:BEGINNING]), found


def _queries(title: str, heading: str, passage: str, chance: random.Random) -> Iterator[Asked]:
    """One by the heading, one with or without the title, one without."""
    if heading and title:
        form = chance.choice(FORMS)
        yield Asked(form.format(heading=chance.choice((heading, heading.lower())), title=title), of_section=True)
    else:
        yield Asked(f"{title} {_keywords(passage, chance.randint(2, 5), chance)}".strip())
    named = title if chance.random() < 0.45 else ""
    alone = chance.choice((_keywords(passage, chance.randint(3, 7), chance), _some_words(passage, 5, 14, chance)))
    yield Asked(" ".join(chance.choice(((named, alone), (alone, named)))).strip())
    yield Asked(chance.choice((_keywords(passage, chance.randint(3, 7), chance), _some_words(passage, 5, 14, chance))))


def _keywords(text: str, count: int, chance: random.Random) -> str:
    """Some of the words of a text that say something, in order; all of it, where none does."""
    found = [word for word in WORD.findall(text) if word.lower() not in COMMON]
    chosen = sorted(chance.sample(range(len(found)), min(count, len(found))))
    return " ".join(found[place] for place in chosen) or text


def _some_words(text: str, least: int, most: int, chance: random.Random) -> str:
    """Words in a row."""
    found = text.split()
    count = chance.randint(least, most)
    start = chance.randint(0, max(0, len(found) - count))
    return " ".join(found[start : start + count])


@dataclass(frozen=True)
class DocumentVectors:
    """Vectors of leads, passages and queries, of length 1, float16, mapped into memory."""

    lead: np.ndarray
    document: np.ndarray
    query: np.ndarray


@dataclass(frozen=True)
class EmbeddedDocuments:
    """Training documents and the vectors of their texts by a base model."""

    data: DocumentData
    vectors: DocumentVectors
    base: str

    def leads_and_means(self) -> SurrogateVectors:
        """Vectors of leads and means of passages: what tells which documents are alike."""
        counts = [len(self.data.passages_of(row)) for row in range(len(self.data))]
        owners = np.repeat(np.arange(len(counts)), counts)
        averages = unit(means(np.asarray(self.vectors.document, dtype=np.float32), owners))
        return SurrogateVectors(self.vectors.lead, averages, averages[:0], self.base)


def embedded_documents(
    names: Sequence[str | Path], base: str, cache: str | Path, *, device: str | None = None, dtype: str = "auto"
) -> EmbeddedDocuments:
    """Read training documents and embed them, or open those of an earlier call.

    A contextual base embeds each data set in a context of its own passages, as an index of it would.
    """
    data = load_documents(names, cache)

    def build(directory: Path) -> dict[str, Any]:
        half = dtype == "auto" and supports_bfloat16(pick_device(device))
        model: Any = load(base, device=device, dtype="bfloat16" if half else dtype)
        width = plain_encoder(model).dimension
        with ExitStack() as stack:
            files = {name: stack.enter_context(open(directory / f"{name}.f16", "wb")) for name in data.columns}
            for number, name in enumerate(data.dataset_names):
                texts = data.texts_of(number)
                encoder = Context.from_texts(model, texts["document"]).encoder(model) if is_contextual(model) else model
                for column, some in texts.items():
                    encode = encoder.encode_query if column == "query" else encoder.encode_document
                    for start in progress(range(0, len(some), BLOCK), f"vectors of {name}, {column}"):
                        vectors = meaning_of(encode(some[start : start + BLOCK]), width)
                        files[column].write(vectors.astype("<f2").tobytes())
        return {"dimension": width}

    key = {"data": data.fingerprint, "base": base, "layout": _LAYOUT}
    directory, info = cached_directory(cache, "document-vectors", key, build)
    stored = {
        name: map_array(directory / f"{name}.f16", "<f2", (len(column), info["dimension"]))
        for name, column in data.columns.items()
    }
    return EmbeddedDocuments(data, DocumentVectors(**stored), base)
