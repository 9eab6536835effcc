"""The documented name ``cderetrieval.models.hub.load``; the code is in :mod:`.load` and :mod:`.locate`."""

from .load import load
from .locate import find

__all__ = ["find", "load"]
