"""Changes to a collection, one after the other: what a child process does until it is killed, and what must come of it.

Change `number` is a function of seed and number alone, so the test knows what the child has done from its last line.
"""

import random
import sys

from cderetrieval import Retriever
from cderetrieval.testing import HashEncoder


class Contextual:
    """A contextual model without torch: its vectors depend on the text and on the name of the context."""

    context_size, exact_context_size, fingerprint = 4, False, "contextual"

    def embed_context(self, texts, *, show_progress=False):
        return HashEncoder().encode_document(texts)

    def in_context(self, embeddings, digest="", *, dtype="auto"):
        return HashEncoder(digest[:32])


def plan(seed, number):
    rng = random.Random(f"{seed}:{number}")
    kind = rng.choice(["add", "add", "add", "remove", "refresh"]) if number else "add"
    return kind, rng.sample(range(60), rng.randint(1, 20))


def expected(documents, seed, number):
    """The documents after a change: id to text."""
    kind, ids = plan(seed, number)
    if kind == "add":
        return documents | {i: f"text {i} of change {number}" for i in ids}
    if kind == "remove":
        gone = [i for i in ids if i in documents][: len(documents) - 1]
        return {i: text for i, text in documents.items() if i not in gone}
    return documents


def change(retriever, seed, number):
    kind, ids = plan(seed, number)
    if kind == "add":
        retriever.add({"id": i, "text": f"text {i} of change {number}"} for i in ids)
    elif kind == "remove":
        retriever.remove([i for i in ids if i in retriever][: len(retriever) - 1])
    else:
        retriever.refresh(["a", "b", f"context of change {number}"])


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(place, seed, first):
    retriever = Retriever(Contextual(), index=place)
    for number in range(first, first + 10_000):
        say(f"start {number}")
        change(retriever, seed, number)
        say(f"done {number}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
