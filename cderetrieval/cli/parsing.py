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


def command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    """Add a command, and what every command takes."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is being done")
    parser.set_defaults(command=run)
    return parser
