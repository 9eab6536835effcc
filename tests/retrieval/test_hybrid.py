import json

import numpy as np
import pytest

pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

from cderetrieval import Retriever
from cderetrieval.errors import (
    ConfigError,
    ContextError,
    InputError,
    MismatchError,
    ModelError,
    StoreError,
)
from cderetrieval.models.bm25 import BM25
from cderetrieval.retrieval.fusion import Fusion, fuse
from cderetrieval.retrieval.hybrid import Hybrid
from cderetrieval.retrieval.names import HybridModel, load_model
from cderetrieval.testing import (
    HashEncoder,
    WordEncoder,
    tiny_model,
    tiny_model_directory,
    tiny_sparse_embed_directory,
    tiny_splade_directory,
)

DOCUMENTS = [
    {"id": "a", "title": "Owls", "text": "hunt at night"},
    {"id": "b", "title": "Bees", "text": "make honey"},
    {"id": 3, "title": None, "text": "The owl and the bee, honey."},
    {"id": 4.5, "title": "Tides", "text": "follow the moon"},
]
QUERIES = ["who makes honey?", "Bees make honey", "an owl at night", "zebra"]


class Failing(HashEncoder):
    """An encoder that cannot encode one word."""

    def encode_document(self, texts, *, show_progress=False):
        if any("poison" in text for text in texts):
            raise ModelError("the encoder failed")
        return super().encode_document(texts)


def hybrid(**options):
    return Hybrid({"hash": HashEncoder(), "words": "bm25"}, **options)


def state(one):
    """All that a hybrid's parts hold."""
    return [
        (
            [repr(row) for row in part.collection.rows()],
            part.collection.generation,
            part.collection.get_setting("hybrid"),
        )
        for part in one.parts.values()
    ]


def same_documents(one):
    first, *others = ([repr(row) for row in part.collection.rows()] for part in one.parts.values())
    assert all(other == first for other in others)
    return first


@pytest.mark.parametrize("fusion", ["rrf", "weighted"])
def test_answers_are_the_fused_answers_of_the_parts(fusion):
    both = hybrid(fusion=fusion).add(DOCUMENTS)
    numbers, ids = both.collection.numbered_ids()
    names = dict(zip(numbers.tolist(), ids.tolist(), strict=True))
    queries = [part.encoder.encode_query(QUERIES) for part in both.parts.values()]
    rankings = both.collection.rankings(queries, both.fusion, 10)
    for part, ranking in zip(both.parts.values(), rankings, strict=True):
        for hits, rows in zip(part(QUERIES, k=10), ranking.rows, strict=True):
            assert [hit["id"] for hit in hits] == [names[row] for row in rows.tolist() if row >= 0]
    expected = [[names[row] for row in rows.tolist()] for _, rows in fuse(rankings, both.fusion, 10)]
    hits = both(QUERIES)
    assert [[hit["id"] for hit in ranking] for ranking in hits] == expected
    assert hits[1][0]["id"] == "b"
    assert both({"q": QUERIES[1]}).query_ids == ["q"]


@pytest.mark.parametrize("method", ["rrf", "weighted"])
def test_answers_do_not_depend_on_what_else_is_asked(method):
    models = {"hash": HashEncoder(), "sparse": WordEncoder(), "terms": WordEncoder("sparse-embed"), "words": "bm25"}
    both = Retriever(models, fusion=method).add(DOCUMENTS)
    assert list(both(QUERIES)) == [both(query)[0] for query in QUERIES]
    assert both([]) == both({}) == []


def test_add_remove_and_replace_reach_every_part():
    both = hybrid().add(DOCUMENTS)
    both.add([{"id": "b", "text": "wasps sting"}, {"id": "new", "text": "salt"}]).remove([3])
    assert len(both) == 4
    assert "new" in both
    assert 3 not in both
    assert [row.split(",")[0] for row in same_documents(both)] == ["('a'", "(4.5", "('b'", "('new'"]
    assert both("wasps", k=1, documents=True)[0][0]["document"] == {"id": "b", "text": "wasps sting"}
    assert both("honey owl", k=50)[0][0]["id"] == "a"


def test_documents_of_every_form(tmp_path):
    both = hybrid(on="body").add(iter(["first owl", "second bee"]), show_progress=False)
    both.add(iter([{"id": "x", "body": "third moon", "n": 1}]))
    assert [hit[0]["id"] for hit in both(["first owl", "third moon"])] == [0, "x"]
    same_documents(both)
    assert both.add(["another owl"])("another owl")[0][0]["id"] == 2
    skipping = hybrid().add([{"id": 1, "text": "owl"}, {"id": 2, "text": " "}], skip_empty=True)
    assert len(skipping) == 1
    same_documents(skipping)


@pytest.mark.parametrize("fusion", ["rrf", "weighted"])
def test_filters(fusion):
    both = hybrid(fusion=fusion).add([{**document, "n": n} for n, document in enumerate(DOCUMENTS)])
    for part in both.parts.values():
        assert {hit["id"] for hit in part("owl bees honey", filter={"n": {">=": 2}})[0]} <= {3, 4.5}
    assert {hit["id"] for hit in both("owl bees honey", filter={"n": {">=": 2}})[0]} == {3, 4.5}
    assert both("owl", filter={"n": 99}) == [[]]
    with pytest.raises(InputError):
        both("owl", filter={"n": {"about": 2}})


@pytest.mark.parametrize("change", [lambda vectors: vectors[:-1], lambda vectors: np.vstack([vectors, vectors]), len])
def test_an_encoder_that_makes_another_number_of_vectors_is_refused(change):
    class Wrong(HashEncoder):
        def encode_query(self, texts, **options):
            return change(super().encode_query(texts))

        encode_document = HashEncoder.encode_query

    for models in (Wrong(), [Wrong(), "bm25"]):
        with pytest.raises(InputError, match=r"Wrong made (0|3|8) vectors of 4 queries"):
            Retriever(models).add(DOCUMENTS)(QUERIES)


def test_a_part_on_a_server_is_refused():
    with pytest.raises(InputError, match="several models are kept together on one machine"):
        Retriever(["bm25", HashEncoder()], index={"HashEncoder": "milvus://localhost:19530/animals"})


def test_ready_vectors_of_one_part():
    class Counting(HashEncoder):
        encoded = 0

        def encode_document(self, texts, **options):
            Counting.encoded += len(texts)
            return super().encode_document(texts, **options)

    model = Counting()
    texts = [" ".join(filter(None, (d["title"], d["text"]))) for d in DOCUMENTS]
    ready = Hybrid({"hash": model, "words": "bm25"}).add(DOCUMENTS, vectors={"hash": HashEncoder().encode_query(texts)})
    assert Counting.encoded == 0
    assert ready(QUERIES) == hybrid().add(DOCUMENTS)(QUERIES)
    with pytest.raises(InputError, match="vectors= names part 'dense'; the parts are 'hash', 'words'"):
        ready.add(DOCUMENTS, vectors={"dense": np.ones((4, 16))})


@pytest.mark.parametrize("order", [["good", "bad"], ["bad", "good"]])
def test_an_error_in_one_part_leaves_all_as_they_were(order, tmp_path):
    models = {"good": HashEncoder(), "bad": Failing("f")}
    for place in (None, tmp_path / "-".join(order)):
        both = Hybrid({name: models[name] for name in order}, path=place)
        with pytest.raises(ModelError, match="the encoder failed"):
            both.add([{"id": 1, "text": "poison"}])
        assert len(both) == 0
        both.add(DOCUMENTS)
        before, answers = state(both), both(QUERIES)
        for bad in (
            lambda one: one.add([{"id": "a", "text": "new"}, {"id": "z", "text": "poison"}]),
            lambda one: one.add([{"id": "z", "text": "x"}, {"id": "z", "text": "y"}]),
            lambda one: one.remove(["a", "nowhere"]),
            lambda one: one.add([]),
        ):
            with pytest.raises((ModelError, InputError)):
                bad(both)
            assert state(both) == before
            assert both(QUERIES) == answers
        both.add([{"id": "z", "text": "fine"}])
        same_documents(both)
        both.close()


def test_a_context_that_was_rolled_back_is_forgotten():
    both = Hybrid({"tiny": tiny_model(), "bad": Failing()}, context_size=2)
    with pytest.raises(ModelError):
        both.add([{"id": i, "text": f"poison {i}"} for i in range(4)])
    assert both.context is None
    both.add(DOCUMENTS)
    assert set(both.contexts["tiny"].ids) <= {"a", "b", 3, 4.5}
    alone = Retriever(tiny_model(), context_size=2).add(DOCUMENTS)
    assert alone.context.digest == both.context.digest
    assert alone(QUERIES) == both.parts["tiny"](QUERIES)
    assert list(both.context_report()) == ["tiny"]
    both.refresh("random")
    assert both.context.source == "random"


def test_save_and_load(tmp_path):
    both = hybrid(fusion="weighted", weights=(0.2, 0.8)).add(DOCUMENTS)
    both.remove("a").save(tmp_path / "index")
    expected = both(QUERIES)
    with Hybrid.load(tmp_path / "index", models={"hash": HashEncoder()}) as loaded:
        assert loaded.fusion == Fusion("weighted", (0.2, 0.8))
        assert list(loaded.parts) == ["hash", "words"]
        assert loaded(QUERIES) == expected
        loaded.add([{"id": "z", "text": "zebra"}])
        loaded.fusion = Fusion(depth=7)
        loaded.save(tmp_path / "index")
    with Hybrid.load(tmp_path / "index", models={"hash": HashEncoder()}) as again:
        assert again.fusion == Fusion(depth=7)
        assert again("zebra", k=1)[0][0]["id"] == "z"
        same_documents(again)
    with Retriever.load(tmp_path / "index", model={"hash": HashEncoder()}) as again:
        assert again.parts["words"]("zebra")[0][0]["id"] == "z"
        assert not hasattr(again.parts["words"], "remove"), "changes go through the hybrid"
    with pytest.raises(InputError, match="an index of one model"):
        Hybrid.load(Retriever("bm25").add(DOCUMENTS).save(tmp_path / "one") and tmp_path / "one")
    for models in ({"a": HashEncoder()}, [HashEncoder()], both):
        with pytest.raises(InputError, match=r"model is (dict|list|Hybrid); pass"):
            Retriever.load(tmp_path / "one", model=models)


def test_it_lives_in_a_directory(tmp_path):
    indexes = {"HashEncoder": "Flat"}
    with Hybrid([HashEncoder(), "bm25"], path=tmp_path / "index", key="name", on=["body"], index=indexes) as both:
        both.add([{"name": "x", "body": "owl"}])
        assert both.collection.get_setting("retriever")["indexes"] == indexes
        with Hybrid.load(tmp_path / "index", models={"HashEncoder": HashEncoder()}) as reader:
            assert reader("owl")[0][0]["id"] == "x"
            both.add([{"name": "y", "body": "bee"}])
            assert reader("bee", k=1)[0][0]["id"] == "y"
            assert len(reader) == 2
    with pytest.raises(StoreError, match="holds an index already"):
        Hybrid([HashEncoder(), "bm25"], path=tmp_path / "index")
    with pytest.raises(StoreError, match="holds an index already"):
        hybrid().add(DOCUMENTS).save(tmp_path / "index")


def test_others_see_a_new_fusion_and_keep_it(tmp_path):
    models = {"hash": HashEncoder()}
    with hybrid(path=tmp_path / "index") as first:
        first.add(DOCUMENTS)
    with Retriever.load(tmp_path / "index", model=models) as second:
        with Retriever.load(tmp_path / "index", model=models) as first:
            first.fusion = Fusion("weighted", (0.2, 0.8))
            assert second(QUERIES) == first(QUERIES)
        second.add([{"id": "z", "text": "zebra"}])
        assert second.fusion == Fusion("weighted", (0.2, 0.8))
    with Retriever.load(tmp_path / "index", model=models) as again:
        assert again.fusion == Fusion("weighted", (0.2, 0.8))


@pytest.mark.parametrize("fusion", ["rrf", "weighted"])
def test_every_family_can_be_a_part(fusion, tmp_path):
    names = [tiny_model_directory(), tiny_splade_directory(), tiny_sparse_embed_directory(), "bm25"]
    with Hybrid(names, fusion=fusion, context_size=2, path=tmp_path / "index") as everything:
        everything.add(DOCUMENTS).remove("a")
        expected = everything(QUERIES)
        assert expected[1][0]["id"] == "b"
        kinds = [part.encoder.kind for part in everything.parts.values()]
        assert kinds == ["dense", "sparse", "sparse-embed", "lexical"]
        tuned = everything.tune({"q": "honey"}, {"q": {"b": 1}})
        assert len(tuned.grid) == 286
    with Hybrid.load(tmp_path / "index") as loaded:
        loaded.fusion = Fusion(fusion)
        assert loaded(QUERIES) == expected
        loaded.add([{"id": "z", "text": "zebra"}])
        same_documents(loaded)


def test_tuned_weights_are_kept(tmp_path):
    with hybrid(path=tmp_path / "index", fusion="weighted") as both:
        both.add(DOCUMENTS)
        queries = {"q1": "honey of bees", "q2": "moon", "q3": "unjudged"}
        qrels = {"q1": {"b": 2, "3": 1, "not there": 1}, "q2": {4.5: 1}, "q9": {"a": 1}}
        tuned = both.tune(queries, qrels, k=3)
        assert tuned.weights == {"hash": 0.0, "words": 1.0} or tuned.weights["words"] > 0.5
        assert (tuned.n_queries, tuned.metric) == (2, "ndcg@3")
        assert tuned.score >= max(tuned.untuned, *tuned.parts.values())
        assert both.fusion.weights == tuple(tuned.weights.values())
    with Hybrid.load(tmp_path / "index", models={"hash": HashEncoder()}) as loaded:
        assert loaded.fusion.weights == tuple(tuned.weights.values())
        assert loaded.fusion.method == "weighted"


def test_a_part_is_evaluated_as_a_retriever_of_its_own():
    from cderetrieval.evaluation.search import search_blocks

    both, asked = Retriever([HashEncoder(), "bm25"]).add(DOCUMENTS), dict(enumerate(QUERIES))
    assert both.fusion is not None
    for (_, part), model in zip(both.parts.items(), (HashEncoder(), "bm25"), strict=True):
        assert part.fusion is None
        [mine], [alone] = (list(search_blocks(each, asked, 3)) for each in (part, Retriever(model).add(DOCUMENTS)))
        assert mine == alone


def test_parts_given_as_retrievers(tmp_path):
    full = Retriever(HashEncoder(), on=["text"], path=tmp_path / "own").add(DOCUMENTS)
    both = Hybrid([full, "bm25", Retriever(HashEncoder("second"), on=["text"])])
    assert list(both.parts) == ["HashEncoder", "bm25", "HashEncoder-2"]
    assert (len(both), both.parts["HashEncoder"](QUERIES)) == (4, full(QUERIES))
    assert both(QUERIES) == Hybrid([HashEncoder(), "bm25", HashEncoder("second")], on="text").add(DOCUMENTS)(QUERIES)
    both.add([{"id": "z", "text": "zebra"}])
    assert "z" not in full
    both.save(tmp_path / "copy")
    models = {"HashEncoder": HashEncoder(), "HashEncoder-2": HashEncoder("second")}
    with Hybrid.load(tmp_path / "copy", models=models) as copy:
        assert copy(QUERIES) == both(QUERIES)
        copy.remove("z")
    assert "z" in both
    both.close()


def test_a_part_that_fails_leaves_no_copy_of_the_others(tmp_path):
    full = Retriever(HashEncoder()).add([*DOCUMENTS, {"id": "x", "text": "poison"}])
    with pytest.raises(ModelError, match="the encoder failed") as caught:
        Hybrid([full, Failing("f")], path=tmp_path)
    with Hybrid([full, HashEncoder("g")], path=tmp_path) as both:
        assert len(both) == 5
    assert caught.value, "what holds the error holds the frames in which it was raised"


def test_parts_with_the_same_documents_in_another_order():
    first, second = Retriever(HashEncoder()).add(DOCUMENTS), Retriever("bm25").add(DOCUMENTS[::-1])
    mixed = Hybrid([first, second], fusion="weighted")
    straight = Hybrid([HashEncoder(), "bm25"], fusion="weighted").add(DOCUMENTS)
    assert mixed(QUERIES) == straight(QUERIES)
    second.remove("a")
    assert mixed(QUERIES) == straight(QUERIES), "a copy"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "a hybrid has no parts"),
        ({}, "a hybrid has no parts"),
        ("bm25", "parts is str; pass a list"),
        (Retriever("bm25"), "parts is Retriever; pass a list"),
        (7, "parts is int; pass a list"),
        ([7, "bm25"], "model is int; pass a name"),
        ([HybridModel({"a": HashEncoder()}), "bm25"], "model is HybridModel; pass"),
        (
            [Retriever([HashEncoder(), "bm25"]), "bm25"],
            r"a part is a hybrid of \['HashEncoder', 'bm25'\]: pass",
        ),
        ({1: HashEncoder(), "1": "bm25"}, "two parts have one name: 1, '1'"),
        ([Retriever("bm25", key="a"), Retriever("bm25", key="b")], "documents differently: key is 'b', not 'a'"),
        ([Retriever("bm25", on="a"), Retriever("bm25")], r"differently: on is None, not \['a'\]"),
        (
            [Retriever("bm25").add(["owl"]), Retriever("bm25").add(["owl", "bee"])],
            "hold different documents: 1 ids are in one only, the first is 1",
        ),
    ],
)
def test_bad_parts(parts, message):
    with pytest.raises(InputError, match=message):
        Hybrid(parts)


def test_bad_arguments(tmp_path):
    models = [HashEncoder(), "bm25"]
    with pytest.raises(ConfigError, match="fusion='borda' is unknown"):
        Hybrid(models, fusion="borda")
    with pytest.raises(ConfigError, match="3 weights were given for 2 parts"):
        Hybrid(models, weights=[1, 2, 3])
    with pytest.raises(ConfigError, match="none negative"):
        Hybrid(models, fusion="weighted", weights=[1, -2])
    with pytest.raises(ConfigError, match="key='' names no field"):
        Hybrid(models, key="")
    with pytest.raises(ContextError, match="name that part 'centre:MODEL'"):
        Hybrid(models, context="centre")
    with pytest.raises(ContextError, match="no part of this hybrid is contextual"):
        Hybrid(models, context="random")
    with pytest.raises(InputError, match="index= names part 'dense'; the parts are 'HashEncoder', 'bm25'"):
        Hybrid(models, index={"dense": "Flat"})
    with pytest.raises(ConfigError, match="index='Flat' is a FAISS index, and this model has no vectors"):
        Hybrid(models, index="Flat").add(DOCUMENTS)
    both = Hybrid(models)
    with pytest.raises(InputError, match="the index is empty"):
        both("owl")
    with pytest.raises(InputError, match="the index is empty"):
        both.save(tmp_path / "y")
    both.add(DOCUMENTS)
    with pytest.raises(InputError, match="k=0 must be"):
        both("owl", k=0)
    with pytest.raises(InputError, match="several models have no vectors in common"):
        both(np.ones((1, 16)))
    with pytest.raises(InputError, match="query 1 is empty"):
        both(["owl", " "])
    with pytest.raises(ConfigError, match="1 weights were given for 2 parts"):
        both.fusion = Fusion(weights=(1,))
    with pytest.raises(InputError, match="fusion is str; pass a Fusion"):
        both.fusion = "rrf"
    with pytest.raises(ContextError, match="takes no context; there is none to refresh"):
        both.refresh()


@pytest.mark.parametrize(
    ("queries", "qrels", "message"),
    [
        ({"q": "owl"}, None, "tune needs queries, query id to text, and qrels"),
        (["owl"], {"q": {"a": 1}}, "tune needs queries"),
        ({"q": "owl"}, {}, "no query has judgements"),
        ({"q": "owl"}, {"q": {}}, "no query has judgements"),
        ({"q": "owl"}, {"q": {"nowhere": 1}}, "qrels judge no document of this index"),
        ({"q": ""}, {"q": {"a": 1}}, "query 0 is empty"),
    ],
)
def test_bad_development_data(queries, qrels, message):
    both = hybrid(fusion="weighted", weights=(0.3, 0.7)).add(DOCUMENTS)
    with pytest.raises(InputError, match=message):
        both.tune(queries, qrels)
    assert both.fusion.weights == (0.3, 0.7)


def test_bad_directories(tmp_path):
    with pytest.raises(StoreError, match=r"holds no index \(store.sqlite is missing\)"):
        Hybrid.load(tmp_path)
    hybrid().add(DOCUMENTS).save(tmp_path / "index")
    with pytest.raises(MismatchError, match=r"part 'hash' was built with a model that was given as an object.*model="):
        Hybrid.load(tmp_path / "index")
    with pytest.raises(MismatchError, match="there is no part 'dense'; there are 'hash', 'words'"):
        Hybrid.load(tmp_path / "index", models={"dense": HashEncoder()})
    with pytest.raises(MismatchError, match="built by model given as an object with fingerprint"):
        Hybrid.load(tmp_path / "index", models={"hash": HashEncoder("other")})
    with pytest.raises(MismatchError, match="built by model bm25"):
        Hybrid.load(tmp_path / "index", models={"hash": HashEncoder(), "words": BM25("german")})


def test_bad_files_of_hybrid_models(tmp_path):
    manifest = tmp_path / "hybrid.json"
    good = {"format": 1, "parts": ["bm25", "bm25:none"], "fusion": {"method": "rrf"}}
    manifest.write_text(json.dumps(good))
    assert list(load_model(manifest).parts) == ["bm25", "bm25:none"]
    for change in (
        {"format": 99},
        {"parts": []},
        {"parts": [{"name": "x"}]},
        {"parts": "bm25"},
        {"fusion": {"method": "borda"}},
        {"fusion": {"weights": [1]}},
        {"fusion": {"unknown": 1}},
        {"fusion": "rrf"},
    ):
        manifest.write_text(json.dumps({**good, **change}))
        with pytest.raises(StoreError, match=r"hybrid.json is no hybrid of this version"):
            load_model(manifest)
    manifest.write_text("{")
    with pytest.raises(StoreError, match="not valid JSON"):
        load_model(manifest)
