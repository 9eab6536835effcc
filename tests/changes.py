"""Changes to an index, one after the other: what a child process does until it is killed, and what must come of it.

    python tests/changes.py KIND PLACE SEED FIRST [commit]

KIND is that of the vectors, ``hybrid``, or ``server``; PLACE is a directory, or a collection on a server. Change
`number` is a function of kind, seed and number alone, so a test knows what the child has done from its last line. With
``commit`` the process kills itself right before the commit of its first change. Every third document is long, and cut
into passages.

    python tests/changes.py write PLACE NAME CALLS
    python tests/changes.py read PLACE

One writer among several, who says which of its documents are acknowledged; and a reader beside them.
"""

import os
import random
import signal
import sys
import threading
import time

from cderetrieval import Hybrid, Retriever
from cderetrieval.errors import LockedError
from cderetrieval.models.document_context import DocumentContext, Units, encode_passages
from cderetrieval.testing import HashEncoder, WordEncoder

NAMES = ["first", "second", "third"]
MODELS = {name: HashEncoder(name) for name in NAMES}
# What a change can be, from how many ids it takes some, and how many at most.
INDEX = ["add", "add", "sync", "remove", "refresh", "save"], 60, 20
PLANS = {
    "hybrid": (["add", "add", "sync", "remove", "save"], 40, 15),
    "server": (["add", "add", "add", "remove", "refresh"], 60, 20),
}


# Most words of a passage.
SIZE = 8


def text_of(i, number):
    """The text of a document as a change writes it."""
    text = f"text {i} of change {number}"
    return text if i % 3 else " ".join([text, *(f"goes on with part {part} of {i}." for part in range(1 + i % 4))])


def is_short(text):
    return len(text.split()) <= SIZE


def expected_vectors(collection, encoder):
    """The vectors of all documents and passages, in order, and the row of each one's document."""
    seqs = collection.live_seqs()
    texts, spans = collection.texts_of(seqs), collection.spans_of(seqs)
    assert {seq for seq in seqs.tolist() if not is_short(texts[seq])} == set(spans)
    units = Units.of((texts[seq], spans.get(seq, ()), "") for seq in seqs.tolist())
    rows = [row for row, seq in enumerate(seqs.tolist()) for _ in spans.get(seq, [None])]
    return encode_passages(encoder, units, DocumentContext.of("auto", encoder)), rows


class Contextual:
    """A contextual model without torch, of any kind: its vectors depend on the text and on the name of the context."""

    context_size, exact_context_size, fingerprint = 4, False, "contextual"

    def __init__(self, kind="dense"):
        self.kind = kind

    def embed_context(self, texts, *, show_progress=False):
        return HashEncoder().encode_document(texts)

    def in_context(self, embeddings, digest="", *, dtype="auto"):
        return HashEncoder(digest[:32]) if self.kind == "dense" else WordEncoder(self.kind, name=digest[:32])


class Changes:
    """Changes to indexes of one kind."""

    def __init__(self, kind):
        self.kind = kind
        self.words, self.ids, self.most = PLANS.get(kind, INDEX)

    def new(self, place):
        """An index without documents; None: in memory."""
        if self.kind == "hybrid":
            return Hybrid(MODELS, path=place, passages=SIZE)
        if self.kind == "server":
            return Retriever(Contextual(), index=place, passages=SIZE)
        return Retriever(Contextual(self.kind), path=place, passages=SIZE)

    def open(self, place):
        """The index as the last process left it; one that was never begun, or not to its first add's end, is new."""
        if self.kind == "server":
            return self.new(place)
        try:
            return Retriever.load(place, model=MODELS if self.kind == "hybrid" else Contextual(self.kind))
        except Exception as error:
            if "is missing" not in str(error) and "never ended" not in str(error):
                raise
            return self.new(place)

    def plan(self, seed, number):
        rng = random.Random(f"{seed}:{number}")
        word = rng.choice(self.words) if number else "add"
        return word, rng.sample(range(self.ids), rng.randint(1, self.most))

    def expected(self, documents, seed, number):
        """The documents after a change: id to text, in order of insertion."""
        word, ids = self.plan(seed, number)
        if word == "add":
            kept = {i: text for i, text in documents.items() if i not in ids}
            return kept | {i: text_of(i, number) for i in ids}
        if word == "sync":
            kept = {i: text for i, text in documents.items() if i in ids and i % 2}
            return kept | {i: text_of(i, number) for i in ids if i not in kept}
        if word == "remove":
            gone = [i for i in ids if i in documents][: len(documents) - 1]
            return {i: text for i, text in documents.items() if i not in gone}
        return documents

    def change(self, index, seed, number):
        word, ids = self.plan(seed, number)
        if word == "add":
            index.add({"id": i, "text": text_of(i, number)} for i in ids)
        elif word == "sync":
            known = {i: index.get(i) for i in ids if i % 2 and i in index}
            index.sync(known.get(i) or {"id": i, "text": text_of(i, number)} for i in ids)
        elif word == "remove":
            index.remove([i for i in ids if i in index][: len(index) - 1])
        elif word == "save":
            index.save(index.path)
        elif self.kind == "server":
            index.refresh(["a", "b", f"context of change {number}"])
        else:
            index.refresh()

    def run(self, place, seed, first, moment=""):
        """Change an index until this process is killed, and say so line by line."""
        if self.kind != "server":
            self.new(None).add(["all modules are loaded"])("before the clock starts")
            say("open")
        index = self.open(place)
        for number in range(first, first + 10_000):
            if moment:
                die_before_commit(index)
            say(f"start {number}")
            self.change(index, seed, number)
            say(f"done {number}")


def die_before_commit(index):
    """Arrange that the process ends in the next change, right before its commit."""
    execute = index.collection._execute

    def watched(statement, values=()):
        if statement == "COMMIT":
            os.kill(os.getpid(), signal.SIGKILL)
        return execute(statement, values)

    index.collection._execute = watched


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def write(place, name, calls):
    """Add documents of its own and one that all writers have, and say which are acknowledged."""
    retriever = Retriever(Contextual(), index=place)
    say("open")
    for call in range(int(calls)):
        ids = [f"{name}:{call}:{i}" for i in range(20)]
        rows = [{"id": i, "text": f"text of {i}"} for i in ids] + [{"id": "shared", "text": f"by {name}"}]
        while True:
            try:
                retriever.add(rows)
            except LockedError:
                time.sleep(0.5)
                continue
            say(" ".join(ids))
            break
    say("end")


def read(place):
    """Ask for a document that is always there until the input ends; any error ends the process with a traceback."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    retriever = Retriever.load(place, model=Contextual())
    say("open")
    asked = 0
    while not ended.is_set():
        (best,) = retriever("the anchor", k=1, documents=True)
        assert best[0]["similarity"] == 1.0, best
        assert best[0]["document"]["text"] == "the anchor", best
        asked += 1
    say(f"{asked} {retriever.context.source}")


def main(kind, place, *words):
    if kind in ("write", "read"):
        return {"write": write, "read": read}[kind](place, *words)
    seed, first, *moment = words
    return Changes(kind).run(place, int(seed), int(first), *moment)


if __name__ == "__main__":
    main(*sys.argv[1:])
