"""Small training data of two data sets and four domains, runs in two processes, a surrogate that counts letters."""

import gc
import gzip
import hashlib
import json
import os
import shutil
import socket

import numpy as np
import pytest
import torch

from cderetrieval.errors import CDEError
from cderetrieval.training.data import load_pairs
from cderetrieval.training.run import train

WORDS = ["amber", "birch", "cedar", "dune", "ember", "frost", "grove", "heath", "inlet", "jade", "kelp", "lichen"]


def make_example(number, domain, negatives=0):
    rng = np.random.default_rng(number)
    first, second, third = rng.choice(WORDS, 3, replace=False)
    row = {"query": f"{first} {number}", "document": f"the {first} and the {second} of {number}", "domain": domain}
    if negatives:
        row["negatives"] = [f"no {third} {number} {k}" for k in range(negatives)]
    return row


def write_rows(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


class LetterCounts:
    """An encoder without weights: how often each letter occurs."""

    dimension = 26
    kind = "dense"
    fingerprint = "letters"

    def encode_query(self, texts, *, show_progress=False):
        counts = np.array([[text.count(chr(97 + k)) for k in range(26)] for text in texts], dtype=np.float32)
        counts = counts.reshape(len(texts), 26) + 1e-3
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)

    encode_document = encode_query


@pytest.fixture
def example():
    return make_example


@pytest.fixture
def write_jsonl():
    return write_rows


@pytest.fixture(scope="session", autouse=True)
def freeze_imports():
    """Leave what was imported out of garbage collection, which accelerate runs in every training: half its time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """The data of tests that only read them."""
    folder = tmp_path_factory.mktemp("data")
    write_rows(folder / "plain.jsonl.gz", [make_example(k, "a" if k < 20 else "b") for k in range(44)])
    write_rows(folder / "mined.jsonl", [make_example(100 + k, "c" if k % 2 else "d", 2) for k in range(40)])
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Columns, vectors and clusters of all runs: what is in it is named by what it was made from."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def folder(data, tmp_path):
    return shutil.copytree(data, tmp_path / "data")


def train_rank(rank, port, recipe, output, cache, resume):
    """One of two processes: rows of each step and digest of the weights, or the error, in ``rank<k>.json``."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    os.environ.update(MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    rows, seen = [], []

    def note(trainer):
        step = trainer.training_step
        trainer.training_step = lambda *given: (rows.append(given[1]["row"].tolist()), step(*given))[1]
        seen.append(trainer)

    found = {"rows": rows}
    try:
        train(recipe, output, cache=cache, resume=resume, on_ready=note)
        digest = hashlib.sha256()
        for tensor in seen[0].model.state_dict().values():
            digest.update(tensor.contiguous().numpy().tobytes())
        found["weights"] = digest.hexdigest()
    except CDEError as error:
        found["error"] = f"{type(error).__name__}: {error}"
    (output / f"rank{rank}.json").write_text(json.dumps(found))


@pytest.fixture
def train_in_two(cache):
    """Train in two processes; what each of them found."""

    def run(recipe, output, resume=False):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        arguments = (port, recipe, output, cache, resume)
        torch.multiprocessing.start_processes(train_rank, args=arguments, nprocs=2, start_method="fork")
        return [json.loads((output / f"rank{rank}.json").read_text()) for rank in range(2)]

    return run


@pytest.fixture
def pairs(folder, tmp_path):
    return load_pairs([folder], tmp_path / "cache", negatives=1)


@pytest.fixture
def letters():
    return LetterCounts()
