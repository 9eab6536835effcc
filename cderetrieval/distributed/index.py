"""An index from ready vectors, without embedding anything again.

Each block's documents come from the corpus, and are compared with what was embedded; its vectors come from the folder.
A block is one `Retriever.add`, and one that is there already is passed over, so a run that was killed goes on. An index
on this machine grows in a folder beside its place (``NAME.building``) and moves there when it is whole.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import CDEError, ConfigError, ContextError, InputError, MismatchError, StoreError
from ..files import as_path, read_json, write_json
from ..milvus.location import is_location
from ..retrieval.embedder import Model
from ..retrieval.retriever import Retriever
from ..runtime import progress
from ..types import is_contextual
from .scan import check_unique, id_hashes
from .vector_folder import Plan, VectorFolder

SOURCE = "source.json"
# What may not differ between folders of one index, and what is said where it does.
SAME: dict[str, Callable[[Plan], Any]] = {
    "hold other vectors": lambda plan: plan.layout,
    "were made by different encoders": lambda plan: plan.fingerprint,
    "were embedded from other fields": lambda plan: (plan.fields.key, plan.fields.on),
    "were cut in another way": lambda plan: (plan.fields.passages, plan.document),
}


def index_vectors(
    vectors: str | Path | VectorFolder | Sequence[str | Path | VectorFolder],
    out: str | Path | None = None,
    *,
    index: str = "auto",
    model: str | Path | Model | None = None,
    device: str | None = None,
    dtype: str = "auto",
    engine: Any = None,
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
        Deprecated and ignored: an index is built in this process, on all its cores.
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
    if engine is not None:
        warnings.warn("engine= is ignored: an index is built in this process.", DeprecationWarning, stacklevel=2)
    folders = _folders(vectors)
    used = folders[0].plan.model if model is None else model
    if used is None:
        raise MismatchError("the model of these vectors was given as an object: pass it with model=.")
    building = None
    if is_location(index):
        if out is not None:
            raise ConfigError("a server keeps its index itself: leave out `out`.")
        retriever = _on_server(index, folders[0], used, device, dtype)
    else:
        target = _free(out)
        building = target.with_name(f"{target.name}.building")
        retriever = _in_directory(building, index, folders, used, device, dtype)
    try:
        _check_model(retriever, folders[0], index if building is None else str(building))
        _add(retriever, folders, show_progress)
    except BaseException as error:
        empty = building is not None and isinstance(error, CDEError) and not len(retriever)
        retriever.close()
        if building is not None and empty:
            shutil.rmtree(building)
        raise
    if building is None:
        return retriever
    retriever.close()
    (building / SOURCE).unlink()
    os.replace(building, target)
    return Retriever.load(target, model=model, device=device, dtype=dtype)


def _folders(vectors: Any) -> list[VectorFolder]:
    """The folders, each whole, all of one encoder, and no id twice."""
    given = [vectors] if isinstance(vectors, str | Path | VectorFolder) else list(vectors)
    if not given:
        raise InputError("no folder of vectors was given.")
    folders = [folder if isinstance(folder, VectorFolder) else VectorFolder(folder) for folder in given]
    first = folders[0]
    for folder in folders:
        folder.check_whole()
        for problem, fact in SAME.items():
            other, expected = fact(folder.plan), fact(first.plan)
            if other != expected:
                raise MismatchError(
                    f"{folder.path} and {first.path} {problem}: {other!s:.60} and {expected!s:.60}. Vectors of one "
                    "index come from one model, in the same context (embed --context), and from the same fields."
                )
    if len(folders) > 1:
        names = [str(folder.path) for folder in folders]
        check_unique([id_hashes(_ids(folder)) for folder in folders], lambda place: _ids(folders[place]), names)
    return folders


def _ids(folder: VectorFolder) -> Iterator[Any]:
    return (document_id for number in folder.blocks for document_id in folder.ids(number))


def _free(out: str | Path | None) -> Path:
    """Where the index will be; nothing is there yet."""
    if out is None:
        raise ConfigError("name the directory of the index, or a collection on a server (index=).")
    target = as_path(out).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StoreError(f"{target} is there already. Choose another directory, or remove it first.")
    return target


def _in_directory(
    building: Path, index: str, folders: Sequence[VectorFolder], model: Any, device: str | None, dtype: str
) -> Retriever:
    """The index as far as an earlier call has built it, or a new one."""
    source = {"index": index, "folders": [folder.digest for folder in folders]}
    if building.exists() and (not (building / SOURCE).is_file() or read_json(building / SOURCE) != source):
        raise StoreError(f"{building} is not the first half of this index. Remove it, then run this again.")
    write_json(building / SOURCE, source)
    options: dict[str, Any] = {"device": device, "dtype": dtype}
    try:
        return Retriever(model, index=index, path=building, **_settings(folders[0]), **options)
    except StoreError:  # an earlier call has stored the first block
        return Retriever.load(building, model=model, **options)


def _on_server(index: str, folder: VectorFolder, model: Any, device: str | None, dtype: str) -> Retriever:
    try:
        retriever = Retriever(model, index=index, device=device, dtype=dtype, **_settings(folder))
    except ContextError as error:
        raise MismatchError(
            f"{index} is in another context than the vectors of {folder.path}. Choose another collection, or embed the "
            "corpus in that context (embed --context FILE)."
        ) from error
    kept, cut = retriever.collection.passages.how, folder.plan.fields.passages
    if kept != cut:
        retriever.close()
        raise MismatchError(
            f"{index} was made with passages={kept!r}, the vectors of {folder.path} with {cut!r}. Choose another "
            "collection, or embed the corpus as that one is."
        )
    return retriever


def _settings(folder: VectorFolder) -> dict[str, Any]:
    """Settings of a retriever for the vectors of a folder."""
    plan = folder.plan
    return {
        "key": plan.fields.key,
        "on": None if plan.fields.on is None else list(plan.fields.on),
        "context": "own" if plan.context is None else folder.context,
        "context_size": plan.request["context_size"],
        "passages": plan.fields.passages,
        "document_context": plan.document,
        "seed": plan.request["seed"],
    }


def _check_model(retriever: Retriever, folder: VectorFolder, place: str) -> None:
    """Refuse another model than the one that made the vectors, and an index that another one built."""
    context, expected = folder.context, folder.plan.fingerprint
    model = retriever.model
    try:
        encoder = context.encoder(model) if context is not None and is_contextual(model) else model
    except ContextError as error:
        raise MismatchError(f"Use the model that made the vectors of {folder.path}: {error}") from error
    folder.check_fingerprint(encoder.fingerprint)
    held = retriever.collection.get_setting("fingerprint")
    if held not in (None, expected):
        raise MismatchError(
            f"{place} was built by an encoder with fingerprint {held[:12]}, the vectors of {folder.path} by one with "
            f"{expected[:12]}: another model. Choose another collection."
        )


def _add(retriever: Retriever, folders: Sequence[VectorFolder], show_progress: bool) -> None:
    """Add each block whose documents are not there yet; a block is one transaction."""
    collection, passages = retriever.collection, retriever.collection.passages
    with progress(range(sum(map(len, folders))), "storing", show=show_progress) as bar:
        for folder in folders:
            for number in folder.blocks:
                if collection.missing(folder.ids(number)):
                    rows = folder.rows(number)
                    ids, vectors = folder.read(number)
                    if ids != [document_id for document_id, *_ in rows]:
                        raise StoreError(f"{folder.file(number)} holds other ids than the corpus. Embed it anew.")
                    collection.passages = replace(passages, ready=iter(folder.spans(number)))
                    retriever.add([payload for *_, payload in rows], vectors=vectors, show_progress=False)
                    collection.passages = passages
                bar.update(folder.plan.blocks[number].documents)
