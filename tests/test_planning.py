"""The page on planning says what the benchmarks have found."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def planning():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("planning", BENCHMARKS / "planning.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["planning"] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in ("planning", "common"):
            sys.modules.pop(name, None)


def test_the_tables_are_those_of_the_results(planning):
    page = planning.PAGE.read_text(encoding="utf-8")
    assert planning.filled(page) == page, "run: python benchmarks/planning.py"
    named = planning.TABLE.findall(page)
    assert {name for _, name, _ in named} == set(planning.TABLES)


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
