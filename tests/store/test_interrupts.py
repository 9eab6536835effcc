"""An exception at any step of the store: the state before or after, and no turn left taken."""

import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import GeneratorType

import numpy as np
import pytest

import cderetrieval
from cderetrieval import Retriever
from cderetrieval.store import Store
from cderetrieval.testing import HashEncoder

PACKAGE = str(Path(cderetrieval.__file__).parent)
STORE = str(Path(PACKAGE) / "store")


def interrupted(call, step, kind, where=STORE, by="opcode"):
    """Call, raise at a step of the files in `where` (opcode or line, or the start of a function); was it reached?"""
    steps, printed = 0, []

    def trace(frame, event, _):
        nonlocal steps
        if not frame.f_code.co_filename.startswith(where):
            return None
        frame.f_trace_opcodes = True
        if event in ("call", by):
            steps += 1
            if steps == step:
                sys.settrace(None)
                raise kind("now")
        return trace

    before, hook = sys.gettrace(), sys.unraisablehook
    # What is raised while Python closes a generator that it drops reaches no caller: Python itself only prints it.
    sys.unraisablehook = lambda lost: (
        printed.append(lost.exc_value)
        if isinstance(lost.exc_value, kind) and isinstance(lost.object, GeneratorType)
        else hook(lost)
    )
    sys.settrace(trace)
    try:
        call()
    except kind as error:
        return error  # its traceback keeps every frame, as that of a console does
    finally:
        sys.settrace(before)
        sys.unraisablehook = hook
    assert printed or steps < step, "the exception was lost"
    return printed[0] if printed else None


def elsewhere(call):
    """Call in another thread, which must not wait for ever."""
    found = []
    thread = threading.Thread(target=lambda: found.append(call()), daemon=True)
    thread.start()
    thread.join(20)
    assert found, "another thread waits"
    return found[0]


def steps_of(call, kind, stride=1, where=STORE, by="opcode"):
    step = 1
    while (error := interrupted(call, step, kind, where, by)) is not None:
        yield error
        step += stride


def put(store, name):
    with store.transaction():
        store.set_setting("n", store.get_setting("n", 0) + 1)
        with store.transaction():
            store.put_documents([(name, "text", {})])


# Every line, and of the many more opcodes some.
@pytest.mark.parametrize("by", ["line", "opcode"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_transaction_is_cut_off_at_every_step(tmp_path, on_disk, kind, by):
    stride = 1 if by == "line" else 29 if on_disk else 11
    with Store(tmp_path / "s.sqlite" if on_disk else None) as store:
        put(store, "first")
        names, errors = {"first"}, []
        for step, error in enumerate(steps_of(lambda: put(store, f"x{len(errors)}"), kind, stride, by=by)):
            errors.append(error)
            there = set(store.live()[1])
            assert names <= there <= {*names, f"x{step}"}, "before or after"
            assert store.get_setting("n") == len(there)
            names = there
            if step % 7 == 0:
                put(store, f"y{step}") if step % 2 else elsewhere(lambda n=f"y{step}": put(store, n) or True)
                names.add(f"y{step}")
                assert elsewhere(store.count) == len(names)
        assert len(errors) > 50
        store.check()
    if on_disk:
        with Store(tmp_path / "s.sqlite") as again:
            assert set(again.live()[1]) == {*names, f"x{len(errors)}"}


@pytest.mark.parametrize("by", ["line", "opcode"])
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_snapshot_is_cut_off_at_every_step(tmp_path, on_disk, by):
    with Store(tmp_path / "s.sqlite" if on_disk else None) as store:
        put(store, "first")

        def read():
            with store.snapshot(), store.committed():
                return store.count(), store.live()[1]

        errors = []
        for step, error in enumerate(steps_of(read, KeyboardInterrupt, 1 if by == "line" else 5, by=by)):
            errors.append(error)
            assert read() == (1 + step // 20, ["first", *(f"y{n}" for n in range(20, step + 1, 20))][: 1 + step // 20])
            if step % 20 == 19:
                put(store, f"y{step + 1}")
        assert len(errors) > 40
        assert elsewhere(read)[0] == store.count()


DOCUMENTS = [{"id": f"d{n}", "text": f"about {n} and {n % 3}"} for n in range(5)]


def answers(retriever):
    return [[hit["id"] for hit in hits] for hits in retriever(["about 2", "about 4"], k=3)]


def test_search_is_cut_off_at_every_step():
    retriever = Retriever(HashEncoder(), on="text").add(DOCUMENTS)
    expected, errors = answers(retriever), []
    for step, error in enumerate(steps_of(lambda: retriever("about 2"), KeyboardInterrupt, 23, PACKAGE)):
        errors.append(error)
        if step % 5 == 0:
            assert elsewhere(lambda: answers(retriever)) == expected
        assert answers(retriever) == expected
    assert len(errors) > 20


@pytest.mark.slow
def test_changes_are_cut_off_at_every_step(tmp_path):
    retriever = Retriever(HashEncoder(), on="text", path=tmp_path / "index").add(DOCUMENTS)
    errors, names = [], [f"d{n}" for n in range(5)]

    def change():
        retriever.add([f"text {len(errors)}"], show_progress=False)
        retriever("text", k=1)
        retriever.remove("d1")
        retriever("text", k=1)
        retriever.add([{"id": "d1", "text": "about 1"}], show_progress=False)

    def whole():
        ids = retriever.collection.live()[1]
        numbers = [i for i in ids if isinstance(i, int)]
        assert numbers == list(range(len(numbers))), "an id was given twice, or lost"
        assert {*names} - {"d1"} <= {*ids}
        fresh = Retriever.load(tmp_path / "index", model=HashEncoder())
        assert list(fresh("about 2", k=3)) == list(retriever("about 2", k=3))
        if "d1" not in retriever:
            retriever.add([{"id": "d1", "text": "about 1"}], show_progress=False)

    for error in steps_of(change, KeyboardInterrupt, 331, PACKAGE):
        errors.append(error)
        whole()
    assert len(errors) > 20
    retriever.close()
    with Retriever.load(tmp_path / "index", model=HashEncoder()) as again:
        again.collection.check()


def test_an_index_that_was_cut_off_while_it_followed_is_opened_again(monkeypatch):
    retriever = Retriever(HashEncoder(), on="text").add(DOCUMENTS)
    retriever("about 2")
    index = retriever.collection.index()
    retriever.add([{"id": "new", "text": "about new"}])

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(index, "sync", stop)
    with pytest.raises(KeyboardInterrupt):
        retriever("about new")
    assert retriever("about new", k=1)[0][0]["id"] == "new"


def test_signals_during_small_calls(tmp_path):
    script = textwrap.dedent(
        """
        import os, random, signal, sys, threading, time
        from cderetrieval import Retriever
        from cderetrieval.testing import HashEncoder

        path = None if sys.argv[1] == "-" else sys.argv[1]
        retriever = Retriever(HashEncoder(), on="text", path=path).add([{"id": -1, "text": "first"}])
        random.seed(0)
        done, hits, ends = 0, 0, time.monotonic() + 2
        begun = threading.Event()

        def shoot():
            begun.wait()
            while time.monotonic() < ends:
                time.sleep(random.random() / 300)
                os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=shoot)
        acknowledged = 0
        def strike(*_): raise KeyboardInterrupt
        signal.signal(signal.SIGINT, strike)
        thread.start()
        while True:
            try:
                begun.set()
                while time.monotonic() < ends + 0.1:
                    retriever("first", k=1)
                    before = len(retriever)
                    retriever.add(["more"], show_progress=False)
                    acknowledged = before + 1
                    done += 1
                break
            except KeyboardInterrupt:
                hits += 1
        thread.join()
        assert len(retriever) >= acknowledged
        assert len(retriever("more", k=10_000)[0]) == len(retriever)
        retriever.collection.check()
        retriever.close()
        assert hits > 50, hits
        print("whole", hits, done)
        """
    )
    for where in ("-", str(tmp_path / "index")):
        found = subprocess.run([sys.executable, "-c", script, where], capture_output=True, text=True, timeout=60)
        assert found.stdout.startswith("whole"), found.stderr[-3000:]


def test_vectors_and_documents_go_together(tmp_path):
    """What a killed `put` left is not there for the next one either."""
    with Store() as store:
        errors = []

        def add():
            with store.transaction():
                first, count = store.put_documents([(len(errors), "text", {})])
                store.put_vectors([first], np.ones((count, 2), dtype=np.float32))

        for error in steps_of(add, KeyboardInterrupt, 17):
            errors.append(error)
            assert [seq for chunk, _ in store.iter_vectors() for seq in chunk] == store.live()[0].tolist()
        store.check()


def test_the_first_change_takes_the_lock_and_is_cut_off_there(tmp_path):
    errors = []
    for name in range(1000):
        store = Store(tmp_path / f"s{name % 10}" / "s.sqlite") if name % 10 == 0 else Store(tmp_path / "s.sqlite")
        with store:
            error = interrupted(lambda s=store: s.set_setting("n", 1), 7 * name + 1, KeyboardInterrupt)
            if error is None:
                break
            errors.append(error)
            store.set_setting("n", 2)
            assert elsewhere(lambda s=store: s.get_setting("n")) == 2
    assert len(errors) > 20
