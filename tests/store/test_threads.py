"""Threads that search while one changes the index: they wait for nothing, and see before or after."""

import threading
import time

import pytest

from cderetrieval import Retriever
from cderetrieval.errors import CopyError, InputError, StoreError
from cderetrieval.testing import HashEncoder, tiny_model

DOCUMENTS = [{"id": n, "text": f"about {n}", "group": n % 2} for n in range(20)]


class Slow(HashEncoder):
    seconds = 0.0

    def encode_document(self, texts, **options):
        time.sleep(self.seconds)
        return super().encode_document(texts, **options)


class SlowModel:
    """A contextual model whose encoders are slow."""

    def __init__(self, seconds):
        self._model, self.seconds = tiny_model(), seconds

    def __getattr__(self, name):
        return getattr(self._model, name)

    def in_context(self, *values, **options):
        encoder = self._model.in_context(*values, **options)
        encode = encoder.encode_document
        encoder.encode_document = lambda texts, **o: (time.sleep(self.seconds), encode(texts, **o))[1]
        return encoder


def searched_meanwhile(retriever, change, threads=4):
    """Longest time that a search took while a change ran, how long that took, and the sizes that searches saw."""
    waits, sizes, errors, over = [], set(), [], threading.Event()

    def search():
        while not over.is_set():
            started = time.monotonic()
            try:
                hits = retriever("about 3", k=1000, documents=True, filter={"group": [0, 1]})[0]
                assert all(hit["document"]["id"] == hit["id"] for hit in hits)
                sizes.add(len(hits))
                len(retriever)
            except BaseException as error:
                errors.append(error)
                return
            waits.append(time.monotonic() - started)

    searchers = [threading.Thread(target=search) for _ in range(threads)]
    for thread in searchers:
        thread.start()
    started = time.monotonic()
    change()
    taken = time.monotonic() - started
    time.sleep(0.2)
    over.set()
    for thread in searchers:
        thread.join(20)
    assert not errors, errors
    return max(waits), taken, sizes


@pytest.mark.parametrize("on_disk", [False, True])
def test_searches_do_not_wait_for_an_add(tmp_path, on_disk):
    encoder = Slow()
    retriever = Retriever(encoder, on="text", path=tmp_path / "index" if on_disk else None).add(DOCUMENTS)
    retriever("about 3")
    encoder.seconds = 3.0
    more = [{"id": f"x{n}", "text": f"about {n}", "group": 0} for n in range(7)] + [{**DOCUMENTS[0], "group": 1}]
    longest, taken, sizes = searched_meanwhile(retriever, lambda: retriever.add(more, show_progress=False))
    assert taken > 3.0
    assert longest < taken / 2
    assert sizes == {20, 27}, "before or after, never half"


@pytest.mark.parametrize("on_disk", [False, True])
def test_searches_do_not_wait_for_a_refresh(tmp_path, on_disk):
    model = SlowModel(0.0)
    retriever = Retriever(model, on="text", path=tmp_path / "index" if on_disk else None).add(DOCUMENTS)
    retriever("about 3")
    model.seconds = 3.0
    before = retriever.context
    longest, taken, sizes = searched_meanwhile(retriever, lambda: retriever.refresh("random", show_progress=False))
    assert taken > 3.0
    assert longest < taken / 2
    assert sizes == {20}
    assert retriever.context != before


def test_adds_of_two_threads_come_one_after_the_other():
    retriever = Retriever(HashEncoder(), on="text")
    threads = [
        threading.Thread(target=lambda t=t: [retriever.add([{"id": f"{t}-{n}", "text": "x"}]) for n in range(10)])
        for t in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(retriever) == len(retriever("x", k=100)[0]) == 40
    retriever.collection.check()


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_yields_documents_may_ask_the_index_but_not_change_it(tmp_path, on_disk):
    retriever = Retriever(HashEncoder(), on="text", path=tmp_path / "index" if on_disk else None).add(DOCUMENTS)
    seen = []

    def asking():
        for n in range(3):
            seen.append(len(retriever("about 3", k=100)[0]))
            yield {"id": f"y{n}", "text": "new"}

    def changing():
        yield {"id": "z", "text": "new"}
        retriever.add([{"id": "inner", "text": "new"}])

    retriever.add(asking())
    assert seen == [20, 20, 20]
    with pytest.raises(InputError, match="cannot change it meanwhile"):
        retriever.add(changing())
    assert len(retriever) == 23
    assert "z" not in retriever
    retriever.collection.check()


def test_a_directory_that_is_gone_or_another_is_noticed(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    Retriever(HashEncoder(), on="text").add(DOCUMENTS[:3]).save(two)
    retriever = Retriever(HashEncoder(), on="text", path=one).add(DOCUMENTS)
    one.rename(tmp_path / "gone")
    for call in (lambda: retriever("about 3"), lambda: retriever.add(["x"]), lambda: retriever.remove([1])):
        with pytest.raises(StoreError, match="was deleted or moved"):
            call()
    assert not one.exists()
    two.rename(one)
    for call in (lambda: retriever("about 3"), lambda: retriever.add(["x"])):
        with pytest.raises(StoreError, match="replaced by another index"):
            call()
    assert len(Retriever.load(one, model=HashEncoder())) == 3


def test_a_directory_that_goes_during_an_add_is_noticed(tmp_path):
    retriever = Retriever(HashEncoder(), on="text", path=tmp_path / "one").add(DOCUMENTS)

    def rows():
        yield {"id": "x", "text": "new"}
        (tmp_path / "one").rename(tmp_path / "gone")

    with pytest.raises(StoreError, match="was deleted or moved"):
        retriever.add(rows())


def test_an_index_is_not_pickled(tmp_path):
    import copy
    import pickle

    retriever = Retriever(HashEncoder(), path=tmp_path / "index")
    for call in (pickle.dumps, copy.deepcopy, copy.copy):
        with pytest.raises(CopyError, match=r"Retriever\.load"):
            call(retriever)
    with pytest.raises(CopyError, match=r"Retriever\.load"):
        pickle.dumps(Retriever([HashEncoder()]).parts["HashEncoder"])
    with pytest.raises(TypeError, match="save the index with"):
        pickle.dumps(Retriever(HashEncoder()))
