"""The parts that benchmarks share, and those whose answers can be said beforehand."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
ECHO = """
import json, sys
print(json.dumps({"arguments": sys.argv[1:]}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("die"):
        sys.exit(3)
    print(json.dumps({"asked": asked}), flush=True)
"""


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def echo(tmp_path):
    script = tmp_path / "echo.py"
    script.write_text(ECHO, encoding="utf-8")
    return str(script)


def test_a_peer_answers_line_by_line(echo):
    from common import Peer

    peer = Peer(sys.executable, echo, "a", "b")
    assert peer.ready == {"arguments": ["a", "b"]}
    assert [peer.ask(k=k) for k in (1, 2)] == [{"asked": {"k": 1}}, {"asked": {"k": 2}}]
    peer.close()


def test_a_peer_that_ends_is_named(echo):
    from common import Peer

    peer = Peer(sys.executable, echo)
    with pytest.raises(RuntimeError, match=r"echo\.py.*ended with status 3"):
        peer.ask(die=True)
    peer.close()


def test_options_name_environments():
    from common import arguments

    given = arguments("text", ["--quick", "--onnx", "/env/bin/python"], peers={"--onnx": "optimum", "--openvino": "x"})
    assert (given.quick, given.onnx, given.openvino) == (True, "/env/bin/python", None)


def test_recall_of_dense_search():
    import growth

    hits = [[{"id": "document-3"}, {"id": "document-1"}], [{"id": "document-0"}, {"id": "document-7"}]]
    found = growth.recall(hits, [["document-1", "document-3"], ["document-0", "document-2"]])
    assert found * growth.K == pytest.approx(1.5)
    # Of a document with two passages among the nearest, both count, and a third hit of it is none.
    hits = [[{"id": name} for name in "aaab"], [{"id": name} for name in "abbc"]]
    assert growth.recall(hits, [["a", "a", "c", "b"], ["a", "a", "b", "c"]]) * growth.K == pytest.approx(3)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("cut", [False, True])
def test_growth_of_a_size(cut):
    import growth
    import search

    row = growth.measure(growth.Size(300, 1, 1), cut)
    documents = len(search.documents(300, cut))
    assert documents == (125 if cut else 300)
    assert (row["documents"], row["vectors"], row["index"]) == (documents, 300, "Flat")
    assert row["vectors_mb"] == round(300 * 384 * 4 / 2**20, 1)
    assert all(row[f"{step}_s"] > 0 and row[f"{step}_mb"] >= 0 for step in ("add", "build", "open", "search"))
    # What the Retriever answers is what exact search finds.
    assert row["recall"] >= 0.999
    assert growth.beyond({"peak_memory_mb": 7.5, "memory_before_mb": 5.2}) == 2.3


def test_without_a_gpu_nothing_is_measured(monkeypatch, capsys):
    import gpu
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    gpu.main()
    assert "no GPU here" in capsys.readouterr().out


def test_use_of_a_gpu_is_the_arithmetic_over_the_peak(monkeypatch):
    import gpu
    import torch

    monkeypatch.setitem(gpu.SHAPES, "tiny", (32, 2, 4, 1.5))
    rows = gpu.encoding("tiny", length=16, tokens=64, device=torch.device("cpu"), repeats=2, top=1e9)
    assert [row["form"] for row in rows] == ["plain", "gated", "shared", "joint"]
    plain = rows[0]
    # 2 layers, 16 tokens: 24 h^2 multiplications and additions each, and 4 h for each of 16 tokens.
    flops = 2 * 16 * (24 * 32**2 + 4 * 32 * 16)
    assert plain["MFU"] == pytest.approx(flops / 16 * plain["tokens a second"] / 1e9, rel=0.01, abs=1e-4)
    assert all(row["time / plain"]["median"] > 0 for row in rows)


def test_recall_of_sparse_search():
    import sparse
    import sparse_data

    exact, queries = sparse_data.documents(300, seed=1).astype(np.float64), sparse_data.queries(4, seed=2)
    least = sparse.least_of_best(exact, queries)
    scores = (queries.astype(np.float64) @ exact.T).toarray()
    best = np.argsort(-scores, axis=1)
    assert least == pytest.approx(np.sort(scores, axis=1)[:, -sparse.K])
    assert sparse.recall(best[:, : sparse.K], exact, queries, least) == 1.0
    assert sparse.recall(best[:, 5 : sparse.K + 5], exact, queries, least) == 0.5


def test_a_peer_of_sparse_search_gets_the_same_vectors(tmp_path, monkeypatch):
    """Seismic is not installed here: in its place a product of matrices that takes what seismic takes."""
    import peers
    import sparse
    import sparse_data

    docs, queries = sparse_data.documents(300, seed=1), sparse_data.queries(4, seed=2)
    files = [str(tmp_path / name) for name in ("documents.npz", "queries.npz")]
    sparse.write_csr(files[0], docs)
    sparse.write_csr(files[1], queries)
    monkeypatch.setitem(sys.modules, "seismic", ProductInPlaceOfSeismic)
    loaded, search = peers.seismic(*files)
    answer = search(k=sparse.K, query_cut=10, heap_factor=0.9)
    least = sparse.least_of_best(docs.astype(np.float64), queries)
    assert sparse.recall(answer["found"], docs.astype(np.float64), queries, least) == 1.0
    assert json.dumps({**loaded, **answer})


class ProductInPlaceOfSeismic:
    """The names of the module and of its classes."""

    class SeismicDataset:
        """Documents by id."""

        def add_documents_by_id(self, names, components, values, offsets):
            from scipy.sparse import csr_array

            assert (components.dtype, values.dtype, offsets.dtype) == (np.int64, np.float32, np.int64)
            self.names = names
            self.matrix = csr_array((values, components, offsets))

    class SeismicIndex:
        """Brute force."""

        @classmethod
        def build_from_dataset(cls, dataset, num_threads):
            index = cls()
            index.dataset = dataset
            return index

        def batch_search(self, numbers, terms, weights, *, k, query_cut, heap_factor, num_threads):
            found = []
            for number, words, values in zip(numbers, terms, weights, strict=True):
                query = np.zeros(max(self.dataset.matrix.shape[1], words.astype(int).max() + 1))
                query[words.astype(int)] = values
                scores = self.dataset.matrix @ query[: self.dataset.matrix.shape[1]]
                found.append([(number, scores[row], self.dataset.names[row]) for row in np.argsort(-scores)[:k]])
            return found[::-1]  # in the order in which its threads are done

    @staticmethod
    def get_seismic_string():
        return "U30"


def test_versions_of_what_is_there():
    import peers

    assert "transformers" in peers.versions()
    assert set(peers.versions()) <= set(peers.PACKAGES)


def test_backends_left_out_leave_the_peer_of_this_environment():
    from cderetrieval.models.locate import installed_minilm

    if installed_minilm() is None:
        pytest.skip("the weights of all-MiniLM-L6-v2 are not installed")
    import encode_backends

    rows, versions = encode_backends.measure(["a join of two tables", "an owl"], {}, 1)
    assert ([row["peer"] for row in rows], versions) == ([encode_backends.PEER], {})
    assert rows[0]["largest_cosine_difference"] < 1e-6
