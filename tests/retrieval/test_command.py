import json

import pytest

pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

from cderetrieval.cli import main
from cderetrieval.retrieval.hybrid import Hybrid
from cderetrieval.testing import tiny_model_directory, tiny_splade_directory

DOCUMENTS = [{"id": "a", "text": "owls hunt at night"}, {"id": "b", "text": "bees make honey"}]


@pytest.fixture
def documents(tmp_path):
    path = tmp_path / "documents.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS))
    return str(path)


def families():
    tiny, splade = tiny_model_directory(), tiny_splade_directory()
    return [["bm25"], [splade], [f"hybrid:{tiny}+bm25", "--context-size", "2"], [f"hybrid:{splade}+bm25+bm25:none"]]


@pytest.mark.parametrize("family", range(4))
def test_index_and_search_with_every_family(family, documents, tmp_path, capsys):
    out = str(tmp_path / "index")
    assert main(["index", documents, "--out", out, "--model", *families()[family]]) == 0
    assert capsys.readouterr().out.startswith("2 documents indexed")
    assert main(["search", out, "bees make honey", "-k", "1", "--json"]) == 0
    hit = json.loads(capsys.readouterr().out)
    assert (hit["id"], hit["rank"]) == ("b", 1)
    assert hit["document"] == DOCUMENTS[1]


def test_a_query_that_nothing_matches(documents, tmp_path, capsys):
    out = str(tmp_path / "index")
    assert main(["index", documents, "--out", out, "--model", "bm25"]) == 0
    capsys.readouterr()
    assert main(["search", out, "???", "bees", "-k", "1"]) == 0
    first, said, second, hit, passage = capsys.readouterr().out.splitlines()
    assert (first, said, second) == ("???", "  no document matches", "bees")
    assert (hit.split()[2], passage.strip()) == ("b", "bees make honey")


def test_contexts_of_a_hybrid(documents, tmp_path, capsys):
    tiny, out = tiny_model_directory(), str(tmp_path / "index")
    model = f"hybrid:{tiny}+bm25"
    assert main(["index", documents, "--out", out, "--model", model, "--context", "random", "--context-size", "3"]) == 0
    capsys.readouterr()
    assert main(["context", out]) == 0
    printed = capsys.readouterr().out
    assert "2 documents, part cderetrieval-tiny" in printed
    assert "3 documents, random, seed 0" in printed


def test_the_fusion_of_another_hybrid(documents, tmp_path, capsys):
    tuned = tmp_path / "tuned.json"
    tuned.write_text(json.dumps({"parts": ["bm25", "bm25:none"], "fusion": {"method": "weighted", "weights": [3, 1]}}))
    assert main(["index", documents, "--out", str(tmp_path / "index"), "--model", str(tuned)]) == 0
    with Hybrid.load(tmp_path / "index") as hybrid:
        assert (hybrid.fusion.method, hybrid.fusion.weights) == ("weighted", (3, 1))
        assert len(hybrid) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "DOCUMENTS", "--out", "OUT", "--model", "hybrid:bm25+"], "names no part, or an empty one"),
        (
            ["index", "DOCUMENTS", "--out", "OUT", "--model", "hybrid:bm25+./nowhere"],
            "there is no directory './nowhere'",
        ),
        (["index", "DOCUMENTS", "--out", "OUT", "--model", "bm25:klingon"], "language='klingon' is unknown"),
        (["index", "DOCUMENTS", "--out", "OUT", "--model", "bm25", "--index", "Flat"], "this model has no vectors"),
        (["index", "DOCUMENTS", "--out", "MADE", "--model", "bm25"], "holds an index already"),
        (["index", "DOCUMENTS", "--out", "MADE", "--model", "hybrid:bm25+bm25"], "holds an index already"),
        (["search", "MADE", "owl", "--model", "bm25"], "say which part's model has moved, as PART=MODEL"),
        (["search", "MADE", "owl", "--model", "bm25=bm25:german"], "this index was built by model bm25"),
        (["search", "MADE", "owl", "--model", "x=bm25"], "there is no part 'x'; there are 'bm25', 'bm25:none'"),
        (["context", "MADE"], "this hybrid has no context"),
    ],
)
def test_bad_input_is_named(arguments, message, documents, tmp_path, capsys):
    made = str(tmp_path / "made")
    Hybrid(["bm25", "bm25:none"], path=made).add(DOCUMENTS).close()
    places = {"DOCUMENTS": documents, "OUT": str(tmp_path / "out"), "MADE": made}
    assert main([places.get(argument, argument) for argument in arguments]) == 2
    assert message in capsys.readouterr().err
