"""A name is a name: a folder that bears it counts only if it holds what the name stands for."""

import pytest

from cderetrieval import Retriever, evaluate, load
from cderetrieval.errors import MismatchError, ModelError
from cderetrieval.evaluation import api, tasks
from cderetrieval.models import locate
from cderetrieval.retrieval.hybrid import Hybrid
from cderetrieval.retrieval.names import named_models
from cderetrieval.testing import HashEncoder, tiny_dense_directory, tiny_model

needs_minilm = pytest.mark.skipif(locate.installed_minilm() is None, reason=f"{locate.PACKAGE} is not installed")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty current directory, and no network."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def results_of(name, here):
    (here / name / "own" / "seed-0").mkdir(parents=True)
    (here / name / "own" / "seed-0" / "setting.json").write_text("{}")


@needs_minilm
@pytest.mark.parametrize("family", ["", "dense:", "centre:"])
def test_a_folder_of_results_is_not_taken_for_the_model(here, family):
    results_of("all-MiniLM-L6-v2", here)
    results_of("cde-minilm", here)
    assert (
        load(family + "all-MiniLM-L6-v2").dimension == 384 if family != "centre:" else load(family + "all-MiniLM-L6-v2")
    )
    assert load("cde-minilm").fingerprint == load().fingerprint


def test_names_of_hubs_too(here, monkeypatch):
    asked = []
    monkeypatch.setattr(locate, "fetch", lambda name, revision=None: asked.append(name) or tiny_dense_directory())
    results_of("mine", here)
    results_of("jxm/cde-small-v2", here)
    (here / "empty").mkdir()
    for name in ("mine", "jxm/cde-small-v2", "cde-small-v2", "empty"):
        locate.find(name)
    assert asked == ["mine", "jxm/cde-small-v2", "jxm/cde-small-v2", "empty"]


def test_a_directory_with_a_model_still_comes_first(here):
    tiny_model().save_pretrained(str(here / "all-MiniLM-L6-v2"))
    assert load("all-MiniLM-L6-v2").fingerprint == tiny_model().fingerprint


@pytest.mark.parametrize("name", ["./mine", "mine/", "~/mine"])
def test_a_path_without_a_model_says_so(here, name, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    results_of("mine", here)
    with pytest.raises(ModelError, match="mine cannot be loaded: it holds no model"):
        load(name)
    with pytest.raises(ModelError, match="there is no directory"):
        load(name.replace("mine", "yours"))


def test_an_index_is_no_model(here, tmp_path):
    Retriever(HashEncoder(), path="svc-index").add(["owls"]).close()
    for call in (
        lambda: Retriever("svc-index"),
        lambda: Retriever(here / "svc-index", path="other"),
        lambda: load("svc-index"),
        lambda: load(f"dense:{here / 'svc-index'}"),
        lambda: Hybrid(["svc-index", "bm25"]),
    ):
        with pytest.raises(ModelError, match=r"svc-index is an index, not a model: open it with Retriever\.load\("):
            call()
    assert not (here / "other").exists()
    hybrid = Hybrid({"a": HashEncoder(), "b": "bm25"}, path="both")
    hybrid.add(["owls"])
    hybrid.close()
    with pytest.raises(MismatchError, match="part 'a' of both was built with a model that was given as an object"):
        Retriever("both")
    for place in ("milvus://localhost/docs", "docs.db/docs"):
        with pytest.raises(ModelError, match=r"is an index, not a model: open it with Retriever\.load"):
            Retriever(place)


def toy():
    from cderetrieval.corpora.dataset import make_dataset

    corpus = [{"id": "a", "title": "", "text": "owls"}, {"id": "b", "title": "", "text": "bees"}]
    return make_dataset("toy", corpus, {"q": "bees"}, {"q": {"b": 1}})


def test_results_beside_the_model_are_resumed(here):
    """`--out .` makes a folder that bears the model's name."""
    tiny_model().save_pretrained(str(here / "models" / "tiny"))
    results = [evaluate("models/tiny", toy(), context="null", out=here / "out").table() for _ in range(2)]
    assert results[0].equals(results[1])


@needs_minilm
def test_results_in_the_current_directory(here):
    for _ in range(2):
        evaluate("all-MiniLM-L6-v2", toy(), out=".")
        assert (here / "all-MiniLM-L6-v2").is_dir()


@pytest.mark.parametrize("name", [".", "./", "../mine", "../mine/."])
def test_a_model_in_the_current_directory_has_its_name(here, name, monkeypatch):
    tiny_model().save_pretrained(str(here / "mine"))
    monkeypatch.chdir(here / "mine")
    cells = evaluate(name, toy(), context="null", out=here / "out").cells
    assert {cell.model for cell in cells} == {"mine"}
    assert (here / "out" / "mine").is_dir()
    assert list(named_models([name, "bm25"])) == ["mine", "bm25"]


def test_a_repository_keeps_its_full_name(here, monkeypatch):
    monkeypatch.setattr(api, "load_model", lambda *_, **__: HashEncoder())
    results_of("org/model", here)
    (entrant,) = api.entrants("org/model", None, "auto")
    assert (entrant.name, entrant.full_name) == ("model", "org/model")


def test_a_folder_of_a_tasks_name_counts_if_it_holds_data(here, monkeypatch):
    monkeypatch.setattr(tasks, "named_subjects", lambda name, split=None: [("task", name)])
    monkeypatch.setattr(tasks, "folder_subjects", lambda folders, split: [("folder", *folders)])
    (here / "SciFact").mkdir()
    assert tasks.subjects_of("SciFact") == [("task", "SciFact")]
    assert tasks.subjects_of("./SciFact") == [("folder", "./SciFact")]
    (here / "SciFact" / "qrels").mkdir()
    assert tasks.subjects_of("SciFact") == [("folder", "SciFact")]
