"""What a notebook shows of hits, a context, results and a comparison."""

from cderetrieval import Context, Hits, evaluate
from cderetrieval.corpora.dataset import make_dataset
from cderetrieval.testing import HashEncoder, tiny_model


def test_hits_are_a_table_and_no_text_is_markup():
    hostile = "<script>alert(1)</script> " + "word " * 100
    passage = {"text": hostile, "heading": "A > B", "start": 0, "end": 9}
    shown = Hits([[{"id": "<b>", "similarity": 0.51234, "passage": passage}], []])._repr_html_()
    assert "<script>" not in shown
    assert "<b>" not in shown
    assert "&lt;script&gt;" in shown
    assert "0.5123" in shown
    assert "A &gt; B" in shown
    assert shown.count("word") < 30


def test_hits_that_are_none_name_the_queries():
    assert "q&amp;1" in Hits([[]], ["q&1"])._repr_html_()
    assert "<table" in Hits([])._repr_html_()


def test_a_context_lists_what_was_sampled():
    shown = Context.from_texts(tiny_model(), ["on birds", "on bees"], ids=["<a>", 7])._repr_html_()
    assert "Context(texts, 2 documents, seed 0)" in shown
    assert "&lt;a&gt;" in shown


def test_results_and_comparisons_are_tables():
    corpus = [{"id": "a", "text": "owls"}, {"id": "b", "text": "bees"}]
    dataset = make_dataset("toy<", corpus, {"q": "bees", "r": "owls"}, {"q": ["b"], "r": ["a"]})
    models = {"one": HashEncoder(), "two": HashEncoder("other")}
    results = evaluate(models, dataset, show_progress=False)
    assert results._repr_html_().count("<table") == 2
    assert "toy&lt;" in results._repr_html_()
    assert "two/none against one/none: ndcg@10" in results.compare("one", "two")._repr_html_()
