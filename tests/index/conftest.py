import numpy as np
import pytest


@pytest.fixture(scope="session")
def draw_clustered():
    """Draws unit vectors in 60 clusters: a generator and a dimension in, a function of their number out."""

    def drawing(rng, dimension):
        centres = rng.standard_normal((60, dimension))

        def draw(n):
            x = centres[rng.integers(0, 60, n)] + 0.5 * rng.standard_normal((n, dimension))
            return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

        return draw

    return drawing


@pytest.fixture(scope="session")
def clustered(draw_clustered):
    """2,000 unit vectors of 32 dimensions in 60 clusters, with 100 queries near them."""
    draw = draw_clustered(np.random.default_rng(0), 32)
    return draw(2_000), draw(100)
