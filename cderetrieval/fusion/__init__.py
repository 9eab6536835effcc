"""Hybrid search: several retrievers over the same documents, their rankings fused into one."""

from .hybrid import Hybrid
from .scores import Fusion

__all__ = ["Fusion", "Hybrid"]
