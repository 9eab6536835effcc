import argparse

import pandas as pd
import pytest

from cderetrieval import load
from cderetrieval.errors import ConfigError
from cderetrieval.testing import tiny_model_directory
from cderetrieval.training import ablation
from cderetrieval.training.ablation import CELLS, cell_recipe, changed, run_cells, table
from cderetrieval.training.command import add_arguments, read_sweep
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
    assert read_sweep(["batch-size=8,16", "packing=tour"]) == {"batch_size": [8, 16], "packing": ["tour"]}
    assert read_sweep(["model.layers=1,2", "model.head=none"]) == {"model.layers": [1, 2], "model.head": ["none"]}
    for wrong in ("speed=1", "model=1", "batch_size.x=1", "model.=1"):
        with pytest.raises(ConfigError, match=f"--sweep {wrong}"):
            read_sweep([wrong])


def test_an_unknown_cell_is_refused(capsys):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["minilm", "--cells", "contextual"])
    assert "contextual/contextual" in capsys.readouterr().err


def test_the_four_cells_are_trained_once(folder, tmp_path, monkeypatch):
    tiny = tiny_model_directory()
    recipe = Recipe(
        "tiny", tiny, data=(str(folder),), surrogate=tiny, small_domains="merge", max_length=24, cluster_size=8,
        cluster_dimensions=None, batch_size=8, context_size=4, dtype="float32", max_steps=1, log_steps=1,
    )  # fmt: skip
    out, cache = tmp_path / "out", tmp_path / "shared"
    results = run_cells(recipe, out, seeds=1, cache=cache, evaluate=lambda model, step: {"ndcg@10": 0.5})
    assert [tuple(row) for row in results[["batches", "architecture"]].to_numpy()] == list(CELLS)
    assert (results["steps"] == 1).all()
    assert (results["processor_seconds"] > 0).all()
    assert results["hardest_negative"].isna().tolist() == [True, True, False, False]
    assert not list(out.glob("*/checkpoint-*"))
    assert (out / "contextual-contextual-seed=0" / "model").is_dir()
    assert cache.is_dir()
    monkeypatch.setattr(ablation, "_run", None)
    again = run_cells(recipe, out, seeds=1, cache=cache, evaluate=None)
    pd.testing.assert_frame_equal(again, results)
    assert list(pd.read_csv(out / "results.csv").columns) == list(results.columns)


def test_a_sweep_reaches_inside_the_model(folder, tmp_path):
    tiny = tiny_model_directory()
    recipe = Recipe(
        "tiny", tiny, data=(str(folder),), surrogate=tiny, small_domains="merge", max_length=24, cluster_size=8,
        cluster_dimensions=None, batch_size=8, context_size=4, dtype="float32", max_steps=1,
    )  # fmt: skip
    assert changed(recipe, {"model.head": "none", "batch_size": 4}).model == {"head": "none"}
    sweep = {"model.tokens_per_document": [1, 2]}
    # One step of ten that would be logged: nothing is known of its loss.
    results = run_cells(recipe, tmp_path / "out", seeds=1, cells=[("random", "contextual")], sweep=sweep)
    assert results["model.tokens_per_document"].tolist() == [1, 2]
    assert results["loss"].isna().all()
    made = load(tmp_path / "out" / "random-contextual-seed=0-model.tokens_per_document=2" / "model")
    assert made.config.tokens_per_document == 2


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
    alone = table(pd.DataFrame(rows[:1]), 1)
    assert alone.endswith("loss 1.0000  accuracy 0.5000")  # one seed says nothing of the others
