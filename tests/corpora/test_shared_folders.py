"""Real evaluation folders, where this machine has them: CDE_SHARED or ../shared beside the checkout."""

import os
from pathlib import Path

import pytest

from cderetrieval.corpora.beir_folder import read_beir

SHARED = Path(os.environ.get("CDE_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "eval"
COUNTS = {  # documents, test queries, judgements
    "scifact": (5183, 300, 339),
    "feedbackqa": (2364, 1992, 1992),
    "squad-dev": (2067, 10570, 10570),
    "cranfield": (1400, 225, 1612),
    "cisi": (1460, 76, 3114),
    "med": (1033, 30, 696),
    "nfcorpus-preprocessed": (3395, 323, 12334),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name):
    if not (SHARED / name).is_dir():
        pytest.skip(f"{name} is not on this machine")
    dataset = read_beir(SHARED / name)
    counts = sum(1 for _ in dataset.corpus), len(dataset.queries), sum(map(len, dataset.qrels.values()))
    assert counts == COUNTS[name]
    assert len(dataset.corpus) == counts[0]
