"""Tensors into a model, strictly: every name matched and every shape equal, or one error that lists what is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import WeightsError
from ..files import read_tensors
from .directory import is_regular, no_weights, weight_files

if TYPE_CHECKING:
    from torch import Tensor, nn

# Name of the scales of the rows of a matrix, after the name of the matrix.
SCALE = ".row_scale"


def read_checkpoint(directory: Path) -> dict[str, Tensor]:
    """Read ``model.safetensors``, or where there is none its shards, ``model-00001-of-00002.safetensors`` and so on."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = [directory / name for name in weight_files(directory)]
    if not files:
        raise no_weights(directory)
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            is_regular(file)
            tensors |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{file} is damaged ({error}). Fetch it again.") from error
    return tensors


def unique_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, each shared tensor once."""
    unique: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            unique[name] = tensor.detach()
    return unique


def load_tensors(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into a model."""
    expected = model.state_dict(keep_vars=True)
    given_ids = {id(expected[name]) for name in tensors if name in expected}
    problems = [
        f"missing: {name} {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name not in tensors and id(tensor) not in given_ids
    ]
    problems += [f"unexpected: {name} {tuple(tensors[name].shape)}" for name in tensors if name not in expected]
    problems += [
        f"wrong shape: {name} is {tuple(tensors[name].shape)}, the model has {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if problems:
        listing = "\n  ".join(sorted(problems))
        raise WeightsError(
            f"{source} does not fit this model, {len(problems)} tensors:\n  {listing}\nFetch or save weights and "
            "configuration again, both from one model."
        )
    import torch

    with torch.no_grad():
        for name, tensor in tensors.items():
            expected[name].copy_(tensor)


def read_update(path: str | Path, shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """What training changed of tensors of these shapes: matrices in int8, a scale for each row, vectors in float16."""
    arrays, _ = read_tensors(path)
    names = [name for name in arrays if not name.endswith(SCALE)]
    wrong = [name for name in names if tuple(shapes.get(name, ())) != arrays[name].shape]
    if wrong:
        raise WeightsError(f"{path} is an update of another model: {', '.join(wrong[:3])} do not fit.")
    one = np.float32(1)
    return {name: arrays[name].astype(np.float32) * arrays.get(name + SCALE, one) for name in names}


def add_update(model: nn.Module, path: str | Path) -> None:
    """Add a file of what training changed to a model."""
    import torch

    parameters = model.state_dict(keep_vars=True)
    update = read_update(path, {name: tensor.shape for name, tensor in parameters.items()})
    with torch.no_grad():
        for name, difference in update.items():
            parameters[name].add_(torch.from_numpy(difference).to(parameters[name]))
