"""No test reaches a network: the hub is switched off, and a connection to any other machine is an error."""

import os
import socket
from pathlib import Path

import pytest
from _pytest.doctest import DoctestModule

from .warm import WarmProcess

# Before anything imports huggingface_hub, torch or faiss, which read them once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tiny models gain nothing from a second thread, and on a busy machine lose a second per call waiting for it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

LOOPBACK = ("127.", "::1", "localhost")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOOPBACK):
            raise AssertionError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded)


# What `make fast` leaves out, beside tests that are marked by themselves: directories and files.
SLOW = {"crash", "distributed", "evaluation", "milvus", "notebooks", "training"}
SLOW |= {
    "test_benchmarks",
    "test_campaign",
    "test_cli",
    "test_crash",
    "test_damaged_files",
    "test_examples",
    "test_golden_indexes",
    "test_interrupts",
    "test_log",
    "test_pages",
}
SLOW |= {"test_retriever_disk", "test_tune", "test_typing"}


def pytest_ignore_collect(collection_path, config):
    """Import nothing of what would be left out: mteb and its tasks alone take two seconds."""
    return True if config.option.markexpr == "not slow" and collection_path.stem in SLOW else None


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path):
    """Look for examples in the package alone: in a file of tests, an import that fails would be skipped like theirs."""
    found = yield
    return [one for one in found if not isinstance(one, DoctestModule)]


# Tests that share more than a file: the process that has imported the heavy libraries, and Ray. They begin first.
SHARED = {"test_pages": "warm", "test_campaign": "warm", "test_examples": "warm", "distributed": "ray"}


@pytest.fixture(scope="session")
def warm():
    """One process for all scripts."""
    with WarmProcess() as process:
        yield process


def group_of(path):
    """Tests of a file share fixtures, those of some files a process."""
    return SHARED.get(path.parent.name) or SHARED.get(path.stem) or str(path)


def pytest_collection_modifyitems(items):
    """Mark what is slow. What shares a process comes first, then the slow: short files at the end keep workers even."""
    first = list(dict.fromkeys(SHARED.values()))
    for item in items:
        if item.path.parent.name in SLOW or item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    groups = {path: group_of(path) for path in {item.path for item in items}}
    places = {
        path: (first.index(group) if group in first else len(first), path not in slow) for path, group in groups.items()
    }
    items.sort(key=lambda item: places[item.path])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep a group in one worker. Marks of xdist do not: it writes them where pytest 9.2 no longer looks."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(Path(nodeid.partition("::")[0]))

    config.option.loadscopereorder = False
    return Groups(config, log)
