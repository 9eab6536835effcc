"""Both places where a retriever's truth can live answer the same questions."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cderetrieval.backend import Backend, View
from cderetrieval.models.minilm import installed_minilm
from cderetrieval.server import ServerStore, ServerView
from cderetrieval.store import Store
from cderetrieval.view import IndexView

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"


@pytest.mark.parametrize(("protocol", "classes"), [(Backend, (Store, ServerStore)), (View, (IndexView, ServerView))])
def test_every_class_has_what_its_protocol_lists(protocol, classes):
    asked = {name for name in vars(protocol) if not name.startswith("_")}
    assert len(asked) > 3
    for cls in classes:
        assert asked <= set(dir(cls)), cls


def test_importing_a_server_costs_nothing():
    heavy = ["pymilvus", "grpc", "torch", "faiss"]
    code = f"import sys, cderetrieval.server; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_page_on_scale_runs(tmp_path):
    pytest.importorskip("milvus_lite", reason="needs the scale extra")
    if installed_minilm() is None:
        pytest.skip("the weights of the default model are not installed")
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    script = tmp_path / "page.py"
    script.write_text(block, encoding="utf-8")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
