"""How models are run: device, number format, progress bars, and batches of texts of similar length.

Sorting texts by token count and cutting batches by their number of tokens reduces padding, on text of mixed length,
from about 2.8 computed tokens for each real one (corpus order, batches of 32) to 1.01.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import ConfigError, InputError
from .terminal import printable

if TYPE_CHECKING:
    import torch
    from tqdm import tqdm

T = TypeVar("T")

# MiniLM on 400 docstrings takes 12 to 13 s of one thread with 512 to 4,096 tokens, 16 s with 16,384. Small batches are
# slow where two threads share loaded cores. The numbers for cuda and mps are reasoned, not measured.
TOKEN_BUDGET = {"cpu": 4_096, "cuda": 131_072, "mps": 16_384}
MAX_BATCH = 1_024


@dataclass(frozen=True)
class Compute:
    """Where a model computes, in which number format, by which library, and with which precision of its weights."""

    device: str | None = None
    dtype: str = "auto"
    runtime: str = "auto"
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name, known in (
            ("dtype", ("auto", "float32", "bfloat16")),
            ("runtime", ("auto", "onnx", "torch")),
            ("precision", ("float32", "int8")),
        ):
            if (value := getattr(self, name)) not in known:
                first, last = ", ".join(map(repr, known[:-1])), known[-1]
                raise ConfigError(f"{name}={value!r} is unknown; use {first} or {last!r}.")
        if self.precision == "int8" and self.runtime == "torch":
            raise ConfigError("precision='int8' is computed by ONNX Runtime: leave out runtime='torch'.")
        if self.dtype == "bfloat16" and (self.precision == "int8" or self.runtime == "onnx"):
            raise ConfigError("ONNX Runtime computes in float32 or int8: leave out dtype='bfloat16'.")


def progress(items: Iterable[T], description: str, *, done: int = 0, show: bool = True) -> tqdm[T]:
    """Wrap in a progress bar, on a terminal and in a notebook, else in one that logs a line every half minute.

    ``CDE_PROGRESS=0`` silences both, ``CDE_PROGRESS=1`` forces the bar.
    """
    wanted = os.environ.get("CDE_PROGRESS")
    if not show or wanted == "0":
        from tqdm.std import tqdm

        return tqdm(items, disable=True)
    options: dict[str, Any] = {"desc": printable(description), "initial": done, "leave": False}
    if wanted or _draws():
        from tqdm.auto import tqdm

        return tqdm(items, **options)
    from .progress_log import LoggedProgress

    return LoggedProgress(items, **options)


def _draws() -> bool:
    """Whether a bar can be seen: standard error is a terminal, or this is a notebook."""
    ask = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = None if ask is None else ask()
    return hasattr(shell, "kernel") or (sys.stderr is not None and sys.stderr.isatty())


def check_texts(texts: Sequence[str]) -> list[str]:
    r"""Check that all are strings; replace lone surrogates, which no tokenizer takes, by the replacement character.

    >>> check_texts(["na\u00efve", "half a pair: \ud83d"])
    ['naïve', 'half a pair: �']
    """
    if isinstance(texts, str):
        raise InputError("texts is one string; pass a list of strings.")
    checked = list(texts)
    for row, text in enumerate(checked):
        if not isinstance(text, str):
            raise InputError(f"text {row} is {type(text).__name__}, not a string.")
        if not text.isascii():
            checked[row] = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return checked


def pick_device(device: str | None = None) -> torch.device:
    """The named device, or the best there is: cuda, then mps, then cpu."""
    import torch

    if device is not None:
        try:
            found = torch.device(device)
        except RuntimeError as error:
            raise ConfigError(f"device={device!r} is not a torch device; use 'cpu', 'cuda' or 'mps'.") from error
        _check_there(found)
        return found
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def is_cpu(device: str | None) -> bool:
    """Whether :func:`pick_device` picks the processor; torch is imported only where there may be anything else.

    >>> is_cpu("cpu")
    True
    """
    if device is not None:
        return str(device) == "cpu"
    graphics = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, and either of them under Windows
    if sys.platform == "linux" and not any(map(os.path.exists, graphics)):
        return True
    return pick_device().type == "cpu"


def _check_there(device: torch.device) -> None:
    """Refuse a device that this machine, or this build of torch, does not have."""
    import torch

    if device.type == "cuda":  # counted, not tried: a process that has used CUDA cannot fork
        there = (device.index or 0) < torch.cuda.device_count()
    else:
        try:
            there = torch.empty(0, device=device) is not None
        except (RuntimeError, AssertionError, ImportError):
            there = False
    if not there:
        raise ConfigError(f"device='{device}' is not on this machine, or not in this build of torch; use 'cpu'.")


def supports_bfloat16(device: torch.device) -> bool:
    """Whether the hardware computes bfloat16; emulation is slower than float32."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe)() for probe in probes if hasattr(torch.cpu, probe))


def autocast(device: torch.device, dtype: str) -> contextlib.AbstractContextManager[Any]:
    """Context manager that computes in `dtype`; ``"auto"`` is bfloat16 on a GPU that has it, else float32."""
    import torch

    if dtype not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"dtype={dtype!r} is unknown; use 'auto', 'float32' or 'bfloat16'.")
    if dtype == "auto":
        dtype = "bfloat16" if device.type == "cuda" and supports_bfloat16(device) else "float32"
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def trained_attention(device: torch.device, dtype: str, tokens: int) -> contextlib.AbstractContextManager[Any]:
    """Context manager that chooses how attention is computed in training, on texts of at most `tokens` tokens."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    # There, the backward pass of torch's fused attention takes 15 times as long as plain products of matrices.
    if device.type == "cpu" and dtype == "bfloat16" and tokens <= 128:
        return sdpa_kernel(SDPBackend.MATH)
    return contextlib.nullcontext()


def length_batches(lengths: Sequence[int], token_budget: int, apart: Collection[int] = ()) -> Iterator[list[int]]:
    """Positions of texts, longest first, in batches of at most `token_budget` tokens, padding included.

    Those `apart` come first and share no batch with others, whose batches do not depend on how many they are.

    >>> list(length_batches([3, 9, 4, 8], token_budget=18))
    [[1, 3], [2, 0]]
    """
    alone = set(apart)
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)  # of equal ones in order
    order.sort(key=alone.__contains__, reverse=True)
    start = 0
    while start < len(order):
        size = min(MAX_BATCH, max(1, token_budget // max(1, lengths[order[start]])))
        size = min(size, len(alone) - start) if start < len(alone) else size
        yield order[start : start + size]
        start += size


def token_budget_for(device: torch.device | str) -> int:
    """Tokens a batch may hold on this device."""
    return TOKEN_BUDGET.get(str(device).partition(":")[0], TOKEN_BUDGET["cpu"])


def after_fork(call: Callable[[], None]) -> Callable[[], None]:
    """A decorator: call the function in every process that is forked from this one."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)
    return call


@after_fork
def _compute_alone() -> None:
    """Compute with one thread in a forked child, which would wait forever for the threads of OpenMP's pools."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(1)
