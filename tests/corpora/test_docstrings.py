import pytest

from cderetrieval.corpora.docstrings import source_docstrings, split_docstring, without_markup

PROSE = "Rows are compared from left to right and every row that fails the comparison is left out of the result."


def body(text):
    pair = split_docstring(f"Pick the rows that satisfy a condition.\n\n{text}")
    return None if pair is None else pair[1]


def test_summary_lines_are_joined():
    summary, _ = split_docstring(f"Pick the rows that satisfy\n    a condition.\n\n    {PROSE}\n    ")
    assert summary == "Pick the rows that satisfy a condition."


@pytest.mark.parametrize(
    "text",
    [
        "Return self.\n\n" + PROSE,
        "Pick the rows that satisfy a condition.",
        "Pick the rows that satisfy a condition.\n\nSee also drop.",
        "- one thing that is listed\n- another thing that is listed\n\n" + PROSE,
        "Create a condition from these five items:\n\n" + PROSE,
        f"Pick the rows that satisfy a condition.\n\nPick the  rows that satisfy a CONDITION. {PROSE}",
    ],
    ids=["short-summary", "no-body", "short-body", "list-summary", "unfinished-summary", "repeated-summary"],
)
def test_unfair_pairs_are_left_out(text):
    assert split_docstring(text) is None


def test_parameters_alone_are_no_answer():
    numpydoc = "Parameters\n----------\nX : array\n    The rows among which this function picks the ones that count.\n"
    google = "Args:\n    X: the rows among which this function picks the ones that count, and some more words here.\n"
    assert body(numpydoc * 3) is None
    assert body(google * 3) is None
    assert body(numpydoc + "\nNotes\n-----\n" + PROSE).endswith(PROSE)
    assert body(google + "\n" + PROSE).endswith(PROSE)


def test_doctests_code_and_dropped_sections_go():
    text = (
        f"{PROSE}\n\n>>> pick([1])\n[1]\n\nSee Also\n--------\ndrop : Leave rows out.\n\nNotes\n-----\nFast.\n\n"
        "```python\npick(1)\n\npick(2)\n```\n\n.. versionadded:: 1.0\n\nExample::\n\n    pick(3)\n\nIt never copies."
    )
    assert body(text) == f"{PROSE}\n\nNotes\nFast.\n\nIt never copies."


def test_leading_signature_is_no_summary():
    text = f"pick(rows, /, *, key=None) -> list\n\nPick the rows that satisfy a condition.\n\n{PROSE}"
    assert split_docstring(text) == ("Pick the rows that satisfy a condition.", PROSE)


def test_markup_becomes_text():
    assert without_markup(
        r"See :ref:`the guide <guide>`, `docs <http://x>`_ and [paper](http://y) in the dim\ th."
    ) == ("See the guide, docs and paper in the dim th.")


def test_source_is_parsed_and_not_run(tmp_path):
    docstring = f'"""Pick the rows that satisfy a condition.\n\n{PROSE}\n"""'
    inner = docstring.replace("\n", "\n    ")
    (tmp_path / "core.py").write_text(
        f"{docstring}\nraise SystemExit\ndef pick():\n    {inner}\ndef _hidden():\n    {inner}\n"
        f"class Table:\n    {inner}\nadd_docstr(lib.drop, r{docstring})\n"
        f'add_newdoc("lib", "keep", {docstring}.format(**shared))\n'
    )
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_core.py").write_text(docstring)
    (tmp_path / "_private").mkdir()
    (tmp_path / "_private" / "core.py").write_text(docstring)
    (tmp_path / "broken.py").write_text("def (")
    names = [docstring.name for docstring in source_docstrings(tmp_path, "lib", frozenset())]
    assert names == ["lib.core", "lib.core.pick", "lib.core.Table", "lib.core.lib.drop", "lib.core.lib.keep"]
