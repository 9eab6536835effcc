"""Tables and figures of the ablation notebooks: one style, from the CSV files in data/.

Colours and markers are those of :mod:`cderetrieval.evaluation.plots`, which colour-blind readers tell apart.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import Image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cderetrieval.evaluation.plots import BETTER, STYLES, WORSE, style_axes

DATA = Path(__file__).parent / "data"
# Development folders of sets that were trained on (other pairs of them), and of sets that were not.
TRAINED = ("arxiv-title-abstract", "medquad", "tldr-commands")
OTHERS = ("scitldr", "techdocs-rust", "covid-faq")
SETS = {
    "arxiv-title-abstract": "arXiv",
    "medquad": "MedQuAD",
    "tldr-commands": "tldr",
    "scitldr": "SciTLDR",
    "techdocs-rust": "Rust docs",
    "covid-faq": "COVID FAQ",
}
# The BEIR folders of the measures at full size.
FOLDERS = {
    "scifact": "SciFact",
    "squad-dev": "SQuAD",
    "feedbackqa": "FeedbackQA",
    "nfcorpus-preprocessed": "NFCorpus",
    "cranfield": "Cranfield",
    "cisi": "CISI",
    "med": "MED",
}


def read(name: str) -> pd.DataFrame:
    """One CSV of data/, with the mean nDCG@10 x 100 over the folders of each context as ``own``, ``random``, ..."""
    frame = pd.read_csv(DATA / f"{name}.csv")
    for context in ("own", "random", "null"):
        for column, sets in (
            (context, (*TRAINED, *OTHERS)),
            (f"{context}_trained", TRAINED),
            (f"{context}_others", OTHERS),
        ):
            names = [f"{name}_{context}" for name in sets]
            if set(names) <= set(frame.columns):
                frame[column] = 100 * frame[names].mean(axis=1)
    return frame


def cell(frame: pd.DataFrame, batches: str, architecture: str) -> pd.DataFrame:
    """The runs of one cell of Table 1."""
    return frame[(frame["batches"] == batches) & (frame["architecture"] == architecture)]


def with_default(name: str, setting: str, default: Any, batches: str, architecture: str) -> pd.DataFrame:
    """A sweep, and from Table 1 the run (seed 0) that has the recipe's own value of the setting."""
    rows = cell(read("table1"), batches, architecture).query("seed == 0")
    swept = read(name)
    return pd.concat([swept[swept[setting] != default], rows.assign(**{setting: default})]).sort_values(setting)


def interval(values: Sequence[float]) -> float:
    """Half-width of the 95% interval of a mean (Student's t); NaN of fewer than two values."""
    from scipy.stats import t

    n = len(values)
    return float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else math.nan


def panels(titles: Sequence[str], *, width: float = 8.0, height: float = 3.2, share: bool = True) -> tuple[Figure, Any]:
    """A figure with one pair of axes for each title, side by side."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(titles), sharey=share, squeeze=False)[0]
    for place, title in zip(axes, titles, strict=True):
        place.set_title(title, fontsize=10, loc="left")
        style_axes(place, "both")
        place.tick_params(labelsize=9)
    return figure, axes


def line(axes: Any, x: Sequence[float], y: Sequence[float], label: str, style: int, error: Any = None) -> None:
    """One series, with its colour and marker."""
    color, marker = STYLES[style]
    axes.errorbar(x, y, yerr=error, label=label, color=color, marker=marker, markersize=5, linewidth=1.5, capsize=2)


def powers(axes: Any, values: Sequence[float]) -> None:
    """A logarithmic x axis that names the values."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(values), [f"{value:g}" for value in values])
    axes.minorticks_off()


def legend(figure: Figure, axes: Any, columns: int = 4, title: str | None = None) -> None:
    """One legend below all axes."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9, title=title)


def heat(axes: Any, values: pd.DataFrame, xlabel: str, ylabel: str, limit: float | None = None) -> None:
    """A heat map of differences with their numbers written in: blue is above zero, vermilion below.

    Colours are full from `limit` on; None: the largest difference.
    """
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("differences", [WORSE, "white", BETTER])
    limit = limit or float(np.nanmax(np.abs(values)))
    axes.imshow(values.to_numpy(), cmap=shades, vmin=-limit, vmax=limit, aspect="auto")
    axes.grid(visible=False)
    axes.set_xticks(range(values.shape[1]), [str(name) for name in values.columns])
    axes.set_yticks(range(values.shape[0]), [str(name) for name in values.index])
    for row, column in np.ndindex(*values.shape):
        value = values.iloc[row, column]
        color = "white" if abs(value) > 0.75 * limit else "black"
        axes.text(column, row, f"{value:+.2f}", ha="center", va="center", fontsize=8, color=color)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)


def show(figure: Figure) -> Image:
    """The figure as a PNG; the same numbers give the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return Image(buffer.getvalue())
