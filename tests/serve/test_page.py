"""The page in a real browser: it is typed into, clicked and read."""

import json
import time

import pytest

from cderetrieval import Retriever
from cderetrieval.testing import tiny_model_directory

from .browser import CHROMIUM, Browser
from .conftest import DOCUMENTS, LONG, running

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")]
HITS = "document.querySelectorAll('#hits > li').length"
TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def page():
    retriever = Retriever(tiny_model_directory(), on=["title", "text"], passages=32, context_size=3).add(DOCUMENTS)
    with running(retriever, name="tales") as client:
        browser = Browser()
        browser.url = client.url
        yield browser
        browser.close()


@pytest.fixture
def fresh(page):
    page.resize(1280, 900)
    page.events.clear()
    page.open(page.url)
    page.until("document.querySelector('#query').placeholder === 'Search 4 documents'")
    yield page
    page.run("1")
    failed = [event for event in page.events if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
    assert failed == []
    asked = [e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
    assert {url for url in asked if not url.startswith((page.url, "data:"))} == set()


def test_answers_come_as_one_types(fresh):
    fresh.type("honey")
    assert fresh.until(HITS) == 4
    assert "4 answers in" in fresh.text("#status")
    fresh.type(" from bees")
    fresh.until("[...document.querySelectorAll('mark.word')].some((mark) => mark.innerText === 'Bees')")
    assert "Bees make honey from nectar." in fresh.text("#hits")
    assert fresh.run("location.search") == "?q=honey+from+bees"
    assert "similarity" in fresh.text("#legend")
    fresh.press("Escape")
    fresh.until(f"{HITS} === 0")


def test_a_stale_answer_is_dropped(fresh):
    fresh.run(
        "(() => { const real = fetch; let n = 0; window.fetch = (path, options) => {"
        " const mine = path === 'search' ? n++ : -1;"
        " return real(path, { ...options, signal: undefined }).then((answer) => mine ? answer :"
        " new Promise((then) => setTimeout(() => then(answer), 800))) } })()"
    )
    fresh.type("a")
    time.sleep(0.3)
    fresh.type(" storm broke it")
    fresh.until(f"{HITS} === 4")
    first = fresh.text("#hits")
    time.sleep(1)
    assert fresh.text("#hits") == first


def test_keys_move_open_and_close(fresh):
    fresh.run("document.activeElement.blur()")
    fresh.press("/")
    assert fresh.run("document.activeElement.id") == "query"
    fresh.type("the owl hunts")
    fresh.until(HITS)
    fresh.press("ArrowDown")
    fresh.press("ArrowDown")
    assert fresh.run("[...document.querySelectorAll('#hits > li')].findIndex((li) => li.ariaCurrent === 'true')") == 1
    title = fresh.text("#hits > li[aria-current=true] h3")
    fresh.press("Enter")
    fresh.until("document.querySelector('#document').open")
    assert fresh.text("#document-title") == title
    fresh.press("Escape")
    fresh.until("!document.querySelector('#document').open")
    assert fresh.run(HITS) == 4


def test_a_document_is_opened_at_its_passage(fresh):
    fresh.type("honey from nectar bees")
    fresh.until("[...document.querySelectorAll('#hits h3')].some((title) => title.innerText === 'An owl')")
    place = fresh.run("[...document.querySelectorAll('#hits h3')].findIndex((title) => title.innerText === 'An owl')")
    passage = fresh.run(f"document.querySelectorAll('#hits .passage')[{place}].textContent")
    fresh.click(f"#hits > li:nth-child({place + 1}) h3 button")
    fresh.until("document.querySelector('#document').open")
    assert fresh.run("document.querySelector('#document-body').textContent") == LONG
    assert fresh.run("document.querySelector('#document-body .here').textContent") == passage


def test_why_has_shares_that_add_up(fresh):
    fresh.type("honey")
    fresh.until(HITS)
    fresh.click("#hits .ask")
    fresh.until("document.querySelector('.why .row')")
    assert fresh.text(".why .row span") == "meaning"
    shares = fresh.run("[...document.querySelectorAll('.why .number')].map((one) => one.innerText)")
    total = sum(float(share.replace("−", "-")) for share in shares)  # noqa: RUF001
    assert total == pytest.approx(float(fresh.text("#hits .similarity")), abs=0.003)
    fresh.click("#hits .ask")
    fresh.until("!document.querySelector('.why')")


def test_filters_are_those_of_the_metadata(fresh):
    fresh.type("honey")
    fresh.until(f"{HITS} === 4")
    assert fresh.run("[...document.querySelectorAll('#filters label')].map((label) => label.firstChild.data)") == [
        "year",
        "language",
        "tags",
    ]
    for field, value, count in (("language", "fr", 1), ("language", "", 4), ("tags", "wind", 1)):
        fresh.run(
            f"(() => {{ const s = document.querySelector('[data-field={field}]');"
            f" s.value = '{value and json.dumps(value)}';"
            " s.dispatchEvent(new Event('change', { bubbles: true })) })()"
        )
        fresh.until(f"{HITS} === {count}")
    assert fresh.text("#hits h3") == "Mast"


def test_a_hostile_document_is_text(fresh):
    fresh.type("honey b")
    fresh.until(f"{HITS} === 4")
    assert "<script>document.title='hacked'</script>" in fresh.text("#hits")
    place = fresh.run("[...document.querySelectorAll('#hits h3')].findIndex((one) => one.innerText.startsWith('<s'))")
    fresh.click(f"#hits > li:nth-child({place + 1}) h3 button")
    fresh.until("document.querySelector('#document').open")
    assert "onerror" in fresh.text("#document-body")
    assert fresh.run("document.querySelectorAll('#document-body img, #hits script, #hits img').length") == 0
    fresh.press("Escape")
    fresh.click("#to-corpus")
    fresh.until("document.querySelector('#facts dd')")
    assert fresh.run("document.title") == "tales"


def test_the_corpus_as_its_context_sees_it(fresh):
    fresh.click("#to-corpus")
    fresh.until("document.querySelectorAll('#map circle').length === 3")
    assert "3 documents were sampled" in fresh.text("#about")
    assert "honey" in fresh.text("#terms")
    assert "3 documents, own, seed 0" in fresh.text("#facts")
    fresh.click("#facts button")
    fresh.until("document.querySelector('#facts').innerText.includes('shift')")
    fresh.run("document.querySelector('#compare-query').focus()")
    fresh.type("honey")
    fresh.press("Enter")
    fresh.until("document.querySelectorAll('#compared ol').length === 3")
    assert fresh.run("[...document.querySelectorAll('#compared h4')].map((one) => one.innerText)") == [
        "No context",
        "Neutral",
        "Its own",
    ]
    title = fresh.run("document.querySelector('#map circle title').textContent")
    fresh.click("#map circle")
    assert fresh.until("document.querySelector('#query').value") == title
    fresh.until(HITS)


def test_nothing_is_wider_than_a_telephone(fresh):
    fresh.resize(400, 800)
    fresh.type("honey and a storm")
    fresh.until(HITS)
    fresh.click("#hits .ask")
    fresh.until("document.querySelector('.why .row')")
    assert fresh.run("document.documentElement.scrollWidth") <= 400
    fresh.click("#to-corpus")
    fresh.until("document.querySelector('#facts dd')")
    assert fresh.run("document.documentElement.scrollWidth") <= 400


def test_an_error_is_shown(fresh):
    fresh.run(
        'window.fetch = () => Promise.resolve(new Response(\'{"error": {"message": "it broke"}}\', {status: 503}))'
    )
    fresh.type("honey")
    fresh.until("document.querySelector('#status').innerText === 'it broke'")


def test_a_token_is_asked_for_and_kept(page):
    retriever = Retriever(tiny_model_directory(), context_size=3).add(DOCUMENTS)
    with running(retriever, name="secret tales", token=TOKEN) as client:
        page.open(client.url)
        page.until("document.querySelector('#ask-token').open")
        assert "secret" not in page.text("body")
        page.type(TOKEN)
        page.press("Enter")
        page.until("document.querySelector('#name').innerText === 'secret tales'")
        page.run("sessionStorage.clear()")
        page.open("about:blank")
        page.open(f"{client.url}/#token=50%")
        page.until("document.querySelector('#ask-token').open")
        page.open("about:blank")
        page.open(f"{client.url}/#token={TOKEN}")
        page.until("document.querySelector('#name').innerText === 'secret tales'")
        assert page.run("location.hash") == ""
