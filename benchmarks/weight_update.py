"""A trained model as what training changed: differences to a public base, in eight bits.

    matrix    base + scale of the row * int8
    vector    base + float16

Training moves weights by little: the differences of a matrix are a few thousandths of its numbers, and so is what
rounding them to 255 steps loses. A difference is a quarter of the size of the weights, and says which weights it
belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cderetrieval.errors import WeightsError
from cderetrieval.files import write_tensors
from cderetrieval.models.weights import SCALE


def save_update(
    base: Mapping[str, Tensor],
    trained: Mapping[str, Tensor],
    path: str | Path,
    *,
    leave: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write what training changed; `cderetrieval.models.weights.add_update` adds it to the base again.

    Only names that both have count; tensors whose names begin with one of `leave` stay as the base has them. The
    `metadata` (base, licence, data) is kept in the file.
    """
    arrays: dict[str, np.ndarray] = {}
    for name in sorted(set(base) & set(trained)):
        if not base[name].is_floating_point() or name.startswith(tuple(leave)):
            continue
        if base[name].shape != trained[name].shape:
            raise WeightsError(
                f"{name} is {tuple(trained[name].shape)} after training, {tuple(base[name].shape)} before."
            )
        difference = trained[name].detach().float().cpu() - base[name].detach().float().cpu()
        if difference.ndim == 2:
            scale = (difference.abs().amax(dim=1, keepdim=True) / 127).clamp_min(1e-12)
            arrays[name] = (difference / scale).round().to(torch.int8).numpy()
            arrays[name + SCALE] = scale.numpy()
        else:
            arrays[name] = difference.half().numpy()
    write_tensors(path, arrays, metadata)
