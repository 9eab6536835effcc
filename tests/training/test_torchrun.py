"""run_train.py under torchrun: two processes train what one trains on batches of twice the size, and nothing else."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cderetrieval.testing import tiny_model_directory

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


def test_two_processes_train_what_one_does(recipe, tmp_path):
    """Gradients through gathered negatives: without them the norm would be off by half."""
    two = recipe("two", batch_size=4, share_negatives=True)
    status, written = run_train(2, two, tmp_path / "two", tmp_path / "cache-two")
    assert status == 0, written
    status, written = run_train(1, recipe("one", batch_size=8), tmp_path / "one", tmp_path / "cache-one")
    assert status == 0, written
    found, expected = log_of(tmp_path / "two"), log_of(tmp_path / "one")
    assert list(found) == list(expected) == [1, 2, 3, 4]
    for step, line in expected.items():
        # AdamW makes a step of full length out of a gradient that is only noise, so the runs drift apart a little.
        tolerance = 1e-5 if step == 1 else 1e-2
        assert found[step]["grad_norm"] == pytest.approx(line["grad_norm"], rel=tolerance), step
        assert found[step]["loss"] == pytest.approx(line["loss"], rel=tolerance), step
    # Whoever has no checkpoint of as many processes is told so, in both directions.
    for processes, name in ((1, "two"), (2, "one")):
        again = recipe(name, batch_size=4 if name == "two" else 8, share_negatives=name == "two", max_steps=6)
        status, written = run_train(processes, again, tmp_path / name, tmp_path / f"cache-{name}", "--resume")
        assert status != 0
        assert f"was written by {3 - processes} processes, this run has {processes}" in written


def test_a_run_of_two_processes_resumes(recipe, tmp_path):
    whole = recipe("whole", batch_size=4, share_negatives=True)
    status, written = run_train(2, whole, tmp_path / "whole", tmp_path / "cache")
    assert status == 0, written
    (tmp_path / "part").mkdir()
    os.rename(tmp_path / "whole" / "checkpoint-2", tmp_path / "part" / "checkpoint-2")
    status, written = run_train(2, whole, tmp_path / "part", tmp_path / "cache", "--resume")
    assert status == 0, written
    found, expected = log_of(tmp_path / "part"), log_of(tmp_path / "whole")
    assert list(found) == [3, 4]
    for step, line in found.items():
        for name in ("loss", "grad_norm", "learning_rate"):
            assert line[name] == pytest.approx(expected[step][name], rel=1e-6)
