"""Train a contextual, dense or sparse model; the same as ``python -m cderetrieval train``. See ``--help``."""

import sys

from cderetrieval.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
