import json
import shutil

import numpy as np
import pytest

from cderetrieval import Results, context_gain, evaluate
from cderetrieval.corpora.beir_folder import write_beir
from cderetrieval.errors import ConfigError, ContextError, InputError, MismatchError, ModelError, StoreError
from cderetrieval.evaluation.metrics import as_run, evaluate_run
from cderetrieval.evaluation.variants import context_variant
from cderetrieval.testing import tiny_model, tiny_model_directory

SMALL = {"context_size": 4, "show_progress": False}


def test_models_contexts_and_seeds(words, toy):
    results = evaluate({"words": words, "tiny": tiny_model()}, toy, context=["own", "null"], seeds=2, **SMALL)
    assert [(c.model, c.context, c.seed) for c in results.cells] == [
        ("words", "none", 0),
        ("tiny", "own", 0),
        ("tiny", "own", 1),
        ("tiny", "null", 0),
    ]
    assert results.systems == ["words/none", "tiny/own", "tiny/null"]
    frame = results.to_frame()
    assert set(frame["metric"]) >= {"ndcg@10", "map@100", "recall@100", "mrr@10", "p@10", "main_score"}
    assert frame["n_queries"].eq(20).all()
    assert len(results.queries()) == 80
    seeds = frame[(frame["context"] == "own") & (frame["metric"] == "ndcg@10")]["value"]
    assert results.table().set_index(["model", "context"]).loc[("tiny", "own"), "toy"] == pytest.approx(
        100 * seeds.mean()
    )
    assert "ndcg@10 x 100" in results.summary()
    own = results.cells[1].audit
    assert (own["documents"], own["pool"], own["equal_to_query"], len(own["ids"])) == (4, 60, 0, 4)


def test_folder_holds_everything_and_is_found_again(make_words, toy, tmp_path):
    out = tmp_path / "out"
    results = evaluate({"words": make_words()}, toy, out=out, **SMALL)
    place = out / "words" / "none" / "seed-0"
    assert sorted(path.name for path in place.iterdir()) == [
        "setting.json",
        "toy.test.json",
        "toy.test.queries.csv",
        "toy.test.run.txt",
    ]
    assert {"manifest.json", "results.csv", "table.md"} <= {path.name for path in out.iterdir()}
    # the run and the qrels give the scores again
    again = evaluate_run(toy.qrels, as_run(place / "toy.test.run.txt"))
    assert again.mean()["ndcg@10"] == pytest.approx(results.cells[0].metrics["ndcg@10"], abs=1e-6)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["runs"][0]["versions"]["torch"]
    assert manifest["runs"][0]["dtype"] == "auto"
    assert manifest["runs"][0]["device"] in ("cpu", "cuda", "mps")
    assert manifest["evaluations"][0]["revision"] == toy.revision
    loaded = Results.load(out)
    assert loaded.table().equals(results.table())
    np.testing.assert_allclose(loaded.cells[0].scores["ndcg@10"], results.cells[0].scores["ndcg@10"], rtol=1e-7)
    fresh = make_words()
    evaluate({"words": fresh}, toy, out=out, **SMALL)
    assert fresh.n_encoded == 0
    assert len(json.loads((out / "manifest.json").read_text())["runs"]) == 2


def test_a_killed_run_resumes(make_words, make_toy, tmp_path):
    class Killed(type(make_words())):
        def encode_document(self, texts, *, show_progress=False):
            if self.n_encoded > 100:
                raise KeyboardInterrupt
            return super().encode_document(texts)

    datasets = [make_toy("one"), make_toy("two", seed=1)]
    with pytest.raises(KeyboardInterrupt):
        evaluate({"words": Killed()}, datasets, out=tmp_path / "out", **SMALL)
    assert [cell.dataset for cell in Results.load(tmp_path / "out").cells] == ["one"]
    model = make_words()
    results = evaluate({"words": model}, datasets, out=tmp_path / "out", **SMALL)
    assert [cell.dataset for cell in results.cells] == ["one", "two"]
    assert model.n_encoded == 80
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_a_killed_mteb_task_resumes_after_its_last_subset(tmp_path, make_words, make_toy):
    pytest.importorskip("mteb")
    folder = write_beir(make_toy(), tmp_path / "SciFact")
    out = tmp_path / "out"
    first = evaluate({"words": make_words()}, folder, out=out, **SMALL).cells
    [cell] = out.rglob("SciFact.test.json")
    cell.unlink()  # killed after mteb wrote its score and before the cell was written
    model = make_words()
    assert evaluate({"words": model}, folder, out=out, **SMALL).cells[0].metrics == pytest.approx(first[0].metrics)
    assert model.n_encoded == 0
    cell.unlink()
    cell.with_name("SciFact.test.queries.csv").unlink()  # a score without its queries is computed again
    assert evaluate({"words": model}, folder, out=out, **SMALL).cells[0].metrics == pytest.approx(first[0].metrics)
    assert model.n_encoded == 80
    cell.unlink()
    [native] = (out / "mteb").rglob("SciFact.json")
    native.write_text(native.read_text()[:100])  # killed while mteb wrote
    assert evaluate({"words": model}, folder, out=out, **SMALL).cells[0].metrics == pytest.approx(first[0].metrics)
    assert json.loads(native.read_text())["task_name"] == "SciFact"


def test_a_killed_task_keeps_what_its_context_was_made_of(tmp_path, make_toy):
    pytest.importorskip("mteb")
    folder = write_beir(make_toy(), tmp_path / "SciFact")
    [first] = evaluate({"tiny": tiny_model()}, folder, out=tmp_path / "out", **SMALL).cells
    [cell] = (tmp_path / "out").rglob("SciFact.test.json")
    cell.unlink()
    [again] = evaluate({"tiny": tiny_model()}, folder, out=tmp_path / "out", **SMALL).cells
    assert again.audit == first.audit
    assert first.audit["documents"] == 4
    assert len(Results.load(tmp_path / "out")) == 1


def test_other_models_contexts_and_data_are_refused(make_words, make_toy, toy, tmp_path):
    out = tmp_path / "out"
    evaluate({"m": make_words()}, toy, out=out, **SMALL)
    with pytest.raises(MismatchError, match=r"holds results of fingerprint .* choose another --out"):
        evaluate({"m": make_words("others")}, toy, out=out, **SMALL)
    with pytest.raises(MismatchError, match="revision of the data"):
        evaluate({"m": make_words()}, make_toy(seed=5), out=out, **SMALL)
    tiny = tiny_model()
    evaluate({"tiny": tiny}, toy, out=out, **SMALL)
    with pytest.raises(MismatchError, match="context_size 4, this run has 3"):
        evaluate({"tiny": tiny}, toy, out=out, context_size=3, show_progress=False)
    file = tmp_path / "texts.txt"
    file.write_text("owls\nbees\n")
    evaluate({"tiny": tiny}, toy, context=file, out=out, **SMALL)
    file.write_text("owls\nants\n")
    with pytest.raises(MismatchError, match="context_digest"):
        evaluate({"tiny": tiny}, toy, context=file, out=out, **SMALL)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    with pytest.raises(StoreError, match="not empty and no results folder"):
        evaluate({"m": make_words()}, toy, out=tmp_path / "other", **SMALL)
    with pytest.raises(StoreError, match="holds no results"):
        Results.load(tmp_path)


def test_models_need_names_of_their_own(make_words, toy):
    with pytest.raises(InputError, match="two models are called 'WordHashEncoder'"):
        evaluate([make_words(), make_words("b")], toy, **SMALL)
    [cell] = evaluate(f"mine={tiny_model_directory()}", toy, **SMALL).cells
    assert cell.system == "mine/own"


def test_truncated_reranks_candidates_only(words, make_words, toy, tmp_path):
    full = evaluate({"m": words}, toy, **SMALL).cells[0]
    same = evaluate({"m": words}, toy, first_stage=make_words(), depth=10, out=tmp_path / "o", **SMALL).cells[0]
    assert same.column == "toy@10"
    assert same.metrics["ndcg@10"] == pytest.approx(full.metrics["ndcg@10"])  # its own top 10, in the same order
    assert same.metrics["recall@100"] == pytest.approx(full.metrics["recall@10"])
    contextual = evaluate({"tiny": tiny_model()}, toy, first_stage=words, depth=10, **SMALL).cells[0]
    assert contextual.audit["pool"] == 60  # the context comes from the whole corpus
    assert contextual.candidates == "WordHashEncoder@10"
    with pytest.raises(InputError, match="must be a model without context"):
        evaluate({"m": words}, toy, first_stage=tiny_model(), **SMALL)
    with pytest.raises(MismatchError, match="candidates"):
        evaluate({"m": words}, toy, first_stage={"x": make_words("x")}, depth=10, out=tmp_path / "o", **SMALL)


def test_truncated_through_mteb(words, make_toy, tmp_path):
    pytest.importorskip("mteb")
    folder = write_beir(make_toy(), tmp_path / "SciFact")
    direct = evaluate({"m": words}, f"own={folder}", first_stage=words, depth=5, **SMALL).cells[0]
    [cell] = evaluate({"m": words}, folder, first_stage=words, depth=5, out=tmp_path / "o", **SMALL).cells
    assert cell.column == "SciFact@5"
    assert cell.metrics["ndcg@10"] == pytest.approx(direct.metrics["ndcg@10"])
    [native] = (tmp_path / "o" / "mteb").rglob("SciFact.json")
    assert "candidates" in native.parent.name  # never where results of full retrieval stand


def test_groups_are_one_column(words, make_toy, tmp_path):
    for name in ("android", "gis"):
        write_beir(make_toy(seed=len(name)), tmp_path / "forums" / name)
    results = evaluate({"m": words}, tmp_path / "forums", **SMALL)
    assert [cell.dataset for cell in results.cells] == ["forums-android", "forums-gis"]
    table = results.table()
    assert list(table.columns) == ["model", "forums", "mean"]
    assert table["forums"][0] == pytest.approx(100 * np.mean([cell.metrics["main_score"] for cell in results.cells]))


def test_context_settings():
    assert context_variant(None, seed=3) == context_variant("null")
    assert context_variant("own", 8, 2).folder == "own/seed-2"
    with pytest.raises(ContextError, match="neither 'own', 'random', 'null' nor a file"):
        context_variant("onw")
    with pytest.raises(ConfigError, match="must be at least 1"):
        context_variant("own", 0)


def test_comparison_averages_seeds_per_query(toy, make_words, tmp_path):
    results = evaluate({"words": make_words(), "tiny": tiny_model()}, toy, seeds=2, **SMALL)
    found = results.compare("tiny", "words")
    [row] = found.rows
    tiny = [cell.scores["ndcg@10"] for cell in results.of("tiny/own")]
    assert row["difference"] == pytest.approx((results.of("words")[0].scores["ndcg@10"] - np.mean(tiny, axis=0)).mean())
    assert (row["seeds_a"], row["seeds_b"], row["n_queries"]) == (2, 1, 20)
    assert row["low"] < row["difference"] < row["high"]
    assert row["p_holm"] == row["p_randomization"]
    assert "b = words/none" in found.summary()
    assert found.to_frame()["dataset"].tolist() == ["toy"]
    with pytest.raises(InputError, match="no system is called 'cde'; there are words/none, tiny/own"):
        results.compare("cde", "tiny")
    pytest.importorskip("matplotlib")
    assert found.plot(tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_comparison_needs_the_same_data(make_words, make_toy, toy):
    a = evaluate({"a": make_words()}, toy, **SMALL)
    b = evaluate({"b": make_words("b")}, make_toy(seed=9), **SMALL)
    with pytest.raises(InputError, match="of different data"):
        Results([*a.cells, *b.cells]).compare("a", "b")
    c = evaluate({"c": make_words("c")}, make_toy("other"), **SMALL)
    with pytest.raises(InputError, match="no dataset in common"):
        Results([*a.cells, *c.cells]).compare("a", "c")


def test_context_gain_with_and_without_judgements(toy):
    given = context_gain(toy.corpus, toy.queries, toy.qrels, tiny_model(), seeds=2, passages=None, **SMALL)
    frame = given.to_frame().set_index("context")
    assert list(frame.index) == ["null", "random", "own"]
    assert frame.loc["own", "seeds"] == 2
    assert frame.loc["null", "gain"] == pytest.approx(frame.loc["own", "ndcg@10"] - frame.loc["null", "ndcg@10"])
    assert frame.loc["null", "gain_low"] <= frame.loc["null", "gain"] <= frame.loc["null", "gain_high"]
    assert "20 given queries" in str(given)
    documents = [
        {
            "id": i,
            "title": f"the {i} th thing of all",
            "text": f"words about number {i} and eight more words to be a text",
        }
        for i in range(30)
    ]
    generated = context_gain(documents, model=tiny_model(), seeds=1, **SMALL)
    assert generated.generated
    assert "generated queries (generated title: compares contexts, not quality)" in str(generated)
    assert len(generated.dataset.queries) == 30


def test_context_gain_refuses(words, toy):
    with pytest.raises(ModelError, match="takes no context"):
        context_gain(toy.corpus, toy.queries, toy.qrels, words)
    with pytest.raises(InputError, match="together"):
        context_gain(toy.corpus, toy.queries, model=tiny_model())
    with pytest.raises(InputError, match="not in the corpus"):
        context_gain(toy.corpus, {"q": "x"}, {"q": {"nowhere": 1}}, tiny_model())


def test_bad_folders_are_named(words, toy_folder, tmp_path):
    with pytest.raises(InputError, match="has no split 'dev'; it has test"):
        evaluate({"m": words}, toy_folder, split="dev")
    shutil.rmtree(toy_folder / "qrels")
    with pytest.raises(InputError, match="has no judgements"):
        evaluate({"m": words}, toy_folder)
    with pytest.raises(InputError, match="there is no folder"):
        evaluate({"m": words}, f"x={tmp_path / 'nowhere'}")
    with pytest.raises(InputError, match="tasks is empty"):
        evaluate({"m": words}, [])
    with pytest.raises(InputError, match="int is not a name"):
        evaluate({"m": words}, [3])
