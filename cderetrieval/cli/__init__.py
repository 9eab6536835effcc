"""The command line: ``cderetrieval index | search | add | sync | remove | refresh | serve | context | eval | ...``.

Each command has a file here: it parses, calls the package, and prints through `terminal`. Errors that the package
raises on purpose, and those of the operating system, end the program with their message and status 2; anything else is
a bug and shows its traceback. A closed pipe (``| head``) ends it quietly.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from .. import __version__
from ..errors import CDEError, InputError
from ..lazy import exports
from ..terminal import Formatter, complain
from .parsing import Parser

SIGPIPE = 13
# The commands of each file.
_FILES = {
    "index": ("index",),
    "search": ("search",),
    "update": ("add", "sync", "remove", "refresh"),
    "serve": ("serve",),
    "context": ("context",),
    "embed": ("embed",),
    "evaluate": ("eval",),
    "train": ("train",),
    "mcp": ("mcp",),
}
_file, _ = exports(__name__, {file: file for file in _FILES})


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    try:
        _run(argv)
    except CDEError as error:
        complain(f"error: {error}")
        return 2
    except KeyboardInterrupt as error:
        complain(f"interrupted; {str(error) or 'nothing half-done was kept'}")
        return 130
    except BrokenPipeError:
        _leave_pipe()
        return 128 + SIGPIPE
    except OSError as error:
        complain(f"error: {error.filename or 'this system'}: {error.strerror or error}")
        return 2
    except Exception:
        complain(traceback.format_exc().rstrip())
        return 1
    return 0


def _run(argv: Sequence[str] | None) -> None:
    try:
        argv = sys.argv[1:] if argv is None else argv
        arguments = build_parser(*argv[:1]).parse_args(argv)
        # Log to standard error, unless the program that calls has said where logs go.
        handler = logging.StreamHandler()
        handler.setFormatter(Formatter("%(levelname)s: %(message)s"))
        logging.basicConfig(level=logging.WARNING, handlers=[handler])
        logging.getLogger("cderetrieval").setLevel(logging.INFO if arguments.verbose else logging.WARNING)
        for part in ("evaluation", "training"):  # their steps take long, and are logged as they end
            level = logging.INFO if arguments.reports == part else logging.NOTSET
            logging.getLogger(f"cderetrieval.{part}").setLevel(level)
        logging.getLogger("cderetrieval.progress_log").setLevel(logging.INFO)
        _check_out(getattr(arguments, "out", None))
        arguments.command(arguments)
    finally:
        if sys.stdout is not None:  # closed by the caller
            sys.stdout.flush()  # a closed pipe shows here, also after --help


def _check_out(out: Path | None) -> None:
    """Refuse a place that cannot be written, before long work begins."""
    if out is None:
        return
    place = next(path for path in (out, *out.absolute().parents) if os.path.lexists(path))
    if not place.is_dir():
        raise InputError(f"--out {out}: {place} is a file; choose a directory.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"--out {out} cannot be written: {place} is another user's, or read-only. Choose another.")


def _leave_pipe() -> None:
    """Point standard output to nothing, so that Python does not complain about the pipe when it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def build_parser(command: str = "") -> argparse.ArgumentParser:
    """Build the parser of a command, or of all where it is none: each imports what its options need."""
    parser = Parser(prog="cderetrieval", description="Search documents with embeddings that know the corpus.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for file in [file for file, names in _FILES.items() if command in names] or _FILES:
        _file(file).add(commands)
    return parser
