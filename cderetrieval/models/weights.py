"""Tensors into a model, strictly: every name matched and every shape equal, or one error that lists what is not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import WeightsError
from ..files import read_tensors
from .directory import is_regular, no_weights, weight_files

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
    with torch.no_grad():
        for name, tensor in tensors.items():
            expected[name].copy_(tensor)


def add_update(model: nn.Module, path: str | Path) -> None:
    """Add a file of what training changed: matrices in int8, with a scale for each row, vectors in float16."""
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
