"""Every Python block of the README runs, in order and in one process, but those that need the hub."""

import re
from pathlib import Path

import pytest

from cderetrieval.models.minilm import installed_minilm

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"(<!-- needs the hub -->\n)?```python\n(.*?)```", re.DOTALL)


def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    if installed_minilm() is None:
        pytest.skip("the weights of the default model are not installed")
    monkeypatch.chdir(tmp_path)
    blocks = [code for needs_hub, code in BLOCK.findall(README.read_text(encoding="utf-8")) if not needs_hub]
    assert len(blocks) >= 2
    namespace: dict[str, object] = {}
    for code in blocks:
        exec(compile(code, str(README), "exec"), namespace)
    assert capsys.readouterr().out.startswith("17\n")
