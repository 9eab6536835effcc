"""Blocks on Ray Data: actors that hold a job each, and a stream of block numbers.

Ray Data schedules, restarts actors that died, and repeats their blocks. What is set here, and why:

- Logical CPUs are left over. An actor pool that takes all of them makes Ray Data wait for ever, without an error.
- Ray Data repeats the block of a dead worker for ever; a job counts that itself (:mod:`.embedder`), since a block that
  runs out of memory each time must end it.
- A job in which nothing moves for two hours is given up (Ray Data's own guard, whose default of half an hour a large
  block on a slow processor can need).
- Usage statistics are off: nothing here reaches a network that was not named.

Arguments travel to the workers by Ray's own serialisation, between processes of one user; nothing is read from a file.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any, Self

from .. import errors
from ..errors import CDEError, ClusterError, ConfigError, missing_dependency
from .work import Job, Result

logger = logging.getLogger(__name__)

SPARE_CPUS = 2
STALLED = 7_200.0
# Seconds for a machine to answer.
REACH = 10.0
# What travels is small: a context of 512 documents is 0.8 MB.
OBJECT_STORE = 256 * 2**20


class OnRay:
    """Does the work of blocks on a Ray cluster, or on workers of this machine."""

    def __init__(
        self,
        workers: int | None = None,
        *,
        threads: int = 1,
        address: str | None = None,
        stalled: float = STALLED,
    ) -> None:
        if (workers is not None and workers < 1) or threads < 1:
            raise ConfigError(f"workers={workers} and threads={threads} must be at least 1.")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray.data
        except ImportError as error:
            raise missing_dependency("ray", "scale") from error
        self._ray = ray
        self._workers, self._threads = workers, threads
        self._address, self._stalled = address, stalled
        self._ours = False

    def __enter__(self) -> Self:
        """Connect, or start workers on this machine; a connection that the program has already is used and stays."""
        ray = self._ray
        if ray.is_initialized():
            return self
        settings: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        address = self._address or os.environ.get("RAY_ADDRESS")
        if address is None:
            address = "local"  # None would join any cluster that happens to run on this machine
            wanted = (self._workers or os.cpu_count() or 1) * self._threads + SPARE_CPUS
            settings |= {"num_cpus": wanted, "include_dashboard": False, "object_store_memory": OBJECT_STORE}
        try:
            _reach(address)
            ray.init(address=address, **settings)
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

    def run(self, job: type[Job], arguments: Mapping[str, Any], numbers: Sequence[int]) -> Iterator[Result]:
        """See :class:`~cderetrieval.distributed.work.Engine`; results come in the order in which they are done."""
        if not numbers:
            return
        ray = self._ray
        workers, gpus = self._room(len(numbers), job.computes)
        logger.info("%d blocks on %d workers of %d CPUs%s.", len(numbers), workers, self._threads, " and a GPU" * gpus)
        dataset = ray.data.from_items([{"block": number} for number in numbers], override_num_blocks=len(numbers))
        dataset.context.execution_no_progress_timeout_s = self._stalled  # noqa: V101
        dataset.context.enable_progress_bars = False  # noqa: V101
        dataset.context.print_on_execution_start = False  # noqa: V101
        results = dataset.map(
            _Actor,
            fn_constructor_args=(job, ray.put(dict(arguments))),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers),
            num_cpus=self._threads,
            num_gpus=gpus or None,
        )
        with _translated():
            for row in results.iter_rows():
                yield _result(row)

    def _room(self, blocks: int, computes: bool) -> tuple[int, int]:
        """Number of workers, and GPUs of each."""
        resources = self._ray.cluster_resources()
        cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0)) * computes
        room = max(0, cpus - SPARE_CPUS) // self._threads
        if not room or (self._workers or 0) > room:
            raise ClusterError(
                f"{self._workers or 1} workers of {self._threads} CPUs do not fit: the cluster has {cpus} CPUs, and "
                f"Ray Data needs {SPARE_CPUS} of them itself. Take {room} workers at most, or give it more CPUs."
            )
        wanted = self._workers or (min(gpus, room) if gpus else room)
        return min(wanted, blocks), int(gpus >= wanted > 0)


class _Actor:
    """One worker: makes the job, and gives errors that are meant for the user as values."""

    def __init__(self, job: type[Job], arguments: Any) -> None:
        import ray

        # What a scan has warned of is not said again for each block.
        logging.getLogger("cderetrieval").setLevel(logging.ERROR)
        self._failure: CDEError | None = None
        try:
            self._job = job(**ray.get(arguments))
        except CDEError as error:
            self._failure = error

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            if self._failure is not None:
                raise self._failure
            result = self._job(int(row["block"]))
        except CDEError as error:
            return {"value": json.dumps([type(error).__name__, str(error)]), "bytes": b"", "failed": True}
        data = {name: value for name, value in result.items() if isinstance(value, bytes)}
        plain = {name: value for name, value in result.items() if name not in data}
        sizes = {name: len(value) for name, value in data.items()}
        return {"value": json.dumps([plain, sizes]), "bytes": b"".join(data.values()), "failed": False}


def _result(row: Mapping[str, Any]) -> Result:
    first, second = json.loads(row["value"])
    if row["failed"]:
        raise getattr(errors, first, CDEError)(second)
    data = BytesIO(row["bytes"])
    return {**first, **{name: data.read(size) for name, size in second.items()}}


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
