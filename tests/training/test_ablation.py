import pandas as pd
import pytest

from cderetrieval.errors import ConfigError
from cderetrieval.testing import tiny_model_directory
from cderetrieval.training import ablation
from cderetrieval.training.ablation import CELLS, cell_recipe, run_cells, table
from cderetrieval.training.command import _sweep
from cderetrieval.training.recipes import Recipe, load_recipe

pytest.importorskip("accelerate")


def test_cells_differ_in_batches_and_architecture_only():
    recipe = load_recipe("minilm").replace(data=["pairs"])
    assert len(CELLS) == 4
    plain, whole = cell_recipe(recipe, ("random", "biencoder")), cell_recipe(recipe, ("contextual", "contextual"))
    assert whole == recipe
    changed = {name for name, value in plain.to_dict().items() if value != recipe.to_dict()[name]}
    assert changed == {"clusters", "filter", "architecture", "null_probability", "sequence_dropout"}
    with pytest.raises(ConfigError, match="Table 1 compares"):
        cell_recipe(plain, CELLS[0])


def test_a_sweep_is_read():
    assert _sweep(["batch-size=8,16", "packing=tour"]) == {"batch_size": [8, 16], "packing": ["tour"]}
    with pytest.raises(ConfigError, match="--sweep speed=1"):
        _sweep(["speed=1"])


def test_the_four_cells_are_trained_once(folder, tmp_path, monkeypatch):
    tiny = tiny_model_directory()
    recipe = Recipe(
        "tiny", tiny, data=(str(folder),), surrogate=tiny, small_domains="merge", max_length=24, cluster_size=8,
        cluster_dimensions=None, batch_size=8, context_size=4, dtype="float32", max_steps=1, log_steps=1,
    )  # fmt: skip
    results = run_cells(recipe, tmp_path / "out", seeds=1, evaluate=lambda model, step: {"ndcg@10": 0.5})
    assert [tuple(row) for row in results[["batches", "architecture"]].to_numpy()] == list(CELLS)
    monkeypatch.setattr(ablation, "_run", None)
    again = run_cells(recipe, tmp_path / "out", seeds=1, evaluate=None)
    pd.testing.assert_frame_equal(again, results)
    assert list(pd.read_csv(tmp_path / "out" / "results.csv").columns) == list(results.columns)


def test_the_table_has_intervals():
    rows = [
        {"batches": b, "architecture": a, "seed": s, "batch_size": 8, "loss": 1.0 + s, "accuracy": 0.5}
        for b, a in CELLS
        for s in range(3)
    ]
    lines = table(pd.DataFrame(rows), 3).splitlines()
    assert len(lines) == 4
    assert "loss 2.0000 ±2.4841" in lines[0]
    assert lines[0].split()[:3] == ["random", "biencoder", "8"]
