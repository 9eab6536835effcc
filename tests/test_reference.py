"""The API reference names everything public, and what it names says how it is used."""

import ast
import importlib
import inspect
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

import cderetrieval

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
NAMES = re.findall(r"^::: ([\w.]+)$", "\n".join(p.read_text(encoding="utf-8") for p in REFERENCE.glob("*.md")), re.M)

# Each integration needs its framework, which `make integrations` installs.
FRAMEWORKS = {"langchain": "langchain_core", "llama_index": "llama_index", "haystack": "haystack", "mcp": "mcp"}
NAMED = [path for path in NAMES if find_spec(FRAMEWORKS.get(path.split(".")[-2], "cderetrieval"))]


def resolve(path):
    module, _, name = path.rpartition(".")
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("path", NAMED)
def test_what_the_reference_names_is_there_and_documented(path):
    assert inspect.getdoc(resolve(path))


def test_every_public_name_is_in_the_reference():
    there = [resolve(path) for path in NAMED]
    errors = importlib.import_module("cderetrieval.errors")
    names = [name for name in cderetrieval.__all__ if name != "__version__"]
    missing = [name for name in names if getattr(cderetrieval, name) not in there and not hasattr(errors, name)]
    assert missing == []


@pytest.mark.parametrize("name", [name for name in cderetrieval.__all__ if name != "__version__"])
def test_every_public_name_has_an_example_or_says_what_shapes_it_takes(name):
    found = getattr(cderetrieval, name)
    if inspect.isclass(found) and issubclass(found, Exception):
        pytest.skip("errors have no example")
    texts = [inspect.getdoc(found) or ""]
    if inspect.isclass(found):
        texts += [inspect.getdoc(member) or "" for key, member in vars(found).items() if not key.startswith("_")]
    assert any(">>>" in text or re.search(r"\bshape\b", text) for text in texts)


@pytest.mark.parametrize("name", [name for name in cderetrieval.__all__ if name != "__version__"])
def test_every_public_method_is_documented(name):
    found = getattr(cderetrieval, name)
    if inspect.isclass(found):
        own = [key for key in vars(found) if not key.startswith("_") and callable(getattr(found, key))]
        assert [key for key in own if not inspect.getdoc(getattr(found, key))] == []


def shown():
    """Full names of what the reference shows."""
    yield from set(NAMES) - set(NAMED)
    for path in NAMED:
        found = resolve(path)
        yield path if inspect.ismodule(found) else f"{found.__module__}.{found.__qualname__}"


def sections(tree, name):
    """Full names of classes and functions whose docstrings have NumPy sections."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            own = f"{name}.{node.name}"
            if re.search(r"^(Parameters|Returns|Raises)\n-+$", ast.get_docstring(node) or "", re.M):
                yield own
            if isinstance(node, ast.ClassDef):
                yield from sections(node, own)


def test_sections_are_for_what_the_reference_shows():
    root, names = Path(cderetrieval.__file__).parent, tuple(shown())
    offences = []
    for path in root.rglob("*.py"):
        module = ".".join(["cderetrieval", *path.relative_to(root).with_suffix("").parts]).removesuffix(".__init__")
        found = sections(ast.parse(path.read_text(encoding="utf-8")), module)
        offences += [name for name in found if not any(f"{name}.".startswith(f"{one}.") for one in names)]
    assert offences == []
