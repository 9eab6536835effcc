"""The store against a plain dictionary, under random operations and reopening."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cderetrieval.errors import InputError
from cderetrieval.store import Store

IDS = st.one_of(st.integers(0, 6), st.sampled_from(["0", "1", "a", "\ud800", "漢"]), st.sampled_from([1.5, 0.25]))
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=8).filter(
    # JSON joins two surrogates that stand side by side.
    lambda s: s == s.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
ROWS = st.lists(st.tuples(IDS, TEXT, st.dictionaries(TEXT, JSON, max_size=2)), max_size=5, unique_by=lambda row: row[0])


class StoreMachine(RuleBasedStateMachine):
    @initialize()
    def start(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "store.sqlite"
        self.store = Store(self.path)
        self.model = {}
        self.next_seq = 1

    def teardown(self):
        if hasattr(self, "store"):
            self.store.check()
            self.store.close()
            self.folder.cleanup()

    @rule(rows=ROWS)
    def put(self, rows):
        with self.store.transaction():
            first, count = self.store.put_documents(rows)
            for seqs, texts in self.store.pending(chunk=2, after_seq=first - 1):
                self.store.put_vectors(seqs, [[seq, len(text)] for seq, text in zip(seqs, texts, strict=True)])
        assert (first, count) == (self.next_seq, len(rows))
        for i, (document_id, text, payload) in enumerate(rows):
            self.model.pop(document_id, None)
            self.model[document_id] = (first + i, text, payload)
        self.next_seq += count

    @rule(rows=ROWS)
    def put_and_fail(self, rows):
        try:
            self.store.put_documents([*rows, (None, "", {})])
        except InputError:
            return
        raise AssertionError

    @rule(ids=st.lists(IDS, max_size=4))
    def remove(self, ids):
        missing = self.store.remove(ids)
        assert missing == len({i for i in ids if i not in self.model})
        for document_id in ids:
            self.model.pop(document_id, None)

    @rule()
    def reopen(self):
        self.store.close()
        self.store = Store(self.path)

    @invariant()
    def same(self):
        if not hasattr(self, "store"):
            return
        seqs, ids = self.store.live()
        assert ids == list(self.model)
        assert seqs.tolist() == [seq for seq, _, _ in self.model.values()]
        assert self.store.documents(seqs) == [payload for _, _, payload in self.model.values()]
        assert list(self.store.texts(chunk=3)) == [(seq, text) for seq, text, _ in self.model.values()]
        chunks = list(self.store.iter_vectors(chunk=2))
        vectors = np.concatenate([matrix for _, matrix in chunks]).tolist() if chunks else []
        assert vectors == [[seq, len(text)] for seq, text, _ in self.model.values()]
        assert self.store.count() == len(self.model)


StoreMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
TestStoreMachine = StoreMachine.TestCase
