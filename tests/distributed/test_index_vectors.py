"""An index from ready vectors answers as one that embedded its documents itself."""

import contextlib
import hashlib
import json
import random

import numpy as np
import pytest

from cderetrieval import Retriever
from cderetrieval.cli import main
from cderetrieval.distributed import VectorFolder, embed_corpus, index_vectors
from cderetrieval.errors import ConfigError, InputError, MismatchError, ModelError, StoreError
from cderetrieval.testing import HashEncoder, tiny_model, tiny_model_directory, tiny_splade_directory

pytest.importorskip("pyarrow")

QUERIES = ["owl by night", "honey of a bee", "join a table 7"]


@pytest.fixture
def vectors(corpus, tmp_path):
    return embed_corpus(corpus, tmp_path / "v", HashEncoder(), block=30)


def index(vectors, out, **settings):
    return index_vectors(vectors, out, **{"model": HashEncoder(), **settings})


def test_answers_are_those_of_a_retriever(corpus, documents, model_name, tmp_path):
    retriever = Retriever(model_name).add(documents)
    built = index_vectors(embed_corpus(corpus, tmp_path / "v", model_name), tmp_path / "index")
    assert built.encoder.fingerprint == retriever.encoder.fingerprint
    assert built.context == retriever.context
    assert built(QUERIES, k=7, documents=True) == retriever(QUERIES, k=7, documents=True)
    built.add([{"id": "new", "text": "a new owl"}]).remove(["d3"])
    assert len(built) == 100
    built.close()
    assert Retriever.load(tmp_path / "index")(QUERIES) == built_later(retriever)
    assert sorted(path.name for path in tmp_path.iterdir() if "building" in path.name) == []


def built_later(retriever):
    return retriever.add([{"id": "new", "text": "a new owl"}]).remove(["d3"])(QUERIES)


def test_what_a_drift_report_needs_is_there(corpus, tmp_path):
    model = tiny_model()
    built = index(embed_corpus(corpus, tmp_path / "v", model, seed=3), tmp_path / "index", model=model)
    report = built.context_report()
    assert (report["source"], report["seed"], report["drift"].stale) == ("own", 3, False)


def test_several_folders_of_one_encoder_make_one_index(vectors, tmp_path, write_corpus, documents):
    other = write_corpus(tmp_path / "other.jsonl", [{"id": i, "text": f"text {i}"} for i in range(20)])
    second = embed_corpus(other, tmp_path / "w", HashEncoder())
    built = index([vectors, second], tmp_path / "index")
    assert len(built) == 120
    assert built(["text 7"])[0][0]["id"] == 7
    same = write_corpus(tmp_path / "same.jsonl", [{"id": "x", "text": "owls"}, documents[42]])
    third = embed_corpus(same, tmp_path / "u", HashEncoder())
    with pytest.raises(InputError, match=r"id 'd42' occurs twice: document 42 of .*v, and document 1 of .*u\."):
        index([vectors, third], tmp_path / "second")
    with pytest.raises(InputError, match="no folder"):
        index([], tmp_path / "second")


def test_folders_of_two_encoders_are_refused(corpus, vectors, tmp_path):
    other = embed_corpus(corpus, tmp_path / "w", HashEncoder("another"))
    with pytest.raises(MismatchError, match=r"different encoders: .* come from one model"):
        index([vectors, other], tmp_path / "index")
    contextual = [embed_corpus(corpus, tmp_path / f"c{seed}", tiny_model(), seed=seed) for seed in range(2)]
    with pytest.raises(MismatchError, match="in the same context"):
        index(contextual, tmp_path / "index", model=tiny_model())
    with pytest.raises(MismatchError, match=r"other vectors: dense vectors of 32 dimensions and .* 16 dimensions"):
        index([vectors, contextual[0]], tmp_path / "index")
    fields = embed_corpus(corpus, tmp_path / "f", HashEncoder(), on="text")
    with pytest.raises(MismatchError, match="other fields"):
        index([vectors, fields], tmp_path / "index")


def test_another_model_is_refused_and_leaves_nothing(vectors, tmp_path, corpus):
    with pytest.raises(MismatchError, match="Use the model that made the vectors"):
        index(vectors, tmp_path / "index", model=HashEncoder("another"))
    with pytest.raises(MismatchError, match="pass it with model="):
        index(vectors, tmp_path / "index", model=None)
    contextual = embed_corpus(corpus, tmp_path / "c", tiny_model_directory())
    with pytest.raises(MismatchError, match="Use the model"):
        index(contextual, tmp_path / "index", model=HashEncoder())
    with pytest.raises(ModelError):
        index(vectors, tmp_path / "index", model="./nowhere")
    assert {path.name for path in tmp_path.iterdir()} == {"corpus.jsonl", "v", "c"}
    assert len(index(vectors, tmp_path / "index")) == 100


def test_a_half_written_folder_is_refused(vectors, tmp_path):
    vectors.file(2).unlink()
    with pytest.raises(StoreError, match="half-written: 1 of its 4 blocks"):
        index(vectors, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_a_corpus_that_changed_is_refused(vectors, tmp_path, write_corpus, documents, corpus):
    write_corpus(corpus, [*documents[:50], {"id": "d50", "text": "another text"}, *documents[51:]])
    with pytest.raises(InputError, match="these are not the documents"):
        index(vectors, tmp_path / "index")
    moved = write_corpus(tmp_path / "moved.jsonl", documents)
    corpus.unlink()
    assert len(index(VectorFolder(vectors.path, [moved]), tmp_path / "index")) == 100
    with pytest.raises(InputError, match="of 1 files, and the corpus has 2"):
        VectorFolder(vectors.path, [moved, write_corpus(tmp_path / "n.jsonl", documents)])


def test_a_payload_that_changed_is_refused(tmp_path, write_corpus):
    rows = [{"id": i, "text": f"text {i}", "year": 1990 + i} for i in range(5)]
    corpus = write_corpus(tmp_path / "corpus.jsonl", rows)
    vectors = embed_corpus(corpus, tmp_path / "v", HashEncoder())
    whole = corpus.read_bytes()
    corpus.write_bytes(whole.replace(b"1993", b"1983"))
    with pytest.raises(InputError, match="not the documents that were read when"):
        index(vectors, tmp_path / "index")
    corpus.write_bytes(whole)
    assert index(vectors, tmp_path / "other")("text 3", k=1, documents=True)[0][0]["document"] == rows[3]


def test_a_folder_without_digests_of_payloads_is_read(vectors, tmp_path):
    manifest = vectors.path / "vectors.json"
    values = json.loads(manifest.read_text())
    assert len(values.pop("payloads")) == len(values["blocks"])
    del values["sha256"]
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    manifest.write_text(json.dumps({**values, "sha256": digest}))
    assert len(index(VectorFolder(vectors.path), tmp_path / "index")) == 100


@pytest.mark.parametrize("seed", range(3))
def test_damaged_vectors_are_named(vectors, seed):
    draw, file = random.Random(seed), vectors.file(0)
    whole = file.read_bytes()
    for _ in range(40):
        place = draw.randrange(len(whole))
        damaged = whole[:place] + bytes([whole[place] ^ (1 << draw.randrange(8))]) + whole[place + 1 :]
        file.write_bytes(draw.choice([damaged, whole[:place], damaged[:place]]))
        for call in (vectors.read, vectors.ids):
            with contextlib.suppress(StoreError):
                call(0)
    file.write_bytes(whole)
    vectors.read(0)


def test_it_goes_on_where_it_was_killed(vectors, tmp_path, monkeypatch):
    read, seen = VectorFolder.read, []

    def failing(folder, number):
        seen.append(number)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return read(folder, number)

    monkeypatch.setattr(VectorFolder, "read", failing)
    with pytest.raises(KeyboardInterrupt):
        index(vectors, tmp_path / "index")
    assert not (tmp_path / "index").exists()
    with pytest.raises(StoreError, match="is not the first half of this index"):
        index(vectors, tmp_path / "index", index="HNSW8")
    built = index(vectors, tmp_path / "index")
    assert seen == [0, 1, 2, 2, 3]
    assert len(built) == 100
    whole = index(vectors, tmp_path / "whole")
    assert built(QUERIES) == whole(QUERIES)
    with pytest.raises(StoreError, match="is there already"):
        index(vectors, tmp_path / "index")


def test_an_engine_is_ignored_and_said_to_be(vectors, tmp_path):
    with pytest.warns(DeprecationWarning, match="engine= is ignored"):
        built = index(vectors, tmp_path / "index", engine=object())
    assert len(built) == 100


def test_sparse_vectors_and_an_index_of_faiss(corpus, tmp_path):
    vectors = embed_corpus(corpus, tmp_path / "v", tiny_splade_directory())
    with pytest.raises(ConfigError, match="FAISS"):
        index_vectors(vectors, tmp_path / "other", index="IVF4,SQ8")
    built = index_vectors(vectors, tmp_path / "index")
    assert len(built(QUERIES)[0]) > 0


def test_the_commands(corpus, tmp_path, capsys, caplog):
    name, out = tiny_model_directory(), str(tmp_path / "v")
    embed = ["embed", str(corpus), "--model", name, "--out", out, "--block", "40"]
    assert main(embed) == 0
    assert "100 documents in" in capsys.readouterr().out
    assert main(embed) == 0
    assert "100 of 100 documents were embedded by an earlier run" in caplog.text
    assert main(["index", "--vectors", out, "--out", str(tmp_path / "index")]) == 0
    assert "100 documents indexed from vectors" in capsys.readouterr().out
    assert main(["index", "--vectors", out, "--out", str(tmp_path / "again"), "--workers", "2"]) == 0
    assert "--workers is deprecated and ignored" in caplog.text
    assert main(["search", str(tmp_path / "index"), "owl 7"]) == 0
    assert main(["index", "--vectors", out, "--out", str(tmp_path / "index")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["index", "--out", str(tmp_path / "other")]) == 2
    assert "nothing to index" in capsys.readouterr().err
    corpus.rename(tmp_path / "moved.jsonl")
    moved = [str(tmp_path / "moved.jsonl"), "--vectors", out]
    assert main(["index", *moved, "--out", str(tmp_path / "other")]) == 0
    assert main(["index", *moved, out, "--out", str(tmp_path / "third")]) == 2


def test_an_interrupted_command_says_what_stays(corpus, tmp_path, capsys, monkeypatch):
    from cderetrieval.distributed.embed import BlockEmbedder

    def interrupt(self, number):
        raise KeyboardInterrupt

    monkeypatch.setattr(BlockEmbedder, "__call__", interrupt)
    assert main(["embed", str(corpus), "--model", tiny_model_directory(), "--out", str(tmp_path / "v")]) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_vectors_are_stored_as_they_are(vectors, tmp_path):
    built = index(vectors, tmp_path / "index")
    stored = np.concatenate([matrix for _, matrix in built.collection.iter_vectors()])
    np.testing.assert_array_equal(stored, np.concatenate([matrix for _, matrix in vectors]))
    built.collection.check()


@pytest.fixture
def long(tmp_path, write_corpus):
    rng = random.Random(1)
    names = ["d7", 7, 7.5, True, *range(10, 46)]
    documents = [
        {
            "id": i,
            "title": f"Tale {n}",
            "text": ". ".join(f"The {rng.choice(['owl', 'bee'])} saw {j}" for j in range(n)),
        }
        for n, i in enumerate(names, start=1)
    ]
    documents[5] = {"id": 99, "passages": [{"heading": "Birds \ud800", "text": "Owls hunt."}, "Bees hum."]}
    return documents, write_corpus(tmp_path / "long.jsonl", documents)


@pytest.mark.parametrize("settings", [{"passages": "auto"}, {"passages": 20, "document_context": {"prefix": 8}}])
def test_folders_of_passages_answer_as_a_retriever(long, model_name, tmp_path, settings):
    documents, corpus = long
    retriever = Retriever(model_name, context_size=8, **settings).add(documents)
    folder = embed_corpus(corpus, tmp_path / "v", model_name, context_size=8, **settings)
    assert folder.context == retriever.context
    built = index_vectors(folder, tmp_path / "index")
    assert built.collection.cut_state() == retriever.collection.cut_state()
    assert built.collection.get_setting("document") == retriever.collection.get_setting("document")
    for by in ("document", "passage"):
        assert built(QUERIES, k=30, passages=True, by=by) == retriever(QUERIES, k=30, passages=True, by=by)
    more = [{"id": "new", "title": "Tale", "text": documents[30]["text"]}]
    assert built.add(more)(QUERIES, k=30) == retriever.add(more)(QUERIES, k=30)
    blocks = index_vectors(
        embed_corpus(corpus, tmp_path / "w", model_name, context_size=8, block=7, **settings), tmp_path / "blocks"
    )
    assert blocks.collection.cut_state()[1:] == index_vectors(folder, tmp_path / "i").collection.cut_state()[1:]
    assert list(map(repr, blocks.collection.numbered_ids()[1])) == [repr(document["id"]) for document in documents]
    built.collection.check()


def test_a_folder_of_passages_goes_on_and_is_told_from_others(long, tmp_path):
    _, corpus = long
    settings = {"passages": 20, "block": 10}
    folder = embed_corpus(corpus, tmp_path / "v", HashEncoder(), **settings)
    (ids, vectors), spans = folder.read(1), folder.spans(1)
    assert len(ids) == len(spans) == 10 < len(vectors) == sum(max(1, len(some)) for some in spans)
    folder.file(1).unlink()
    again = embed_corpus(corpus, tmp_path / "v", HashEncoder(), **settings)
    np.testing.assert_array_equal(again.read(1)[1], vectors)
    assert (again.spans(1), again.ids(1)) == (spans, ids)
    for other, message in (({"passages": 30}, "passages was 20, is 30"), ({"document_context": "none"}, "context was")):
        with pytest.raises(MismatchError, match=message):
            embed_corpus(corpus, tmp_path / "v", HashEncoder(), **{**settings, **other})
    plain = embed_corpus(corpus, tmp_path / "plain", HashEncoder(), block=10)
    with pytest.raises(MismatchError, match="passages was None, is 20"):
        embed_corpus(corpus, tmp_path / "plain", HashEncoder(), **settings)
    with pytest.raises(MismatchError, match="cut in another way"):
        index([folder, plain], tmp_path / "index")
    with pytest.raises(ConfigError, match="a function cannot be kept"):
        embed_corpus(corpus, tmp_path / "f", HashEncoder(), passages=str.splitlines)


def test_folders_from_before_passages_are_read(long, tmp_path):
    from cderetrieval.files import read_json, unsealed, write_sealed

    folder = embed_corpus(long[1], tmp_path / "v", HashEncoder())
    manifest = folder.path / "vectors.json"
    values = unsealed(manifest, read_json(manifest), remedy="")
    assert values["format"] == 1
    assert "passages" not in values["fields"]
    for name in ("passages", "document_context"):
        del values["request"][name]
    write_sealed(manifest, values)
    assert len(index(embed_corpus(long[1], tmp_path / "v", HashEncoder()), tmp_path / "index")) == 40


def test_passages_on_the_command_line(long, tmp_path, dense_directory, capsys):
    arguments = ["embed", str(long[1]), "--out", str(tmp_path / "v"), "--model", dense_directory]
    assert main([*arguments, "--passages", "20", "--document-context", "lead=0.5,mean=0"]) == 0
    assert main(["index", "--vectors", str(tmp_path / "v"), "--out", str(tmp_path / "index")]) == 0
    capsys.readouterr()
    assert main(["search", str(tmp_path / "index"), "owl", "--by", "passage", "--json", "-k", "20"]) == 0
    hits = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len({hit["id"] for hit in hits}) < len(hits) == 20
