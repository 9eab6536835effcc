"""Changes to an index, one after the other: what the crash test's child process does, and what must come of it.

Change `number` is a function of seed and number alone, so the test knows what the child has done from its last line.
"""

import random
import sys
from pathlib import Path

from cderetrieval import Retriever
from cderetrieval.testing import HashEncoder, WordEncoder


class Model:
    """A contextual model without torch, of any kind: its vectors depend on the text and on the name of the context."""

    context_size, exact_context_size, fingerprint = 4, False, "crash"

    def __init__(self, kind="dense"):
        self.kind = kind

    def embed_context(self, texts, *, show_progress=False):
        return HashEncoder().encode_document(texts)

    def in_context(self, embeddings, digest="", *, dtype="auto"):
        return HashEncoder(digest[:32]) if self.kind == "dense" else WordEncoder(self.kind, name=digest[:32])


def open_index(path, kind="dense"):
    """The index as the last process left it; one that was never begun, or not to the end of its first add, is new."""
    try:
        return Retriever.load(path, model=Model(kind))
    except Exception as error:
        if "is missing" not in str(error) and "never ended" not in str(error):
            raise
        return Retriever(Model(kind), path=path)


def plan(seed, number):
    rng = random.Random(f"{seed}:{number}")
    kind = rng.choice(["add", "add", "remove", "refresh", "save"]) if number else "add"
    return kind, rng.sample(range(60), rng.randint(1, 20))


def expected(documents, seed, number):
    """The documents after a change: id to text, in order of insertion."""
    kind, ids = plan(seed, number)
    if kind == "add":
        kept = {i: text for i, text in documents.items() if i not in ids}
        return kept | {i: f"text {i} of change {number}" for i in ids}
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
    elif kind == "refresh":
        retriever.refresh()
    else:
        retriever.save(retriever.path)


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(path, kind, seed, first):
    Retriever(Model(kind)).add(["all modules are loaded"])("before the clock starts")
    say("open")
    retriever = open_index(Path(path), kind)
    for number in range(first, first + 10_000):
        say(f"start {number}")
        change(retriever, seed, number)
        say(f"done {number}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
