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
from torch import Tensor, nn

from ..errors import WeightsError
from ..files import read_tensors, write_tensors

# Name of the scales of a matrix's rows, behind the name of the matrix.
SCALE = ".row_scale"


def save_update(
    base: Mapping[str, Tensor],
    trained: Mapping[str, Tensor],
    path: str | Path,
    *,
    leave: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write what training changed.

    Parameters
    ----------
    base, trained
        Name to tensor, before and after; only names that both have count.
    path
        File to write, ``.safetensors``.
    leave
        Tensors whose names begin so stay as the base has them.
    metadata
        Kept in the file: base, licence, data.

    Raises
    ------
    WeightsError
        If a tensor has two shapes.

    Examples
    --------
    >>> import tempfile
    >>> from torch import nn
    >>> before, after = nn.Linear(8, 4), nn.Linear(8, 4)
    >>> path = Path(tempfile.mkdtemp()) / "update.safetensors"
    >>> save_update(before.state_dict(), after.state_dict(), path)
    >>> add_update(before, path)
    >>> bool((before.weight - after.weight).abs().max() < 0.004)
    True
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


def add_update(model: nn.Module, path: str | Path) -> None:
    """Add what :func:`save_update` wrote to the parameters of the base.

    Raises
    ------
    WeightsError
        If the model lacks one of the tensors, or has it in another shape.
    StoreError
        If the file is missing or damaged.
    """
    arrays, _ = read_tensors(path)
    tensors, parameters = {name: torch.from_numpy(a) for name, a in arrays.items()}, model.state_dict(keep_vars=True)
    names = [name for name in tensors if not name.endswith(SCALE)]
    wrong = [name for name in names if name not in parameters or parameters[name].shape != tensors[name].shape]
    if wrong:
        raise WeightsError(f"{path} is an update of another model: {', '.join(wrong[:3])} do not fit.")
    with torch.no_grad():
        for name in names:
            difference = tensors[name].float()
            if name + SCALE in tensors:
                difference *= tensors[name + SCALE]
            parameters[name].add_(difference.to(parameters[name]))
