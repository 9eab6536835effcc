"""What every sentence-transformers model needs before it can encode here: quiet loading, its prompts, its limit."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..errors import CDEError, ModelError, WeightsError

Model = TypeVar("Model")

# Names under which models keep the prompt of a document, in the order of preference of sentence-transformers.
DOCUMENT_PROMPTS = ("document", "passage", "corpus")


def load_quietly(build: Callable[[], Model], name: str) -> Model:
    """Load a model; transformers' bar over its tensors shows on a terminal only, like every other.

    Raises
    ------
    WeightsError
        If a tensor has another shape than the configuration says.
    ModelError
        If it cannot be loaded for another reason.
    """
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    try:
        return build()
    except RuntimeError as error:
        if "size" not in str(error):
            raise
        raise WeightsError(
            f"the weights of {name} do not fit its configuration ({error}). Fetch both again."
        ) from error
    except (OSError, ValueError, KeyError, ImportError) as error:
        if isinstance(error, CDEError):
            raise
        raise ModelError(f"{name} cannot be loaded as a sentence-transformers model ({error}).") from error
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def prompts_of(model: Any, replaced: Mapping[str, str] | None) -> dict[str, str]:
    """Prompts of a model, ``"query"`` and ``"document"`` among them; `replaced` come in their place."""
    own = {name: text for name, text in model.prompts.items() if text}
    document = next((own[name] for name in DOCUMENT_PROMPTS if name in own), "")
    return {"query": "", **own, "document": document, **(replaced or {})}


def length_limit(model: Any) -> int:
    """Most tokens of a text; without a limit, as static embeddings are, a number that no text reaches."""
    limit = model.max_seq_length or 512
    return int(limit) if math.isfinite(limit) and limit < sys.maxsize else sys.maxsize
