"""Jobs on Ray Data: actors that hold a job each, and a stream of block numbers.

Ray Data schedules, restarts actors that died, and repeats their blocks. What is set here, and why:

- Two logical CPUs are left over. An actor pool that takes all of them makes Ray Data wait forever, without an error.
- Ray Data repeats the block of a dead worker forever, so the job counts how often it has begun a block (:mod:`.embed`).
- A job in which nothing moves for two hours ends; Ray Data's default of half an hour is too short for a large block.
- Ray Data's own checkpoints are not used. They know rows, not blocks: a resumed job would cut other batches and so make
  other vectors, JSONL cannot be resumed (Ray 2.60), and the folder of vectors already shows which blocks are done.
- Usage statistics are off: nothing here reaches a network that was not named.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

from .. import errors
from ..errors import CDEError, ClusterError, ConfigError, needs

logger = logging.getLogger(__name__)

# A class that is made once on each worker and called with numbers of blocks. It returns JSON values; calls may repeat.
Job = Callable[..., Callable[[int], dict[str, Any]]]

SPARE_CPUS = 2
# Seconds without progress after which a job ends, and seconds for a machine to answer.
STALLED = 7_200.0
REACH = 10.0
# What travels is small: a context of 512 documents is 0.8 MB.
OBJECT_STORE = 256 * 2**20


def run_here(job: Job, arguments: Mapping[str, Any], numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Do a job in this process, block after block."""
    if numbers:
        yield from map(job(**arguments), numbers)


class RayCluster:
    """A Ray cluster, or workers on this machine; None for `workers` is one for each GPU, or CPU where there is none."""

    def __init__(
        self, workers: int | None = None, *, threads: int = 1, address: str | None = None, stalled: float = STALLED
    ) -> None:
        if (workers is not None and workers < 1) or threads < 1:
            raise ConfigError(f"workers={workers} and threads={threads} must be at least 1.")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        with needs("ray", "scale"):
            import ray.data
        self._ray = ray
        self._workers, self._threads, self._address, self._stalled = workers, threads, address, stalled
        self._ours = False

    def __enter__(self) -> Self:
        """Connect, or start workers on this machine; a connection that the program has already is used and stays."""
        if self._ray.is_initialized():
            return self
        settings: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        address = self._address or os.environ.get("RAY_ADDRESS")
        if address is None:
            address = "local"  # None would join any cluster that happens to run on this machine
            wanted = (self._workers or os.cpu_count() or 1) * self._threads + SPARE_CPUS
            settings |= {"num_cpus": wanted, "include_dashboard": False, "object_store_memory": OBJECT_STORE}
        try:
            _reach(address)
            self._ray.init(address=address, **settings)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise ClusterError(
                f"Ray on {address} cannot be reached or started ({error}). Is the address right?"
            ) from error
        self._ours = True
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        return self

    def __exit__(self, *_: object) -> None:
        if self._ours:
            self._ray.shutdown()
            self._ours = False

    def run(
        self, job: Job, arguments: Mapping[str, Any], numbers: Sequence[int], *, on_gpu: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Do a job on the workers; results come in the order of `numbers`."""
        if not numbers:
            return
        ray = self._ray
        workers, gpus = self._room(len(numbers), on_gpu)
        logger.info("%d blocks on %d workers of %d CPUs%s.", len(numbers), workers, self._threads, " and a GPU" * gpus)
        dataset = ray.data.from_items([{"block": number} for number in numbers], override_num_blocks=len(numbers))
        dataset.context.execution_options.preserve_order = True  # noqa: V101
        dataset.context.execution_no_progress_timeout_s = self._stalled  # noqa: V101
        dataset.context.enable_progress_bars = False  # noqa: V101
        dataset.context.print_on_execution_start = False  # noqa: V101
        results = dataset.map(
            Worker,
            fn_constructor_args=(job, ray.put(dict(arguments))),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers),
            num_cpus=self._threads,
            num_gpus=gpus or None,
        )
        with _translated():
            # Not iter_rows: its thread may still read when Ray is shut down after an error, which ends the process.
            for bundle in results.iter_internal_ref_bundles():
                yield from itertools.chain.from_iterable(map(_results, ray.get(bundle.block_refs)))

    def _room(self, blocks: int, on_gpu: bool) -> tuple[int, int]:
        """Number of workers, and GPUs of each."""
        resources = self._ray.cluster_resources()
        cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0)) * on_gpu
        room = max(0, cpus - SPARE_CPUS) // self._threads
        if not room or (self._workers or 0) > room:
            raise ClusterError(
                f"{self._workers or 1} workers of {self._threads} CPUs do not fit: the cluster has {cpus} CPUs, and "
                f"Ray Data needs {SPARE_CPUS} of them itself. Take {room} workers at most, or give it more CPUs."
            )
        wanted = self._workers or (min(gpus, room) if gpus else room)
        return min(wanted, blocks), int(gpus >= wanted > 0)


class Worker:
    """A worker's job, whose errors for the user travel as values: Ray would wrap them, and restart a failed worker."""

    def __init__(self, job: Job, arguments: Any) -> None:
        import ray

        # What a scan has warned of is not said again for each block.
        logging.getLogger("cderetrieval").setLevel(logging.ERROR)
        self._failure: CDEError | None = None
        try:
            self._work = job(**ray.get(arguments))
        except CDEError as error:
            self._failure = error

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """Do one block."""
        try:
            if self._failure is not None:
                raise self._failure
            return {"result": json.dumps(self._work(int(row["block"]))), "error": ""}
        except CDEError as error:
            return {"result": str(error), "error": type(error).__name__}


def _results(block: Any) -> Iterator[dict[str, Any]]:
    """Results of a block of rows; one that is an error is raised."""
    for row in block.to_pylist():
        if row["error"]:
            raise getattr(errors, row["error"], CDEError)(row["result"])
        yield json.loads(row["result"])


def _reach(address: str) -> None:
    """Fail at once where nothing listens: Ray itself tries for minutes."""
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("HOST:PORT is expected, or auto")
    socket.create_connection((host.strip("[]"), int(port)), timeout=REACH).close()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Raise what Ray says of dead or stalled workers as :class:`ClusterError`."""
    from ray.data.exceptions import ExecutionTimeoutError
    from ray.exceptions import RayError

    try:
        yield
    except ExecutionTimeoutError as error:
        raise ClusterError(
            f"nothing has moved on the cluster for too long; run the same again to go on. {error}"
        ) from error
    except RayError as error:
        reason = str(error).strip().splitlines()
        raise ClusterError(
            f"the job ended on the cluster ({type(error).__name__}: {reason[-1] if reason else 'no reason given'}). "
            "What is done stays: run the same again. Where a worker died of memory, take fewer workers on a machine."
        ) from error
