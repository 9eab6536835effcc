"""Evaluate models on retrieval datasets; the same as ``python -m cderetrieval eval``. See ``--help``."""

import sys

from cderetrieval.cli import main

if __name__ == "__main__":
    sys.exit(main(["eval", *sys.argv[1:]]))
