"""Weights as a difference to a base."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from cderetrieval.errors import StoreError, WeightsError
from cderetrieval.models.weights import SCALE, add_update

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
from weight_update import save_update  # noqa: E402


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 8), nn.LayerNorm(8), nn.Embedding(5, 8))


def moved(model, by):
    torch.manual_seed(7)
    return {name: tensor + by * torch.randn_like(tensor) for name, tensor in model.state_dict().items()}


def test_an_update_brings_back_the_trained_weights_at_a_quarter_of_their_size(tmp_path):
    base = network(0)
    trained = moved(base, 0.01)
    save_update(base.state_dict(), trained, tmp_path / "u.safetensors", metadata={"license": "Apache-2.0"})
    add_update(base, tmp_path / "u.safetensors")
    for name, tensor in base.state_dict().items():
        # Half a step of 127, of differences that reach 0.04.
        assert (tensor - trained[name]).abs().max() < 0.04 / 127, name
    with safe_open(tmp_path / "u.safetensors", "pt") as file:
        assert file.metadata() == {"license": "Apache-2.0"}
        assert file.get_tensor("0.weight").dtype == torch.int8
        assert file.get_tensor(f"0.weight{SCALE}").shape == (8, 1)


def test_what_is_left_out_and_what_did_not_move_stays(tmp_path):
    base = network(0)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    trained = moved(base, 0.01) | {"0.weight": before["0.weight"].clone()}
    save_update(base.state_dict(), trained, tmp_path / "u.safetensors", leave=["2."])
    add_update(base, tmp_path / "u.safetensors")
    assert torch.equal(base.state_dict()["2.weight"], before["2.weight"])
    assert torch.equal(base.state_dict()["0.weight"], before["0.weight"])
    assert not torch.equal(base.state_dict()["0.bias"], before["0.bias"])


def test_an_update_of_another_model_is_refused(tmp_path):
    base = network(0)
    save_update(base.state_dict(), moved(base, 0.01), tmp_path / "u.safetensors")
    before = nn.Sequential(nn.Linear(16, 9), nn.LayerNorm(9))
    kept = before[0].bias.clone()
    with pytest.raises(WeightsError, match=r"update of another model: 0\.bias"):
        add_update(before, tmp_path / "u.safetensors")
    assert torch.equal(before[0].bias, kept)
    with pytest.raises(WeightsError, match=r"0\.weight is \(8, 3\) after training, \(8, 16\) before"):
        save_update(base.state_dict(), {"0.weight": torch.zeros(8, 3)}, tmp_path / "v.safetensors")


def test_an_update_that_is_missing_or_cut_short_is_named(tmp_path):
    base, path = network(0), tmp_path / "u.safetensors"
    with pytest.raises(StoreError, match=r"u\.safetensors does not exist"):
        add_update(base, path)
    save_update(base.state_dict(), moved(base, 0.01), path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(StoreError, match=r"u\.safetensors is damaged"):
        add_update(base, path)
