"""The GPU path with a stand-in for FAISS's GPU functions: this project's tests have no GPU."""

import faiss
import numpy as np
import pytest

from cderetrieval.errors import ConfigError
from cderetrieval.index import manifest
from cderetrieval.index.exact import exact_search
from cderetrieval.index.faiss import FaissIndex

from .stored import Stored


class FakeGpu:
    """Searches like a GPU index: no selectors, at most 1,024 answers."""

    def __init__(self, index):
        self.index, self.searches = faiss.clone_index(index), 0

    def search(self, queries, k, params=None):
        assert k <= 2_048
        assert params is None or params.sel is None
        self.searches += 1
        return self.index.search(queries, k, params=params)


@pytest.fixture
def copies(monkeypatch):
    made = []

    def index_cpu_to_gpu(resources, device, index):
        if not isinstance(index, (faiss.IndexFlat, faiss.IndexIVFFlat)):
            raise RuntimeError("not implemented on GPU")
        made.append(FakeGpu(index))
        return made[-1]

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", index_cpu_to_gpu, raising=False)
    return made


@pytest.mark.parametrize("kind", ["Flat", "IVF16,Flat"])
def test_the_copy_searches_and_is_renewed_after_a_change(clustered, copies, kind, tmp_path):
    matrix, queries = clustered
    index = Stored(FaissIndex(32, kind))
    index.add(np.arange(1_500), matrix[:1_500])
    index.search(queries, 10)
    index.search(queries, 10)
    assert [copy.searches for copy in copies] == [2]
    index.remove(np.arange(100))
    index.add(np.arange(1_500, 2_000), matrix[1_500:])
    _, found = index.search(queries, 10)
    truth = exact_search(matrix, queries, 10, np.arange(2_000) >= 100)[1]
    assert np.mean(found == truth) > (0.99 if kind == "Flat" else 0.7)
    index.search(queries[:2], 1_900)
    digest = manifest.save(index, tmp_path, epoch=0, generation=1, fingerprint="f")
    back = FaissIndex(32, kind, device="cpu")
    assert manifest.load(back, tmp_path, epoch=0, fingerprint="f", digest=digest)
    assert back.count == 1_900


def test_a_kind_without_a_gpu_form_stays_on_the_cpu(clustered, copies, caplog):
    matrix, queries = clustered
    index = Stored(FaissIndex(32, "HNSW16,Flat"))
    index.add(np.arange(2_000), matrix)
    assert index.search(queries, 10)[1].shape == (100, 10)
    assert "stays on the CPU" in caplog.text


def test_device_settings(copies, monkeypatch):
    assert FaissIndex(4, device="gpu").count == 0
    with pytest.raises(ConfigError, match="device='tpu'"):
        FaissIndex(4, device="tpu")
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    with pytest.raises(ConfigError, match="device='gpu' needs a GPU"):
        FaissIndex(4, device="gpu")
    assert FaissIndex(4).count == 0
