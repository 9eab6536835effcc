"""The page on planning says what the benchmarks have found."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def planning(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import planning

    return planning


def test_the_tables_are_those_of_the_results(planning):
    import report

    page = (BENCHMARKS.parent / "docs" / "planning.md").read_text(encoding="utf-8")
    assert report.filled(page) == page, "run: python benchmarks/report.py"
    named = report.SECTION.findall(page)
    assert {name for _, name, *_ in named} == {f"planning_{name}" for name in planning.TABLES}


def test_operations_of_a_text(planning):
    shape = planning.Shape(width=2, layers=3)
    # Three layers, five tokens; 96 for a token, 8 for each that it attends to.
    assert shape.flops(5) == 3 * 5 * (96 + 8 * 5)
    assert shape.flops(5, 4) == 3 * 5 * (96 + 8 * 9)
    assert shape.flops(5, 4, joint=True) == 3 * 9 * (96 + 8 * 9)


def test_numbers_are_short(planning):
    assert [planning.hours(seconds) for seconds in (36, 3_600, 5_400, 36_000_000)] == ["0.01", "1", "1.5", "10,000"]
    assert [planning.size(value) for value in (154e6, 4.5e9, 45e9, 2.5e12)] == ["0.15 GB", "4.5 GB", "45 GB", "2.5 TB"]


def test_a_missing_result_is_named(planning):
    with pytest.raises(LookupError, match=r"search\.json has no row with"):
        planning.row("search", process="nothing")
