"""What the parsers of all commands share."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..terminal import say


class Parser(argparse.ArgumentParser):
    """A parser whose messages, which repeat arguments, are shown like all others."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:
            say(message.removesuffix("\n"), file or sys.stderr)


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Add the choice of what computes."""
    text = "what computes on the processor (default: onnx where it is installed and knows the model)"
    parser.add_argument("--runtime", default="auto", choices=["auto", "onnx", "torch"], help=text)


def command(commands: Any, name: str, run: Any, text: str, *, reports: str = "") -> argparse.ArgumentParser:
    """Add a command, and what every command takes; `reports` is the part of the package whose steps it logs."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is being done")
    parser.set_defaults(command=run, reports=reports)
    return parser


def add_opening(parser: argparse.ArgumentParser) -> None:
    """How an index is opened."""
    parser.add_argument("--model", help="new place of a model that has moved; PART=MODEL in a hybrid")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: the best available)")


def add_files_arguments(parser: argparse.ArgumentParser) -> None:
    """How files are read."""
    parser.add_argument("--lines", action="store_true", help="a document is a line of plain text, and not a file")
    ending = "ending that standard input would have as a file, .csv say (default: as it begins)"
    parser.add_argument("--stdin-as", metavar="ENDING", help=ending)
    strict = "end at the first file that cannot be read (default: name it, and go on)"
    parser.add_argument("--strict", action="store_true", help=strict)
    most = "largest file that becomes one document (default: 100 million)"
    parser.add_argument("--max-bytes", type=int, default=100_000_000, metavar="N", help=most)
