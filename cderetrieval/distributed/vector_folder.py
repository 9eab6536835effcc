"""A folder of ready vectors, and what they belong to.

vectors.json            the model's name and fingerprint, the fields, the corpus, its blocks
context.safetensors     the context of all vectors, for a contextual model
vectors/00000000.parquet ...   ids and vectors of one block each

``vectors.json`` is written before the first vector, each Parquet file whole or not at all: the files that are there are
the checkpoint of a job. Each names the encoder and the digest of its block's documents, so a file of another run never
passes for one of this.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from ..context.context import Context
from ..corpora.blocks import Block, corpus_files
from ..documents import Row
from ..errors import InputError, MismatchError, StoreError
from ..files import as_path, json_digest, read_json, reading, unsealed, write_sealed
from ..splitting import Span
from ..vectors import Layout, Vectors
from .parquet import read_ids, read_spans, read_vectors, write_vectors
from .scan import Fields, Scanned, block_rows, payloads_digest, rows_digest

# The newest; a folder of one vector a document has the first, which older versions read.
FORMAT, FIRST = 2, 1
MANIFEST, CONTEXT, VECTORS = "vectors.json", "context.safetensors", "vectors"


@dataclass(frozen=True)
class Plan:
    """What a folder of vectors is made of."""

    # Name or directory of the model; None where it was given as an object.
    model: str | None
    # Fingerprint of the encoder: model, tokenizer, prompts and context.
    fingerprint: str
    layout: Layout
    # Digest of the context; None for a model that takes none.
    context: str | None
    fields: Fields
    # What the user asked for, as JSON values; a run with another request does not go on here.
    request: dict[str, Any]
    # Path, size and time of change of each corpus file.
    files: tuple[tuple[str, int, int], ...]
    # The corpus, block by block, and how its ids are stored.
    blocks: tuple[Scanned, ...]
    ids: str
    # What a passage takes in of its document; None where no document is cut.
    document: dict[str, Any] | None = None

    @property
    def format(self) -> int:
        """The version of what is written."""
        return FIRST if self.document is None else FORMAT

    @property
    def belongs(self) -> tuple[Any, ...]:
        """What all vectors depend on: equal where only files have moved."""
        blocks = [(scanned.documents, scanned.digest) for scanned in self.blocks]
        return self.fingerprint, self.layout, self.ids, self.fields.passages, self.document, blocks

    def to_dict(self) -> dict[str, Any]:
        """As it is written; a block's file by its place among the files."""
        places = {path: place for place, (path, *_) in enumerate(self.files)}
        return {
            "format": self.format,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "layout": self.layout.to_dict(),
            "context": self.context,
            "fields": {name: value for name, value in asdict(self.fields).items() if name != "passages" or value},
            "request": self.request,
            "files": self.files,
            "ids": self.ids,
            "documents": sum(scanned.documents for scanned in self.blocks),
            "blocks": [
                [places[s.block.path], s.block.start, s.block.first, s.block.rows, s.documents, s.digest]
                for s in self.blocks
            ],
            "payloads": [scanned.payloads for scanned in self.blocks],
            **({} if self.document is None else {"document": self.document}),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """What :meth:`to_dict` gave."""
        files = tuple((str(path), int(size), int(changed)) for path, size, changed in values["files"])
        payloads = values.get("payloads") or [None] * len(values["blocks"])
        blocks = tuple(
            Scanned(Block(files[place][0], *span), documents, digest, payload)
            for (place, *span, documents, digest), payload in zip(values["blocks"], payloads, strict=True)
        )
        on = values["fields"]["on"]
        fields = Fields(**{**values["fields"], "on": None if on is None else tuple(on)})
        same = {name: values[name] for name in ("model", "fingerprint", "context", "request", "ids")}
        same["document"] = values.get("document")
        return cls(layout=Layout(**values["layout"]), fields=fields, files=files, blocks=blocks, **same)


class VectorFolder:
    """Ids and vectors of a corpus, as `embed_corpus` wrote them; `corpus` says where the corpus is, if it has moved."""

    def __init__(self, path: str | Path, corpus: Sequence[str | Path] | None = None) -> None:
        self.path = as_path(path).absolute()
        manifest = self.path / MANIFEST
        if not manifest.is_file():
            raise StoreError(
                f"{self.path} holds no vectors ({MANIFEST} is missing). Make them with cderetrieval embed."
            )
        values = read_json(manifest)
        # Before the checksum: a newer version may make that in another way.
        if isinstance(found := values.get("format"), int) and found > FORMAT:
            raise StoreError(f"{manifest} was written by a newer version of cderetrieval: upgrade it.")
        self.digest = json_digest(unsealed(manifest, values, remedy="Restore it, or embed anew."))
        if corpus is not None:
            found, known = corpus_files(corpus), values["files"]
            if len(found) != len(known):
                raise InputError(f"these vectors are of {len(known)} files, and the corpus has {len(found)} now.")
            values["files"] = [[str(file.resolve()), *facts] for file, (_, *facts) in zip(found, known, strict=True)]
        with reading(manifest):
            self.plan = Plan.from_dict(values)

    @classmethod
    def create(cls, path: str | Path, plan: Plan, context: Context | None) -> VectorFolder:
        """Write the plan of a folder that holds no vectors yet."""
        folder = as_path(path)
        folder.mkdir(parents=True, exist_ok=True)
        if context is not None:
            context.save(folder / CONTEXT)
        write_sealed(folder / MANIFEST, plan.to_dict())
        return cls(folder)

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Whether a folder holds the plan of some vectors."""
        return (as_path(path) / MANIFEST).is_file()

    def __len__(self) -> int:
        return sum(scanned.documents for scanned in self.plan.blocks)

    def __repr__(self) -> str:
        done = len(self.blocks) - len(self.missing())
        return f"VectorFolder({str(self.path)!r}, {len(self)} documents, {done} of {len(self.blocks)} blocks)"

    @property
    def blocks(self) -> list[int]:
        """Numbers of the blocks that hold documents."""
        return [number for number, scanned in enumerate(self.plan.blocks) if scanned.documents]

    def missing(self) -> list[int]:
        """Numbers of the blocks that have no vectors yet."""
        present = {path.name for path in (self.path / VECTORS).glob("*.parquet")}
        return [number for number in self.blocks if self.file(number).name not in present]

    def check_whole(self) -> None:
        """Refuse a folder whose job has not ended."""
        missing = self.missing()
        if missing:
            raise StoreError(
                f"{self.path} is half-written: {len(missing)} of its {len(self.blocks)} blocks have no vectors, the "
                f"first is {self.file(missing[0]).name}. Run the same `cderetrieval embed` again, which goes on there."
            )

    @property
    def context(self) -> Context | None:
        """The context of all vectors; None for a model that takes none."""
        if self.plan.context is None:
            return None
        context = Context.load(self.path / CONTEXT)
        if context.digest != self.plan.context:
            raise StoreError(f"{self.path / CONTEXT} is not the context that these vectors were made in; restore it.")
        return context

    def check_fingerprint(self, found: str) -> None:
        """Refuse any encoder but the one that made the vectors."""
        expected = self.plan.fingerprint
        if found != expected:
            raise MismatchError(
                f"{self.path} was begun by an encoder with fingerprint {expected[:12]}, and "
                f"{self.plan.model or 'the model'} is now {found[:12]}: its weights, tokenizer, prompts or length "
                "limit have changed. Use the model that made the vectors everywhere, or choose another folder."
            )

    def file(self, number: int) -> Path:
        """Where the vectors of a block are."""
        return self.path / VECTORS / f"{number:08d}.parquet"

    def write(self, number: int, ids: list[Hashable], vectors: Vectors, spans: Sequence[Sequence[Span]]) -> None:
        """Write the vectors of a block, and the spans of its documents."""
        plan, kept = self.plan, None if self.plan.document is None else spans
        write_vectors(self.file(number), ids, vectors, plan.layout, plan.ids, self._stamp(number), kept)

    def read(self, number: int) -> tuple[list[Hashable], Vectors]:
        """Ids of documents and vectors of a block, in the order of the corpus; a file of another run is refused.

        Where documents were cut, each has a vector for each of its :meth:`spans`.
        """
        path = self.file(number)
        ids, vectors, stamp = read_vectors(path, self.plan.layout, self.plan.ids)
        if stamp != self._stamp(number) or len(ids) != self.plan.blocks[number].documents:
            raise StoreError(f"{path} belongs to another corpus or model. Delete it and run cderetrieval embed again.")
        return ids, vectors

    def spans(self, number: int) -> list[list[Span]]:
        """The spans of each document of a block; none of one in one piece, which has one vector."""
        if self.plan.document is None:
            return [[] for _ in range(self.plan.blocks[number].documents)]
        return read_spans(self.file(number))

    def ids(self, number: int) -> list[Hashable]:
        """Ids of a block alone."""
        return read_ids(self.file(number), self.plan.ids)

    def __iter__(self) -> Iterator[tuple[list[Hashable], Vectors]]:
        """Ids and vectors of each block."""
        return (self.read(number) for number in self.blocks)

    def rows(self, number: int) -> list[Row]:
        """Documents of a block as (id, text, payload), from the corpus; other ones than were embedded are refused."""
        scanned = self.plan.blocks[number]
        rows = block_rows(scanned.block, self.plan.fields)
        if rows_digest(rows) != scanned.digest or scanned.payloads not in (None, payloads_digest(rows)):
            raise InputError(
                f"{scanned.block}: these are not the documents that were read when {self.path} was begun. Put the "
                "corpus back as it was, or embed it into another folder."
            )
        return rows

    def _stamp(self, number: int) -> dict[str, Any]:
        """What is written with a block's vectors."""
        digest = self.plan.blocks[number].digest
        return {"format": self.plan.format, "fingerprint": self.plan.fingerprint, "block": number, "digest": digest}
