"""Whether settings and weights belong together: asked before a library makes a model, and after it has filled it.

A damaged configuration can ask for more layers or numbers than there are in the world, and transformers draws tensors
that a checkpoint lacks at random, which only its log says. Sizes are therefore compared with the header of the
safetensors first, by a model without memory, and what was not in the file is an error that lists it.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError, WeightsError

Shapes = Mapping[str, list[int]]

# Greatest number that a setting may hold where nothing else bounds it.
LARGEST = 2**31
# Bytes of a header; that of a model of 100,000 tensors has 15 MB.
_HEADER = 100_000_000
# What a model may hold beside its weights: tables of positions and masks.
_BESIDE = 2**26
# Settings that say how often something is built.
_COUNTS = re.compile(r".*(layer|block|depth|expert|stage|group|head|kernel|label).*")
_FEW = 2_000
# Poolers that nobody reads, and tables that are computed.
_NOT_READ = re.compile(r"(^|.*\.)(pooler\..*|.*position_ids|.*inv_freq|.*masked_bias|.*num_batches_tracked)")
_LOCK = threading.RLock()


def stored_shapes(file: Path) -> Shapes:
    """Names and shapes of the tensors in a safetensors file; only its header is read."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 1 < length <= min(_HEADER, file.stat().st_size - 8):
            raise WeightsError(f"{file} is damaged (its header would have {length} bytes). Fetch it again.")
        try:
            header = json.loads(stream.read(length))
            return {name: list(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise WeightsError(f"{file} is damaged ({error}). Fetch it again.") from error


def check_numbers(values: Any, where: str, most: Callable[[str], float], key: str = "") -> None:
    """Refuse numbers that nothing can have: infinities, and whole numbers above `most`, asked by key.

    >>> check_numbers({"num_layers": 10**9}, "config.json", lambda key: 100)
    Traceback (most recent call last):
    ...
    cderetrieval.errors.ModelError: config.json: num_layers=1000000000 is out of range for these weights. Fetch ...
    """
    if isinstance(values, Mapping):
        for name, value in values.items():
            check_numbers(value, where, most, str(name))
    elif isinstance(values, list):
        for value in values:
            check_numbers(value, where, most, key)
    elif not isinstance(values, str | None):
        beyond = not math.isfinite(values) if isinstance(values, float) else abs(values) > most(key)
        if beyond:
            shown = values if isinstance(values, float) or abs(values) < 10**30 else "a number of many digits"
            raise ModelError(
                f"{where}: {key}={shown} is out of range for these weights. Fetch or save the model again."
            )


def check_counts(config: Mapping[str, Any], tensors: int, where: str) -> None:
    """Refuse a configuration that builds more parts than there are tensors."""
    counts = max(_FEW, tensors)
    check_numbers(config, where, lambda key: counts if _COUNTS.fullmatch(key) else LARGEST)


def check_transformer(config: Mapping[str, Any], shapes: Shapes, where: str, *, masked: bool) -> None:
    """Refuse a configuration of a transformer that asks for more than its weights hold."""
    check_counts(config, len(shapes), where)
    from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

    values = dict(config)
    described = AutoConfig.for_model(values.pop("model_type"), **values)
    kind = AutoModelForMaskedLM if masked else AutoModel
    stored = sum(math.prod(shape) for shape in shapes.values())
    check_size(lambda: kind.from_config(described, trust_remote_code=False), stored, where)


def check_size(build: Callable[[], Any], stored: int, where: str) -> None:
    """Refuse a model that would hold far more numbers than its weights do; it is built without memory."""
    import torch

    with torch.device("meta"):
        model = build()
    wanted = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if wanted > 4 * stored + _BESIDE:
        raise WeightsError(
            f"{where} describes a model of {wanted:,} numbers, the weights hold {stored:,}: they do not belong "
            "together. Fetch both again."
        )


def check_module(config: Mapping[str, Any], shapes: Shapes, where: str) -> None:
    """Refuse a module whose sizes are not those of its weights."""
    largest = max((size for shape in shapes.values() for size in shape), default=0)
    check_numbers(config, where, lambda key: LARGEST if "length" in key else max(largest, _FEW))


@contextlib.contextmanager
def strictly(name: str) -> Iterator[None]:
    """Refuse what transformers loads in this block without some of its weights.

    It knows which they are and gives them only to those who call it directly, which sentence-transformers does for us.
    """
    from transformers import PreTrainedModel

    finish, thread = PreTrainedModel._finalize_model_loading, threading.get_ident()

    def checked(model: Any, load_config: Any, info: Any) -> Any:
        done = finish(model, load_config, info)
        if threading.get_ident() == thread:  # what others load meanwhile is theirs
            _check_loaded(name, model, set(done.missing_keys), set(done.unexpected_keys))
        return done

    with _LOCK:
        PreTrainedModel._finalize_model_loading = staticmethod(checked)
        try:
            yield
        finally:
            PreTrainedModel._finalize_model_loading = staticmethod(finish)


def _check_loaded(name: str, model: Any, missing: set[str], unexpected: set[str]) -> None:
    prefix = f"{model.base_model_prefix}."
    backbone = getattr(model, model.base_model_prefix, model)
    parts = {part for part, _ in backbone.named_children()}
    missing = {key for key in missing if not _NOT_READ.fullmatch(key)}
    own = {
        key for key in unexpected if key.removeprefix(prefix).split(".")[0] in parts and not _NOT_READ.fullmatch(key)
    }
    if missing and backbone is not model and not any(key.startswith(prefix) for key in missing):
        heads = ", ".join(sorted({key.split(".")[0] for key in missing}))
        raise ModelError(
            f"{name} has no weights of the masked-language-model head ({heads}): this is a plain encoder. Use a "
            "checkpoint that has them, or load it as a dense model."
        )
    problems = [f"missing: {key}" for key in sorted(missing)] + [f"unexpected: {key}" for key in sorted(own)]
    if problems:
        listing = "\n  ".join(problems)
        raise WeightsError(
            f"{name} does not fit its configuration, {len(problems)} tensors:\n  {listing}\nFetch or save weights and "
            "configuration again, both from one model."
        )
