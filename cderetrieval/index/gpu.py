"""Search on a GPU where FAISS was built for one: a copy there, the index itself stays in memory.

The copy is dropped when the index changes and made again by the next search, so adding, removing, saving and exact
ordering are the same code with and without a GPU, and what is written to disk is always a CPU index.
"""

from __future__ import annotations

import logging
from typing import Any

import faiss

from ..errors import ConfigError

logger = logging.getLogger(__name__)

# More answers for each query than a GPU index can give are found by the CPU.
LARGEST_K = 1_024


def use_gpu(device: str) -> bool:
    """Whether to search on a GPU: ``"auto"`` where FAISS sees one, ``"gpu"`` always, ``"cpu"`` never."""
    if device not in ("auto", "cpu", "gpu"):
        raise ConfigError(f"device={device!r} is unknown; use 'auto', 'cpu' or 'gpu'.")
    available = getattr(faiss, "get_num_gpus", lambda: 0)() > 0
    if device == "gpu" and not available:
        raise ConfigError("device='gpu' needs a GPU and a GPU build of FAISS (pip install faiss-gpu); use 'auto'.")
    return available and device != "cpu"


def to_gpu(index: Any) -> Any:
    """A copy on the first GPU, or `None` where this kind of index does not run there."""
    try:
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    except RuntimeError as error:
        logger.warning("This index stays on the CPU: %s", error)
        return None
