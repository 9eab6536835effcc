"""What sentence-transformers' users and mteb call on a contextual model."""

import copy

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from cderetrieval import load
from cderetrieval.errors import ContextError, InputError
from cderetrieval.models.statistics import StatisticsConfig, StatisticsModel
from cderetrieval.testing import tiny_dense_directory, tiny_model


def statistics():
    return StatisticsModel(load(tiny_dense_directory()), StatisticsConfig(term_dimensions=8, term_weight=0.5))


@pytest.mark.parametrize("make", [tiny_model, statistics])
def test_encode_takes_one_text_or_several_and_knows_no_corpus(make):
    model = make()
    null = model.in_context(None)
    np.testing.assert_array_equal(model.encode(["owls", "bees"]), null.encode_document(["owls", "bees"]))
    np.testing.assert_array_equal(model.encode("owls", prompt_name="query"), null.encode_query(["owls"])[0])
    with pytest.raises(InputError, match="not 'batch_size'"):
        model.encode("owls", batch_size=32)
    with pytest.raises(InputError, match="before search"):
        model.search([])


def test_a_plain_encoder_takes_the_same():
    encoder = load(tiny_dense_directory())
    np.testing.assert_array_equal(encoder.encode("owls"), encoder.encode_document(["owls"])[0])


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny_model, statistics])
def test_mteb_takes_a_model_as_it_is(make):
    mteb = pytest.importorskip("mteb")
    from mteb.mocks import MOCK_TASK_TEST_GRID

    from cderetrieval import MTEBModel

    def score(model, kind):
        task = copy.deepcopy(next(one for one in MOCK_TASK_TEST_GRID if one.metadata.type == kind))
        results = mteb.evaluate(model, task, cache=None, show_progress_bar=False, co2_tracker=False)
        return results.task_results[0].get_score()

    model = make()
    assert score(model, "Retrieval") == score(MTEBModel(model, "own", name="mine/own"), "Retrieval")
    assert np.isfinite(score(MTEBModel(model, "random"), "STS"))
    with pytest.raises(ContextError, match="no context is registered"):
        score(model, "STS")


def test_a_saved_model_says_what_sentence_transformers_reads_of_it(tmp_path):
    statistics().save_pretrained(tmp_path / "mine")
    card = (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    assert "# mine" in card
    assert "loads the encoder alone. It gives 32 dimensions" in card
    assert SentenceTransformer(str(tmp_path / "mine")).encode("owls").shape == (32,)
    assert load(tmp_path / "mine").encode("owls").shape == (40,)
