"""Both places where a retriever's truth can live answer the same questions."""

import subprocess
import sys

import pytest

from cderetrieval.backend import Backend, View
from cderetrieval.server import ServerStore, ServerView
from cderetrieval.store import Store
from cderetrieval.view import IndexView


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
