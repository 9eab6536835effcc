"""Embed a corpus into a folder of vectors: in one process, or on the workers of a Ray cluster.

    cut the corpus into blocks -> read and check them, sample the context -> first stage, once
      -> second stage of each block that has no vectors yet -> vectors/00000000.parquet, ...

Both ways run the same job on the same blocks, so the vectors are the same, bit for bit where threads and processors
are; and a block is what `Retriever.add` embeds at a time, so they are those of a Retriever too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..context.spec import CENTRE, NULL, OWN, ContextLike, ContextSpec
from ..corpora.blocks import Block, corpus_files, cut
from ..errors import ClusterError, ConfigError, MismatchError, ModelError, missing_dependency
from ..files import as_path, open_own
from ..models.document_context import DocumentContext, DocumentContextLike
from ..passages import Passages, PassagesLike, title_of
from ..retrieval.cut import splitter_of
from ..retrieval.embedder import CutDocument, Embedder, Model, embed
from ..retrieval.part import CHUNK
from ..runtime import progress
from ..store.lock import WriterLock
from ..vectors import KINDS, Layout, join
from .cluster import STALLED, RayCluster, run_here
from .scan import BlockScanner, Fields, gather
from .vector_folder import MANIFEST, VECTORS, Plan, VectorFolder

logger = logging.getLogger(__name__)

# Below, starting workers (5 to 8 s, and each loads the model) costs more than they save.
FEW_DOCUMENTS = 100_000
# Fewer are read here: at 50,000 documents a second that takes less than to start workers that read.
MANY_BLOCKS = 100
ENGINES = ("auto", "process", "ray")
# How often a block is begun in one run: one that kills its worker each time must end the job.
ATTEMPTS = 5
# Ending of the file that counts them.
BEGUN = ".begun"


def embed_corpus(
    corpus: str | Path | Sequence[str | Path],
    out: str | Path,
    model: str | Path | Model = "cde-minilm",
    *,
    key: str = "id",
    on: str | Sequence[str] | None = None,
    context: ContextLike = "own",
    context_size: int | None = None,
    passages: PassagesLike = None,
    document_context: DocumentContextLike = "auto",
    seed: int = 0,
    skip_empty: bool = False,
    engine: str = "auto",
    workers: int | None = None,
    threads: int = 1,
    address: str | None = None,
    device: str | None = None,
    dtype: str = "auto",
    block: int = CHUNK,
    stalled: float = STALLED,
    show_progress: bool = True,
) -> VectorFolder:
    r"""Embed a corpus into a folder of Parquet files; after a crash, the same call goes on.

    Parameters
    ----------
    corpus
        JSONL (or ``.jsonl.gz``), Parquet or text files, folders of them, or a BEIR folder; one or more.
    out
        The folder of vectors. On a cluster, this and the corpus are where all machines see them.
    model
        Name or directory, which each worker loads, or a model, which travels to them.
    key, on, context, context_size, passages, document_context, seed, device, dtype
        As in :class:`~cderetrieval.Retriever`; by default each document has one vector, and functions do not cut here.
    skip_empty
        Leave out documents with an empty text, and log how many, in place of an error.
    engine
        ``"process"``, ``"ray"``, or ``"auto"``: Ray from 100,000 documents on, or where `workers` or `address` ask for
        it.
    workers
        Number of Ray workers; None: one for each GPU, or for each CPU where there is none.
    threads
        CPUs of a worker; Ray lets torch have as many threads, if OMP_NUM_THREADS does not say otherwise.
    address
        Of a running cluster: ``"auto"``, ``"host:port"`` or ``"ray://host:port"``. None: workers on this machine.
    block
        Documents embedded at a time, and lost with a crash of a worker.
    stalled
        Seconds without any progress on Ray after which the job ends.
    show_progress
        Show progress: bars on a terminal, else a line in the log every half minute.

    Raises
    ------
    InputError
        If a document cannot be used, or an id occurs twice; nothing is embedded then.
    MismatchError
        If `out` holds vectors of another model, corpus or request.
    LockedError
        If another process is writing to `out`.
    ClusterError
        If workers die again and again, or nothing moves.

    Examples
    --------
    >>> import json, tempfile
    >>> from cderetrieval.testing import tiny_model_directory
    >>> folder = Path(tempfile.mkdtemp())
    >>> lines = [json.dumps({"id": i, "text": text}) for i, text in enumerate(["owls hunt", "bees hum"])]
    >>> _ = (folder / "corpus.jsonl").write_text("\n".join(lines))
    >>> vectors = embed_corpus(folder / "corpus.jsonl", folder / "vectors", tiny_model_directory())
    >>> len(vectors), vectors.read(0)[0], vectors.read(0)[1].shape
    (2, [0, 1], (2, 32))
    """
    if engine not in ENGINES or block < 1:
        raise ConfigError(f"engine={engine!r} must be one of {', '.join(ENGINES)}, and block={block} at least 1.")
    how = Passages.parse(passages)
    if how.function is not None:
        raise ConfigError("passages= a function cannot be kept with vectors; pass a field that holds the passages.")
    fields = Fields(key, (on,) if isinstance(on, str) else None if on is None else tuple(on), skip_empty, how.how)
    said = DocumentContext.parse(document_context)
    files = [file.resolve() for file in corpus_files([corpus] if isinstance(corpus, str | Path) else corpus)]
    out = as_path(out).resolve()
    lock = WriterLock(out / MANIFEST)
    lock.acquire()
    try:
        spec = ContextSpec.parse(context)
        embedder = Embedder(model, spec, context_size=context_size, seed=seed, device=device, dtype=dtype)
        request = {
            "model": embedder.name,
            "context": _context_name(spec),
            "context_size": context_size,
            "seed": seed,
            "key": key,
            "on": None if fields.on is None else list(fields.on),
            "skip_empty": skip_empty,
            "block": block,
            "passages": how.how,
            "document_context": None if how.how is None else said if isinstance(said, str) else said.to_dict(),
        }
        blocks = [found for file in files for found in cut(file, block)]
        cluster = None
        if _on_ray(engine, sum(found.rows for found in blocks), workers, address):
            cluster = RayCluster(workers, threads=threads, address=address, stalled=stalled)
        with cluster or nullcontext():
            folder = _resumed(out, request, files, embedder)
            if folder is None:
                read = cluster.run if cluster is not None and len(blocks) >= MANY_BLOCKS else run_here
                folder = _begin(out, request, files, blocks, fields, embedder, read, show_progress)
            # Here the model that is loaded; workers load it by its name.
            found = embedder.model if cluster is None else embedder.name or embedder.model
            arguments = {"model": found, "device": device, "dtype": dtype}
            work = run_here if cluster is None else partial(cluster.run, on_gpu=True)
            _embed(work, folder, arguments, show_progress)
        return folder
    finally:
        lock.release()


def _on_ray(engine: str, documents: int, workers: int | None, address: str | None) -> bool:
    asked = workers is not None or address is not None
    if engine == "process" and asked:
        raise ConfigError("engine='process' has no workers; leave workers= and address= out, or take engine='ray'.")
    if engine != "auto" or asked:
        return engine != "process"
    if documents >= FEW_DOCUMENTS and find_spec("ray") is None:
        missing = missing_dependency("ray", "scale")
        logger.warning("One process embeds %d documents. For several: %s", documents, missing)
        return False
    return documents >= FEW_DOCUMENTS


def _context_name(spec: ContextSpec) -> str | None:
    """What the context is to be, as a short text."""
    if spec.context is not None:
        return f"context {spec.digest}"
    if spec.path is not None:
        return str(spec.path)
    if spec.texts:
        return f"texts {hashlib.sha256(json.dumps(list(spec.texts)).encode()).hexdigest()}"
    return {NULL: None, CENTRE: OWN}.get(spec.source, spec.source)


def _begin(
    out: Path,
    request: dict[str, Any],
    files: Sequence[Path],
    blocks: Sequence[Block],
    fields: Fields,
    embedder: Embedder,
    read: Callable[..., Iterator[dict[str, Any]]],
    show_progress: bool,
) -> VectorFolder:
    """Read the corpus, make the context, and write the plan; an earlier one must be of the same documents and model."""
    sampler = embedder.sampler()
    sample = None if sampler is None else (sampler.size, sampler.seed)
    document = None
    if fields.passages is not None:
        document = DocumentContext.of(request["document_context"], embedder.model)
    arguments = {"blocks": blocks, "fields": fields, "sample": sample}
    results = read(BlockScanner, arguments, range(len(blocks)))
    with progress(range(sum(block.rows for block in blocks)), "reading", show=show_progress) as bar:
        scanned, ids = gather(results, blocks, fields, sampler, bar)
    context = embedder.make_context(sampler, show_progress)
    encoder = embedder.encoder(context)
    if encoder.kind not in KINDS:
        raise ConfigError(
            f"{request['model']} makes no vectors (its kind is {encoder.kind!r}): use cderetrieval index."
        )
    plan = Plan(
        model=request["model"],
        fingerprint=encoder.fingerprint,
        layout=Layout.of_encoder(encoder),
        context=None if context is None else context.digest,
        fields=fields,
        request=request,
        files=tuple(map(_stamp, files)),
        blocks=scanned,
        ids=ids,
        document=None if document is None else document.to_dict(),
    )
    if VectorFolder.exists(out):
        if VectorFolder(out).plan.belongs != plan.belongs:
            raise MismatchError(f"the corpus or the model has changed since {out} was begun. Choose another folder.")
    elif (out / VECTORS).exists():
        raise MismatchError(f"{out} has a folder {VECTORS!r}, but no {MANIFEST}. Choose another folder, or remove it.")
    return VectorFolder.create(out, plan, context)


def _resumed(out: Path, request: dict[str, Any], files: Sequence[Path], embedder: Embedder) -> VectorFolder | None:
    """The folder of an earlier call with the same request and untouched files; None where the corpus must be read."""
    if not VectorFolder.exists(out):
        return None
    folder = VectorFolder(out)
    before = {"passages": None, "document_context": None}  # of folders from before there were passages
    for name, was in (before | folder.plan.request).items():
        if request.get(name) != was:
            raise MismatchError(
                f"{out} holds vectors of another run: {name} was {was!r}, is {request.get(name)!r}. Say the same, or "
                "choose another folder."
            )
    if tuple(map(_stamp, files)) != folder.plan.files:
        return None
    folder.check_fingerprint(embedder.encoder(folder.context).fingerprint)
    return folder


def _stamp(file: Path) -> tuple[str, int, int]:
    facts = file.stat()
    return str(file), facts.st_size, facts.st_mtime_ns


def _embed(
    work: Callable[..., Iterator[dict[str, Any]]], folder: VectorFolder, arguments: dict[str, Any], show_progress: bool
) -> None:
    """Embed the blocks that have no vectors yet."""
    for pattern in (".*.tmp", f"*{BEGUN}"):
        for leftover in (folder.path / VECTORS).glob(pattern):
            leftover.unlink(missing_ok=True)  # a worker of a dead run may still be at it
    missing = folder.missing()
    documents = [scanned.documents for scanned in folder.plan.blocks]
    done = len(folder) - sum(documents[number] for number in missing)
    if done:
        logger.info("%d of %d documents were embedded by an earlier run.", done, len(folder))
    results = work(BlockEmbedder, {"folder": folder.path, **arguments}, missing)
    with progress(range(len(folder)), "embedding", done=done, show=show_progress) as bar:
        for result in results:
            bar.update(documents[result["block"]])
    folder.check_whole()


class BlockEmbedder:
    """A job that embeds blocks of a corpus in the folder's context, and writes their vectors."""

    def __init__(self, folder: Path, model: str | Model, device: str | None, dtype: str) -> None:
        self._folder = VectorFolder(folder)
        plan = self._folder.plan
        embedder = Embedder(model, ContextSpec(), device=device, dtype=dtype)
        self._document, self._splitter = DocumentContext.of(plan.document, embedder.model), None
        if plan.document is not None:
            self._splitter = splitter_of(plan.fields.cut, plan.fields.on, [(embedder.model, self._document)])
        self._encoder = embedder.encoder(self._folder.context)
        self._folder.check_fingerprint(self._encoder.fingerprint)

    def __call__(self, number: int) -> dict[str, Any]:
        """Embed one block."""
        begun = self._begin(number)
        blocks, rows = self._folder.plan.blocks, self._folder.rows(number)
        before = sum(scanned.documents for scanned in blocks[:number])
        documents = [self._cut(text, payload) for _, text, payload in rows]
        try:
            vectors = [found for *_, found in embed(self._encoder, documents, self._document, before)]
        except ModelError as error:
            raise ModelError(f"{blocks[number].block}: {error}") from error
        ids, spans = [document_id for document_id, *_ in rows], [document.spans for document in documents]
        self._folder.write(number, ids, join(vectors), spans)
        begun.unlink(missing_ok=True)
        return {"block": number}

    def _cut(self, text: str, payload: Mapping[str, Any]) -> CutDocument:
        fields = self._folder.plan.fields
        spans = [] if self._splitter is None else self._splitter(text, payload)
        title = title_of(text, payload, fields.on, fields.cut) if spans else ""
        return CutDocument(0, text, spans, title)

    def _begin(self, number: int) -> Path:
        """Note, in a file that outlives this process, that a block is begun; give up on one begun too often."""
        note = self._folder.file(number).with_suffix(BEGUN)
        note.parent.mkdir(exist_ok=True)
        with open(open_own(note, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666), "ab") as file:
            if file.tell() >= ATTEMPTS:
                raise ClusterError(
                    f"{self._folder.plan.blocks[number].block}: {ATTEMPTS} workers died over these documents, of "
                    "memory most likely. Take fewer workers on a machine, or a smaller block in another folder. What "
                    "is done stays."
                )
            file.write(b".")
        return note
