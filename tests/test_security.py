"""Nothing that this project loads can run code: no call in it that could."""

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "yaml.load", "yaml.unsafe_load", "os.system"}
FORBIDDEN_KEYWORDS = {"allow_pickle", "trust_remote_code", "weights_only", "shell"}


def sources():
    for pattern in ("cderetrieval/**/*.py", "run_*.py", "benchmarks/**/*.py"):
        yield from ((path, path.read_text(encoding="utf-8")) for path in sorted(ROOT.glob(pattern)))
    for path in sorted(ROOT.glob("notebooks/**/*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        yield path, "\n".join(line for line in "\n".join(code).splitlines() if not line.lstrip().startswith(("%", "!")))


def dotted(node):
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imports(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def risky(keyword):
    off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
    return keyword.arg in FORBIDDEN_KEYWORDS and (keyword.arg == "weights_only" or not off)


def problems(source):
    for node in ast.walk(ast.parse(source)):
        for module in imports(node):
            if module.split(".")[0] in FORBIDDEN_MODULES or module in FORBIDDEN_CALLS:
                yield node.lineno, f"import of {module}"
        if isinstance(node, ast.Call):
            if dotted(node.func) in FORBIDDEN_CALLS:
                yield node.lineno, f"call of {dotted(node.func)}"
            yield from ((node.lineno, f"{keyword.arg}=") for keyword in node.keywords if risky(keyword))
        # A keyword that is passed through a dictionary: {"trust_remote_code": True}.
        if isinstance(node, ast.Constant) and node.value in FORBIDDEN_KEYWORDS - {"shell"}:
            yield node.lineno, f"the word {node.value!r} in quotes"


def test_no_source_can_run_code_that_it_loads():
    checked = [(path, list(problems(source))) for path, source in sources()]
    assert len(checked) > 50
    assert {str(path.relative_to(ROOT)): found for path, found in checked if found} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load('x')",
        "from torch import load",
        "np.load(f, allow_pickle=True)",
        "load(x, trust_remote_code=flag)",
        "load(x, **{'trust_remote_code': True})",
        "eval('1')",
        "exec(code)",
        "import yaml\nyaml.load(f)",
        "subprocess.run(c, shell=True)",
    ],
)
def test_the_scan_finds_what_it_looks_for(source):
    assert list(problems(source))


@pytest.mark.parametrize(
    "source", ["model.eval()", "re.compile('a')", "np.load(f, allow_pickle=False)", "yaml.safe_load(f)"]
)
def test_the_scan_lets_pass_what_is_safe(source):
    assert not list(problems(source))
