"""The shape of the package: imports run one way, files stay short, and importing it loads nothing heavy."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import cderetrieval

PACKAGE = Path(cderetrieval.__file__).parent
LEAVES = {
    "errors",
    "excerpts",
    "documents",
    "files",
    "filters",
    "judgements",
    "lazy",
    "notebook",
    "passages",
    "progress_log",
    "queries",
    "runtime",
    "splitting",
    "terminal",
    "types",
    "values",
    "vectors",
    "__init__",
}
RETRIEVER = {"retrieval", "milvus"}
# Layer to the layers that it may import from; each may import from itself.
ALLOWED = {
    "leaves": set(),
    "corpora": {"leaves"},
    "models": {"leaves"},
    "context": {"leaves", "models"},
    "store": {"leaves"},
    "index": {"leaves"},
    "retriever": {"leaves", "corpora", "models", "context", "store", "index"},
}
BELOW_THE_TOP = {*ALLOWED}
ALLOWED |= {
    "evaluation": {*BELOW_THE_TOP},
    "training": {*BELOW_THE_TOP},
    "distributed": {*BELOW_THE_TOP},
    "testing": {"leaves", "models"},
    "sparsembed": {*BELOW_THE_TOP, "evaluation", "training"},
    "serve": {*BELOW_THE_TOP, "evaluation"},
    "integrations": {*BELOW_THE_TOP},
    "cli": {*BELOW_THE_TOP, "evaluation", "training", "distributed", "serve", "integrations"},
}
FILES = sorted(path for path in PACKAGE.rglob("*.py"))
# What the package offers comes from all layers, and is imported when it is used.
FRONT = PACKAGE / "__init__.py"
OFFERED = cderetrieval._PUBLIC


def layer(module):
    """Layer of a dotted module name below the package; what its front offers is where it comes from, however late."""
    first = OFFERED.get(module.split(".")[0], module).split(".")[0]
    if first in LEAVES or not ((PACKAGE / first).is_dir() or (PACKAGE / f"{first}.py").is_file()):
        return "leaves"
    if first in RETRIEVER:
        return "retriever"
    return "cli" if first == "__main__" else first


@functools.cache
def nodes_of(path):
    """All nodes of a file's syntax tree."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def sources(node, here):
    """Absolute names of the modules that a statement imports from; `here` is the package that it stands in."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = here[: len(here) - node.level + 1] if node.level else []
    source = ".".join([*base, *([node.module] if node.module else [])])
    # "from . import x" imports the module x; elsewhere the names after "import" are those of functions and classes.
    return [source] if node.module else [f"{source}.{alias.name}" for alias in node.names]


@functools.cache
def imported(path):
    """Modules of this package that a file imports anywhere, also inside functions, as dotted names below it."""
    here = ["cderetrieval", *path.relative_to(PACKAGE).parent.parts]
    names = [name.split(".") for node in nodes_of(path) for name in sources(node, here)]
    return [".".join(name[1:]) for name in names if name[0] == "cderetrieval"]


def offences():
    """Imports that run the wrong way."""
    for path in FILES:
        own = layer(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
        if own not in ALLOWED:
            yield f"{path.name}: say in this test what layer {own!r} may import"
            continue
        for module in imported(path) if path != FRONT else ():
            target = layer(module)
            if target != own and target not in ALLOWED[own]:
                yield f"{path.relative_to(PACKAGE)}: {own} must not import cderetrieval.{module}"


def test_imports_run_one_way():
    assert list(offences()) == []


def test_nothing_is_imported_by_a_name_that_is_made_at_run_time():
    """Which would go around the layers; `lazy` is what the fronts of packages offer their names with."""
    found = {
        path.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__")
        and not (isinstance(node.args[0], ast.Constant) and not node.args[0].value.startswith((".", "cderetrieval")))
    }
    assert found == {"lazy.py"}


def test_the_rules_are_those_that_matter():
    assert layer("MTEBModel") == "evaluation", "what the front of the package offers is no way around the layers"
    assert "context" not in ALLOWED["models"]
    assert ALLOWED["index"] == ALLOWED["store"] == {"leaves"}
    found = {name for path in FILES for name in imported(path)}
    assert {"errors", "models.contextual", "store", "context.context"} <= found, "the scan sees relative imports"


def test_no_file_is_longer_than_400_lines():
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


@pytest.mark.parametrize(
    "statement", ["import cderetrieval", "from cderetrieval import Retriever, Context, Hits, CDEError"]
)
def test_importing_the_package_loads_nothing_heavy(statement):
    heavy = ["torch", "faiss", "transformers", "sentence_transformers", "pandas", "sqlalchemy", "pyarrow", "mteb"]
    code = f"import sys; {statement}; print([name for name in {heavy} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_every_public_name_can_be_imported():
    assert set(dir(cderetrieval)) == set(cderetrieval.__all__)
    for name in cderetrieval.__all__:
        assert getattr(cderetrieval, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Retreiver'"):
        _ = cderetrieval.Retreiver


def package_of(path):
    """The directory of a file below the package, or the file itself."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


# Documented names of named tuples.
OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name not in OF_NAMED_TUPLES


def test_no_package_uses_what_another_keeps_to_itself():
    defined = {}
    for path in FILES:
        names = defined.setdefault(package_of(path), set())
        for node in nodes_of(path):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in ("self", "cls")
            ):
                names.add(node.attr)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
    offences = []
    for path in FILES:
        own = defined[package_of(path)]
        others = set().union(*defined.values()) - own
        for node in nodes_of(path):
            if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr in others:
                offences.append(f"{path.name}:{node.lineno} {ast.unparse(node)}")
            elif isinstance(node, ast.ImportFrom) and (node.level or 0) > 1:
                offences += [f"{path.name}:{node.lineno} {name.name}" for name in node.names if is_private(name.name)]
    assert offences == []


def test_no_imports_run_in_a_circle():
    """Lazy imports and those for type checkers count too."""
    names = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in FILES if path.name[0] != "_"}
    wanted = {name: {found for found in imported(path) if found in names} - {name} for name, path in names.items()}
    while loose := [name for name, needs in wanted.items() if not needs]:
        for name in loose:
            del wanted[name]
        for needs in wanted.values():
            needs.difference_update(loose)
    assert wanted == {}
