"""run_train.py under torchrun: two processes train what one trains on batches of twice the size, and nothing else."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cderetrieval.errors import MismatchError
from cderetrieval.testing import tiny_model_directory
from cderetrieval.training.recipes import load_recipe
from cderetrieval.training.run import train

pytest.importorskip("accelerate")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="gloo and process groups need a POSIX system"),
]

ROOT = Path(__file__).parents[2]
LIMIT = 300
SETTINGS = {
    "name": "tiny",
    "architecture": "biencoder",
    "small_domains": "merge",
    "max_length": 24,
    "negatives": 1,
    "cluster_size": 8,
    "cluster_dimensions": 8,
    "context_size": 4,
    "null_probability": 0.0,
    "sequence_dropout": 0.0,
    "chunk_tokens": 64,
    "dtype": "float32",
    "epochs": 1.0,
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "log_steps": 1,
    "save_steps": 2,
    "max_steps": 4,
}


def run_train(processes, recipe, output, cache, *rest):
    """The command in a session of its own, with a hard limit; its exit status and all that it wrote."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), str(ROOT / "run_train.py"), str(recipe)]
    command += ["--out", str(output), "--cache", str(cache), *rest]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=environment
    )
    try:
        written, _ = child.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        pytest.fail(f"the command took longer than {LIMIT} s")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    return child.returncode, written


@pytest.fixture
def recipe(folder, tmp_path):
    def write(name, **changes):
        models = {"base": tiny_model_directory(), "surrogate": tiny_model_directory(), "data": [str(folder)]}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({**SETTINGS, **models, **changes}))
        return path

    return write


def log_of(output):
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines if "grad_norm" in line}


def test_two_processes_train_what_one_does(recipe, tmp_path, cache, train_in_two):
    """Gradients through gathered negatives: without them the norm would be off by half."""
    two, one = recipe("two", batch_size=4, share_negatives=True), load_recipe(recipe("one", batch_size=8))
    status, written = run_train(2, two, tmp_path / "two", cache)
    assert status == 0, written
    train(one, tmp_path / "one", cache=cache)
    found, expected = log_of(tmp_path / "two"), log_of(tmp_path / "one")
    assert list(found) == list(expected) == [1, 2, 3, 4]
    for step, line in expected.items():
        # AdamW makes a step of full length out of a gradient that is only noise, so the runs drift apart a little.
        tolerance = 1e-5 if step == 1 else 1e-2
        assert found[step]["grad_norm"] == pytest.approx(line["grad_norm"], rel=tolerance), step
        assert found[step]["loss"] == pytest.approx(line["loss"], rel=tolerance), step
    # A checkpoint of another number of processes is refused, in both directions.
    with pytest.raises(MismatchError, match="was written by 2 processes, this run has 1"):
        train(load_recipe(two).replace(max_steps=6), tmp_path / "two", cache=cache, resume=True)
    for found in train_in_two(one.replace(max_steps=6), tmp_path / "one", resume=True):
        assert "MismatchError: " in found["error"]
        assert "was written by 1 processes, this run has 2" in found["error"]
