import pytest

from cderetrieval.errors import InputError
from cderetrieval.types import Hits


def test_a_trec_run_refuses_ids_with_white_space(tmp_path):
    with pytest.raises(InputError, match="'d 7'"):
        Hits([[{"id": "d 7", "similarity": 0.5}]]).to_trec(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_trec_run_has_six_columns(tmp_path):
    Hits([[{"id": 7, "similarity": 0.5}, {"id": "x", "similarity": 0.25}]], query_ids=["q"]).to_trec(tmp_path / "run")
    assert (tmp_path / "run").read_text() == "q Q0 7 1 0.500000 cderetrieval\nq Q0 x 2 0.250000 cderetrieval\n"
