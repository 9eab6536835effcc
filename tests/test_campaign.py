"""The campaign in its short form: each attack a few times, and nothing found."""

import os
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "campaign.py"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forks")
@pytest.mark.parametrize("part", ["kills", "interrupts", "fuzz", "readers", "models"])
def test_an_attack_finds_nothing(part, warm, tmp_path):
    done = warm.run(SCRIPT, tmp_path, ["--quick", "--only", part])
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-2_000:]
    assert ", 0 failures" in done.stdout
