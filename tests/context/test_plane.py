"""The map of a context."""

import numpy as np
import pytest

from cderetrieval import Context
from cderetrieval.context.plane import on_plane
from cderetrieval.errors import ContextError
from cderetrieval.testing import tiny_model


def test_places_do_not_depend_on_the_sign_that_a_solver_gives():
    embeddings = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    places = on_plane(embeddings)
    np.testing.assert_allclose(on_plane(embeddings[::-1]), places[::-1], atol=1e-6)
    assert np.abs(places).max() == pytest.approx(1)
    assert np.abs(on_plane(np.ones((1, 8)))).max() == 0


def test_a_context_is_drawn_with_labels():
    pytest.importorskip("matplotlib").use("agg")
    context = Context.from_texts(tiny_model(), ["on birds", "on bees", "on trees"])
    axes = context.plot(np.array(["birds", "bees", "$5 or $6"]))
    assert len(axes.collections[0].get_offsets()) == 3
    assert [text.get_text() for text in axes.texts] == ["birds", "bees", "$5 or $6"]
    assert not any(text.get_parse_math() for text in axes.texts)
    with pytest.raises(ContextError, match="no documents to draw"):
        Context.null(tiny_model()).plot()
