"""What every benchmark shares: facts of the machine, interleaved timing, peak memory, results as JSON and Markdown.

A time says little on a machine that others use too; a ratio of two things that were timed in turn, A B A B, in one
process, says much. So each benchmark times its subject and its peer in rounds, and reports the median of the ratios
of each round with the smallest and the largest of them.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peers import versions

from cderetrieval.files import read_json, write_json

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PACKAGES = ("torch", "transformers", "sentence-transformers", "faiss-cpu", "numpy", "scipy", "numba", "cderetrieval")

# When this process began to measure.
STARTED = time.perf_counter()

Times = dict[str, list[float]]


def arguments(
    description: str, argv: Sequence[str] | None = None, *, peers: Mapping[str, str] | None = None
) -> argparse.Namespace:
    """Read the command line that all benchmarks have.

    Parameters
    ----------
    description
        The script's docstring.
    argv
        The words; None: those of this process.
    peers
        Options, ``"--onnx"`` for example, that name the interpreter of an environment, and what that has to hold.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer repeats, no JSON: does it run?")
    for option, package in (peers or {}).items():
        parser.add_argument(option, metavar="PYTHON", help=f"interpreter of an environment with {package}")
    return parser.parse_args(argv)


def environment() -> dict[str, Any]:
    """Machine, commit, versions and date of a run."""
    return {
        "machine": machine(),
        "commit": commit(),
        "versions": {"python": platform.python_version(), **versions(PACKAGES)},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def machine() -> dict[str, Any]:
    """Processor, cores, memory, and whether the processor computes bfloat16 itself."""
    import torch

    from cderetrieval.runtime import supports_bfloat16

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": supports_bfloat16(torch.device("cpu")),
        "memory_gb": round(memory / 2**30, 1),
        "system": platform.system(),
    }


def _cpu_name() -> str:
    """Name, family and model: a virtual machine often hides the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(tuple(map(str.strip, line.split(":", 1))) for line in lines if ":" in line)
    name = facts.get("model name", platform.machine())
    return f"{name} (family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"


def commit() -> str:
    """The commit that was measured; ``+`` where the package itself had changes that were not committed."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        return f"{head}+" if _git("status", "--porcelain", "--", "cderetrieval", "benchmarks/*.py") else head
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*command: str) -> str:
    return subprocess.run(["git", *command], cwd=HERE.parent, capture_output=True, text=True, check=True).stdout.strip()


def interleaved(
    calls: Mapping[str, Callable[[], Any]],
    repeats: int,
    *,
    warmup: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Seconds of each call, `repeats` times, in turn: A B A B."""
    if warmup:
        for call in calls.values():
            call()
    times: Times = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = clock()
            call()
            times[name].append(clock() - start)
    return times


def ratio(times: Mapping[str, Sequence[float]], over: str, under: str) -> dict[str, float]:
    """Median, smallest and largest ratio of two calls, round by round.

    >>> ratio({"a": [2.0, 3.0, 8.0], "b": [1.0, 2.0, 2.0]}, "a", "b")
    {'median': 2.0, 'min': 1.5, 'max': 4.0}
    """
    ratios = [a / b for a, b in zip(times[over], times[under], strict=True)]
    values = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
    return {name: round(value, 4) for name, value in values.items()}


def start_memory() -> float:
    """Megabytes that this process holds; from here on its peak counts. Linux only."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _memory_mb("VmRSS:")


def peak_memory_mb() -> float:
    """Most megabytes this process has held since `start_memory`, mapped files included."""
    return _memory_mb("VmHWM:")


def _memory_mb(name: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name):
            return round(int(line.split()[1]) / 1024, 1)
    raise RuntimeError(f"the system does not state {name} of a process")


def in_fresh_process(script: str, *values: str) -> dict[str, Any]:
    """Run a benchmark script as a child of its own; its last line is its answer, as JSON."""
    command = [sys.executable, str(HERE / script), *values]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(finished.stdout.strip().splitlines()[-1])


class Peer:
    """A script in an environment of its own that stays loaded and answers: a line of JSON for a line of JSON.

    So its rounds take turns with those of this process, and what it needs disturbs nothing here.

    Parameters
    ----------
    python
        The interpreter of that environment.
    script
        A file of this directory, that needs nothing of this package. It prints a first answer once it is ready.
    values
        Its arguments.
    """

    def __init__(self, python: str, script: str, *values: str) -> None:
        command = [python, str(HERE / script), *values]
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._process = subprocess.Popen(
            command, env=kept, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.ready = self._answer()

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended with status {self._process.wait()} and no answer")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it, and wait until it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def bar(name: str, value: float, limit: float, *, at_most: bool = False) -> dict[str, Any]:
    """A measured value beside the bar that it has to meet."""
    met = value <= limit if at_most else value >= limit
    return {"name": name, "value": value, "bar": f"{'<=' if at_most else '>='} {limit:g}", "met": met}


def finish(
    name: str, *, settings: Mapping[str, Any], rows: list[dict[str, Any]], bars: list[dict], quick: bool
) -> None:
    """Print the tables; write ``results/<name>.json``, whole or not at all, unless this was a quick run."""
    shown = [{key: _short(value) for key, value in row.items() if key != "raw"} for row in rows]
    for _, table in itertools.groupby(shown, key=list):
        print(markdown(list(table)), end="\n\n")
    if bars:
        print(markdown([{**entry, "met": "yes" if entry["met"] else "no"} for entry in bars]))
    if quick:
        return
    result = {**environment(), "benchmark": name, "settings": dict(settings), "rows": rows, "bars": bars}
    result["seconds"] = round(time.perf_counter() - STARTED)
    write_json(RESULTS / f"{name}.json", result)


def read_result(name: str) -> dict[str, Any]:
    """What a benchmark found in its last full run."""
    found: dict[str, Any] = read_json(RESULTS / f"{name}.json")
    return found


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as a Markdown table.

    >>> print(markdown([{"tokens": 16, "ratio": 1.2}]))
    | tokens | ratio |
    | --- | --- |
    | 16 | 1.2 |
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns), *([str(row.get(key, "")) for key in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _short(value: Any) -> Any:
    """A ratio with its range in one cell; numbers with few digits."""
    if isinstance(value, Mapping):
        return f"{value['median']:.2f} ({value['min']:.2f}-{value['max']:.2f})"
    return f"{value:.4g}" if isinstance(value, float) else value
