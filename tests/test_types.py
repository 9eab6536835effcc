import numpy as np
import pytest
from scipy.sparse import csr_array, random_array

from cderetrieval.errors import InputError
from cderetrieval.evaluation.metrics import as_run
from cderetrieval.types import Hits, TermEmbeddings


def term_embeddings(rows: int, seed: int = 0, vocabulary: int = 12, size: int = 3) -> TermEmbeddings:
    rng = np.random.default_rng(seed)
    weights = csr_array(random_array((rows, vocabulary), density=0.3, rng=rng, format="csr", dtype=np.float32))
    return TermEmbeddings(weights, rng.random((weights.nnz, size), dtype=np.float32))


def test_term_embeddings_are_taken_by_position_and_by_mask():
    vectors = term_embeddings(6)
    starts = vectors.weights.indptr
    for rows, positions in (([4, 4, -1, 0], [4, 4, 5, 0]), ([True, False] * 3, [0, 2, 4]), ([], [])):
        taken = vectors.take(rows)
        expected = [vectors.embeddings[starts[p] : starts[p + 1]] for p in positions]
        assert np.array_equal(taken.embeddings, np.concatenate([vectors.embeddings[:0], *expected]))
        assert np.array_equal(taken.weights.toarray(), vectors.weights.toarray()[positions])
        assert len(taken) == len(positions)
        assert taken.shape == (len(positions), 12)


def test_term_embeddings_are_joined_in_order():
    parts = [term_embeddings(3), term_embeddings(0), term_embeddings(2, seed=1)]
    whole = TermEmbeddings.concatenate(parts)
    assert len(whole) == 5
    assert whole.weights.dtype == np.float32
    assert np.array_equal(whole.take([3, 4]).embeddings, parts[2].embeddings)


def test_term_embeddings_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="one row for each stored weight"):
        TermEmbeddings(csr_array(np.eye(3, dtype=np.float32)), np.zeros((2, 4), dtype=np.float32))
    with pytest.raises(InputError, match="2 shapes"):
        TermEmbeddings.concatenate([term_embeddings(1), term_embeddings(1, vocabulary=13)])
    with pytest.raises(InputError, match="0 shapes"):
        TermEmbeddings.concatenate([])


def test_a_trec_run_refuses_ids_with_white_space(tmp_path):
    with pytest.raises(InputError, match="'d 7'"):
        Hits([[{"id": "d 7", "similarity": 0.5}]]).to_trec(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_trec_run_has_six_columns(tmp_path):
    Hits([[{"id": 7, "similarity": 0.5}, {"id": "x", "similarity": 0.25}]], query_ids=["q"]).to_trec(tmp_path / "run")
    assert (tmp_path / "run").read_text() == "q Q0 7 1 0.500000 cderetrieval\nq Q0 x 2 0.250000 cderetrieval\n"


@pytest.mark.parametrize(("first", "second"), [(1, "1"), ("1", 1), (1.0, "1"), (1, np.int64(1)), (None, "None")])
def test_two_ids_that_are_one_as_text_are_refused(first, second):
    ranking = [{"id": first, "similarity": 0.9}, {"id": second, "similarity": 0.1}]
    with pytest.raises(InputError, match="are one as text"):
        Hits([ranking], query_ids=["q"]).to_run()
    with pytest.raises(InputError, match=r"queries: ids .* are one as text"):
        Hits([ranking[:1], ranking[1:]], query_ids=[first, second]).to_run()


def test_a_trec_run_names_ids_like_a_run(tmp_path):
    hits = Hits([[{"id": 17.0, "similarity": 0.5}]], query_ids=[3.0])
    hits.to_trec(tmp_path / "run")
    assert hits.to_run() == {"3": {"17": 0.5}}
    assert (tmp_path / "run").read_text() == "3 Q0 17 1 0.500000 cderetrieval\n"


@pytest.mark.parametrize(
    ("name", "tag"), [("", "t"), ("a\nb", "t"), ("a\u2028b", "t"), ("\ud800", "t"), ("a", "my model"), ("a", "")]
)
def test_a_trec_run_refuses_what_its_fields_cannot_hold(name, tag, tmp_path):
    with pytest.raises(InputError, match="TREC run cannot hold"):
        Hits([[{"id": name, "similarity": 0.5}]]).to_trec(tmp_path / "run", tag)


def test_one_text_for_two_documents_is_refused_across_queries_too():
    hits = Hits([[{"id": 1, "similarity": 0.9}], [{"id": "1", "similarity": 0.5}]])
    for read in (Hits.to_run, as_run):
        with pytest.raises(InputError, match=r"documents: ids 1 and '1' are one as text"):
            read(hits)


def test_hits_of_one_score_are_not_joined():
    with pytest.raises(InputError, match=r"documents of query 'q': ids 1 and '1' are one as text"):
        as_run({"q": {1: 0.5, "1": 0.5}})
