"""Everything that may go wrong, thousands of times: the counts behind docs/guarantees.md.

    python benchmarks/campaign.py [--quick] [--only PART ...]

kills        processes that change an index, ended by SIGKILL at random moments
interrupts   KeyboardInterrupt at random moments of a living object's calls
fuzz         damaged files of every format that is read
readers      processes and threads that search beside a writer
models       model directories made to run code when they are loaded

The full form takes twenty minutes on two cores; the short form is part of the tests. Bars: no document lost, no
object dead, no raw exception, no hang, no silent wrong answer, no code run.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # children are forks, and a pool of threads does not survive one
os.environ["HF_HUB_OFFLINE"] = "1"

import argparse
import logging
import sys
import time
import warnings
from collections.abc import Callable, Sequence

from attacks import fuzz, interrupts, kills, models, readers
from attacks.child import Report, spread
from attacks.subjects import subjects
from common import bar, finish
from hostile_models import HOSTILE

WORKERS = 2
# Numbers of the full form and of the short one, which takes every twelfth hostile directory.
KILLS, INTERRUPTS, FILES, SECONDS = (3_000, 60), (3_000, 200), (12_000, 240), (60, 3)
FEW = 12
SHOWN = 20


def attack_kills(quick: bool, workers: int) -> Report:
    """Processes that were killed."""
    return spread(kills.run, KILLS[quick], workers)


def attack_interrupts(quick: bool, workers: int) -> Report:
    """Calls that were interrupted."""
    return spread(interrupts.run, INTERRUPTS[quick], workers)


def attack_files(quick: bool, workers: int) -> Report:
    """Files that were damaged."""
    made = subjects()
    return spread(lambda cases, seed: fuzz.run(made, cases, seed), FILES[quick], workers)


def attack_readers(quick: bool, workers: int) -> Report:
    """Searches beside a writer."""
    report = readers.run(SECONDS[quick])
    report.add(readers.run(SECONDS[quick], on_disk=False))
    return report


def attack_models(quick: bool, workers: int) -> Report:
    """Model directories that try to run code."""
    models.prepare()
    tried = HOSTILE[::FEW] if quick else HOSTILE
    return spread(lambda _, number: models.run(tried[number::workers]), len(tried), workers)


PARTS: dict[str, Callable[[bool, int], Report]] = {
    "kills": attack_kills,
    "interrupts": attack_interrupts,
    "fuzz": attack_files,
    "readers": attack_readers,
    "models": attack_models,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run; status 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few of each, in less than a minute; writes no result")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help="some parts only")
    parser.add_argument("--workers", type=int, default=WORKERS, help="processes that attack at once")
    arguments = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    rows, bars, failures = [], [], []
    for name in arguments.only:
        started = time.perf_counter()
        report = PARTS[name](arguments.quick, arguments.workers)
        seconds = round(time.perf_counter() - started)
        print(f"{name}: {dict(report.counts)}, {len(report.failures)} failures, {seconds} s", flush=True)
        for failure in report.failures[:SHOWN]:
            print(f"  {failure}", flush=True)
        rows += [{"attack": name, "what": what, "count": count} for what, count in sorted(report.counts.items())]
        bars.append(bar(f"{name}: failures", len(report.failures), 0, at_most=True))
        failures += report.failures
    settings = {"parts": arguments.only, "failures": failures[:SHOWN]}
    partial = arguments.quick or set(arguments.only) != set(PARTS)
    finish("campaign", settings=settings, rows=rows, bars=bars, quick=partial)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
