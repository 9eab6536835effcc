"""A folder of vectors: equal to what a Retriever makes, whole or known to be half, and never of two runs."""

import json
import logging
import re
import sys
import time

import numpy as np
import pytest

from cderetrieval import Context, Retriever
from cderetrieval.distributed import VectorFolder, embed_corpus
from cderetrieval.distributed.embed import ATTEMPTS
from cderetrieval.errors import (
    CDEError,
    ClusterError,
    ConfigError,
    ContextError,
    InputError,
    LockedError,
    MismatchError,
    MissingDependencyError,
    ModelError,
    StoreError,
)
from cderetrieval.runtime import progress
from cderetrieval.testing import HashEncoder, tiny_model
from cderetrieval.types import TermEmbeddings

pytest.importorskip("pyarrow")


def arrays(vectors):
    """The numbers of vectors of any kind; embeddings of terms as the store keeps them."""
    if isinstance(vectors, np.ndarray):
        return [vectors]
    if isinstance(vectors, TermEmbeddings):
        return [*arrays(vectors.weights), vectors.embeddings.astype(np.float16)]
    return [vectors.data, vectors.indices, vectors.indptr]


def stored(retriever, chunk):
    return [vectors for _, vectors in retriever.collection.iter_vectors(chunk=chunk)]


def embed(corpus, out, model=None, **settings):
    return embed_corpus(corpus, out, model or HashEncoder(), **{"block": 30, **settings})


def test_vectors_are_those_of_a_retriever_bit_for_bit(corpus, documents, model_name, tmp_path):
    folder = embed_corpus(corpus, tmp_path / "v", model_name)
    retriever = Retriever(model_name).add(documents)
    [ids_and_vectors] = folder
    assert ids_and_vectors[0] == [document["id"] for document in documents]
    [expected] = stored(retriever, len(documents))
    for found, wanted in zip(arrays(ids_and_vectors[1]), arrays(expected), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert folder.plan.fingerprint == retriever.encoder.fingerprint
    assert folder.context == retriever.context
    assert folder.context is None or folder.context.ids == retriever.context.ids


def test_smaller_blocks_change_nothing_but_the_noise(corpus, documents, model_name, tmp_path):
    folder = embed_corpus(corpus, tmp_path / "v", model_name, block=7)
    assert len(folder.blocks) == 15
    expected = stored(Retriever(model_name).add(documents), 7)
    for (_, found), wanted in zip(folder, expected, strict=True):
        for one, other in zip(arrays(found), arrays(wanted), strict=True):
            np.testing.assert_allclose(one, other, atol=2e-3 if one.dtype == np.float16 else 1e-5)


class Counting:
    """A contextual model that counts its first stages."""

    context_size, exact_context_size, fingerprint = 4, False, "counting"

    def __init__(self):
        self.first_stages = 0

    def embed_context(self, texts, *, show_progress=False):
        self.first_stages += 1
        return HashEncoder().encode_document(texts)

    def in_context(self, embeddings, digest="", *, dtype="auto"):
        return HashEncoder(digest[:32])


def test_the_first_stage_runs_once_and_only_in_the_first_run(corpus, tmp_path):
    model = Counting()
    folder = embed(corpus, tmp_path / "v", model)
    assert model.first_stages == 1
    assert len(folder.context) == 4
    folder.file(1).unlink()
    embed(corpus, tmp_path / "v", model)
    assert model.first_stages == 1


@pytest.mark.parametrize("context", [None, "random", ["a text", "another one"]])
def test_a_context_can_be_given(corpus, tmp_path, context):
    model = tiny_model()
    folder = embed(corpus, tmp_path / "v", model, context=context)
    embed(corpus, tmp_path / "v", model, context=context)
    given = embed(corpus, tmp_path / "w", model, context=folder.context)
    assert given.plan.fingerprint == folder.plan.fingerprint
    with pytest.raises(MismatchError, match="context was"):
        embed(corpus, tmp_path / "v", model)


def test_statistics_of_the_corpus_are_a_context(corpus, tmp_path, dense_directory):
    named = embed(corpus, tmp_path / "v", f"centre:{dense_directory}")
    asked = embed(corpus, tmp_path / "w", dense_directory, context="centre")
    assert asked.plan.fingerprint == named.plan.fingerprint
    assert asked.plan.fingerprint != embed(corpus, tmp_path / "x", dense_directory).plan.fingerprint


def test_a_second_run_does_what_is_missing(corpus, tmp_path, caplog):
    whole = embed(corpus, tmp_path / "whole")
    folder = embed(corpus, tmp_path / "v")
    kept = folder.file(0).stat().st_mtime_ns
    folder.file(2).unlink()
    (folder.path / "vectors" / ".00000002.parquet.ab.tmp").write_bytes(b"half of a file")
    assert folder.missing() == [2]
    with pytest.raises(StoreError, match=r"half-written: 1 of its 4 blocks .* 00000002\.parquet\. Run the same"):
        folder.check_whole()
    with caplog.at_level(logging.INFO, "cderetrieval"):
        again = embed(corpus, tmp_path / "v")
    assert "70 of 100 documents were embedded by an earlier run" in caplog.text
    assert folder.file(0).stat().st_mtime_ns == kept
    for (ids, vectors), (other_ids, others) in zip(again, whole, strict=True):
        assert ids == other_ids
        np.testing.assert_array_equal(vectors, others)
    assert {path.name for path in (folder.path / "vectors").iterdir()} == {f"{n:08d}.parquet" for n in range(4)}


def test_a_corpus_that_moved_is_the_same_and_one_that_changed_is_not(corpus, tmp_path, documents, write_corpus):
    folder = embed(corpus, tmp_path / "v")
    folder.file(3).unlink()
    moved = corpus.rename(tmp_path / "moved.jsonl")
    assert embed(moved, tmp_path / "v").rows(3)[0][0] == "d90"
    write_corpus(moved, [*documents[:50], {"id": "d50", "text": "another text"}, *documents[51:]])
    with pytest.raises(MismatchError, match="the corpus or the model has changed since"):
        embed(moved, tmp_path / "v")
    with pytest.raises(InputError, match=r"lines 31 to 60: these are not the documents"):
        VectorFolder(tmp_path / "v").rows(1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block": 10}, "block was 30, is 10"),
        ({"skip_empty": True}, "skip_empty was False, is True"),
        ({"on": "text"}, r"on was None, is \['text'\]"),
        ({"model": HashEncoder("another")}, "was begun by an encoder with fingerprint"),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_another_run_is_not_continued(corpus, tmp_path, settings, message, whole):
    folder = embed(corpus, tmp_path / "v")
    if not whole:
        folder.file(0).unlink()
    with pytest.raises(MismatchError, match=message):
        embed(corpus, tmp_path / "v", **settings)


@pytest.mark.parametrize("ids", [range(40), ["a", 7, 2.5, True, "7"], ["\ud800", "b"], [2**70, 1]])
def test_ids_come_back_as_they_were(tmp_path, ids, write_corpus):
    corpus = write_corpus(tmp_path / "c.jsonl", [{"id": i, "text": f"text {n}"} for n, i in enumerate(ids)])
    folder = embed(corpus, tmp_path / "v", block=3)
    found = [document_id for names, _ in folder for document_id in names]
    assert list(map(repr, found)) == list(map(repr, ids))


def test_columns_are_plain(corpus, tmp_path):
    import pyarrow.parquet as pq

    folder = embed(corpus, tmp_path / "v")
    frame = pq.read_table(folder.file(0)).to_pandas()
    assert list(frame.columns) == ["id", "vector"]
    assert frame["id"][0] == "d0"
    assert frame["vector"][0].shape == (16,)


def test_an_id_in_two_corpora_is_named(corpus, tmp_path, documents, write_corpus):
    other = write_corpus(tmp_path / "other.jsonl", [{"id": "x", "text": "owls"}, documents[42]])
    message = r"id 'd42' occurs twice: document 12 of .*corpus\.jsonl, lines 31 to 60, and document 1 of .*other\.jsonl"
    with pytest.raises(InputError, match=message):
        embed([corpus, other], tmp_path / "v")
    assert not VectorFolder.exists(tmp_path / "v")


def test_equal_hashes_of_different_ids_are_no_error(corpus, tmp_path, monkeypatch):
    from cderetrieval.distributed import scan

    monkeypatch.setattr(scan, "id_hashes", lambda ids: np.zeros(len(list(ids)), dtype=np.uint64))
    assert len(embed(corpus, tmp_path / "v")) == 100


def test_bad_documents_stop_before_anything_is_embedded(tmp_path, documents, write_corpus):
    corpus = write_corpus(tmp_path / "c.jsonl", [*documents[:40], {"id": "e", "text": " "}, *documents[41:]])
    with pytest.raises(InputError, match=r"lines 31 to 60, counted from 0: document 10 \(id 'e'\) has an empty text"):
        embed(corpus, tmp_path / "v")
    assert len(embed(corpus, tmp_path / "v", skip_empty=True)) == 99
    empty = write_corpus(tmp_path / "e.jsonl", [{"id": i, "text": ""} for i in range(40)])
    with pytest.raises(InputError, match="no documents"):
        embed(empty, tmp_path / "w", skip_empty=True)
    both = embed([empty, corpus], tmp_path / "x", skip_empty=True)
    assert (len(both), len(both.blocks)) == (99, 4)


def test_damage_is_named(corpus, tmp_path):
    folder = embed(corpus, tmp_path / "v")
    data = folder.file(1).read_bytes()
    for broken in (data[:-50], b"", data[:100] + bytes([data[100] ^ 1]) + data[101:]):
        folder.file(1).write_bytes(broken)
        with pytest.raises(StoreError, match=r"00000001\.parquet is damaged .* Delete it and run"):
            folder.read(1)
    folder.file(0).replace(folder.file(1))
    with pytest.raises(StoreError, match="belongs to another corpus or model"):
        folder.read(1)
    manifest = folder.path / "vectors.json"
    manifest.write_text(manifest.read_text().replace('"documents": 100', '"documents": 101'))
    with pytest.raises(StoreError, match="does not match its checksum"):
        VectorFolder(folder.path)
    manifest.write_text(json.dumps({"format": 99}))
    with pytest.raises(StoreError, match="newer version"):
        VectorFolder(folder.path)
    with pytest.raises(StoreError, match="holds no vectors"):
        VectorFolder(tmp_path)


def test_a_dimension_that_does_not_fit_is_named(corpus, tmp_path):
    folder = embed(corpus, tmp_path / "v")
    wide = embed(corpus, tmp_path / "w", Wide())
    wide.file(1).replace(folder.file(1))
    with pytest.raises(StoreError, match="its vectors have 18 dimensions, not 16"):
        folder.read(1)


class Wide(HashEncoder):
    dimension = 18

    def encode_document(self, texts, *, show_progress=False):
        return np.pad(super().encode_query(texts), [(0, 0), (0, 2)])


class Wrong(HashEncoder):
    """Says 16 dimensions, makes 15, or none that are finite."""

    def __init__(self, error=None):
        super().__init__()
        self.error = error

    def encode_document(self, texts, *, show_progress=False):
        if self.error:
            raise self.error
        return super().encode_query(texts)[:, :15]


def test_what_a_model_does_wrong_is_named_with_its_block(corpus, tmp_path):
    with pytest.raises(InputError, match=r"vectors have shape \(30, 15\)"):
        embed(corpus, tmp_path / "v", Wrong())
    with pytest.raises(ModelError, match=r"corpus\.jsonl, lines 1 to 30: documents 0 to 29: not finite"):
        embed(corpus, tmp_path / "w", Wrong(ModelError("not finite")))


def test_a_block_that_kills_its_workers_ends_the_job(corpus, tmp_path):
    with pytest.raises(RuntimeError, match="like a crash"):
        embed(corpus, tmp_path / "v", Wrong(RuntimeError("like a crash")))
    from cderetrieval.distributed.embed import BlockEmbedder

    worker = BlockEmbedder(tmp_path / "v", Wrong(RuntimeError("like a crash")), None, "auto")
    for _ in range(ATTEMPTS - 1):
        with pytest.raises(RuntimeError, match="like a crash"):
            worker(0)
    with pytest.raises(ClusterError, match=r"lines 1 to 30: 5 workers died over these documents"):
        worker(0)
    assert len(embed(corpus, tmp_path / "v")) == 100, "a new run tries again"


def test_one_writer(corpus, tmp_path):
    from cderetrieval.store.lock import WriterLock

    lock = WriterLock(tmp_path / "v" / "vectors.json")
    lock.acquire()
    with pytest.raises(LockedError):
        embed(corpus, tmp_path / "v")
    lock.release()
    embed(corpus, tmp_path / "v")


def test_settings_that_cannot_be_are_refused(corpus, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="engine='spark'"):
        embed(corpus, tmp_path / "v", engine="spark")
    with pytest.raises(ConfigError, match="has no workers"):
        embed(corpus, tmp_path / "v", engine="process", workers=2)
    with pytest.raises(ContextError, match="not contextual"):
        embed(corpus, tmp_path / "v", context="random")
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingDependencyError, match=r"cderetrieval\[scale\]"):
        embed(corpus, tmp_path / "v", workers=2)
    (tmp_path / "v" / "vectors").mkdir()
    with pytest.raises(MismatchError, match="has a folder 'vectors', but no"):
        embed(corpus, tmp_path / "v")


def test_many_documents_without_ray_are_embedded_here(corpus, tmp_path, monkeypatch, caplog):
    from cderetrieval.distributed import embed as module

    monkeypatch.setattr(module, "FEW_DOCUMENTS", 50)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert len(embed(corpus, tmp_path / "v")) == 100
    assert "One process embeds 100 documents" in caplog.text


def test_progress_says_rate_and_remaining_time(caplog, monkeypatch):
    monkeypatch.setattr("cderetrieval.progress_log.EVERY", 0.1)
    monkeypatch.delenv("CDE_PROGRESS", raising=False)
    with caplog.at_level(logging.INFO, "cderetrieval"), progress(range(10_000), "embedding", done=1_000) as bar:
        bar.update(500)
        time.sleep(0.15)
        bar.update(1_000)
    [line] = caplog.messages
    assert re.fullmatch(r"embedding: +25% 2500/10000 \[00:0\d<00:0\d, [\d.]+it/s\]", line)


def test_every_error_is_ours(corpus, tmp_path):
    context = Context.null(tiny_model())
    with pytest.raises(CDEError):
        embed(corpus, tmp_path / "v", tiny_model(seed=1), context=context)
