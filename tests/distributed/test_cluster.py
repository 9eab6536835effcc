"""Embedding on two simulated machines: the vectors are those of one process, whatever dies meanwhile.

Each job runs in a process of its own, with a hard limit: Ray's known failure is to wait for ever.
"""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cderetrieval.distributed import VectorFolder, embed_corpus
from cderetrieval.errors import ClusterError, ConfigError, MissingDependencyError
from cderetrieval.testing import HashEncoder, tiny_model_directory, tiny_sparse_embed_directory, tiny_splade_directory
from cderetrieval.types import TermEmbeddings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='needs Ray: pip install "cderetrieval[scale]"'),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Ray's simulated machines need a POSIX system"),
]

LIMIT = 600
BLOCK = 5


def job(kind, folder, *models):
    """Run a job; its result, its exit status and its errors."""
    (folder / "deaths").touch()
    command = [sys.executable, str(Path(__file__).with_name("cluster_job.py")), kind, str(folder), *models]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=folder
    )
    try:
        output, errors = child.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        pytest.fail(f"the job took longer than {LIMIT} s")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    return json.loads(output.splitlines()[-1]) if child.returncode == 0 else {}, child.returncode, errors


def parts(vectors):
    if isinstance(vectors, TermEmbeddings):
        return [*parts(vectors.weights), vectors.embeddings]
    return [vectors] if isinstance(vectors, np.ndarray) else [vectors.data, vectors.indices, vectors.indptr]


def assert_same(folder, other):
    assert folder.plan.fingerprint == other.plan.fingerprint
    assert folder.plan.blocks == other.plan.blocks
    assert folder.context == other.context
    for (ids, vectors), (other_ids, others) in zip(folder, other, strict=True):
        assert ids == other_ids
        for one, two in zip(parts(vectors), parts(others), strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.fixture
def expected(corpus, tmp_path):
    return embed_corpus(corpus, tmp_path / "expected", HashEncoder(), block=BLOCK)


def test_vectors_of_every_family_are_those_of_one_process(corpus, tmp_path, dense_directory):
    models = [
        tiny_model_directory(),
        f"centre:{dense_directory}",
        tiny_splade_directory(),
        tiny_sparse_embed_directory(),
    ]
    _, status, errors = job("families", tmp_path, *models)
    assert status == 0, errors
    for number, model in enumerate(models):
        alone = embed_corpus(corpus, tmp_path / f"alone-{number}", model, block=BLOCK)
        assert_same(VectorFolder(tmp_path / f"vectors-{number}"), alone)


def test_a_machine_is_lost(tmp_path, expected):
    result, status, errors = job("node", tmp_path)
    assert status == 0, errors
    assert result["nodes"] == 2
    assert 8 <= result["before"][0] < 20, "it was lost in the middle"
    assert_same(VectorFolder(tmp_path / "vectors"), expected)


def test_a_worker_dies(tmp_path, expected):
    _, status, errors = job("worker", tmp_path)
    assert status == 0, errors
    assert (tmp_path / "deaths").stat().st_size == 1
    assert_same(VectorFolder(tmp_path / "vectors"), expected)


def test_a_block_that_kills_every_worker_ends_the_job(tmp_path, corpus):
    _, status, errors = job("always", tmp_path)
    assert status == 1
    assert "ClusterError" in errors
    assert "5 workers died over these documents" in errors
    assert (tmp_path / "deaths").stat().st_size == 5
    # The other blocks stay, and the same call ends the job where there is memory for it.
    assert len(embed_corpus(corpus, tmp_path / "vectors", HashEncoder(), block=BLOCK)) == 100


def test_the_driver_is_killed(tmp_path, expected, corpus):
    _, status, _ = job("driver", tmp_path)
    assert status == -signal.SIGKILL
    half = VectorFolder(tmp_path / "vectors")
    done = [half.file(number).stat().st_mtime_ns for number in half.blocks if number not in half.missing()]
    assert 6 <= len(done) < 20
    whole = embed_corpus(corpus, tmp_path / "vectors", HashEncoder(), block=BLOCK)
    assert_same(whole, expected)
    times = [whole.file(number).stat().st_mtime_ns for number in whole.blocks]
    assert set(done) <= set(times), "nothing was embedded twice"


def test_too_many_workers_and_unreachable_clusters_are_named(corpus, tmp_path):
    code = f"""
from cderetrieval.distributed import embed_corpus
from cderetrieval.errors import ClusterError
from cderetrieval.testing import HashEncoder
import ray
for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "nowhere"):
    try:
        embed_corpus({str(corpus)!r}, "a", HashEncoder(), address=address)
    except ClusterError as error:
        print(error)
ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level="ERROR")
try:
    embed_corpus({str(corpus)!r}, "b", HashEncoder(), workers=3)
except ClusterError as error:
    print(error)
"""
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT, env=environment
    )
    assert "Ray on 127.0.0.1:1 cannot be reached" in answer.stdout, answer.stderr
    assert "Ray on ray://127.0.0.1:1 cannot be reached" in answer.stdout
    assert "(HOST:PORT is expected, or auto)" in answer.stdout
    assert "3 workers of 1 CPUs do not fit: the cluster has 4 CPUs" in answer.stdout
    assert "Take 2 workers at most" in answer.stdout


def test_numbers_of_workers_are_checked_before_anything_starts(corpus, tmp_path):
    for settings in ({"workers": 0}, {"threads": 0, "engine": "ray"}):
        with pytest.raises(ConfigError, match="must be at least 1"):
            embed_corpus(corpus, tmp_path / "v", HashEncoder(), **settings)
    assert issubclass(ClusterError, RuntimeError)
    assert issubclass(MissingDependencyError, ImportError)
