"""The worker: reads a block, embeds it in the given context, writes its vectors."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import ClassVar

from ..context.context import Context
from ..context.spec import ContextSpec
from ..errors import ClusterError, MismatchError, ModelError
from ..files import open_own
from ..retrieval.embedder import Embedder, Model, checked_documents
from .folder import BEGUN, VectorFolder
from .work import Result

# How often a block is begun in one run: one that kills its worker each time must end the job.
ATTEMPTS = 5


class BlockEmbedder:
    """Embeds blocks of a corpus into its folder."""

    computes: ClassVar[bool] = True

    def __init__(
        self,
        folder: Path,
        model: str | Model,
        context: Context | None,
        device: str | None,
        dtype: str,
    ) -> None:
        self._folder = VectorFolder(folder)
        plan = self._folder.plan
        self._encoder = Embedder(model, ContextSpec(), device=device, dtype=dtype).encoder(context)
        fingerprint = self._encoder.fingerprint
        if fingerprint != plan.fingerprint:
            raise MismatchError(
                f"{folder} was begun by an encoder with fingerprint {plan.fingerprint[:12]}, and model "
                f"{plan.model or 'given as an object'} is now {fingerprint[:12]}: its weights, tokenizer, prompts or "
                "length limit have changed, or a worker has another copy. Use the same model everywhere."
            )

    def __call__(self, number: int) -> Result:
        """Embed one block."""
        started = time.perf_counter()
        begun = self._begin(number)
        rows = self._folder.rows(number)
        before = sum(scanned.documents for scanned in self._folder.plan.scan.blocks[:number])
        try:
            vectors = self._encoder.encode_document([text for _, text, _ in rows])
        except ModelError as error:
            raise ModelError(f"{self._folder.plan.scan.blocks[number].block}: {error}") from error
        checked = checked_documents(self._encoder, vectors, len(rows), before)
        self._folder.write(number, [document_id for document_id, *_ in rows], checked)
        begun.unlink(missing_ok=True)
        return {"block": number, "documents": len(rows), "seconds": time.perf_counter() - started}

    def _begin(self, number: int) -> Path:
        """Note, in a file that outlives this process, that a block is begun; give up on one begun too often."""
        note = self._folder.file(number).with_suffix(BEGUN)
        note.parent.mkdir(exist_ok=True)
        with open(open_own(note, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666), "ab") as file:
            if file.tell() >= ATTEMPTS:
                raise ClusterError(
                    f"{self._folder.plan.scan.blocks[number].block}: {ATTEMPTS} workers died over these documents, of "
                    "memory most likely. Take fewer workers on a machine, or a smaller block in another folder. What "
                    "is done stays."
                )
            file.write(b".")
        return note
