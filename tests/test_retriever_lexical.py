# ruff: noqa: RUF001 - texts of many scripts
import contextlib
import logging
import shutil
import sqlite3
import unicodedata
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

from cderetrieval import Hybrid, Retriever
from cderetrieval.errors import ConfigError, ContextError, InputError, MismatchError
from cderetrieval.models.bm25 import BM25

DOCUMENTS = [
    {"id": "a", "title": "Owls", "text": "hunt at night"},
    {"id": "b", "title": "Bees", "text": "make honey"},
    {"id": 3, "title": None, "text": "The owl and the bee, honey."},
]

GOLDEN = Path(__file__).parent / "golden"
# A query, and documents of which the first answers it.
LANGUAGES = [
    ("bm25", "猫吃什么？", ["我家的猫喜欢吃鱼和鸡肉。", "狗在公园里跑步。", "飞机晚上降落。"]),
    ("bm25", "茶", ["中国的绿茶很有名。", "咖啡来自非洲。", "牛奶很健康。"]),
    ("bm25", "東京の天気", ["明日の東京は天気が良いでしょう。", "大阪でラーメンを食べた。", "京都の寺は古い。"]),
    ("bm25", "ﾃﾞｰﾀﾍﾞｰｽの結合", ["データベースの表を結合する。", "ファイルを開く。", "グラフを描く。"]),
    ("bm25", "고양이 음식", ["고양이가 좋아하는 음식은 생선이다.", "개는 공원에서 달린다.", "비행기는 밤에 도착한다."]),
    ("bm25", "แมวกินอะไร", ["แมวชอบกินปลา", "สุนัขวิ่งในสวน", "เครื่องบินลงจอดตอนกลางคืน"]),
    ("bm25", "ນ້ຳ", ["ຂ້ອຍດື່ມນ້ຳທຸກມື້", "ໝາແລ່ນຢູ່ໃນສວນ", "ແມວກິນປາ"]),
    ("bm25", "ឆ្មាស៊ីអ្វី", ["ឆ្មាចូលចិត្តស៊ីត្រី", "ភ្នំពេញជារាជធានី", "យន្តហោះចុះចតពេលយប់"]),
    ("bm25", "ကြောင်ဘာစားသလဲ", ["ကြောင်က ငါးစားသည်", "ခွေးသည် ပန်းခြံတွင် ပြေးသည်", "လေယာဉ် ဆင်းသည်"]),
    ("bm25:hindi", "भारत की राजधानी", ["नई दिल्ली भारत की राजधानी है।", "हिन्दी एक भाषा है।", "किताबें मेज पर हैं।"]),
    ("bm25", "हिन्दी भाषा", ["हिन्दी एक भाषा है।", "दिल्ली राजधानी है।", "किताबें मेज पर हैं।"]),
    ("bm25", "বাংলাদেশের রাজধানী", ["ঢাকা বাংলাদেশের রাজধানী।", "বিড়াল মাছ খায়।", "বইটি টেবিলে আছে।"]),
    ("bm25:tamil", "தமிழ் புத்தகங்கள்", ["இது ஒரு தமிழ் புத்தகம்.", "பூனை மீன் சாப்பிடும்.", "சென்னை ஒரு நகரம்."]),
    ("bm25", "كتاب محمد", ["هذا كِتَابُ مُحَمَّدٍ", "القطة تأكل السمك", "المدينة كبيرة"]),
    ("bm25:arabic", "الكِتَاب", ["قرأت كتاب التاريخ", "القطة تأكل السمك", "المدينة كبيرة"]),
    ("bm25", "שלום", ["שָׁלוֹם לָכֶם", "החתול אוכל דג", "העיר גדולה"]),
    ("bm25:greek", "ΤΟ ΣΠΙΤΙ", ["Τα σπίτια είναι λευκά.", "Η γάτα τρώει ψάρι.", "Ο δρόμος είναι μακρύς."]),
    ("bm25:russian", "КОШКИ едят", ["Кошка ест рыбу, кошки едят мясо.", "Город большой.", "Йод и ёлка."]),
    ("bm25:german", "hauser am strand", ["Ha\u0308user stehen am Strand.", "Das Meer ist kalt.", "Der Turm fällt."]),
    ("bm25:german", "Straße", ["STRASSEN sind lang.", "Das Meer ist kalt.", "Der Turm fällt."]),
    ("bm25:none", "tiếng Việt", ["Tôi nói tiếng Việt.", "Con mèo ăn cá.", "Hà Nội là thủ đô."]),
    ("bm25:turkish", "ıspanak", ["ISPANAK YEMEĞİ", "İstanbul büyük bir şehir.", "Kedi balık yer."]),
    ("bm25:turkish", "istanbul", ["İSTANBUL büyük bir şehir.", "Ispanak yemeği", "Kedi balık yer."]),
    ("bm25", "vitamin D", ["Vitamin D comes from light.", "Vitamin C is in fruit.", "Vitamin K clots."]),
    ("bm25:none", "the C language", ["C compiles.", "R draws.", "Java runs."]),
    ("bm25", "type 2 diabetes", ["Type 2 diabetes, late.", "Type 1 diabetes, early.", "Type 3 is rare."]),
]


def ids(hits):
    return [[hit["id"] for hit in ranking] for ranking in hits]


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def retriever():
    return Retriever("bm25").add(DOCUMENTS)


def test_add_remove_replace_and_search(retriever):
    assert ids(retriever(["who makes honey?", "an owl at night", "zebra"])) == [["b", 3], ["a", 3], []]
    assert retriever("honey", k=1, documents=True)[0][0]["document"] == DOCUMENTS[1]
    retriever.add([{"id": "b", "text": "wasps"}])
    assert ids(retriever(["honey", "wasp"])) == [[3], ["b"]]
    retriever.remove([3])
    assert ids(retriever(["honey"], k=5)) == [[]]
    assert len(retriever) == 2


def test_scores_do_not_depend_on_history(retriever):
    retriever.add([{"id": "gone", "text": "owl honey"}, {"id": "b", "text": "nothing"}]).remove("gone")
    retriever.add([DOCUMENTS[1]])
    fresh = Retriever("bm25").add([DOCUMENTS[0], DOCUMENTS[2], DOCUMENTS[1]])
    for query in ("owl honey", "night", "make"):
        assert retriever(query) == fresh(query)


def test_save_load_and_several_retrievers(retriever, tmp_path):
    retriever.save(tmp_path / "index")
    expected = retriever(["owl honey", "night"])
    with Retriever.load(tmp_path / "index") as loaded, Retriever.load(tmp_path / "index") as reader:
        assert loaded(["owl honey", "night"]) == expected
        assert loaded.encoder.fingerprint == BM25().fingerprint
        assert reader("wasp") == [[]]
        loaded.add([{"id": "w", "text": "Wasps sting."}])
        assert ids(reader("wasp")) == [["w"]]
    with Retriever.load(tmp_path / "index") as again:
        assert ids(again(["wasp"])) == [["w"]]


def test_opening_neither_reads_texts_nor_weighs_words(retriever, tmp_path, monkeypatch):
    retriever.save(tmp_path / "index")
    expected = retriever(["owl honey", "night"])
    monkeypatch.setattr(BM25, "encode_document", lambda *_, **__: pytest.fail("texts were read again"))
    with Retriever.load(tmp_path / "index") as loaded:
        assert loaded(["owl honey", "night"]) == expected
    monkeypatch.undo()
    with Retriever.load(tmp_path / "index") as loaded, Retriever.load(tmp_path / "index") as reader:
        assert reader(["owl honey", "night"]) == expected  # its files are mapped
        loaded.remove(3).save(loaded.path)
        loaded.add([DOCUMENTS[2]]).save(loaded.path)
        assert reader(["owl honey"]) == loaded(["owl honey"])
    assert len(list((tmp_path / "index").glob("weights-*"))) == 1


def test_a_saved_index_that_does_not_fit_is_not_believed(retriever, tmp_path, caplog, monkeypatch):
    retriever.save(tmp_path / "index")
    expected = retriever(["owl honey", "night"])
    [data] = (tmp_path / "index").glob("weights-*/data*")
    good = data.read_bytes()
    for bad in (good[:-8], good[:-1] + bytes([good[-1] ^ 1]), b""):
        data.write_bytes(bad)
        with Retriever.load(tmp_path / "index") as loaded:
            assert loaded(["owl honey", "night"]) == expected
        assert "does not match its checksum" in caplog.text
        caplog.clear()
    data.write_bytes(good)
    monkeypatch.setattr(BM25, "versions", lambda self: {"bm25s": "999"})
    with Retriever.load(tmp_path / "index") as loaded:
        assert loaded(["owl honey", "night"]) == expected
    assert "its versions is" in caplog.text


def test_another_language_is_another_model(retriever, tmp_path):
    retriever.save(tmp_path / "index")
    with pytest.raises(MismatchError, match="built by model bm25"):
        Retriever.load(tmp_path / "index", model="bm25:german")


def test_documents_without_words_are_stored_and_never_found(caplog):
    with caplog.at_level(logging.WARNING):
        retriever = Retriever("bm25").add(["the", "?!", "owls"])
    assert len(retriever) == 3
    assert ids(retriever(["owl", "the ?!"])) == [[2], []]
    assert ids(Retriever("bm25").add(["the"])("the")) == [[]]


def test_bad_input(retriever):
    with pytest.raises(InputError, match="queries are ndarray; a lexical index has no vectors"):
        retriever(np.ones((1, 3)))
    with pytest.raises(InputError, match=r"BM25 has no vectors: leave out vectors="):
        retriever.add([{"id": "x", "text": "x"}], vectors=np.ones((1, 3)))
    assert "x" not in retriever
    with pytest.raises(ConfigError, match="index='HNSW32' is a FAISS index, and this model has no vectors"):
        Retriever("bm25", index="HNSW32").add(DOCUMENTS)
    with pytest.raises(ContextError, match="not contextual"):
        Retriever("bm25", context="random").add(DOCUMENTS)
    with pytest.raises(ContextError, match="takes no context"):
        retriever.refresh()


@pytest.mark.parametrize(("model", "query", "documents"), LANGUAGES)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_query_in_its_language_finds_what_answers_it(model, query, documents, form):
    retriever = Retriever(model).add([documents[1], unicodedata.normalize(form, documents[0]), documents[2]])
    for spelt in ("NFC", "NFD"):
        assert ids(retriever([unicodedata.normalize(spelt, query)], k=1)) == [[1]]


def test_what_a_language_cannot_find_is_said_once(caplog):
    retriever = Retriever("bm25").add(["the owl", "of the", "?!", "bees", "Type 2"])
    assert ids(retriever(["zebra", "owl", "7", "owl привет"])) == [[], [0], [], [0]]
    assert warnings(caplog) == [
        "2 of 5 new documents hold no words, or stop words only: no query will find them. This is said once."
    ]
    caplog.clear()
    retriever.add(["the", "owls"])
    assert ids(retriever(["owl", "где сова", "the", "Привет"])) == [[0, 6], [], [], []]
    assert warnings(caplog) == [
        "Query 1 finds nothing: its letters are CYRILLIC, no document's are. This is said once."
    ]
    caplog.clear()
    assert ids(Retriever("bm25").add(["owl"])(["owl", "of the"])) == [[0], []]
    assert warnings(caplog) == ["Query 1 finds nothing: it holds no words, or stop words only. This is said once."]


@pytest.fixture
def former(tmp_path):
    """A hybrid of two BM25s as the release before words of every script wrote it; its stores lie as SQL."""
    folder = shutil.copytree(GOLDEN / "bm25_v1", tmp_path / "former")
    for dump in folder.glob("*/store.sql"):
        with contextlib.closing(sqlite3.connect(dump.with_suffix(".sqlite"))) as store:
            store.executescript(dump.read_text(encoding="utf-8"))
    return folder


def test_an_index_that_cut_texts_otherwise_is_made_anew(former, caplog):
    with Hybrid.load(former) as hybrid:
        assert ids(hybrid(["owl", "猫", "R", "狗"], k=1)) == [["d"], ["z"], ["c"], ["j"]]
        hybrid.add([{"id": "h", "text": "Vitamin D"}])
        assert ids(hybrid(["D", "鱼"], k=1)) == [["h"], ["z"]]
        assert hybrid.collection.get_setting("fingerprint") == BM25().fingerprint
    assert "its fingerprint is" not in caplog.text
    caplog.clear()
    with Retriever.load(former) as hybrid:
        assert ids(hybrid.parts["bm25"](["公园", "R"])) == [["j"], ["c"]]
    assert warnings(caplog) == []


def test_an_index_that_cut_texts_otherwise_may_only_be_read(former, caplog):
    with Retriever.load(former / "part-0") as retriever:
        assert ids(retriever(["公园", "R"])) == [["j"], ["c"]]
        assert retriever.collection.get_setting("fingerprint") in retriever.encoder.other_fingerprints
        retriever.save(former / "part-0")
    caplog.clear()
    with Retriever.load(former / "part-0") as retriever:
        assert ids(retriever(["公园", "R"])) == [["j"], ["c"]]
    assert warnings(caplog) == []
    with pytest.raises(MismatchError, match="built by model bm25:none"):
        Retriever.load(former / "part-1", model="bm25")


def test_who_has_not_the_model_may_remove_and_close(tmp_path):
    Retriever(BM25()).add(DOCUMENTS).save(tmp_path)
    with Retriever.load(tmp_path) as retriever:
        retriever.remove("a")
    with Retriever.load(tmp_path, model=BM25()) as retriever:
        assert [hit["id"] for hit in retriever("owl honey")[0]] == [3, "b"]
