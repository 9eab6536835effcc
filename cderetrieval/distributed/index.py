"""An index from ready vectors, without embedding anything again.

The documents come from the corpus, block by block, each compared with what was embedded; the vectors from the folder.
The index grows in a folder of its own beside its place (``NAME.building``), one transaction a block, and moves there
when it is whole: a run that was killed goes on, and nobody opens half an index.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CDEError, ConfigError, ContextError, InputError, MismatchError, StoreError
from ..files import as_path, read_json, write_json
from ..index.manifest import STORE_FILE
from ..milvus.location import is_location
from ..retrieval.embedder import Model
from ..retrieval.retriever import Retriever
from ..store import Store
from ..types import is_contextual
from .folder import VectorFolder
from .progress import Progress
from .scan import check_unique, id_hashes
from .shards import Ready, build_on
from .work import Engine

SOURCE = "source.json"


@dataclass(frozen=True)
class Part:
    """A block of a folder."""

    folder: VectorFolder
    number: int

    @property
    def documents(self) -> int:
        """How many it holds."""
        return self.folder.plan.scan.blocks[self.number].documents

    def read(self) -> tuple[list[Mapping[str, Any]], Any]:
        """Documents and their vectors."""
        rows = self.folder.rows(self.number)
        ids, vectors = self.folder.read(self.number)
        if ids != [document_id for document_id, *_ in rows]:
            raise StoreError(f"{self.folder.file(self.number)} holds other ids than the corpus. Embed it anew.")
        return [payload for *_, payload in rows], vectors


def index_vectors(
    vectors: str | Path | VectorFolder | Sequence[str | Path | VectorFolder],
    out: str | Path | None = None,
    *,
    index: str = "auto",
    model: str | Path | Model | None = None,
    device: str | None = None,
    dtype: str = "auto",
    engine: Engine | None = None,
    show_progress: bool = True,
) -> Retriever:
    """Build an index from folders of vectors; after a crash, the same call goes on.

    Parameters
    ----------
    vectors
        Folders that :func:`~cderetrieval.distributed.embed_corpus` wrote, all by one encoder.
    out
        Directory of the index, which holds none yet; none where `index` is a collection on a server.
    index
        As in :class:`~cderetrieval.Retriever`. A collection on a server grows block by block, in view of its readers.
    model
        The model, where it was given as an object or has moved.
    device, dtype
        Where and in which number format the model will embed queries.
    engine
        Builds a FAISS index that has to be trained in shards, on the workers of
        :class:`~cderetrieval.distributed.cluster.OnRay` for example, and merges them. None: in this process.
    show_progress
        Show progress.

    Returns
    -------
    Retriever
        The index, open.

    Raises
    ------
    StoreError
        If a folder is half-written or damaged, or `out` holds an index already.
    MismatchError
        If the folders were made by different encoders, or the model is another one.
    InputError
        If two folders hold the same id, or the corpus has changed since it was embedded.

    Examples
    --------
    >>> import tempfile
    >>> from cderetrieval.distributed import embed_corpus
    >>> from cderetrieval.testing import HashEncoder
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "corpus.jsonl").write_text('{"id": "o", "text": "owls hunt"}')
    >>> vectors = embed_corpus(folder / "corpus.jsonl", folder / "vectors", HashEncoder())
    >>> index_vectors(vectors, folder / "index", model=HashEncoder())(["owls hunt"])[0][0]["id"]
    'o'
    """
    folders = _folders(vectors)
    first = folders[0].plan
    if is_location(index):
        if out is not None or engine is not None:
            raise ConfigError("a server keeps and builds its index itself: leave out `out` and `engine`.")
        return _on_server(folders, index, model, device, dtype, show_progress)
    if out is None:
        raise ConfigError("name the directory of the index, or a collection on a server (index=).")
    target = as_path(out).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StoreError(f"{target} is there already. Choose another directory, or remove it first.")
    building = target.with_name(f"{target.name}.building")
    used = _used(first.model, model)
    retriever = _open(building, folders, used, index, device, dtype)
    with retriever:
        _begin(retriever, folders[0], building)
        parts = [Part(folder, number) for folder in folders for number in folder.blocks]
        _fill(retriever, parts, show_progress)
        if engine is not None:
            ready = [Ready(part.folder.path, part.number, part.documents) for part in parts]
            with engine:
                build_on(engine, retriever, ready, building)
    (building / SOURCE).unlink()
    os.replace(building, target)
    return Retriever.load(target, model=model, device=device, dtype=dtype)


def _used(recorded: str | None, model: Any) -> Any:
    """The model: the one that is given, or the one that made the vectors, by name."""
    if model is None and recorded is None:
        raise MismatchError("the model of these vectors was given as an object: pass it with model=.")
    return recorded if model is None else model


def _on_server(
    folders: Sequence[VectorFolder], index: str, model: Any, device: str | None, dtype: str, show_progress: bool
) -> Retriever:
    """Fill a collection on a server; blocks that are there already are passed over."""
    used = _used(folders[0].plan.model, model)
    try:
        retriever = Retriever(used, index=index, device=device, dtype=dtype, **_settings(folders[0]))
    except ContextError as error:
        raise MismatchError(
            f"{index} stands in another context than the vectors of {folders[0].path}. Choose another collection, or "
            "embed the corpus in that context (embed --context FILE)."
        ) from error
    try:
        made, context = retriever.model, folders[0].context
        try:
            encoder = context.encoder(made, dtype=dtype) if context is not None and is_contextual(made) else made
        except ContextError as error:
            raise MismatchError(f"Use the model that made the vectors of {folders[0].path}: {error}") from error
        _check_encoder(encoder.fingerprint, folders[0])
        held = retriever.collection.get_setting("fingerprint")
        if held not in (None, encoder.fingerprint):
            raise MismatchError(
                f"{index} was built by an encoder with fingerprint {held[:12]}, the vectors of {folders[0].path} by "
                f"one with {encoder.fingerprint[:12]}: another model. Choose another collection."
            )
        parts = [Part(folder, number) for folder in folders for number in folder.blocks]
        with Progress("storing", sum(part.documents for part in parts), 0, show=show_progress) as bar:
            for part in parts:
                if retriever.collection.missing(part.folder.ids(part.number)):
                    documents, vectors = part.read()
                    retriever.add(documents, vectors=vectors, show_progress=False)
                bar.add(part.documents)
    except BaseException:
        retriever.close()
        raise
    return retriever


def _folders(vectors: Any) -> list[VectorFolder]:
    """The folders, each whole, all of one encoder, and no id twice."""
    given = [vectors] if isinstance(vectors, str | Path | VectorFolder) else list(vectors)
    if not given:
        raise InputError("no folder of vectors was given.")
    folders = [folder if isinstance(folder, VectorFolder) else VectorFolder(folder) for folder in given]
    first = folders[0]
    for folder in folders:
        folder.check_whole()
        if folder.plan.layout != first.plan.layout:
            raise MismatchError(
                f"{folder.path} holds {folder.plan.layout}, {first.path} {first.plan.layout}. Vectors of one index "
                "come from one model."
            )
        if folder.plan.fingerprint != first.plan.fingerprint:
            context = " in the same context (embed --context)" if first.plan.context else ""
            raise MismatchError(
                f"{folder.path} and {first.path} were made by different encoders: {folder.plan.fingerprint[:12]} and "
                f"{first.plan.fingerprint[:12]}. Vectors of one index come from one model{context}."
            )
        if (folder.plan.fields.key, folder.plan.fields.on) != (first.plan.fields.key, first.plan.fields.on):
            raise MismatchError(f"{folder.path} was embedded from other fields than {first.path}.")
    if len(folders) > 1:
        names = [str(folder.path) for folder in folders]
        check_unique([_hashes(folder) for folder in folders], lambda i: _ids(folders[i]), names)
    return folders


def _ids(folder: VectorFolder) -> Iterable[Any]:
    return (document_id for number in folder.blocks for document_id in folder.ids(number))


def _hashes(folder: VectorFolder) -> Any:
    return id_hashes(_ids(folder))


def _open(
    building: Path, folders: Sequence[VectorFolder], model: Any, index: str, device: str | None, dtype: str
) -> Retriever:
    """The index as far as it was built, or a new one."""
    source = {"index": index, "folders": [folder.digest for folder in folders]}
    if building.exists():
        if not (building / SOURCE).is_file() or read_json(building / SOURCE) != source:
            raise StoreError(f"{building} is not the first half of this index. Remove it, then run this again.")
        if _begun(building):
            return Retriever.load(building, model=model, device=device, dtype=dtype)
    write_json(building / SOURCE, source)
    return Retriever(model, index=index, path=building, device=device, dtype=dtype, **_settings(folders[0]))


def _settings(folder: VectorFolder) -> dict[str, Any]:
    """Settings of a retriever for the vectors of a folder."""
    plan = folder.plan
    return {
        "key": plan.fields.key,
        "on": None if plan.fields.on is None else list(plan.fields.on),
        "context": "own" if plan.context is None else folder.context,
        "context_size": plan.request["context_size"],
        "seed": plan.request["seed"],
    }


def _begin(retriever: Retriever, folder: VectorFolder, building: Path) -> None:
    """Store the context, and refuse another model than the one that made the vectors; then nothing is left behind."""
    try:
        made, context = retriever.model, folder.context
        encoder = context.encoder(made) if context is not None and is_contextual(made) else made
        _check_encoder(encoder.fingerprint, folder)
    except CDEError as error:
        if not len(retriever):
            retriever.collection.close()
            shutil.rmtree(building)
        if isinstance(error, ContextError):
            raise MismatchError(f"Use the model that made the vectors of {folder.path}: {error}") from error
        raise


def _check_encoder(fingerprint: str, folder: VectorFolder) -> None:
    """Refuse another encoder than the one that made the vectors."""
    expected = folder.plan.fingerprint
    if fingerprint != expected:
        raise MismatchError(
            f"{folder.path} was embedded by an encoder with fingerprint {expected[:12]}, and this model is "
            f"{fingerprint[:12]}. Use the model that made the vectors."
        )


def _begun(building: Path) -> bool:
    """Whether the first block was stored."""
    if not (building / STORE_FILE).is_file():
        return False
    with Store(building / STORE_FILE) as store:
        return store.get_setting("retriever") is not None


def _fill(retriever: Retriever, parts: Sequence[Part], show_progress: bool) -> None:
    """Add the documents of all parts but those that are there; each part is one transaction."""
    total, there = sum(part.documents for part in parts), len(retriever)
    with Progress("storing", total, there, show=show_progress) as bar:
        for part in parts:
            if there:
                there -= part.documents
                if there < 0:
                    raise StoreError("the half-built index does not end with a block. Remove it, then run this again.")
                continue
            documents, vectors = part.read()
            retriever.add(documents, vectors=vectors, show_progress=False)
            bar.add(part.documents)
