"""Execute notebooks and keep their output, without what changes from run to run.

python notebooks/execute.py                 all of them, in full, written in place
python notebooks/execute.py --fast          what CI runs: few documents, nothing is written
python notebooks/execute.py quickstart      one
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
# Longest that one cell may take, in seconds.
TIMEOUT = 900


def main() -> None:
    """Execute what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=names(), metavar="NAME")
    parser.add_argument("--fast", action="store_true")
    arguments = parser.parse_args()
    for name in arguments.names:
        notebook = execute(name, fast=arguments.fast)
        if not arguments.fast:
            write(name, notebook)
        print(f"{name}: {sum(cell.cell_type == 'code' for cell in notebook.cells)} cells")


def names() -> list[str]:
    """All notebooks."""
    return sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def execute(name: str, *, fast: bool) -> Any:
    """Run all cells of a notebook in a new kernel; a cell that fails raises with its traceback."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    environment = {**os.environ, "CDE_FAST": "1" if fast else "", "TOKENIZERS_PARALLELISM": "false"}
    client = NotebookClient(notebook, timeout=TIMEOUT, resources={"metadata": {"path": str(FOLDER)}})
    client.execute(env=environment)
    return notebook


def write(name: str, notebook: Any) -> None:
    """Write a notebook with its output: no times, no machine, no progress bars."""
    import nbformat

    for cell in notebook.cells:
        cell.metadata.clear()
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                output.get("metadata", {}).clear()
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, FOLDER / f"{name}.ipynb")


if __name__ == "__main__":
    main()
