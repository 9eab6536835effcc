"""A folder of ready vectors, and what they belong to.

vectors.json            the model's name and fingerprint, the fields, the corpus, its blocks
context.safetensors     the context of all vectors, for a contextual model
vectors/00000000.parquet ...   ids and vectors of one block each

``vectors.json`` is written before the first vector, each Parquet file whole or not at all: a job that was killed goes
on with the blocks that have no file. Each file names the encoder and the digest of its block's documents, so a file of
another run never passes for one of this.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from ..context.context import Context
from ..corpora.blocks import Block, corpus_files
from ..documents import Row
from ..errors import InputError, StoreError
from ..files import as_path, read_json, reading, write_json
from ..vectors import Layout, Vectors
from .columns import read_ids, read_vectors, write_vectors
from .scan import Scan, Scanned, payloads_digest, rows_digest
from .work import Fields, block_rows

FORMAT = 1
MANIFEST, CONTEXT, VECTORS = "vectors.json", "context.safetensors", "vectors"
# Ending of the note that a block was begun.
BEGUN = ".begun"


@dataclass(frozen=True)
class Plan:
    """What a folder of vectors is made of.

    Attributes
    ----------
    model
        Name or directory of the model; None where it was given as an object.
    fingerprint
        Fingerprint of the encoder: model, tokenizer, prompts and context.
    layout
        Kind and dimension of the vectors.
    context
        Digest of the context; None for a model that takes none.
    fields
        What is read of a document.
    request
        What the user asked for, as JSON values; a run with another request does not go on here.
    files
        Path, size and time of change of each corpus file.
    scan
        The corpus, block by block.
    """

    model: str | None
    fingerprint: str
    layout: Layout
    context: str | None
    fields: Fields
    request: dict[str, Any]
    files: tuple[tuple[str, int, int], ...]
    scan: Scan

    @property
    def belongs(self) -> tuple[Any, ...]:
        """What all vectors depend on: equal where only files have moved."""
        contents = [(scanned.documents, scanned.digest) for scanned in self.scan.blocks]
        return self.fingerprint, self.layout, self.scan.ids, contents

    def to_dict(self) -> dict[str, Any]:
        """As it is written; a block's file by its place among the files."""
        places = {path: place for place, (path, *_) in enumerate(self.files)}
        return {
            "format": FORMAT,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "layout": self.layout.to_dict(),
            "context": self.context,
            "fields": asdict(self.fields),
            "request": self.request,
            "files": [list(file) for file in self.files],
            "ids": self.scan.ids,
            "documents": self.scan.documents,
            "blocks": [
                [places[s.block.path], s.block.start, s.block.first, s.block.rows, s.documents, s.digest]
                for s in self.scan.blocks
            ],
            "payloads": [s.payloads for s in self.scan.blocks],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """What :meth:`to_dict` gave."""
        files = tuple((str(path), int(size), int(changed)) for path, size, changed in values["files"])
        blocks = values["blocks"]
        scanned = (
            Scanned(Block(files[place][0], start, first, rows), documents, digest, payloads)
            for (place, start, first, rows, documents, digest), payloads in zip(
                blocks, values.get("payloads") or [None] * len(blocks), strict=True
            )
        )
        on = values["fields"]["on"]
        return cls(
            values["model"],
            values["fingerprint"],
            Layout(**values["layout"]),
            values["context"],
            Fields(**{**values["fields"], "on": None if on is None else tuple(on)}),
            values["request"],
            files,
            Scan(tuple(scanned), values["ids"]),
        )


class VectorFolder:
    """Ids and vectors of a corpus, as :func:`~cderetrieval.distributed.embed_corpus` wrote them.

    Parameters
    ----------
    path
        The folder.
    corpus
        Where the corpus is now, if it has moved: as it was named to `embed_corpus`.

    Raises
    ------
    StoreError
        If it holds no vectors, is damaged, or was written by a newer version.
    InputError
        If `corpus` has another number of files than were embedded.
    """

    def __init__(self, path: str | Path, corpus: Sequence[str | Path] | None = None) -> None:
        self.path = as_path(path).absolute()
        if not (self.path / MANIFEST).is_file():
            raise StoreError(
                f"{self.path} holds no vectors ({MANIFEST} is missing). Make them with cderetrieval embed."
            )
        values = read_json(self.path / MANIFEST)
        self.digest = values.pop("sha256", None)
        # Before the checksum: a newer version may make that in another way.
        if isinstance(found := values.get("format"), int) and found > FORMAT:
            raise StoreError(f"{self.path / MANIFEST} was written by a newer version of cderetrieval: upgrade it.")
        if self.digest != _digest(values):
            raise StoreError(f"{self.path / MANIFEST} does not match its checksum. Restore it, or embed anew.")
        if corpus is not None:
            values["files"] = _moved(values["files"], corpus)
        with reading(self.path / MANIFEST):
            self.plan = Plan.from_dict(values)

    @classmethod
    def create(cls, path: str | Path, plan: Plan, context: Context | None) -> VectorFolder:
        """Write the plan of a folder that holds no vectors yet."""
        folder = as_path(path)
        folder.mkdir(parents=True, exist_ok=True)
        if context is not None:
            context.save(folder / CONTEXT)
        values = json.loads(json.dumps(plan.to_dict()))
        write_json(folder / MANIFEST, {**values, "sha256": _digest(values)})
        return cls(folder)

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Whether a folder holds the plan of some vectors."""
        return (as_path(path) / MANIFEST).is_file()

    def __len__(self) -> int:
        return self.plan.scan.documents

    def __repr__(self) -> str:
        done = len(self.blocks) - len(self.missing())
        return f"VectorFolder({str(self.path)!r}, {len(self)} documents, {done} of {len(self.blocks)} blocks)"

    @property
    def blocks(self) -> list[int]:
        """Numbers of the blocks that hold documents."""
        return [number for number, scanned in enumerate(self.plan.scan.blocks) if scanned.documents]

    def missing(self) -> list[int]:
        """Numbers of the blocks that have no vectors yet."""
        present = {path.name for path in (self.path / VECTORS).glob("*.parquet")}
        return [number for number in self.blocks if self.file(number).name not in present]

    def check_whole(self) -> None:
        """Refuse a folder whose job has not ended.

        Raises
        ------
        StoreError
            If a block has no vectors.
        """
        missing = self.missing()
        if missing:
            raise StoreError(
                f"{self.path} is half-written: {len(missing)} of its {len(self.blocks)} blocks have no vectors, the "
                f"first is {self.file(missing[0]).name}. Run the same `cderetrieval embed` again, which goes on there."
            )

    @property
    def context(self) -> Context | None:
        """The context of all vectors; None for a model that takes none.

        Raises
        ------
        StoreError
            If it is not the one that they were made in.
        """
        if self.plan.context is None:
            return None
        context = Context.load(self.path / CONTEXT)
        if context.digest != self.plan.context:
            raise StoreError(f"{self.path / CONTEXT} is not the context that these vectors were made in; restore it.")
        return context

    def file(self, number: int) -> Path:
        """Where the vectors of a block are."""
        return self.path / VECTORS / f"{number:08d}.parquet"

    def write(self, number: int, ids: list[Hashable], vectors: Vectors) -> None:
        """Write the vectors of a block."""
        write_vectors(self.file(number), ids, vectors, self.plan.layout, self.plan.scan.ids, self._stamp(number))

    def read(self, number: int) -> tuple[list[Hashable], Vectors]:
        """Ids and vectors of a block, in the order of the corpus.

        Raises
        ------
        StoreError
            If the file is missing, damaged, or of another run.
        """
        path = self.file(number)
        ids, vectors, stamp = read_vectors(path, self.plan.layout, self.plan.scan.ids)
        if stamp != self._stamp(number) or len(ids) != self.plan.scan.blocks[number].documents:
            raise StoreError(f"{path} belongs to another corpus or model. Delete it and run cderetrieval embed again.")
        return ids, vectors

    def ids(self, number: int) -> list[Hashable]:
        """Ids of a block alone."""
        return read_ids(self.file(number), self.plan.scan.ids)

    def __iter__(self) -> Iterator[tuple[list[Hashable], Vectors]]:
        """Ids and vectors of each block."""
        return (self.read(number) for number in self.blocks)

    def rows(self, number: int) -> list[Row]:
        """Documents of a block as (id, text, payload), from the corpus.

        Raises
        ------
        InputError
            If the corpus is not there, or holds other documents than those that were embedded.
        """
        scanned = self.plan.scan.blocks[number]
        rows = block_rows(scanned.block, self.plan.fields)
        if rows_digest(rows) != scanned.digest or scanned.payloads not in (None, payloads_digest(rows)):
            raise InputError(
                f"{scanned.block}: these are not the documents that were read when {self.path} was begun. Put the "
                "corpus back as it was, or embed it into another folder."
            )
        return rows

    def _stamp(self, number: int) -> dict[str, Any]:
        """What is written with a block's vectors."""
        return {
            "format": FORMAT,
            "fingerprint": self.plan.fingerprint,
            "block": number,
            "digest": self.plan.scan.blocks[number].digest,
        }


def _moved(files: list[list[Any]], corpus: Sequence[str | Path]) -> list[list[Any]]:
    """The same files under other paths."""
    found = corpus_files(corpus)
    if len(found) != len(files):
        raise InputError(f"these vectors are of {len(files)} files, and the corpus has {len(found)} now.")
    return [[str(path.resolve()), *facts] for path, (_, *facts) in zip(found, files, strict=True)]


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
