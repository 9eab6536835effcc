import json

import pytest

from cderetrieval.cli import main
from cderetrieval.corpora.beir_folder import write_beir
from cderetrieval.corpora.dataset import make_dataset
from cderetrieval.testing import tiny_model_directory
from cderetrieval.training.recipes import recipe_names

pytest.importorskip("accelerate")


def tiny_arguments(folder, output):
    return [
        "train", "minilm", "--base", tiny_model_directory(), "--surrogate", tiny_model_directory(), "--model", "{}",
        "--first-stage", "trained", "--data", str(folder), "--out", str(output), "--batch-size", "8",
        "--context-size", "4", "--cluster-size", "8", "--cluster-dimensions", "none", "--max-length", "24",
        "--dtype", "float32", "--max-steps", "2", "--save-steps", "1", "--evaluate-steps", "1",
    ]  # fmt: skip


def test_print_config_shows_all_changes(capsys):
    changes = ["--learning-rate", "1e-3", "--clusters", "false", "--chunk-tokens", "none"]
    assert main(["train", "paper-small", *changes, "--print-config"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["learning_rate"], shown["clusters"], shown["batch_size"]) == (0.001, False, 256)
    assert shown["chunk_tokens"] is None
    assert shown["name"] == "paper-small"


def test_wrong_settings_end_with_a_message(capsys, tmp_path):
    assert main(["train", "paper-small", "--batch-size", "one", "--print-config"]) == 2
    assert "batch_size='one' must be a whole number" in capsys.readouterr().err
    assert main(["train", "nothing", "--print-config"]) == 2
    assert main(["train", "minilm"]) == 2
    assert "--out is missing" in capsys.readouterr().err


def test_a_model_is_trained_evaluated_and_resumed(folder, tmp_path, capsys):
    corpus = [{"id": name, "title": "", "text": name} for name in ("owls", "bees", "pines")]
    write_beir(make_dataset("toy", corpus, {"q": "bees"}, {"q": {"bees": 1}}), tmp_path / "toy")
    arguments = [*tiny_arguments(folder, tmp_path / "run"), "--evaluate", f"{tmp_path / 'toy'}:test"]
    assert main([*arguments, "--prepare-only"]) == 0
    assert "84 pairs" in capsys.readouterr().out
    assert main(arguments) == 0, capsys.readouterr().err
    assert "model written to" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    scores = [line for line in lines if "eval_toy_own" in line]
    assert [line["step"] for line in scores] == [1, 2]
    assert all(0 <= line["eval_toy_null"] <= 1 for line in scores)
    assert main(arguments) == 2
    assert "holds a run up to checkpoint-2" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 0


def test_training_is_not_imported_by_the_package():
    import subprocess
    import sys

    code = "import sys, cderetrieval, cderetrieval.training.recipes; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_prints(name, capsys):
    assert main(["train", name, "--print-config"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == name
