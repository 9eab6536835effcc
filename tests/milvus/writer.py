"""A writer among several: adds documents of its own and one that all writers have, and says which are acknowledged."""

import sys
import time

from cderetrieval import Retriever
from cderetrieval.errors import LockedError
from cderetrieval.testing import HashEncoder


class Contextual:
    """A contextual model without torch: its vectors depend on the text and on the name of the context."""

    context_size, exact_context_size, fingerprint = 4, False, "contextual"

    def embed_context(self, texts, *, show_progress=False):
        return HashEncoder().encode_document(texts)

    def in_context(self, embeddings, digest="", *, dtype="auto"):
        return HashEncoder(digest[:32])


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def write(place, name, calls):
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


def read(place, *_):
    """Ask for a document that is always there until the input ends; any error ends the process with a traceback."""
    import threading

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


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](*sys.argv[2:])
