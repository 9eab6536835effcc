"""What README and docs show is what happens: their Python runs, their commands parse, their links lead somewhere."""

import re
import shlex
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest

from cderetrieval.cli import build_parser
from cderetrieval.models.locate import installed_minilm

ROOT = Path(__file__).parent.parent
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(path for path in ROOT.glob("docs/**/*.md") if path.parent.name != "reference"),
    ROOT / "benchmarks" / "README.md",
]
BLOCK = re.compile(r"(<!-- needs (?:the hub|a server) -->\n)?```(\w*)\n(.*?)```", re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
# What a page's code shows that it needs beside the package itself.
NEEDS = {
    "bm25": "bm25s",
    ".db/": "milvus_lite",
    "evaluate": "matplotlib",
    "train(": "accelerate",
    "create_app": "fastapi",
}
NEEDS |= {"langchain_core": "langchain_core", "llama_index": "llama_index", "haystack": "haystack", "from mcp": "mcp"}
# After ``print(...)  # ``: no output follows, but a remark.
NOT_LITERAL = ("such as ", "difference", "model, ", "one row")
SCRIPTS = {"run_eval.py": "eval", "run_train.py": "train"}
# Commands that go on until they are stopped.
SERVERS = {"serve", "mcp"}
# Other programs that pages may name; what they are given is theirs to check.
OTHERS = {"cd", "git", "python3", "ruff", "mypy", "pytest", "export", "source"}


def name_of(page):
    return str(page.relative_to(ROOT))


def blocks(page, language):
    """Code of a page in one language, without blocks that need what a test has not."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [code for needs, named, code in found if named == language and not needs]


def pages_with(language):
    return [pytest.param(page, id=name_of(page)) for page in PAGES if blocks(page, language)]


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_runs_in_order_in_one_process(page, warm, tmp_path):
    if installed_minilm() is None:
        pytest.skip("the weights of the default model are not installed")
    for shown, module in NEEDS.items():
        if any(shown in code for code in blocks(page, "python")):
            pytest.importorskip(module)
    script = tmp_path / "page.py"
    script.write_text("\n".join([*blocks(page, "python"), *commands_as_python(page)]), encoding="utf-8")
    done = warm.run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert_printed("\n".join(blocks(page, "python")), done.stdout)


def commands_as_python(page):
    """Where a page's code writes the documents that its commands read: the commands, for the same process."""
    if not any('"docs.jsonl"' in code for code in blocks(page, "python")):
        return
    yield "from cderetrieval.cli import main"
    for program, *arguments in commands(page):
        if program == "cderetrieval" and arguments[0] not in SERVERS:
            yield f"assert main({arguments}) == 0"


def assert_printed(code, output):
    """Each ``print(...)  # what it prints`` prints that."""
    for line in code.splitlines():
        called, mark, shown = line.partition("  # ")
        if mark and called.lstrip().startswith("print(") and called.endswith(")") and not shown.startswith(NOT_LITERAL):
            assert shown in output.splitlines(), f"{line!r} is not what is printed:\n{output}"


def commands(page):
    """Commands of a page's shell blocks, continued lines joined, comments left out."""
    for code in blocks(page, "bash"):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def check_command(words):
    """Refuse a command that would not start."""
    program, *arguments = words
    program = program.removeprefix(".venv/bin/")
    if program == "torchrun":
        position = next(i for i, word in enumerate(arguments) if word.endswith(".py"))
        program, arguments = "python", arguments[position:]
    if program == "cderetrieval":
        parse(arguments)
    elif program == "python" and arguments[0] in SCRIPTS:
        parse([SCRIPTS[arguments[0]], *arguments[1:]])
    elif program == "python" and arguments[0].endswith(".py"):
        check_script(arguments)
    elif program == "python":
        assert arguments[:2] == ["-m", "pytest"], arguments
    elif program == "make":
        assert set(arguments) <= targets(), arguments
    elif program == "pip":
        check_extras(arguments)
    else:
        assert program in OTHERS, f"{program} is not a known command"


def parse(arguments):
    try:
        build_parser().parse_args(arguments)
    except SystemExit as error:
        raise AssertionError(f"the command line refuses {arguments}") from error


def check_script(arguments):
    """A script exists, and its source names the options."""
    script = ROOT / arguments[0]
    source = script.read_text(encoding="utf-8") + (ROOT / "benchmarks" / "common.py").read_text(encoding="utf-8")
    for word in arguments[1:]:
        if word.startswith("--"):
            assert f'"{word}"' in source, f"{arguments[0]} has no {word}"


def targets():
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def check_extras(arguments):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for word in arguments:
        for named in re.findall(r"cderetrieval\[([\w,-]+)\]", word):
            assert set(named.split(",")) <= set(extras), word


@pytest.mark.parametrize("page", pages_with("bash"))
def test_commands_parse(page):
    found = list(commands(page))
    assert found
    for words in found:
        check_command(words)


@pytest.mark.parametrize(
    "words", [["cderetrieval", "serach", "x"], ["python", "run_eval.py", "--modle", "x"], ["make", "tea"], ["rm", "x"]]
)
def test_a_command_that_would_not_start_is_noticed(words, capsys):
    with pytest.raises(AssertionError):
        check_command(words)
    capsys.readouterr()


def headings(page):
    """Anchors as they are made from headings: lower case, punctuation left out, spaces as hyphens."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def broken_links(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for groups in LINK.findall(text):
        link = next(filter(None, groups))
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / unquote(path)).resolve() if path else page
        found = target.exists() and target.is_relative_to(ROOT)
        if not found or (anchor and target.suffix == ".md" and anchor not in headings(target)):
            yield link


@pytest.mark.parametrize("page", [pytest.param(page, id=name_of(page)) for page in PAGES])
def test_links_within_the_repository_lead_somewhere(page):
    assert list(broken_links(page)) == []


def test_every_page_is_listed():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    listed = {link.partition("#")[0] for groups in LINK.findall(index) for link in groups}
    pages = {str(path.relative_to(ROOT / "docs")) for path in PAGES if (ROOT / "docs") in path.parents}
    assert pages - listed == {"README.md"}
