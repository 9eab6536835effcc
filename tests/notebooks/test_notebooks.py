"""Every notebook runs from top to bottom in its fast form, and is committed with the output of a full run."""

import importlib.util
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")


def module(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_there_are_notebooks():
    assert {"quickstart", "batches", "context", "architecture", "training_free"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name):
    notebook = module("execute").execute(name, fast=True)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_committed_with_its_output_and_nothing_volatile(name):
    import nbformat

    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert sum("image/png" in output.get("data", {}) for cell in code for output in cell.outputs) >= 1
    assert all(not cell.metadata for cell in notebook.cells)
    assert not any(
        output.output_type == "error" or output.get("name") == "stderr" for c in code for output in c.outputs
    )


def test_runs_whose_figures_are_shown_are_kept_as_csv():
    kept = {path.stem for path in (FOLDER / "data").glob("*.csv")}
    sweeps = (FOLDER / "sweeps.sh").read_text(encoding="utf-8")
    swept = {line.split()[1] for line in sweeps.splitlines() if line.startswith("sweep ")}
    assert swept <= kept
    assert sum(path.stat().st_size for path in (FOLDER / "data").iterdir()) < 200_000
