import numpy as np
import pandas as pd
import pytest

from cderetrieval.errors import InputError
from cderetrieval.evaluation.tables import LONG_COLUMNS, markdown_table, terminal_table, wide_table

RESULTS = pd.DataFrame(
    [
        ("small", "scifact", "none", 0, "ndcg@10", 0.60, 300),
        ("small", "cisi", "none", 0, "ndcg@10", 0.30, 76),
        ("large", "scifact", "sample", 0, "ndcg@10", 0.70, 300),
        ("large", "scifact", "sample", 1, "ndcg@10", 0.72, 300),
        ("large", "scifact", "sample", 0, "map@10", 0.10, 300),
    ],
    columns=list(LONG_COLUMNS),
)


def test_wide_table_averages_seeds_and_keeps_order():
    wide = wide_table(RESULTS)
    assert list(wide.columns) == ["model", "context", "scifact", "cisi", "mean"]
    assert wide["model"].tolist() == ["small", "large"]
    assert wide["scifact"].tolist() == pytest.approx([60, 71])
    assert wide["mean"][0] == pytest.approx(45)


def test_mean_needs_every_dataset():
    assert np.isnan(wide_table(RESULTS)["mean"][1])


def test_constant_row_columns_are_left_out():
    same = RESULTS.assign(context=None)
    assert list(wide_table(same, mean=False).columns) == ["model", "scifact", "cisi"]
    by_metric = wide_table(RESULTS[RESULTS["model"] == "large"], "map@10", columns="metric", scale=1, mean=False)
    assert by_metric.to_dict("records") == [{"model": "large", "map@10": 0.10}]


def test_missing_context_is_a_row_of_its_own():
    wide = wide_table(RESULTS.assign(context=[None, None, "sample", "sample", "sample"]))
    assert wide["scifact"].tolist() == pytest.approx([60, 71])


def test_unknown_names():
    with pytest.raises(InputError, match="No result has metric 'mrr@10'; there are map@10, ndcg@10"):
        wide_table(RESULTS, "mrr@10")
    with pytest.raises(InputError, match="no column 'task'"):
        wide_table(RESULTS, columns="task")


def test_markdown():
    frame = pd.DataFrame({"model": ["a|b", "c"], "value": [1.26, np.nan], "n": [3, 20]})
    assert markdown_table(frame).splitlines() == [
        "| model | value | n |",
        "|---|---:|---:|",
        "| a\\|b | 1.3 | 3 |",
        "| c | - | 20 |",
    ]
    assert "**1.3**" in markdown_table(frame, bold_best=True)


def test_terminal_columns_are_aligned():
    table = terminal_table(pd.DataFrame({"model": ["small", "l"], "value": [7.0, 100.25]}), digits=2)
    assert table.splitlines() == ["model   value", "-----  ------", "small    7.00", "l      100.25"]
