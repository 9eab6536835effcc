import json
import logging

import pytest

from cderetrieval.corpora import pydocs
from cderetrieval.corpora.docstrings import normalized
from cderetrieval.errors import InputError

TOPICS = ["tides", "moons", "storms", "rivers", "glaciers", "deserts", "forests", "islands", "canyons", "volcanoes"]


def sentences(topic):
    return " ".join(f"{topic}{word} is word number {word} about {topic}." for word in "abcdefghijkl")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of ten functions that must not be imported."""
    folder = tmp_path / "site" / "naturelib"
    folder.mkdir(parents=True)
    functions = [
        f'def {topic}():\n    """Tell all that is known about {topic}.\n\n    {sentences(topic)}\n    """\n'
        for topic in TOPICS
    ]
    (folder / "__init__.py").write_text("raise SystemExit('imported')\n" + "\n".join(functions))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder / "__init__.py"


def test_question_and_answer_come_from_one_docstring(package, tmp_path):
    dataset = pydocs.load("naturelib", cache=tmp_path)
    assert dataset.name == "pydocs-naturelib"
    assert len(dataset.corpus) == len(dataset.queries) == 10
    assert dataset.queries["q:naturelib.tides"] == "Tell all that is known about tides."
    assert dataset.qrels["q:naturelib.tides"] == {"naturelib.tides": 1}
    assert {"id": "naturelib.tides", "title": "", "text": sentences("tides")} in list(dataset.corpus)


def test_caps_and_seeds(package, tmp_path):
    small = pydocs.load("naturelib", max_documents=6, max_queries=3, cache=tmp_path)
    assert (len(small.corpus), len(small.queries)) == (6, 3)
    assert pydocs.load("naturelib", 6, 3, cache=tmp_path / "other").revision == small.revision
    seeds = {pydocs.load("naturelib", 6, 3, seed=seed, cache=tmp_path).revision for seed in range(5)}
    assert len(seeds) > 1


def test_ambiguous_queries_are_not_asked(package, tmp_path):
    more = [
        f'def again():\n    """Tell all that is known about tides.\n\n    {sentences("oceans")}\n    """\n',
        f'def near():\n    """Report everything on storms to us.\n\n    {sentences("storms")} One more.\n    """\n',
        f'def same():\n    """Say what is known about moons.\n\n    {sentences("moons")}\n    """\n',
    ]
    package.write_text(package.read_text() + "\n".join(more))
    dataset = pydocs.load("naturelib", cache=tmp_path)
    assert len(dataset.corpus) == 12  # `same` repeats the text of `moons`
    ambiguous = {f"q:naturelib.{name}" for name in ("tides", "again", "storms", "near")}
    assert not ambiguous & set(dataset.queries)


def test_cache_is_used_and_a_damaged_one_rebuilt(package, tmp_path, caplog):
    first = pydocs.load("naturelib", cache=tmp_path)
    [cached] = (tmp_path / "pydocs").iterdir()
    package.write_text("")
    assert pydocs.load("naturelib", cache=tmp_path).revision == first.revision
    package.write_text('def a():\n    """Tell all that is known about a.\n\n    ' + sentences("oceans") + '\n    """\n')
    stored = json.loads(cached.read_text())
    stored["rows"][0]["text"] = "changed"
    for damaged in (json.dumps(stored), cached.read_text()[:100], "[]", "{}"):
        cached.write_text(damaged)
        with caplog.at_level(logging.WARNING):
            assert len(pydocs.load("naturelib", cache=tmp_path).corpus) == 1
        assert "damaged" in caplog.text
        caplog.clear()


def test_cache_folder_from_the_environment(package, tmp_path, monkeypatch):
    monkeypatch.setenv("CDE_CACHE", str(tmp_path / "env"))
    pydocs.load("naturelib")
    assert list((tmp_path / "env" / "pydocs").glob("naturelib-unknown-x*.json"))


def test_an_unwritable_cache_is_no_error(package, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        assert len(pydocs.load("naturelib", cache=tmp_path / "file").corpus) == 10
    assert "not cached" in caplog.text


@pytest.mark.parametrize("name", ["no_such_package", "os.path", "scikit-learn"])
def test_unknown_packages(name, tmp_path):
    with pytest.raises(InputError, match="use an import name such as"):
        pydocs.load(name, cache=tmp_path)


def test_package_without_docstrings(package, tmp_path):
    package.write_text("")
    with pytest.raises(InputError, match="no usable docstring"):
        pydocs.load("naturelib", cache=tmp_path)


def test_numpy_is_a_real_corpus(tmp_path):
    dataset = pydocs.load("numpy", cache=tmp_path)
    texts = {row["id"]: row["text"] for row in dataset.corpus}
    assert "numpy" in pydocs.packages()
    assert len(texts) >= 500
    assert len(dataset.queries) == 200
    for query, [(document, grade)] in ((query, grades.items()) for query, grades in dataset.qrels.items()):
        assert grade == 1
        assert normalized(dataset.queries[query]) not in normalized(texts[document])
    assert len({normalized(text) for text in texts.values()}) == len(texts)
    assert not any(">>>" in text for text in texts.values())
