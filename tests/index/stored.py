"""An index that follows documents as they come and go, as a collection lets it."""

import numpy as np

from cderetrieval.vectors import take


class Stored:
    """Keeps numbers and vectors; each change is a sync of the index, whose attributes are this one's too."""

    def __init__(self, index):
        self.index = index
        self.chunks = []

    def __getattr__(self, name):
        return getattr(self.index, name)

    def add(self, seqs, vectors):
        """Sync the index to what it holds and these vectors; they are not kept if it refuses them."""
        numbers = np.asarray(seqs, dtype=np.int64)
        self.chunks.append((numbers, vectors))
        try:
            self.index.sync(np.concatenate([self.index.seqs, numbers]), self.after)
        except Exception:
            self.chunks.pop()
            raise

    def remove(self, seqs):
        """Sync the index to what it holds without these; how many there were."""
        before = self.index.count
        held = self.index.seqs
        self.index.sync(held[~np.isin(held, np.asarray(seqs, dtype=np.int64))], self.after)
        return before - self.index.count

    def after(self, seq):
        """Vectors above a number, removed ones too, as chunks."""
        for numbers, vectors in self.chunks:
            later = numbers > seq
            if later.any():
                yield numbers[later], vectors if later.all() else take(vectors, later)
