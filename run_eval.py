"""Evaluate models on BEIR folders, mteb tasks and benchmarks; ``python -m cderetrieval eval`` is the same."""

import sys

from cderetrieval.cli import main

if __name__ == "__main__":
    sys.exit(main(["eval", *sys.argv[1:]]))
