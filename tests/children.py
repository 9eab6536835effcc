"""Processes of ``tests/changes.py``: forks of one that has imported the package, which saves half a second for each.

child = Child("dense", directory, 0, 0)
child.stdout.readline()                    # "open\\n"
child.kill()
"""

import multiprocessing
import os
import sys

PRELOAD = ["tests.changes", "cderetrieval.retrieval.hybrid", "faiss", "pymilvus"]


class Child:
    """A process with its input and output as text."""

    def __init__(self, *words):
        server = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload(PRELOAD)  # what is not installed is left out
        asked, self.stdin = pipe(server, "w")
        said, self.stdout = pipe(server, "r")
        self._process = server.Process(target=change, args=(asked, said, *map(str, words)), daemon=True)
        self._process.start()
        asked.close()
        said.close()
        self.pid = self._process.pid

    def wait(self, timeout=60):
        """The exit status, as subprocess gives it."""
        self._process.join(timeout)
        return self._process.exitcode

    def kill(self):
        """Kill the process, and wait for its end."""
        self._process.kill()
        return self.wait()

    def close(self):
        """Close the input and the output."""
        self.stdin.close()
        self.stdout.close()


def pipe(server, mode):
    """The child's end of a pipe, and this process's as a text file."""
    read, write = server.Pipe(duplex=False)
    theirs, ours = (read, write) if mode == "w" else (write, read)
    with ours:
        return theirs, os.fdopen(os.dup(ours.fileno()), mode, encoding="utf-8")


def change(asked, said, *words):
    """What the process does."""
    from .changes import main

    sys.stdin, sys.stdout = open(asked.fileno(), encoding="utf-8"), open(said.fileno(), "w", encoding="utf-8")  # noqa: SIM115
    main(*words)
