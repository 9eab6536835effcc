"""A path that a user gives is taken as a shell takes it: ``~`` is the home directory, at every door."""

import os

from cderetrieval import Context, Hybrid, Retriever
from cderetrieval.corpora.beir_folder import read_beir, write_beir
from cderetrieval.corpora.dataset import make_dataset
from cderetrieval.corpora.readers import read_documents
from cderetrieval.distributed import VectorFolder, embed_corpus, index_vectors
from cderetrieval.evaluation.results_folder import ResultsFolder
from cderetrieval.milvus.location import parse_location
from cderetrieval.testing import HashEncoder, tiny_model

DOCUMENTS = [{"id": "a", "text": "owls hunt"}, {"id": "b", "text": "bees hum"}]


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Retriever(HashEncoder(), on="text", path="~/a").add(DOCUMENTS).save("~/b").close()
    assert len(Retriever.load("~/b", model=HashEncoder())) == 2
    context = Context.from_texts(tiny_model(), ["owls hunt", "bees hum"], size=2)
    context.save("~/c.safetensors")
    assert Context.load("~/c.safetensors") == context
    with Hybrid({"a": HashEncoder(), "b": HashEncoder()}, on="text", path="~/h") as hybrid:
        hybrid.add(DOCUMENTS).save("~/i")
    Hybrid.load("~/i", models={"a": HashEncoder(), "b": HashEncoder()}).close()
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c.safetensors", "h", "i"]


def test_it_is_so_at_every_other_door(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    tiny_model().save_pretrained("~/model")
    assert Retriever("~/model", on="text").add(DOCUMENTS).encoder.dimension == 32
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "text": "owls hunt"}')
    assert [row["id"] for row in read_documents("~/rows.jsonl")] == ["a"]
    dataset = make_dataset("d", [{"id": "a", "title": "", "text": "owls"}], {"q": "owls"}, {"q": {"a": 1}})
    write_beir(dataset, "~/beir")
    assert len(read_beir("~/beir").corpus) == 1
    vectors = embed_corpus("~/rows.jsonl", "~/vectors", HashEncoder())
    assert len(VectorFolder("~/vectors")) == 1
    index_vectors(vectors, "~/index", model=HashEncoder())(["owls"]).to_trec("~/run.trec")
    ResultsFolder("~/results", {})
    assert parse_location("~/local.db/documents").address == str(tmp_path / "local.db")
    found = {"model", "rows.jsonl", "beir", "vectors", "index", "run.trec", "results"}
    assert set(os.listdir(tmp_path)) == found
