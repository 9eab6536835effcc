"""Documents as rows: ids and payloads come back as they went in, metadata keeps what filters can ask for."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cderetrieval.errors import InputError, StoreError
from cderetrieval.filters import parse_filter
from cderetrieval.milvus.rows import (
    MAX_STRING,
    decode_payload,
    encode_payload,
    expression,
    id_json_of,
    ids_of,
    key_of,
    metadata_of,
)
from cderetrieval.store.codec import encode_id

TEXT = st.text(max_size=60)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.one_of(TEXT, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans()))
def test_an_id_comes_back_and_its_key_can_stand_in_an_expression(document_id):
    text = encode_id(document_id)
    key = key_of(text)
    assert id_json_of(key) == text
    assert key.isascii()
    assert not set('"\\') & set(key)
    (back,) = ids_of([key])
    assert back == document_id
    assert type(back) is type(document_id)


@given(st.lists(st.one_of(TEXT, st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False))))
def test_different_ids_have_different_keys(ids):
    texts = {encode_id(i) for i in ids}
    assert len({key_of(text) for text in texts}) == len(texts)


@given(st.dictionaries(TEXT, ANY, max_size=6), st.none() | TEXT)
def test_a_document_comes_back(document, text):
    assert decode_payload(encode_payload(document, text)) == (document, text)


@pytest.mark.parametrize("text", ["x" * 70_000, "é" * 40_000, "\ud83d" * 20_000, "[" * MAX_STRING])
def test_a_long_document_is_compressed(text):
    stored = encode_payload({"text": text}, None)
    assert len(stored.encode()) <= MAX_STRING
    assert decode_payload(stored) == ({"text": text}, None)


@pytest.mark.parametrize("stored", ["", "{}", "[", "not base64!", "aGVsbG8="])
def test_what_another_program_wrote_is_an_error(stored):
    with pytest.raises(StoreError, match="did not write"):
        decode_payload(stored)
    with pytest.raises(StoreError, match="did not write"):
        ids_of(["nonsense"])


def test_metadata():
    document = {
        "long": "x" * 513,
        "short": "x" * 512,
        "big": 2**63,
        "least": -(2**63),
        "lone": "\ud83d",
        "line": "a\nb",
        'quo"te': 1,
        "nan": float("nan"),
        "list": [1],
        "zero": 0.0,
        "no": False,
    }
    found = metadata_of(document)
    assert found == {"t:short": "x" * 512, "n:least": -(2**63), "n:zero": 0.0, "b:no": 0}
    with pytest.raises(InputError, match="short fields take"):
        metadata_of({f"field {i}": "é" * 500 for i in range(100)})


@given(
    st.dictionaries(TEXT.filter(bool), st.integers() | TEXT | st.booleans() | st.floats(allow_nan=False), max_size=4)
)
def test_an_expression_is_made_or_the_filter_refused(wanted):
    try:
        text = expression(parse_filter(wanted))
    except InputError:
        return
    assert text.count("metadata[") == len(wanted)
    assert "\n" not in text


def test_no_value_can_end_its_string():
    text = expression(parse_filter({"name": '" or seq > 0 or metadata["x"] == "'}))
    assert text == '(metadata["t:name"] == "\\" or seq > 0 or metadata[\\"x\\"] == \\"")'
    assert json.loads(text[len('(metadata["t:name"] == ') : -1]).startswith('" or')
