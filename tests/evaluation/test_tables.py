import numpy as np
import pandas as pd
import pytest

from cderetrieval.errors import InputError
from cderetrieval.evaluation.tables import markdown_table, terminal_table, wide_table

RESULTS = pd.DataFrame(
    [
        ("small", "scifact", "none", 0, "ndcg@10", 0.60, 300),
        ("small", "cisi", "none", 0, "ndcg@10", 0.30, 76),
        ("large", "scifact", "sample", 0, "ndcg@10", 0.70, 300),
        ("large", "scifact", "sample", 1, "ndcg@10", 0.72, 300),
        ("large", "scifact", "sample", 0, "map@10", 0.10, 300),
    ],
    columns=["model", "dataset", "context", "seed", "metric", "value", "n_queries"],
)


def test_wide_table_averages_seeds_and_keeps_order():
    wide = wide_table(RESULTS, "ndcg@10")
    assert list(wide.columns) == ["model", "context", "scifact", "cisi", "mean"]
    assert wide["model"].tolist() == ["small", "large"]
    assert wide["scifact"].tolist() == pytest.approx([60, 71])
    assert wide["mean"][0] == pytest.approx(45)


def test_mean_needs_every_dataset():
    assert np.isnan(wide_table(RESULTS, "ndcg@10")["mean"][1])


def test_a_context_that_all_rows_share_is_left_out():
    same = RESULTS.assign(context="own")
    assert list(wide_table(same, "NDCG@10").columns) == ["model", "scifact", "cisi", "mean"]


def test_unknown_metrics():
    with pytest.raises(InputError, match="No result has metric 'mrr@10'; there are map@10, ndcg@10"):
        wide_table(RESULTS, "mrr@10")


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
