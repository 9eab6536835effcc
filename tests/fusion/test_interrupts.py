"""A hybrid whose change is cut off: its parts hold the same documents, all before or all after."""

import pytest

from cderetrieval import Hybrid
from cderetrieval.store import Store
from cderetrieval.testing import HashEncoder


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("commits", [1, 2])
def test_parts_agree_after_an_interrupt_between_their_commits(tmp_path, monkeypatch, on_disk, commits):
    parts = {"one": HashEncoder("one"), "two": HashEncoder("two")}
    hybrid = Hybrid(parts, on="text", path=tmp_path / "index" if on_disk else None)
    hybrid.add([{"id": "a", "text": "first"}])
    commit, left = Store._commit, [commits]

    def cut_off(store, use):
        outermost = not use.savepoint
        commit(store, use)
        if outermost:
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt

    monkeypatch.setattr(Store, "_commit", cut_off)
    with pytest.raises(KeyboardInterrupt):
        hybrid.add([{"id": "b", "text": "second"}])
    monkeypatch.undo()
    assert [sorted(part._store.live()[1]) for part in hybrid.parts.values()] == [["a", "b"]] * 2
    assert {hit["id"] for hit in hybrid("second", k=5)[0]} == {"a", "b"}
    hybrid.add([{"id": "c", "text": "third"}]).remove("b")
    assert len(hybrid("second", k=5)[0]) == 2
