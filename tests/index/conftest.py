import numpy as np
import pytest


@pytest.fixture(scope="session")
def clustered():
    """2,000 unit vectors of 32 dimensions in 60 clusters, with 100 queries near them."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((60, 32))

    def draw(n):
        x = centres[rng.integers(0, 60, n)] + 0.5 * rng.standard_normal((n, 32))
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    return draw(2_000), draw(100)
