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
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..context.context import Context
from ..context.spec import CENTRE, NULL, OWN, ContextLike, ContextSpec
from ..corpora.blocks import Block, corpus_files, cut
from ..errors import ConfigError, MismatchError, missing_dependency
from ..files import as_path
from ..retrieval.embedder import Embedder, Model
from ..retrieval.part import CHUNK
from ..store.lock import WriterLock
from ..types import Encoder
from ..vectors import KINDS, Layout
from .cluster import STALLED, OnRay
from .embedder import BlockEmbedder
from .folder import BEGUN, MANIFEST, VECTORS, Plan, VectorFolder
from .progress import Progress
from .scan import Scan, Scanner, gather
from .work import Engine, Fields, OneProcess, Result, in_order

logger = logging.getLogger(__name__)

# Below, starting workers (5 to 8 s, and each loads the model) costs more than they save.
FEW_DOCUMENTS = 100_000
# Fewer are read here: at 50,000 documents a second they cost less than the start of workers that read.
MANY_BLOCKS = 100
ENGINES = ("auto", "process", "ray")


def embed_corpus(
    corpus: str | Path | Sequence[str | Path],
    out: str | Path,
    model: str | Path | Model = "cde-minilm",
    *,
    key: str = "id",
    on: str | Sequence[str] | None = None,
    context: ContextLike = "own",
    context_size: int | None = None,
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
        The folder of vectors. On a cluster, this and the corpus lie where all machines see them.
    model
        Name or directory, which each worker loads, or a model, which travels to them.
    key, on, context, context_size, seed, device, dtype
        As in :class:`~cderetrieval.Retriever`.
    skip_empty
        Leave out documents with an empty text, and log how many, in place of an error.
    engine
        ``"process"``, ``"ray"``, or ``"auto"``: Ray from 100,000 documents on, or where `workers` or `address` ask for
        it.
    workers, threads, address
        Settings of Ray, see :class:`~cderetrieval.distributed.cluster.OnRay`.
    block
        Documents embedded at a time, and lost with a crash of a worker.
    stalled
        Seconds without any progress on Ray after which the job is given up.
    show_progress
        Show progress: bars on a terminal, else a line in the log every half minute.

    Returns
    -------
    VectorFolder
        The folder, whole.

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
    fields = Fields(key, (on,) if isinstance(on, str) else None if on is None else tuple(on), skip_empty)
    files = [file.resolve() for file in corpus_files([corpus] if isinstance(corpus, str | Path) else corpus)]
    out = as_path(out).resolve()
    lock = WriterLock(out / MANIFEST)
    lock.acquire()
    try:
        spec = ContextSpec.parse(context)
        embedder = Embedder(model, spec, context_size=context_size, seed=seed, device=device, dtype=dtype)
        blocks = [found for file in files for found in cut(file, block)]
        worked = _engine(engine, sum(found.rows for found in blocks), workers, threads, address, stalled)
        request = {
            "model": embedder.name,
            "context": _spec_name(spec),
            "context_size": context_size,
            "seed": seed,
            "key": key,
            "on": None if fields.on is None else list(fields.on),
            "skip_empty": skip_empty,
            "block": block,
        }
        with worked:
            folder = _resumed(out, request, files, embedder)
            if folder is None:
                scan, context = _scan(worked, blocks, fields, embedder, show_progress)
                folder = _begin(out, request, files, scan, fields, embedder.encoder(context), context)
            _embed(worked, folder, embedder.name or embedder.model, folder.context, device, dtype, show_progress)
        return folder
    finally:
        lock.release()


def _engine(
    name: str, documents: int, workers: int | None, threads: int, address: str | None, stalled: float
) -> Engine:
    asked = workers is not None or address is not None
    if name == "process" and asked:
        raise ConfigError("engine='process' has no workers; leave workers= and address= out, or take engine='ray'.")
    if name == "auto" and not asked and documents >= FEW_DOCUMENTS and find_spec("ray") is None:
        logger.warning(
            "One process embeds %d documents. For several: %s", documents, missing_dependency("ray", "scale")
        )
        return OneProcess()
    if name == "ray" or asked or (name == "auto" and documents >= FEW_DOCUMENTS):
        return OnRay(workers, threads=threads, address=address, stalled=stalled)
    return OneProcess()


def _spec_name(spec: ContextSpec) -> str | None:
    """What a context is to be, as a short text."""
    if spec.context is not None:
        return f"context {spec.digest}"
    if spec.path is not None:
        return str(spec.path)
    if spec.texts:
        return f"texts {hashlib.sha256(json.dumps(list(spec.texts)).encode()).hexdigest()}"
    return {NULL: None, CENTRE: OWN}.get(spec.source, spec.source)


def _scan(
    engine: Engine, blocks: Sequence[Block], fields: Fields, embedder: Embedder, show_progress: bool
) -> tuple[Scan, Context | None]:
    sampler = embedder.sampler()
    sample = None if sampler is None else (sampler.size, sampler.seed)
    numbers = range(len(blocks))
    with Progress("reading", sum(block.rows for block in blocks), show=show_progress) as bar:

        def counted(results: Iterable[Result]) -> Iterator[Result]:
            for result in results:
                bar.add(blocks[result["block"]].rows)
                yield result

        reader = engine if len(blocks) >= MANY_BLOCKS else OneProcess()
        results = reader.run(Scanner, {"blocks": blocks, "fields": fields, "sample": sample}, numbers)
        scan = gather(in_order(counted(results), numbers), blocks, fields, sampler)
    return scan, embedder.make_context(sampler, show_progress)


def _begin(
    out: Path,
    request: dict[str, Any],
    files: Sequence[Path],
    scan: Scan,
    fields: Fields,
    encoder: Encoder,
    context: Context | None,
) -> VectorFolder:
    """Write the plan; one that stands there must be of the same documents and model, wherever they lie now."""
    if encoder.kind not in KINDS:
        raise ConfigError(
            f"{request['model']} makes no vectors (its kind is {encoder.kind!r}): use cderetrieval index."
        )
    layout = Layout.of_encoder(encoder)
    digest = None if context is None else context.digest
    plan = Plan(request["model"], encoder.fingerprint, layout, digest, fields, request, tuple(map(_stamp, files)), scan)
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
    for name, was in folder.plan.request.items():
        if request.get(name) != was:
            raise MismatchError(
                f"{out} holds vectors of another run: {name} was {was!r}, is {request.get(name)!r}. Say the same, or "
                "choose another folder."
            )
    if tuple(map(_stamp, files)) != folder.plan.files:
        return None
    found, expected = embedder.encoder(folder.context).fingerprint, folder.plan.fingerprint
    if found != expected:
        raise MismatchError(
            f"{out} was begun by an encoder with fingerprint {expected[:12]}, and this one is {found[:12]}: weights, "
            "tokenizer, prompts or length limit have changed. Use the same model, or choose another folder."
        )
    return folder


def _stamp(file: Path) -> tuple[str, int, int]:
    facts = file.stat()
    return str(file), facts.st_size, facts.st_mtime_ns


def _embed(
    engine: Engine,
    folder: VectorFolder,
    model: str | Model,
    context: Context | None,
    device: str | None,
    dtype: str,
    show_progress: bool,
) -> None:
    for pattern in (".*.tmp", f"*{BEGUN}"):
        for leftover in (folder.path / VECTORS).glob(pattern):
            leftover.unlink(missing_ok=True)  # a worker of a dead run may still be at it
    missing = folder.missing()
    scanned = folder.plan.scan.blocks
    done = len(folder) - sum(scanned[number].documents for number in missing)
    if done:
        logger.info("%d of %d documents were embedded by an earlier run.", done, len(folder))
    arguments: dict[str, Any] = {
        "folder": folder.path,
        "model": model,
        "context": context,
        "device": device,
        "dtype": dtype,
    }
    with Progress("embedding", len(folder), done, show=show_progress) as bar:
        for result in engine.run(BlockEmbedder, arguments, missing):
            bar.add(result["documents"])
    folder.check_whole()
