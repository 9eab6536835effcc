"""Tables of the documentation are those that the results make."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_tables_are_current():
    done = subprocess.run([sys.executable, BENCHMARKS / "report.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"run python benchmarks/report.py\n{done.stdout}{done.stderr}"


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import report

    return report


def test_bars_of_one_kind_become_one_row(report):
    bars = [{"name": f"A, {n}", "value": n, "bar": "<= 3", "met": n <= 3} for n in range(1, 6)]
    alone = {"name": "speed", "value": 45409.2, "bar": ">= 20000", "met": True}
    assert list(report.grouped([*bars, alone])) == [
        {"claim": "A, 5 settings", "bar": "<= 3", "measured": "1 to 5", "met": "**3 of 5**"},
        {"claim": "speed", "bar": ">= 20000", "measured": "45,409", "met": "yes"},
    ]


def test_a_page_is_filled_between_its_marks(report, monkeypatch):
    monkeypatch.setitem(report.TABLES, "two", lambda: "| new |")
    page = "before\n<!-- made by benchmarks/report.py: two -->\n| old |\n<!-- end -->\nafter"
    assert report.filled(page) == page.replace("old", "new")
    assert report.filled("nothing to fill") == "nothing to fill"


def test_figures_are_drawn_whatever_the_signs(report, tmp_path):
    lines = [report.Line(name, [1.0, -2.0], [None, (-3.0, 0.5)]) for name in ("a", "b", "c")]
    made = report.gains_figure(["x", "y"], lines, "points", tmp_path / "gains.png")
    bars = [
        ("s", {"name": "n", "bar": ">= 2", "value": 1, "met": False}),
        ("s", {"name": "z", "bar": ">= 0", "value": 1, "met": True}),
    ]
    also = report.bars_figure(bars, tmp_path / "bars.png")
    assert made.read_bytes()[:4] == also.read_bytes()[:4] == b"\x89PNG"


def test_a_quick_run_writes_no_result(report, monkeypatch, tmp_path, capsys):
    import common

    monkeypatch.setattr(common, "RESULTS", tmp_path)
    common.finish("x", settings={}, rows=[{"a": 1}], bars=[common.bar("n", 1, 1)], quick=True)
    assert list(tmp_path.iterdir()) == []
    assert "| n | 1 | >= 1 | yes |" in capsys.readouterr().out


def test_make_bench_knows_every_benchmark(report):
    import run_all

    # These read folders that are not here.
    left_out = {"default_model", "document_context", "document_training", "corpus_context"}
    scripts = {path.stem for path in BENCHMARKS.glob("*.py") if "finish(" in path.read_text(encoding="utf-8")}
    assert scripts - {"common", *left_out} == set(run_all.SCRIPTS)
