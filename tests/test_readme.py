"""Every Python block of the README runs, in order and in one process, but those that need the hub."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cderetrieval.models.minilm import installed_minilm

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"(<!-- needs the hub -->\n)?```python\n(.*?)```", re.DOTALL)


def test_python_blocks_run(tmp_path):
    if installed_minilm() is None:
        pytest.skip("the weights of the default model are not installed")
    blocks = [code for needs_hub, code in BLOCK.findall(README.read_text(encoding="utf-8")) if not needs_hub]
    assert len(blocks) >= 2
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("17\n")
