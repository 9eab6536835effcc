"""What every encoder shares: texts of every kind, cutting, order, and vectors that are not finite."""

import logging
import threading

import numpy as np
import pytest
import torch

from cderetrieval.errors import ConfigError, InputError, ModelError
from cderetrieval.models.document_context import token_starts
from cderetrieval.models.encoder import EncodingSettings
from cderetrieval.models.word_pieces import TURN
from cderetrieval.testing import tiny_model, tiny_tokenizer

UNICODE = [
    "half a pair: \ud83d",
    "the other half: \ude00",
    "\udfff\ud800",
    "🦉🐝 emoji",
    "العربية עברית",
    "日本語の文書",
    "e\u0301 and é",
    "a\x00b\x07c",
    "\u200b\ufeff\u2028",
    "\U0010ffff",
    "",
    " ",
]


@pytest.fixture(scope="module")
def encoder():
    return tiny_model().in_context(None)


def test_unicode_of_every_kind(encoder):
    vectors = encoder.encode_document(UNICODE)
    assert vectors.shape == (len(UNICODE), 32)
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(vectors[0], encoder.encode_document(["half a pair: \ufffd"])[0], atol=1e-6)


def test_a_text_of_a_million_characters_is_cut_and_counted(encoder, caplog):
    caplog.set_level(logging.INFO, logger="cderetrieval")
    long = "owl " * 250_000
    full = "a " * 45  # 45 letters, the prompt's 16 and its colon, and two special tokens
    vectors = encoder.encode_document([long, "short", full, long[:4000]])
    cut = [record.getMessage() for record in caplog.records]
    assert cut == ["2 of 4 texts were cut at 64 tokens."]
    np.testing.assert_allclose(vectors[0], vectors[3], atol=1e-6)


def test_no_text_and_no_string(encoder):
    assert encoder.encode_query([]).shape == (0, 32)
    with pytest.raises(InputError, match="text 1 is NoneType"):
        encoder.encode_query(["owls", None])
    with pytest.raises(InputError, match="one string; pass a list"):
        encoder.encode_query("owls")


def test_order_is_kept_over_many_batches():
    model = tiny_model()
    encoder = model.in_context(None)
    texts = ["ab" * (i % 7) + str(i) for i in range(300)]
    forward, backward = encoder.encode_document(texts), encoder.encode_document(texts[::-1])[::-1]
    np.testing.assert_allclose(forward, backward, atol=1e-6)
    assert len(np.unique(forward.round(5), axis=0)) == len(texts)


def test_vectors_that_are_not_finite_name_the_text():
    model = tiny_model()
    token = model.tokenizer.convert_tokens_to_ids("z")
    with torch.no_grad():
        model.second_stage_model.backbone.embeddings.word_embeddings.weight[token] = torch.nan
    encoder = model.in_context(None)
    assert np.isfinite(encoder.encode_query(["owls"])).all()
    with pytest.raises(ModelError, match=r"not finite for text 2 \(1 such texts\)"):
        encoder.encode_query(["owls", "bees", "a z", "deer"])


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="max_length=0"):
        EncodingSettings(0)
    with pytest.raises(ConfigError, match="dtype='float16'"):
        EncodingSettings(8, dtype="float16")


def test_threads_may_share_an_encoder(encoder):
    texts = [[f"document {i} of thread {n}" for i in range(20)] for n in range(4)]
    expected = [encoder.encode_document(part) for part in texts]
    answers = [None] * 4

    def work(n):
        answers[n] = encoder.encode_document(texts[n])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for actual, wanted in zip(answers, expected, strict=True):
        np.testing.assert_allclose(actual, wanted, atol=1e-6)


def test_threads_share_a_tokenizer_of_transformers():
    tokenizer, text, cut = tiny_tokenizer(), "owls hunt at night " * 100, []
    whole = len(token_starts(text, tokenizer))
    stop = threading.Event()

    def cutting():
        while not stop.is_set():
            with TURN:
                cut.append(len(tokenizer(text, truncation=True, max_length=16)["input_ids"]))

    other = threading.Thread(target=cutting)
    other.start()
    try:
        assert {len(token_starts(text, tokenizer)) for _ in range(300)} == {whole}
    finally:
        stop.set()
        other.join()
    assert set(cut) == {16}
