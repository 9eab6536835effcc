"""Changes to a hybrid, one after the other: what the crash test's child process does, and what must come of it.

Change `number` is a function of seed and number alone. With ``commit`` as fourth argument, the process kills itself
before the commit of its first change.
"""

import os
import random
import signal
import sys
from pathlib import Path

from cderetrieval.errors import StoreError
from cderetrieval.retrieval.hybrid import Hybrid
from cderetrieval.testing import HashEncoder

NAMES = ["first", "second", "third"]
MODELS = {name: HashEncoder(name) for name in NAMES}


def open_hybrid(path):
    """The hybrid as the last process left it; one whose first add left nothing is new."""
    try:
        return Hybrid.load(path, models=MODELS)
    except StoreError as error:
        if "is missing" not in str(error) and "never ended" not in str(error):
            raise
        return Hybrid(MODELS, path=path)


def plan(seed, number):
    rng = random.Random(f"{seed}:{number}")
    kind = rng.choice(["add", "add", "remove", "save"]) if number else "add"
    return kind, rng.sample(range(40), rng.randint(1, 15))


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


def change(hybrid, seed, number):
    kind, ids = plan(seed, number)
    if kind == "add":
        hybrid.add({"id": i, "text": f"text {i} of change {number}"} for i in ids)
    elif kind == "remove":
        hybrid.remove([i for i in ids if i in hybrid][: len(hybrid) - 1])
    else:
        hybrid.save(hybrid.path)


def die_before_commit(hybrid):
    """Arrange that the process ends in the next change, right before its commit."""
    execute = hybrid.collection._execute

    def watched(statement, values=()):
        if statement == "COMMIT":
            os.kill(os.getpid(), signal.SIGKILL)
        return execute(statement, values)

    hybrid.collection._execute = watched


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(path, seed, first, moment=""):
    say("open")
    hybrid = open_hybrid(Path(path))
    for number in range(first, first + 10_000):
        if moment:
            die_before_commit(hybrid)
        say(f"start {number}")
        change(hybrid, seed, number)
        say(f"done {number}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
