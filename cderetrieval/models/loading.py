"""What every sentence-transformers model needs before it can encode here: quiet loading, its prompts, its limit."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import CDEError, ModelError, WeightsError
from ..files import PASSED_ON

# Names under which models keep the prompt of a document, in the order of preference of sentence-transformers.
DOCUMENT_PROMPTS = ("document", "passage", "corpus")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Show transformers' bars over tensors on a terminal only, as every other."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def loading(name: str, view: Path | None = None) -> Iterator[None]:
    """Load a model in this block, quietly and with named errors."""
    try:
        with quiet():
            yield
    except (CDEError, *PASSED_ON):
        raise
    except BaseException as error:  # tokenizers' panics are no `Exception`
        reason = str(error) if view is None else str(error).replace(str(view), name)
        if isinstance(error, RuntimeError) and "size" in reason:
            raise WeightsError(
                f"the weights of {name} do not fit its configuration ({reason}). Fetch both again."
            ) from error
        kind = "" if isinstance(error, OSError | ValueError | KeyError | ImportError) else f"{type(error).__name__}: "
        raise ModelError(f"{name} cannot be loaded as a sentence-transformers model ({kind}{reason}).") from error


def prompts_of(model: Any, replaced: Mapping[str, str] | None = None) -> dict[str, str]:
    """Prompts of a model, ``"query"`` and ``"document"`` among them; `replaced` come in their place."""
    own = {name: text for name, text in model.prompts.items() if text}
    document = next((own[name] for name in DOCUMENT_PROMPTS if name in own), "")
    return {"query": "", **own, "document": document, **(replaced or {})}


def length_limit(model: Any) -> int:
    """Most tokens of a text; without a limit, as static embeddings are, a number that no text reaches."""
    limit = model.max_seq_length or 512
    return int(limit) if math.isfinite(limit) and limit < sys.maxsize else sys.maxsize
