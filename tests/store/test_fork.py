"""A process that forks after it has embedded: the child answers, and has connections of its own."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

BEGIN = """
import contextlib, os, sys, threading, time
from cderetrieval import Retriever
from cderetrieval.errors import LockedError, StoreError
from cderetrieval.testing import HashEncoder, tiny_model

documents = [{"id": n, "text": f"about {n} " * 20} for n in range(60)]

def in_child(call):
    child = os.fork()
    if not child:
        try:
            call()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""

EMBED = """
for path in (None, sys.argv[1]):
    retriever = Retriever(tiny_model(), on="text", path=path, index="auto").add(documents, show_progress=False)
    queries = [document["text"] for document in documents]
    expected = [[hit["id"] for hit in hits] for hits in retriever(queries, k=3, documents=True)]

    def child():
        assert [[hit["id"] for hit in hits] for hits in retriever(queries, k=3, documents=True)] == expected
        if path is None:
            retriever.add([{"id": "child", "text": "of the child"}])
            assert len(retriever) == 61 and len(retriever("of the child", k=300)[0]) == 61
        else:
            try:
                retriever.add([{"id": "child", "text": "of the child"}])
            except LockedError:
                pass
            else:
                raise SystemExit("it wrote beside its parent")

    with contextlib.nullcontext() if path is None else retriever.collection.exclusive():
        for _ in range(2):
            in_child(child)
    retriever.add([{"id": "parent", "text": "of the parent"}])
    assert len(retriever) == 61 and "child" not in retriever
    retriever.collection.check()
    retriever.close()
    if path is not None:
        assert len(Retriever.load(path, model=tiny_model())) == 61
print("whole")
"""

AMID = """
for path in (None, sys.argv[1]):
    retriever = Retriever(HashEncoder(), on="text", path=path).add(documents, show_progress=False)

    def child():
        assert len(retriever) == 60, len(retriever)
        assert len(retriever("about 3", k=300)[0]) == 60

    def rows():
        for n in range(5000):
            if n == 4000:
                in_child(child)
            yield {"id": f"x{n}", "text": f"new {n} " * 200}

    retriever.add(rows(), show_progress=False)
    assert len(retriever) == 5060
    retriever.collection.check()
    retriever.close()
print("whole")
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [EMBED, AMID], ids=["after embedding", "amid a change"])
def test_a_child_answers_and_leaves_its_parent_alone(tmp_path, script):
    found = subprocess.run(
        [sys.executable, "-c", BEGIN + script, str(tmp_path / "index")],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "OMP_NUM_THREADS": "2", "CDE_PROGRESS": "0"},
    )
    assert found.stdout == "whole\n", found.stderr[-3000:]
