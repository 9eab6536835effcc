"""Values in expressions: Milvus Lite's own parser reads each back as it was, and nothing gets in by another door."""

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cderetrieval
from cderetrieval.errors import InputError
from cderetrieval.filters import OPERATORS, parse_filter
from cderetrieval.milvus.expressions import (
    Expression,
    all_of,
    any_of,
    compare,
    literal,
    one_of,
    starting_with,
)
from cderetrieval.milvus.rows import PREFIXES, expression, key_of
from cderetrieval.store.codec import encode_id

parser = pytest.importorskip("milvus_lite.search.filter")
nodes = pytest.importorskip("milvus_lite.search.filter.ast")

PACKAGES = [Path(cderetrieval.__file__).parent / "index" / "milvus", Path(cderetrieval.__file__).parent / "server"]
HOSTILE = [
    "x'] or id not in ['zzz",
    "a', 's:b",
    'x"] or id not in ["zzz',
    'a", "s:b',
    "O'Brien",
    "\\",
    '\\"',
    "\\' or true or '",
    "100%",
    "%5C%22",
    "%s%(a)s",
    "{ids}",
    "{0}",
    "${x}",
    "{{",
    "\u2028\u2029\x7f\x85",
    "naïve 🦉 日本",
    "x" * 900,
    "'" * 900,
    "",
    " ",
    "$meta",
    "id in [1]",
]
TEXT = st.sampled_from(HOSTILE) | st.text(max_size=30) | st.text("'\"\\%{}[](),:sn x", max_size=30)


@given(TEXT | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False))
def test_a_literal_is_read_back_or_refused(value):
    if isinstance(value, str) and any(c < " " or "\ud800" <= c <= "\udfff" for c in value):
        with pytest.raises(InputError, match="Milvus"):
            literal(value)
        return
    written = literal(value)
    tree = parser.parse_expr(f"id == {written}")
    found = tree.right
    if isinstance(value, str):
        assert isinstance(found, nodes.StringLit)
        assert found.value == value
    else:
        negative = not hasattr(found, "value")
        number = (found.operand if negative else found).value
        assert (-number if negative else number) == value


@given(st.lists(TEXT, min_size=1, max_size=6))
def test_ids_stand_in_one_list_of_strings(ids):
    keys = [key_of(encode_id(text)) for text in ids if len(encode_id(text)) < 300]
    if not keys:
        return
    tree = parser.parse_expr(one_of("id", keys))
    assert isinstance(tree, nodes.InOp)
    assert tree.field.name == "id"
    assert not tree.negate
    assert [element.value for element in tree.values.elements] == keys


@given(st.dictionaries(TEXT.filter(bool), TEXT | st.integers() | st.booleans(), min_size=1, max_size=3))
def test_a_filter_asks_for_what_was_asked(wanted):
    try:
        text = expression(parse_filter(wanted))
    except InputError:
        return
    strings = []

    def walk(node):
        if isinstance(node, nodes.StringLit):
            strings.append(node.value)
        for name in getattr(node, "__dataclass_fields__", {}):
            value = getattr(node, name)
            for child in value if isinstance(value, list | tuple) else [value]:
                walk(child)

    walk(parser.parse_expr(text))
    assert sorted(strings) == sorted(value for value in wanted.values() if isinstance(value, str))
    assert isinstance(text, Expression)


@pytest.mark.parametrize("value", ["a\nb", "\x00", "\ud83d", 2**63, float("inf"), float("nan")])
def test_what_cannot_be_written_is_refused(value):
    with pytest.raises(InputError, match="Milvus"):
        literal(value)


def test_names_and_signs_are_none_of_a_users():
    for field, sign, key in [
        ("id or true", "==", None),
        ("id", "== 1 or", None),
        ("metadata", "==", 't:x"] or id != ""'),
        ("metadata", "==", "a\\"),
    ]:
        with pytest.raises(InputError):
            compare(field, sign, 1, key=key)
    for prefix in ("a%", "a_b", "\\"):
        with pytest.raises(InputError, match="pattern"):
            starting_with("name", prefix)
    assert all(compare("seq", sign, 1) for sign in OPERATORS)
    both = all_of([compare("seq", ">", 1), any_of([compare("seq", "<", 9), one_of("id", ["a"])])])
    assert both == '(seq > 1) and (seq < 9 or id in ["a"])'
    assert set(PREFIXES.values()) == {"t:", "n:", "b:"}


def calls(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_a_value_enters_an_expression_in_one_file():
    """No other file makes an Expression, selects by ids=, or writes something that looks like one."""
    words = (" in [", " like ", " == ", " and (", "metadata[")
    for path in (path for package in PACKAGES for path in package.glob("*.py")):
        tree = ast.parse(path.read_text())
        alone = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
        docstrings = {id(value) for value in alone if isinstance(value, ast.Constant)}
        for call in calls(tree):
            names = {keyword.arg for keyword in call.keywords}
            assert not names & {"ids", "pks", "expr", "filter_params", "expr_params"}, f"{path}:{call.lineno}"
            made = isinstance(call.func, ast.Name) and call.func.id == "Expression"
            assert not made or path.name == "expressions.py", f"{path}:{call.lineno}"
        if path.name == "expressions.py":
            continue
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and id(node) not in docstrings else ""
            assert not (isinstance(text, str) and any(word in text for word in words)), f"{path}:{node.lineno}"
