"""Documents that are longer than the model: how they are cut, found, shown, replaced and kept."""

import random
import sqlite3

import numpy as np
import pytest

from cderetrieval import DocumentContext, Hybrid, Retriever, load
from cderetrieval.errors import ConfigError, InputError, MismatchError, StoreError
from cderetrieval.models.document_context import NONE, Units, beginning, encode_passages, limit_of, shortening
from cderetrieval.passages import Passages, words
from cderetrieval.splitting import BLOCK, Span, heading_paths, split
from cderetrieval.testing import HashEncoder, tiny_dense_directory, tiny_model, tiny_splade

ANIMALS = ["owl", "bee", "fox", "cat", "dog", "elk", "ant", "cod"]


def text_of(number, sentences):
    draw = random.Random(number)
    return " ".join(f"The {draw.choice(ANIMALS)} saw {draw.choice(ANIMALS)} {i}." for i in range(sentences))


DOCUMENTS = [{"id": f"d{i}", "title": f"Tale {i}", "text": text_of(i, 1 + 7 * (i % 4))} for i in range(12)]
QUERIES = ["the owl saw cat 5", "bee", "tale 3 fox", "elk saw ant 20"]


@pytest.fixture(scope="module")
def dense():
    return load(tiny_dense_directory())


def models(dense):
    return {"dense": dense, "contextual": tiny_model(), "splade": tiny_splade()}


@pytest.fixture(params=["dense", "contextual", "splade"])
def model(request, dense):
    return models(dense)[request.param]


def expected(retriever, query, by):
    """The ranking by all vectors of the store: best passage of each document, or every passage but the wholes."""
    collection = retriever.collection
    encoded = retriever.encoder.encode_query([query])
    scores = {}
    for numbers, vectors in collection.iter_vectors():
        for number, score in zip(
            numbers.tolist(),
            np.asarray(
                (vectors @ encoded.T).reshape(-1)
                if isinstance(vectors, np.ndarray)
                else (vectors @ encoded.T).toarray().ravel()
            ),
            strict=True,
        ):
            scores[number] = float(score)
    seqs, ids = collection.numbered_ids()
    spans = collection.spans_of(seqs)
    best = []
    for seq, name in zip(seqs.tolist(), ids.tolist(), strict=True):
        own = {seq + i: span for i, span in enumerate(spans.get(seq, [None]))}
        if by == "document":
            best.append((name, max(scores[number] for number in own)))
        else:
            best += [(name, scores[number]) for number, span in own.items() if span is None or not span.head]
    return sorted(best, key=lambda pair: -pair[1])


@pytest.mark.parametrize("by", ["document", "passage"])
def test_documents_are_ranked_by_their_best_passage(model, by):
    retriever = Retriever(model).add(DOCUMENTS, show_progress=False).remove(["d1", "d7"])
    retriever.add([{**DOCUMENTS[3], "text": text_of(99, 40)}], show_progress=False)
    for query in QUERIES:
        for k in (1, 3, 10, 200):
            found = [(hit["id"], hit["similarity"]) for hit in retriever(query, k=k, by=by)[0]]
            wanted = [
                pair for pair in expected(retriever, query, by) if retriever.encoder.kind == "dense" or pair[1] > 0
            ]
            assert [score for _, score in found] == pytest.approx(
                [score for _, score in wanted[:k]], rel=1e-5, abs=2e-5
            )
            if by == "document":
                assert len({name for name, _ in found}) == len(found)
    retriever.collection.check()


def test_the_vector_of_before_is_still_there_to_the_bit(model):
    """Of what fits, and of the head of what is at most twice as long."""
    documents = [*DOCUMENTS, *({"id": f"h{i}", "text": text_of(i, 1 + i % 4), "title": ""} for i in range(24))]
    cut, plain = (Retriever(model, passages=how).add(documents, show_progress=False) for how in ("auto", None))
    assert (cut.context and cut.context.digest) == (plain.context and plain.context.digest)
    seqs, ids = cut.collection.numbered_ids()
    assert ids.tolist() == [document["id"] for document in documents]
    before = next(plain.collection.iter_vectors())[1]
    after = cut.collection.vectors_of(seqs.tolist())[1]
    spans = cut.collection.spans_of(seqs)
    assert 3 < len(spans) < len(documents)
    without = [row for row, seq in enumerate(seqs.tolist()) if seq in spans and not spans[seq][0].head]
    assert 0 < len(without) < len(spans)
    kept = np.setdiff1d(np.arange(len(seqs)), without)
    assert (before[kept] != after[kept]).sum() == 0
    assert not any(span.head for found in spans.values() for span in found[1:])


def test_a_hybrid_keeps_documents_of_words_whole_and_fuses_documents(dense):
    retriever = Retriever({"d": dense, "b": "bm25"}).add(DOCUMENTS, show_progress=False)
    assert len(retriever) == 12
    hits = retriever("the owl saw cat 5", k=12, passages=True)[0]
    assert len({hit["id"] for hit in hits}) == len(hits) == 12
    assert all(hit["passage"]["text"] in next(d["text"] for d in DOCUMENTS if d["id"] == hit["id"]) for hit in hits)
    assert retriever.parts["b"].collection.index(1).count == 12
    with pytest.raises(InputError, match="search one of parts"):
        retriever("owl", by="passage")
    assert retriever.parts["d"]("owl", by="passage", k=3)[0][0]["passage"]["text"]


def test_filters_and_batches(dense):
    retriever = Retriever(dense).add(DOCUMENTS, show_progress=False)
    alone = [retriever(query, k=5, filter={"id": ["d3", "d7", "d11"]})[0] for query in QUERIES]
    together = retriever(QUERIES, k=5, filter={"id": ["d3", "d7", "d11"]})
    assert [[hit["id"] for hit in hits] for hits in together] == [[hit["id"] for hit in hits] for hits in alone]
    assert all({hit["id"] for hit in hits} == {"d3", "d7", "d11"} for hits in alone)


@pytest.mark.parametrize("title", ["", "  A tale "])
def test_offsets_are_those_of_the_last_field(dense, title):
    text = "\n\n   " + text_of(4, 30) + "  \n"
    retriever = Retriever(dense, on=["title", "text"]).add(
        [{"id": 1, "title": title, "text": text}], show_progress=False
    )
    for by in ("document", "passage"):
        for hit in retriever("the owl", k=30, passages=True, by=by)[0]:
            passage = hit["passage"]
            assert text[passage["start"] : passage["end"]] == passage["text"] != ""
    empty = Retriever(dense, on=["title", "text"]).add([{"id": 1, "title": "A tale", "text": ""}], show_progress=False)
    assert empty("tale", passages=True)[0][0]["passage"] == {"text": "A tale", "start": 0, "end": 0, "heading": ""}


def test_documents_that_come_cut(dense):
    sections = [{"heading": "Birds", "text": "Owls hunt at night."}, "Bees make honey."]
    retriever = Retriever(dense, passages="sections").add([{"id": 7, "title": "Animals", "sections": sections}])
    hits = retriever("bees", k=5, by="passage")[0]
    assert {hit["passage"]["text"] for hit in hits} == {"Owls hunt at night.", "Bees make honey."}
    assert {hit["passage"]["heading"] for hit in hits} == {"Animals > Birds", "Animals"}
    nested = Retriever(dense).add([["Owls hunt.", "Bees make honey."], ["Foxes sleep."]])
    assert [hit["id"] for hit in nested("x", k=5, by="passage")[0]].count(0) == 2
    assert len(nested) == 2


def test_ready_vectors_of_passages(dense):
    documents, vectors = [["Owls hunt.", "Bees make honey."], ["Foxes sleep."]], np.eye(3, dense.dimension)
    retriever = Retriever(dense).add(documents, vectors=vectors)
    found = retriever(vectors[1:2].astype(np.float32), k=1, passages=True)[0][0]
    assert (found["id"], found["passage"]["text"]) == (0, "Bees make honey.")
    with pytest.raises(InputError, match="3 documents of this encoder need"):
        Retriever(dense).add(documents, vectors=vectors[:2])


def test_a_field_named_passages_is_no_text_where_others_are():
    document = {"id": 1, "title": "Owls", "passages": [3, 7]}
    hit = Retriever(HashEncoder(), on="title").add([document])("x", passages=True, documents=True)[0][0]
    assert (hit["document"], hit["passage"]["text"]) == (document, "Owls")
    named = {"id": 1, "title": "Owls", "text": "not read", "passages": ["They hunt.", "They sleep."]}
    hits = Retriever(HashEncoder(), on=["title", "passages"]).add([named])("x", by="passage")[0]
    assert {hit["passage"]["text"] for hit in hits} == {"They hunt.", "They sleep."}


def test_a_function_may_return_an_array():
    retriever = Retriever(HashEncoder(), passages=lambda text: np.array([[0, 10], [11, 20]]))
    hits = retriever.add([{"id": 1, "text": "Owls hunt. Bees hum."}])("x", by="passage")[0]
    assert {hit["passage"]["text"] for hit in hits} == {"Owls hunt.", "Bees hum."}


def test_halves_of_a_character_move_no_passage(dense):
    """The store joins the halves of a surrogate pair, so texts come back shorter than they were."""
    text = " ".join(f"The owl\ud83e\udd89 saw {i}." for i in range(40))
    retriever = Retriever(dense).add([{"id": 1, "title": "A\ud83e\udd89", "text": text}], show_progress=False)
    hits = retriever("owl", k=99, by="passage", documents=True)[0]
    body, end = hits[0]["document"]["text"], 0
    assert len(body) < len(text)
    for passage in sorted((hit["passage"] for hit in hits), key=lambda passage: passage["start"]):
        assert not body[end : passage["start"]].strip()
        assert body[passage["start"] : passage["end"]] == passage["text"]
        end = passage["end"]
    assert end == len(body)


def test_one_passage_that_is_a_part_of_its_text(dense):
    document = {"id": 1, "title": "Animals", "text": "Owls hunt. Bees hum. "}
    for span, text in (((11, 20), "Bees hum."), ((0, 20), "Owls hunt. Bees hum.")):
        retriever = Retriever(dense, on=["title", "text"], passages=lambda text, span=span: [span])
        retriever.add([document], show_progress=False)
        for asked in ({"passages": True}, {"by": "passage"}):
            ((hit,),) = retriever("x", **asked)
            assert (hit["id"], hit["passage"]["text"]) == (1, text)
        assert retriever.collection.cut_state()[0] == (text == "Bees hum.")


def test_passages_fit_each_model_of_a_hybrid(dense):
    """The models read as many tokens, and a text has more of them for the one than for the other."""
    other = HashEncoder()
    other.settings, other.tokenizer = dense.settings, Halves(dense.tokenizer)
    retriever = Retriever({"a": dense, "b": other}).add(DOCUMENTS, show_progress=False)
    spans = retriever.collection.spans_of(retriever.collection.numbered_ids()[0])
    texts = retriever.collection.texts_of(list(spans))
    most = limit_of(other)
    assert all(
        len(other.tokenizer(texts[seq][span.start : span.stop])["input_ids"]) <= most
        for seq, found in spans.items()
        for span in found[found[0].head :]
    )


class Halves:
    """A tokenizer that makes two tokens of each."""

    is_fast = True

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, text, **settings):
        found = self.tokenizer(text, **settings)
        return {name: [one for one in values for _ in range(2)] for name, values in found.items()}


def test_a_hybrid_copies_what_it_can_of_long_documents(dense):
    retriever = Retriever(dense, passages="auto").add(DOCUMENTS, show_progress=False)
    cut = Retriever(dense, passages=20).add(DOCUMENTS, show_progress=False)
    whole = Retriever(dense, passages=None).add(DOCUMENTS, show_progress=False)
    for one in (retriever, cut):
        with pytest.warns(DeprecationWarning, match="copies"):
            hybrid = Hybrid({"d": one, "b": "bm25"})
        for query in QUERIES:
            found, wanted = hybrid.parts["d"](query, k=12)[0], whole(query, k=12)[0]
            assert [hit["similarity"] for hit in found] == pytest.approx([hit["similarity"] for hit in wanted])


def test_a_function_that_cuts(tmp_path, dense):
    def lines(text):
        ends = [i for i, letter in enumerate(text) if letter == "."]
        return [(a, b + 1) for a, b in zip([0, *(end + 2 for end in ends)], ends, strict=False)]

    document = {"id": 1, "text": "Owls hunt. Bees hum. Foxes sleep."}
    with Retriever(dense, passages=lines, path=tmp_path / "index") as retriever:
        retriever.add([document], show_progress=False)
        assert len(retriever("x", by="passage", k=9)[0]) == 3
    with Retriever.load(tmp_path / "index", model=dense) as again:
        assert len(again("x", by="passage", k=9)[0]) == 3
        with pytest.raises(MismatchError, match=r"passages=that_function"):
            again.add([{"id": 2, "text": "More. Text."}])
        assert len(again) == 1
    with Retriever.load(tmp_path / "index", model=dense, passages=lines) as again:
        again.add([{"id": 2, "text": "More. Text."}], show_progress=False)
        assert len(again("x", by="passage", k=9)[0]) == 5
    with Retriever(dense, path=tmp_path / "other") as other:
        other.add([document], show_progress=False)
    with pytest.raises(MismatchError, match="leave out passages="):
        Retriever.load(tmp_path / "other", model=dense, passages=lines)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([], "returned no passage"),
        ([(0, 4), (2, 9)], "follow each other"),
        ([(5, 2)], "follow each other"),
        ([(0, 900)], "a text of 20 characters"),
        ([(0, "4")], "pairs"),
        ([(0, 4, 5)], "pairs"),
        ([(False, True)], "pairs"),
        ([(0, 10), (10, 11)], "white space"),
        (None, "TypeError"),
    ],
)
def test_bad_answers_of_a_function(dense, answer, message):
    retriever = Retriever(dense, passages=lambda text: answer)
    with pytest.raises(InputError, match=message) as raised:
        retriever.add([{"id": "seven", "text": "Owls hunt. Bees hum."}])
    assert "document 0 (id 'seven')" in str(raised.value)
    assert len(retriever) == 0


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ([], "list of passages"),
        (["a", " "], "passage 1"),
        ([3], "passage 0"),
        ("text", "list"),
        ([{"heading": "x"}], "0"),
    ],
)
def test_bad_lists_of_passages(dense, sections, message):
    with pytest.raises(InputError, match=message) as raised:
        Retriever(dense, passages="sections").add([{"id": 1, "title": "t", "sections": sections}])
    assert "document 0" in str(raised.value)
    assert "'sections'" in str(raised.value)


@pytest.mark.parametrize("passages", [3, True, 2.5, "", "function", b"x"])
def test_bad_settings(passages):
    with pytest.raises(ConfigError, match="passages="):
        Retriever(HashEncoder(), passages=passages)


@pytest.mark.parametrize(
    "context", ["strong", {"mix": 1}, {"lead": -1}, {"lead": True}, {"prefix": 2.5}, {"lead_size": 0}, 3]
)
def test_bad_document_contexts(context):
    with pytest.raises(ConfigError):
        Retriever(HashEncoder(), document_context=context)


def test_a_prefix_that_leaves_no_room(dense):
    with pytest.raises(ConfigError, match="leaves no room"):
        Retriever(dense, document_context=DocumentContext(prefix=45)).add(DOCUMENTS)


def test_an_index_on_disk(tmp_path, model):
    with Retriever(model, path=tmp_path / "index") as retriever:
        retriever.add(DOCUMENTS, show_progress=False)
        hits = retriever(QUERIES, k=5, passages=True)
    with Retriever.load(tmp_path / "index", model=model) as again:
        assert again(QUERIES, k=5, passages=True) == hits
        again.add([DOCUMENTS[3], {"id": "new", "title": "", "text": text_of(5, 30)}], show_progress=False)
        again.remove([document["id"] for document in DOCUMENTS])
        assert [hit["id"] for hit in again("owl", k=5)[0]] in (["new"], [])
        again.collection.check()
        assert again.collection.cut_state()[0] == 1


def test_a_refresh_embeds_passages_anew():
    retriever = Retriever(tiny_model(), context_size=8).add(DOCUMENTS[:6], show_progress=False)
    retriever.add(DOCUMENTS[6:], show_progress=False)
    before = retriever.context
    retriever.refresh(show_progress=False)
    assert retriever.context.digest != before.digest
    fresh = Retriever(tiny_model(), context_size=8).add(DOCUMENTS, show_progress=False)
    assert fresh.context.digest == retriever.context.digest
    assert [[hit["id"] for hit in hits] for hits in fresh(QUERIES)] == [
        [hit["id"] for hit in hits] for hits in retriever(QUERIES)
    ]


@pytest.mark.parametrize("column", ["count", "spans", "checksum"])
def test_altered_passages_are_noticed(tmp_path, dense, column):
    with Retriever(dense, path=tmp_path / "index") as retriever:
        retriever.add(DOCUMENTS, show_progress=False)
    with sqlite3.connect(tmp_path / "index" / "store.sqlite") as store:
        value = "spans || ' '" if column == "spans" else f"{column} + 1"
        store.execute(f"UPDATE passages SET {column} = {value} WHERE seq = (SELECT MAX(seq) FROM passages)")
    store.close()
    with pytest.raises(StoreError, match="damaged"), Retriever.load(tmp_path / "index", model=dense) as again:
        again.collection.check()


def test_a_context_of_the_document():
    dense = load(tiny_dense_directory(), dtype="float32")
    spans = [[Span(0, 10, "T"), Span(11, 20, "T > H")], [], [Span(0, 9, "", head=True), Span(10, 20, "")]]
    texts = ["owls hunt bees make honey", "cats sleep", "foxes run elks stand here"]
    units = Units.of(zip(texts, spans, ["owl", "", ""], strict=True))
    assert units.owners.tolist() == [0, 0, -1, 1, 1]
    assert units.heads.tolist() == [False, False, True, True, False]
    assert units.texts[3] == texts[2]
    plain = dense.encode_document(units.texts)
    mixed = encode_passages(dense, units, DocumentContext(lead=0.5, mean=0.25, lead_size=4))
    assert mixed[[2, 3]] == pytest.approx(plain[[2, 3]], abs=1e-6)
    leads = dense.encode_document(["owl", beginning(texts[2], 4, dense)])
    for own, owner, among in ((0, 0, [0, 1]), (4, 1, [3, 4])):
        centre = plain[among].mean(axis=0)
        wanted = plain[own] + 0.5 * leads[owner] + 0.25 * centre / np.linalg.norm(centre)
        assert mixed[own] == pytest.approx(0.91026 * wanted / np.linalg.norm(wanted), abs=1e-5)


def test_a_passage_in_context_is_as_long_as_a_weighted_mean_of_vectors_of_cosine_point_seven():
    assert shortening(NONE) == 1
    three = np.linalg.cholesky(np.full((3, 3), 0.7) + 0.3 * np.eye(3))
    mean = (three[0] + 0.4 * three[1] + 0.1 * three[2]) / 1.5
    assert shortening(DocumentContext(lead=0.4, mean=0.1)) == pytest.approx(np.linalg.norm(mean))


def test_a_prefix_is_embedded_and_not_shown(dense):
    document = {"id": 1, "title": "A tale of owls", "text": "# Night\n\n" + text_of(3, 4)}
    found = [
        Retriever(dense, on=["title", "text"], document_context=context).add([document], show_progress=False)
        for context in ("none", DocumentContext(lead=0, mean=0, prefix=16))
    ]
    plain, prefixed = (next(one.collection.iter_vectors())[1] for one in found)
    assert np.array_equal(plain[0], prefixed[0])
    assert not np.allclose(plain[1:2], prefixed[1:2], atol=1e-3)
    assert all("A tale" not in hit["passage"]["text"] for one in found for hit in one("owl", by="passage", k=9)[0])


def test_splitting_covers_a_text_and_fits():
    rng = random.Random(0)
    pieces = ["owl ", "bee. ", "\n\n", "\n# Head\n", "日本語。", "x" * 30, "\ud800", "```\n# no\n```\n", "🦉 "]
    for _ in range(60):
        text = "".join(rng.choice(pieces) for _ in range(rng.randrange(1, 400)))
        limit = rng.randrange(8, 60)
        spans = split(text, limit, words)
        covered = np.zeros(len(text), dtype=bool)
        for start, stop, *_ in spans:
            assert not covered[start:stop].any()
            covered[start:stop] = True
            assert len(spans) == 1 or len(words(text[start:stop])) <= limit + 1
        assert not "".join(letter for letter, seen in zip(text, covered, strict=True) if not seen).strip()


def test_headings_of_markdown_and_of_underlines():
    text = "intro\n# A\n## B #\nx\n```\n# no heading\n```\n## C\nTitle\n=====\nUnder\n-----\n"
    assert [path for _, path in heading_paths(text)] == ["A", "A > B", "A > C", "Title", "Title > Under"]
    assert all(text[place:].startswith(("#", "Title", "Under")) for place, _ in heading_paths(text))


def test_a_heading_of_any_length_is_read_quickly_and_kept_short():
    for line in ("# a" + " " * 200_000 + "b", "# owls" + " #" * 100_000 + "x", "# " + "owl bee " * 50_000):
        ((_, path),) = heading_paths(line)
        assert 1 <= len(path) <= 200


def test_every_sentence_of_a_long_text_can_be_found(caplog):
    caplog.set_level("INFO", logger="cderetrieval")
    rng = random.Random(1)
    filler = [f"The {rng.choice(ANIMALS)} saw the {rng.choice(ANIMALS)} by day {i}." for i in range(30_000)]
    places = [0, 29_999, *rng.sample(range(30_000), 6)]
    for i in places:
        filler[i] = f"Sentence zq{i}x was planted here."
    text = " ".join(filler)
    assert len(text) > 800_000 > 5 * BLOCK
    retriever = Retriever("bm25", passages=200).add([{"id": 1, "text": text}, {"id": 2, "text": "short"}])
    assert "1 of 2 documents were split into" in caplog.text
    for i in places:
        (hit,) = retriever(f"zq{i}x", k=1, passages=True)[0]
        assert hit["id"] == 1
        assert f"zq{i}x" in hit["passage"]["text"]


def test_a_text_without_spaces():
    retriever = Retriever("bm25", passages=50).add([{"id": 1, "text": "日本語" * 30_000}])
    assert len(retriever) == 1
    assert Passages.parse("auto").field is None
