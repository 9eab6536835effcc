"""``cderetrieval embed``: a large corpus into folders of vectors."""

from __future__ import annotations

from typing import Any

from .parsing import command


def add(commands: Any) -> None:
    """Add the command and its options."""
    from ..distributed.command import add_embed_arguments, run_embed

    what = "Embed a large corpus into Parquet files; after a crash, the same command continues."
    add_embed_arguments(command(commands, "embed", run_embed, what))
