"""Files that came to harm: each is read as what was written, or refused by one of our errors that names it."""

import hashlib
import json
import random
import shutil

import pytest

from cderetrieval import BM25, CDEError, Context, Hybrid, Results, Retriever, evaluate
from cderetrieval.context.context import read_texts
from cderetrieval.corpora.dataset import make_dataset
from cderetrieval.distributed import VectorFolder, embed_corpus
from cderetrieval.errors import ConfigError, ContextError, StoreError
from cderetrieval.retrieval.names import read_manifest
from cderetrieval.testing import HashEncoder, WordEncoder, tiny_model
from cderetrieval.training.ablation import read_results
from cderetrieval.training.checkpoints import check_same_run, last_checkpoint, mark_whole, run_record
from cderetrieval.training.recipes import load_recipe

DOCUMENTS = [{"id": f"d{i}", "text": f"owl number {i} hunts {i * i} mice at night", "n": i} for i in range(24)]
QUERIES = {"q0": "owl number 7 hunts 49 mice at night", "q1": "mice", 'q,2\r\n"': "number 12"}
QRELS = {"q0": {"d7": 2}, "q1": {"d1": 1, "d2": 1}, 'q,2\r\n"': {"d12": 1}}
MODELS = {"hash": HashEncoder("hash"), "words": WordEncoder()}
STRANGE = (None, True, -1, 0, 1e308, 10**30, 963.1, "", "x" * 9_000, [], {}, [[]], {"a": {}}, "../../etc/passwd")


def damaged(data, name, rng):
    """Bytes to other bytes: flipped, cut, overwritten, doubled, emptied, or JSON with another value or without one."""
    way = rng.choice(["flip", "cut", "overwrite", "double", "empty", "swap"])
    if name.endswith((".json", ".jsonl")) and rng.random() < 0.7:
        way = rng.choice(["retype", "retype", "retype", "remove", "nest"])
    place = rng.randrange(len(data)) if data else 0
    if way == "flip":
        return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :] if data else b"\0"
    if way in ("retype", "remove"):
        return edited(data, rng, way)
    return {
        "cut": data[:place],
        "overwrite": data[:place] + rng.randbytes(min(16, len(data) - place)) + data[place + 16 :],
        "double": data + (data[:place] or b"\0"),
        "empty": b"",
        "swap": data[place:] + data[:place],
        "nest": b"[" * 100_000 + data,
    }[way]


def edited(data, rng, way):
    try:
        value = json.loads(data)
    except ValueError:
        return b"{}"
    holder, key = rng.choice(list(places(value)) or [(None, None)])
    if holder is None:
        return json.dumps(rng.choice(STRANGE)).encode()
    if way == "remove":
        del holder[key]
    else:
        holder[key] = rng.choice(STRANGE)
    return json.dumps(value).encode()


def places(value):
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


def dataset():
    return make_dataset("owls", DOCUMENTS, QUERIES, QRELS)


def write_results(folder):
    evaluate(MODELS, dataset(), out=folder / "results", show_progress=False)


def read_results_folder(folder):
    results = Results.load(folder / "results")
    frame = results.to_frame()
    comparison = results.compare("hash", "words")
    comparison.plot(folder / "plot.png")
    return [results.table().to_csv(), frame.to_csv(), results.queries().to_csv(), comparison.summary()]


def write_old_results(folder):
    """As versions before the checksums have left them."""
    write_results(folder)
    for path in [folder / "results" / "manifest.json", *(folder / "results").glob("*/*/*/*.json")]:
        values = json.loads(path.read_text())
        values.pop("sha256")
        values.pop("queries", None)
        if "format" in values:
            values["format"] = 1
        path.write_text(json.dumps(values))


def read_scores(folder):
    results = Results.load(folder / "results")
    means = results.table("recall@10"), results.queries()
    assert means[1].drop(columns=["model", "context", "seed", "dataset", "query_id"]).max(axis=None) <= 1
    return results.table()["owls"].min() >= 0.0 and results.table()["owls"].max() <= 100.0


def write_context(folder):
    Context.from_texts(tiny_model(), [row["text"] for row in DOCUMENTS[:8]]).save(folder / "context.safetensors")


def write_recipe(folder):
    (folder / "recipe.json").write_text(json.dumps(load_recipe("cde-minilm").to_dict()))


def read_recipe(folder):
    load_recipe(folder / "recipe.json").to_dict()  # a number may be another number


def write_checkpoint(folder):
    mark_whole(folder / "checkpoint-3", record())
    (folder / "results.csv").write_text("batches,architecture,seed,loss\nrandom,biencoder,0,0.5\n")


def record():
    return run_record("abc", load_recipe("cde-minilm").to_dict(), {"layers": 2}, 1)


def read_checkpoint(folder):
    check_same_run(last_checkpoint(folder), record())
    read_results(folder / "results.csv")


def write_vectors(folder):
    (folder / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in DOCUMENTS))
    embed_corpus(folder / "documents.jsonl", folder / "vectors", HashEncoder(), on="text", show_progress=False)


def read_vectors(folder):
    stored = VectorFolder(folder / "vectors", [folder / "documents.jsonl"])
    stored.check_whole()
    return [[list(map(str, ids)), vectors.round(5).tolist()] for ids, vectors in stored]


def write_index(encoder, index="auto"):
    def write(folder):
        with Retriever(encoder, on="text", path=folder / "index", index=index) as retriever:
            retriever.add(DOCUMENTS)
            retriever.remove(["d3"])
            retriever(list(QUERIES.values()))

    def read(folder):
        with Retriever.load(folder / "index", model=encoder) as retriever:
            return [list(ranking) for ranking in retriever(list(QUERIES.values()), k=5)]

    return write, read


def write_hybrid(folder):
    with Hybrid(MODELS, on="text", path=folder / "index") as hybrid:
        hybrid.add(DOCUMENTS)


def read_hybrid(folder):
    with Hybrid.load(folder / "index", models=MODELS) as hybrid:
        return [list(ranking) for ranking in hybrid(list(QUERIES.values()), k=5)]


def write_manifest(folder):
    """A hybrid's models and fusion, as versions before 0.2 wrote them down."""
    parts = [{"name": "one", "model": "bm25"}, {"name": "two", "model": "bm25:none"}]
    values = {"format": 1, "parts": parts, "fusion": {"depth": 100}, "settings": {"key": "id"}, "indexes": {}}
    seal = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    (folder / "hybrid.json").write_text(json.dumps({**values, "sha256": seal}))


def read_models(folder):
    settings = read_manifest(folder)
    return settings.models, settings.key, settings.fusion


# What writes it, what reads it, files that are hit, how often, and whether all that is not refused must be the same.
SUBJECTS = {
    "results": (write_results, read_results_folder, "results/**/*.[jc]s*", 40, True),
    "old results": (write_old_results, read_scores, "results/*/*/*/*.[jc]s*", 60, True),
    "context": (
        write_context,
        lambda folder: Context.load(folder / "context.safetensors").digest,
        "*.safetensors",
        60,
        True,
    ),
    "recipe": (write_recipe, read_recipe, "recipe.json", 150, True),
    "checkpoint": (write_checkpoint, read_checkpoint, "**/*.*", 150, True),
    "vectors": (write_vectors, read_vectors, "vectors/**/*.*", 100, True),
    "exact index": (*write_index(HashEncoder()), "index/index*", 20, True),
    "HNSW index": (*write_index(HashEncoder(), "HNSW8"), "index/index*", 30, True),
    "sparse index": (*write_index(WordEncoder()), "index/index*", 30, True),
    "BM25 index": (*write_index(BM25()), "index/index*", 30, True),
    "hybrid": (write_hybrid, read_hybrid, "index/**/index*", 40, True),
    "models of a hybrid": (write_manifest, read_models, "hybrid.json", 60, True),
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_damage_is_noticed_or_harmless(name, tmp_path, caplog):
    write, read, pattern, times, is_exact = SUBJECTS[name]
    caplog.set_level("CRITICAL")
    (tmp_path / "whole").mkdir()
    write(tmp_path / "whole")
    right = read(tmp_path / "whole")
    rng = random.Random(name)
    for number in range(times):
        folder = tmp_path / "damaged"
        shutil.copytree(tmp_path / "whole", folder)
        path = rng.choice(sorted(path for path in folder.glob(pattern) if path.is_file()))
        before = path.read_bytes()
        path.write_bytes(after := damaged(before, path.name, rng))
        try:
            found = read(folder)
        except CDEError:
            pass
        except Exception as error:
            pytest.fail(f"{number}: {path.relative_to(folder)}: {error!r}\n{after[:2000]!r}")
        else:
            assert not is_exact or found == right, (number, str(path.relative_to(folder)), after[:2000])
        shutil.rmtree(folder)


def test_a_score_that_was_changed_is_refused_with_its_remedy(tmp_path):
    write_results(tmp_path)
    [path] = (tmp_path / "results").glob("hash/*/*/owls.test.json")
    for file, old, new in (
        (path, '"main_score": ', '"main_score": 9.63'),
        (path.with_suffix(".queries.csv"), ",1.0", ",0.5"),
    ):
        whole = file.read_text()
        file.write_text(whole.replace(old, new, 1))
        assert file.read_text() != whole
        with pytest.raises(StoreError, match=f"(?s){file.name}.*Remove {path} and evaluate again"):
            Results.load(tmp_path / "results")
        with pytest.raises(StoreError, match="Remove"):
            write_results(tmp_path)
        file.write_text(whole)
    path.unlink()
    write_results(tmp_path)
    assert Results.load(tmp_path / "results").table()["owls"].between(0, 100).all()


def test_a_checkpoint_whose_files_changed_is_not_resumed(tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "optimizer.pt").write_bytes(b"whole")
    write_checkpoint(tmp_path)
    read_checkpoint(tmp_path)
    (tmp_path / "checkpoint-3" / "optimizer.pt").write_bytes(b"whOle")
    with pytest.raises(StoreError, match=r"optimizer.pt is not what was saved; delete .*checkpoint-3"):
        read_checkpoint(tmp_path)


def test_a_log_of_training_that_is_damaged_is_named(tmp_path):
    from types import SimpleNamespace

    from cderetrieval.training.trainer import JsonLog

    state = SimpleNamespace(is_world_process_zero=True, global_step=5)
    for line in (b'{"loss": 1}', b"[1]", b"{", b"\xff", b'{"step": "x"}', b"[" * 100_000):
        (tmp_path / "log.jsonl").write_bytes(line + b"\n")
        with pytest.raises(StoreError, match=r"log.jsonl is damaged"):
            JsonLog(tmp_path / "log.jsonl").on_train_begin(None, state, None)


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"learning_rates": {"a": "b"}},
        {"learning_rates": []},
        {"statistics": 3},
        {"statistics": {"centre": "x"}},
        {"statistics": {"query_words": 2.5}},
        {"data": 3},
        {"model": None},
        {"base": 7},
        {"compile": "yes"},
    ],
    ids=str,
)
def test_a_recipe_with_a_value_of_another_type_is_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change)) if "statistics" not in change else "must be"):
        load_recipe("cde-minilm").replace(**change)


@pytest.mark.parametrize(
    "line",
    ['{"text": null}', '{"text": 5}', '{"text": "a", "title": 3}', "[" * 100_000, "[]", '{"title": "a"}', "1" * 5000],
)
def test_a_context_file_with_a_row_that_is_no_text_is_refused(line, tmp_path):
    (tmp_path / "context.jsonl").write_text('{"text": "owls"}\n' + line + "\n")
    with pytest.raises(ContextError, match=r"line 2"):
        read_texts(tmp_path / "context.jsonl")


@pytest.mark.parametrize("how", ["renamed", "removed", "copied"])
def test_an_evaluation_does_not_vanish_and_does_not_count_twice(tmp_path, how):
    write_results(tmp_path)
    [path] = (tmp_path / "results").glob("hash/*/*/owls.test.json")
    if how == "copied":
        shutil.copy(path, path.with_name("other.json"))
        shutil.copy(path.with_suffix(".queries.csv"), path.with_name("other.queries.csv"))
    elif how == "removed":
        path.unlink()
    else:
        path.rename(path.with_suffix(".bak"))
    with pytest.raises(StoreError, match="same evaluation" if how == "copied" else r"lacks the results of hash/"):
        Results.load(tmp_path / "results")


def test_old_results_without_checksums_are_read(tmp_path):
    (tmp_path / "old").mkdir()
    write_results(tmp_path)
    write_old_results(tmp_path / "old")
    old, new = Results.load(tmp_path / "old" / "results"), Results.load(tmp_path / "results")
    assert old.table().equals(new.table())
    assert old.queries().equals(new.queries())
    [path] = (tmp_path / "old" / "results").glob("hash/*/*/owls.test.json")
    values = json.loads(path.read_text())
    for name, value in (("ndcg@10", 0.123), ("main_score", 9.631), ("main_score", "1"), ("recall@10", None)):
        path.write_text(json.dumps({**values, "metrics": {**values["metrics"], name: value}}))
        with pytest.raises(StoreError, match=r"Remove .* and evaluate again"):
            Results.load(tmp_path / "old" / "results")


@pytest.mark.parametrize(("old", "new"), [('"depth": 100', '"depth": 10'), ('"key": "id"', '"key": "ie"')])
def test_a_hybrid_that_was_changed_is_refused_unless_its_checksum_is_taken_out(tmp_path, old, new):
    write_manifest(tmp_path)
    path, whole = tmp_path / "hybrid.json", read_models(tmp_path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(StoreError, match=r"hybrid.json is no hybrid .* take out sha256 if you changed it"):
        read_models(tmp_path)
    values = json.loads(text)
    values.pop("sha256")
    path.write_text(json.dumps(values))  # as earlier versions wrote it
    assert read_models(tmp_path) == whole
