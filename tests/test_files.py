import os

import numpy as np
import pytest

from cderetrieval.errors import StoreError
from cderetrieval.files import atomic_write, read_json, read_tensors, write_json, write_tensors


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "note"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as temporary:
        temporary.write_text(f"half of it, then {1 / 0}")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["note"]


def test_tensors_come_back_and_others_may_read_them(tmp_path):
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"a": np.arange(6).reshape(2, 3).T}, {"made": "here"})
    tensors, metadata = read_tensors(path)
    assert tensors["a"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert metadata == {"made": "here"}
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("damage", [b"", b"not tensors", None])
def test_damaged_tensors_are_named(tmp_path, damage):
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"a": np.zeros(100)})
    path.write_bytes(path.read_bytes()[:200] if damage is None else damage)
    with pytest.raises(StoreError, match=r"t\.safetensors is damaged"):
        read_tensors(path)


def test_damaged_json_is_named(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    assert read_json(path) == {"a": 1}
    path.write_text("{")
    with pytest.raises(StoreError, match=r"x\.json is not valid JSON"):
        read_json(path)
    with pytest.raises(StoreError, match="does not exist"):
        read_json(tmp_path / "missing.json")
