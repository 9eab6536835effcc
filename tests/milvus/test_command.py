"""The command line and folders of vectors, with a collection in the place of a directory."""

import json

import pytest

from cderetrieval.cli import main
from cderetrieval.distributed import embed_corpus, index_vectors
from cderetrieval.errors import ConfigError, MismatchError
from cderetrieval.testing import HashEncoder, tiny_model, tiny_model_directory


@pytest.fixture
def corpus(tmp_path, rows):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_index_search_and_context(place, corpus, capsys):
    model = tiny_model_directory()
    assert main(["index", str(corpus), "--index", place, "--model", model]) == 0
    assert f"6 documents indexed in Context(own, 4 documents, seed 0), written to {place}" in capsys.readouterr().out
    assert main(["search", place, "about bees", "-k", "2", "--json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["rank"] == 1
    assert first["document"]["text"].startswith("about ")
    assert main(["context", place]) == 0
    assert "4 documents, own, seed 0" in capsys.readouterr().out
    assert main(["search", place + "2", "about bees"]) == 2
    assert "does not exist; collections of this package there: animals" in capsys.readouterr().err
    assert main(["index", str(corpus), "--model", model]) == 2
    assert "--out is missing" in capsys.readouterr().err


@pytest.mark.parametrize("family", ["dense", "contextual"])
def test_a_collection_from_ready_vectors(place, corpus, tmp_path, at, family):
    model = HashEncoder() if family == "dense" else tiny_model()
    folder = embed_corpus(corpus, tmp_path / "vectors", model, block=2, engine="process", show_progress=False)
    local = index_vectors(folder, tmp_path / "index", model=model, show_progress=False)
    with index_vectors(folder, index=place, model=model, show_progress=False) as remote:
        assert remote(["about owls", "x"], k=9) == local(["about owls", "x"], k=9)
        assert remote.encoder.fingerprint == local.encoder.fingerprint
        remote.remove(["owls"])
    with index_vectors(folder, index=place, model=model, show_progress=False) as remote:
        assert len(remote) == 6, "the same call completes what is missing"
    other = HashEncoder("other") if family == "dense" else tiny_model(seed=1)
    with pytest.raises(MismatchError, match="model that made the vectors"):
        index_vectors(folder, index=place + "2", model=other, show_progress=False)
    anew = embed_corpus(corpus, tmp_path / "anew", other, block=2, engine="process", show_progress=False)
    with pytest.raises(MismatchError, match="Choose another collection"):
        index_vectors(anew, index=place, model=other, show_progress=False)
    with pytest.raises(ConfigError, match="leave out `out`"):
        index_vectors(folder, tmp_path / "x", index=place, model=model)
    local.close()
