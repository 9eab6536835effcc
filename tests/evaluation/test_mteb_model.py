import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

mteb = pytest.importorskip("mteb")

from datasets import Dataset as Table  # noqa: E402
from mteb.mocks import MOCK_TASK_TEST_GRID  # noqa: E402
from mteb.models import EncoderProtocol, SearchProtocol  # noqa: E402

from cderetrieval import Context, Retriever, load  # noqa: E402
from cderetrieval.context.spec import ContextSpec  # noqa: E402
from cderetrieval.errors import ContextError  # noqa: E402
from cderetrieval.evaluation import evaluate  # noqa: E402
from cderetrieval.evaluation.mteb_data import TaskCorpus, context_pools, is_retrieval, query_texts  # noqa: E402
from cderetrieval.evaluation.mteb_model import MTEBModel, encode_for, prompt_name  # noqa: E402
from cderetrieval.evaluation.variants import context_variant  # noqa: E402
from cderetrieval.models.statistics import StatisticsModel  # noqa: E402
from cderetrieval.testing import tiny_dense_directory, tiny_model  # noqa: E402

OWN = context_variant("own", 4)


def mock(name):
    return copy.deepcopy(next(task for task in MOCK_TASK_TEST_GRID if task.metadata.name == name))


class Spy:
    """A tiny contextual model that remembers what its contexts were made of."""

    def __init__(self):
        self._model, self.seen = tiny_model(), []

    def __getattr__(self, name):
        return getattr(self._model, name)

    def in_context(self, *args, **kwargs):
        return self._model.in_context(*args, **kwargs)

    def embed_context(self, texts, **kwargs):
        self.seen.append(list(texts))
        return self._model.embed_context(texts, **kwargs)


def run(name, variant=OWN):
    model, task = Spy(), mock(name)
    task.load_data()
    adapter = MTEBModel(model, variant, name="tiny")
    adapter.prepare(task)
    mteb.evaluate(adapter, task, cache=None, show_progress_bar=False, co2_tracker=False)
    return model, task, adapter


@pytest.mark.slow
def test_every_text_task_of_the_mock_grid_and_resume(tmp_path):
    tasks = list({task.metadata.name: copy.deepcopy(task) for task in MOCK_TASK_TEST_GRID}.values())
    assert len(MOCK_TASK_TEST_GRID) >= 29
    assert len(tasks) >= 28
    results = evaluate({"tiny": tiny_model()}, tasks, context_size=4, out=tmp_path / "r")
    assert {cell.dataset for cell in results.cells} == {task.metadata.name for task in tasks}
    assert all(np.isfinite(cell.metrics["main_score"]) for cell in results.cells)
    assert all(cell.audit["documents"] >= 1 for cell in results.cells)
    assert all((cell.scores is not None) == is_retrieval(mock(cell.dataset)) for cell in results.cells)
    native = list((tmp_path / "r" / "mteb" / "results" / "local__tiny").glob("*/experiments/context_own*/*Mock*.json"))
    assert len(native) == len(tasks)

    class Broken(Spy):
        def embed_context(self, texts, **kwargs):
            raise AssertionError("finished work was done again")

    again = evaluate(
        {"tiny": Broken()}, [mock(task.metadata.name) for task in tasks], context_size=4, out=tmp_path / "r"
    )
    assert again.table().equals(results.table())
    assert set(results.types().columns) >= {"Retrieval", "STS", "Clustering", "all tasks"}


def test_protocols_and_encode_without_context(words):
    adapter = MTEBModel(tiny_model(), OWN, name="tiny")
    assert isinstance(adapter, EncoderProtocol)
    assert isinstance(adapter, SearchProtocol)
    assert not hasattr(adapter, "predict")
    task = mock("MockSTSTask")
    batches = [{"text": ["a", "b"]}]
    with pytest.raises(ContextError, match="no context is registered for MockSTSTask, subset 'default', split 'test'"):
        adapter.encode(batches, task_metadata=task.metadata, hf_split="test", hf_subset="default")
    plain = MTEBModel(words, name="org/words")
    assert plain.encode(batches, task_metadata=task.metadata, hf_split="test", hf_subset="default").shape == (2, 96)
    assert plain.mteb_model_meta.experiment_kwargs is None
    assert plain.mteb_model_meta.name == "org/words"


def test_retrieval_contexts_come_from_the_corpus_of_subset_and_split():
    model, task, adapter = run("MockMultilingualRetrievalTask")
    for (name, subset, split), audit in adapter.audits.items():
        corpus = {identity for identity in task.dataset[subset][split]["corpus"]["id"]}
        assert name == "MockMultilingualRetrievalTask"
        assert set(audit["ids"]) <= corpus
    queries = {text for subset in task.dataset.values() for data in subset.values() for text in data["queries"]["text"]}
    assert not queries & {text for texts in model.seen for text in texts}
    assert len(adapter.audits) == 4


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("MockSTSTask", ("sentence1", "sentence2")),
        ("MockPairClassificationTask", ("sentence1", "sentence2")),
        ("MockBitextMiningTask", ("sentence1", "sentence2")),
        ("MockSummarizationTask", ("text",)),
        ("MockTextZeroShotClassification", ("text",)),
        ("MockClusteringTask", ("sentences",)),
    ],
)
def test_contexts_are_sampled_from_all_input_columns_and_nothing_else(name, columns):
    model, task, _ = run(name)
    rows = task.dataset["test"]
    allowed = set()
    for column in columns:
        for value in rows[column]:
            allowed |= {value} if isinstance(value, str) else {v for v in np.ravel(value).tolist()}
    [context] = model.seen
    assert set(context) <= allowed
    assert len(context) == min(4, len(allowed))


def test_classification_contexts_come_from_the_train_split():
    model, task, adapter = run("MockClassificationTask")
    assert set(model.seen[0]) <= set(task.dataset["train"]["text"])
    assert len(model.seen) == 1  # train and test texts are encoded in one context
    assert ("MockClassificationTask", "default", "test") in adapter.audits


def test_the_same_sample_in_any_order_of_rows():
    task = mock("MockSTSTask")
    task.load_data()
    [(_, texts)] = context_pools(task)
    model = tiny_model()
    pool = [(str(i), text) for i, text in enumerate(texts)]
    make = ContextSpec.parse("own").make
    assert make(model, pool, size=4).digest == make(model, pool[::-1], size=4).digest
    assert make(model, pool, size=2, seed=1).digest != make(model, pool, size=2).digest


def test_rerank_scores_equal_the_retrievers(make_toy):
    toy, model = make_toy(), tiny_model()
    rows = Table.from_list(list(toy.corpus))
    queries = Table.from_list([{"id": query, "text": text} for query, text in toy.queries.items()])
    metadata = mock("MockRetrievalTask").metadata
    adapter = MTEBModel(model, OWN, name="tiny")
    common = {"task_metadata": metadata, "hf_split": "test", "hf_subset": "default", "encode_kwargs": {}}
    adapter.index(rows, **common)
    everything = adapter.search(queries, top_k=60, **common)
    digest = adapter.audits[metadata.name, "default", "test"]["digest"]
    candidates = {query: list(hits)[3:9] for query, hits in everything.items()}
    reranked = adapter.search(queries, top_k=60, top_ranked=candidates, **common)
    assert adapter.audits[metadata.name, "default", "test"]["digest"] == digest
    for query, hits in reranked.items():
        assert hits == pytest.approx(
            {document: everything[query][document] for document in candidates[query]}, abs=2e-6
        )
    with Retriever(model, on=["title", "text"], context_size=4, passages=None) as retriever:
        retriever.add(toy.corpus)
        assert retriever.context.digest == digest


def test_documents_without_text_are_kept(words):
    rows = [
        {"id": "a", "title": "", "text": ""},
        {"id": "b", "title": "", "text": "bees"},
        {"id": "b", "text": "again"},
    ]
    metadata = mock("MockRetrievalTask").metadata
    adapter = MTEBModel(words, name="words")
    common = {"task_metadata": metadata, "hf_split": "test", "hf_subset": "default"}
    adapter.index(rows, **common)
    hits = adapter.search({"id": ["q"], "text": ["bees"]}, top_k=10, **common)["q"]
    assert set(hits) == {"a", "b"}
    assert hits["b"] == pytest.approx(1.0, abs=1e-5)
    assert len(list(TaskCorpus(rows))) == 2


@pytest.mark.parametrize("name", ["MockRetrievalDialogTask", "MockInstructionRetrieval", "MockRetrievalTask"])
def test_query_texts_equal_mtebs(name):
    from mteb._create_dataloaders import _retrieval_texts
    from mteb.types import PromptType

    task = mock(name)
    task.load_data()
    task.convert_v1_dataset_format_to_v2(num_proc=None)
    for data in task.dataset["default"].values():
        assert query_texts(data["queries"]) == list(_retrieval_texts(data["queries"], PromptType.query))


def test_similarity_takes_numpy_and_torch_of_one_and_two_dimensions():
    torch = pytest.importorskip("torch")
    adapter = MTEBModel(tiny_model(), OWN, name="tiny")
    a, b = np.eye(3, dtype=np.float32), torch.eye(3, dtype=torch.float64)
    assert adapter.similarity(a, b).tolist() == np.eye(3).tolist()
    assert adapter.similarity(a[0], b[0]).tolist() == [[1.0]]
    assert adapter.similarity_pairwise(a, b).tolist() == [1, 1, 1]


CDE = {"query": "q: ", "document": "d: ", "classification": "c: ", "clustering": "k: "}


@pytest.mark.parametrize(
    ("kind", "side", "prompts", "expected"),
    [
        ("Retrieval", "query", CDE, "query"),
        ("Retrieval", "document", CDE, "document"),
        ("Reranking", "query", CDE, "classification"),
        ("STS", None, CDE, "classification"),
        ("Clustering", None, CDE, "clustering"),
        ("Summarization", None, CDE, "classification"),
        ("STS", None, {"query": "", "document": ""}, None),
        ("Reranking", "query", {"query": "", "document": ""}, "query"),
        ("STS", None, {**CDE, "STS": "sts: "}, "STS"),
        ("Retrieval", "query", {**CDE, "Retrieval-query": "x: "}, "Retrieval-query"),
        ("Retrieval", "query", {**CDE, "Toy": "x: ", "Retrieval-query": "y: "}, "Toy"),
    ],
)
def test_prompts_by_task_type(kind, side, prompts, expected):
    assert prompt_name(prompts, SimpleNamespace(name="Toy", type=kind), side) == expected


@pytest.mark.parametrize("side", ["query", "document"])
def test_a_side_without_a_prompt_stays_that_side(side):
    model = StatisticsModel(load(tiny_dense_directory()))
    inside = Context.from_texts(model, ["owls hunt at night", "bees make honey"]).encoder(model)
    inside.settings = dataclasses.replace(inside.settings, prompts={})
    found = encode_for(inside, ["owls"], SimpleNamespace(name="Toy", type="Reranking"), side)
    np.testing.assert_array_equal(found, getattr(inside, f"encode_{side}")(["owls"]))


def test_an_unfitting_prompt_is_left_out():
    model, task = tiny_model(prompts={"query": "q: ", "document": "d: "}), mock("MockSTSTask")
    task.load_data()
    adapter = MTEBModel(model, "null", name="tiny")
    adapter.prepare(task)
    found = adapter.encode([{"text": ["owl"]}], task_metadata=task.metadata, hf_split="test", hf_subset="default")
    bare = tiny_model(prompts={"query": "", "document": ""}).in_context(None).encode_document(["owl"])
    np.testing.assert_allclose(found, bare, atol=1e-6)
