"""The statistics of a corpus as the context of a dense encoder."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import cderetrieval
from cderetrieval import Context, Retriever, load
from cderetrieval.errors import ConfigError, ContextError, InputError, MismatchError
from cderetrieval.models.dense import DenseEncoder
from cderetrieval.models.locate import PACKAGE, installed_minilm
from cderetrieval.models.statistics import StatisticsConfig, StatisticsModel, pseudo_query
from cderetrieval.models.term_sketch import LONGEST, document_frequencies, rarity, sketch, term_counts
from cderetrieval.testing import HashEncoder, tiny_dense_directory, tiny_tokenizer

CORPUS = [
    f"{animal} {verb} at {time}"
    for animal in ("owls", "bees", "cats")
    for verb in ("hunt", "sleep")
    for time in ("night", "noon")
]
FULL = StatisticsConfig(centre=0.5, contrast=0.2, contrast_scale=10, term_dimensions=64, term_weight=0.7)
needs_minilm = pytest.mark.skipif(installed_minilm() is None, reason=f"{PACKAGE} is not installed")


@pytest.fixture(scope="module")
def encoder():
    return load(tiny_dense_directory(), device="cpu")


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_vectors_follow_the_formula(encoder):
    model = StatisticsModel(encoder, FULL)
    context = Context.from_texts(model, CORPUS[:8])
    documents, pseudo = (
        encoder.encode_document(CORPUS[:8]),
        encoder.encode_query([pseudo_query(t, 8) for t in CORPUS[:8]]),
    )
    counts = term_counts(CORPUS[:8], encoder.tokenizer, 48)
    idf = rarity(document_frequencies(counts), 8)
    for encode, plain, mean in [
        ("encode_query", encoder.encode_query, pseudo.mean(axis=0)),
        ("encode_document", encoder.encode_document, documents.mean(axis=0)),
    ]:
        vectors = plain(CORPUS)
        nearest = documents - documents.mean(axis=0)
        weights = np.exp(10 * vectors @ nearest.T)
        local = (weights / weights.sum(axis=1, keepdims=True)) @ nearest
        dense = unit(vectors - 0.5 * mean - 0.2 * local)
        joined = np.hstack([dense, 0.7 * sketch(term_counts(CORPUS, encoder.tokenizer, 48), idf, 63)])
        if encode == "encode_query":
            expected = np.pad(unit(joined), ((0, 0), (0, 1)))
        else:
            part = joined / np.hypot(1, 0.7 * LONGEST)
            expected = np.hstack([part, np.sqrt(1 - (part**2).sum(axis=1, keepdims=True))])
        found = getattr(context.encoder(model), encode)(CORPUS)
        assert found.shape == (len(CORPUS), 32 + 64)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_documents_of_any_length_rank_by_the_terms_that_they_share(encoder):
    model = StatisticsModel(encoder, FULL)
    inside = Context.from_texts(model, CORPUS).encoder(model)
    texts = ["owls", *CORPUS, " ".join(CORPUS), "owls bees " * 200, "..."]
    queries, documents = inside.encode_query(["owls at night", "bees"]), inside.encode_document(texts)
    np.testing.assert_allclose(np.linalg.norm(documents, axis=1), 1, atol=1e-6)
    assert not queries[:, -1].any()
    inside.settings = dataclasses.replace(inside.settings, prompts={"similarity": ""})
    compared = inside.encode(texts, prompt_name="similarity")
    assert not compared[:, -1].any()
    # The same direction but for the rest: one factor for all documents is all that the rest takes.
    lengths = np.linalg.norm(documents[:, :-1], axis=1, keepdims=True)
    np.testing.assert_allclose(documents[:, :-1] / lengths, compared[:, :-1], atol=1e-6)
    dense = np.linalg.norm(documents[:, : encoder.dimension], axis=1)
    np.testing.assert_allclose(dense, dense[0], atol=1e-6)


@pytest.mark.parametrize("config", [FULL, StatisticsConfig()])
def test_the_null_context_ranks_as_the_plain_encoder(encoder, config):
    model = StatisticsModel(encoder, config)
    null = Context.null(model).encoder(model)
    np.testing.assert_allclose(
        null.encode_query(CORPUS) @ null.encode_document(CORPUS).T,
        encoder.encode_query(CORPUS) @ encoder.encode_document(CORPUS).T,
        atol=1e-6,
    )


def test_texts_of_every_kind_have_vectors(encoder):
    texts = ["half a pair: \ud83d", "", "naïve \u2028 \x00 \U0001f989", "long " * 50_000]
    model = StatisticsModel(encoder, FULL)
    vectors = Context.from_texts(model, [text for text in texts if text]).encoder(model).encode_document(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_text_does_not_depend_on_its_batch(encoder):
    model = StatisticsModel(encoder, FULL)
    inside = Context.from_texts(model, CORPUS).encoder(model)
    np.testing.assert_allclose(inside.encode_document(CORPUS)[3:4], inside.encode_document(CORPUS[3:4]), atol=1e-6)
    assert inside.encode_query([]).shape == (0, 96)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text("abcdefg ", min_size=1, max_size=40), min_size=1, max_size=6))
def test_sketches_keep_the_inner_products_of_weighted_terms(texts):
    counts = term_counts(texts, tiny_tokenizer(), 64)
    idf = rarity(document_frequencies(counts), len(texts))
    weighted = counts.toarray() / (counts.toarray() + 1) * idf
    lengths = np.linalg.norm(weighted, axis=1, keepdims=True)
    wanted = (np.count_nonzero(weighted, axis=1)[:, None] / 24) ** 0.25
    exact = weighted / np.where(lengths > 0, lengths, 1) * wanted
    folded = sketch(counts, idf, 8_192)
    # Noise of 1 / sqrt(8192) = 0.011 a pair; six standard deviations.
    assert np.abs(folded @ folded.T - exact @ exact.T).max() < 0.07


def test_sketches_grow_with_the_terms_of_a_text_up_to_a_bound():
    counts = sparse.csr_array(np.tril(np.ones((600, 600), dtype=np.float32)))  # row i has i + 1 terms
    lengths = np.linalg.norm(sketch(counts, np.ones(600, dtype=np.float32), 639), axis=1)
    assert lengths[[0, 23, 99]] == pytest.approx([24**-0.25, 1, (100 / 24) ** 0.25], abs=1e-6)
    np.testing.assert_allclose(lengths[127:], LONGEST, atol=1e-6)


def test_terms_are_counted_without_special_tokens_up_to_the_length_limit():
    tokenizer = tiny_tokenizer()
    counts = term_counts(["a a b", "", "b " * 100], tokenizer, 5)
    a, b = tokenizer.convert_tokens_to_ids(["a", "b"])
    assert counts[[0], [a]] == 2
    assert counts[[0], [b]] == 1
    assert counts.sum(axis=1).tolist() == [3, 0, 5]
    assert document_frequencies(counts)[[a, b]].tolist() == [1, 2]


def test_a_pseudo_query_is_a_span_of_its_text():
    text = " ".join(f"w{i}" for i in range(40))
    span = pseudo_query(text, 8)
    assert span in text
    assert len(span.split()) == 8
    assert pseudo_query(text, 8) == span
    assert pseudo_query("one two", 8) == "one two"


def test_a_retriever_keeps_the_statistics_and_refreshes_them(tmp_path):
    retriever = Retriever(tiny_dense_directory(), context="centre", path=tmp_path / "index").add(CORPUS)
    before = retriever("owls hunt at night", k=3)
    assert before[0][0]["id"] == 0
    report = retriever.context_report()
    assert report["source"] == "own"
    assert report["cache_bytes"] > 0
    assert not report["drift"].stale
    retriever.close()
    with Retriever.load(tmp_path / "index") as again:
        assert again("owls hunt at night", k=3) == before
        digest = again.context.digest
        again.add([f"dogs bark at {i}" for i in range(30)]).refresh()
        assert again.context.digest != digest
    with pytest.raises(MismatchError):
        Retriever.load(tmp_path / "index", model=tiny_dense_directory())


def test_a_context_keeps_its_terms_in_a_file(encoder, tmp_path):
    model = StatisticsModel(encoder, FULL)
    context = Context.from_texts(model, CORPUS)
    context.save(tmp_path / "context.safetensors")
    again = Context.load(tmp_path / "context.safetensors")
    np.testing.assert_array_equal(again.terms, context.terms)
    np.testing.assert_array_equal(
        again.encoder(model).encode_query(CORPUS), context.encoder(model).encode_query(CORPUS)
    )
    assert Context.from_texts(StatisticsModel(encoder), CORPUS).terms is None


def test_models_are_saved_with_their_settings(encoder, tmp_path):
    model = StatisticsModel(encoder, FULL)
    model.save_pretrained(tmp_path)
    again = load(tmp_path, device="cpu")
    assert isinstance(again, StatisticsModel)
    assert again.config == FULL
    assert again.fingerprint == model.fingerprint
    assert load(f"centre:{tiny_dense_directory()}", device="cpu").config == StatisticsConfig()
    (tmp_path / "statistics.json").write_text('{"centre": 0.5, "spread": 1}')
    with pytest.raises(ConfigError, match="spread"):
        load(tmp_path)


@needs_minilm
def test_another_number_format_leaves_the_model_as_it_was():
    model = load("cde-minilm", device="cpu", dtype="float32")
    encoder = model.in_context(None, dtype="bfloat16")
    assert (encoder.settings.dtype, model.encoder.settings.dtype) == ("bfloat16", "float32")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"centre": 1.5}, "centre"),
        ({"contrast": -0.1}, "contrast"),
        ({"contrast_scale": 0}, "contrast_scale"),
        ({"term_dimensions": 1, "term_weight": 1}, "2 or more"),
        ({"term_dimensions": 64}, "belong together"),
        ({"term_weight": 0.5}, "belong together"),
        ({"query_words": 0}, "query_words"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        StatisticsConfig(**changes)


def test_a_short_query_passes_few_functions(encoder):
    model = StatisticsModel(encoder, FULL)
    in_context = Context.from_texts(model, CORPUS[:8]).encoder(model)
    in_context.encode_query(["owls at night"])
    package, passed, before = str(Path(cderetrieval.__file__).parent), set(), sys.getprofile()

    def note(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(package):
            passed.add((code.co_filename, code.co_name))

    sys.setprofile(note)
    try:
        in_context.encode_query(["owls at night"])
    finally:
        sys.setprofile(before)
    assert len(passed) <= 22, sorted(passed)


def test_what_cannot_have_statistics_is_refused(encoder):
    with pytest.raises(InputError, match="expected"):
        StatisticsModel(encoder).in_context(np.zeros((4, 32), dtype=np.float32))
    encoder.model.similarity_fn_name = "dot"
    try:
        with pytest.raises(ConfigError, match="length 1"):
            StatisticsModel(DenseEncoder(encoder.model))
    finally:
        encoder.model.similarity_fn_name = "cosine"
    with pytest.raises(ContextError, match="HashEncoder"):
        Retriever(HashEncoder(), context="centre")
