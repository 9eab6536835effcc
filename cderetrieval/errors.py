"""The errors that users meet: each derives from :class:`CDEError` and from the builtin that Python users expect.

The message says which value was wrong, where it was, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class CDEError(Exception):
    """Base of all errors raised on purpose by cderetrieval."""


class ConfigError(CDEError, ValueError):
    """A setting is unknown, out of range, or contradicts another one."""


class InputError(CDEError, ValueError):
    """A document, query or argument cannot be used; the message names the row and the field."""


class ModelError(CDEError, ValueError):
    """A model cannot be found or loaded."""


class WeightsError(ModelError):
    """Tensors of a checkpoint do not fit the model; the message lists every one of them."""


class ContextError(CDEError, ValueError):
    """A context cannot be made, or was made by another model."""


class MismatchError(CDEError, ValueError):
    """An index is opened with another model, prompt or context than the one that built it."""


class StoreError(CDEError, RuntimeError):
    """A stored file is missing, damaged, or written by a newer version."""


class LockedError(StoreError):
    """Another process is writing to the same index."""


class ServerError(StoreError):
    """A search server cannot be reached, did not answer in time, or refused a request; the message says which."""


class CopyError(CDEError, TypeError):
    """An object that holds open files cannot be pickled or copied."""


class TrainingError(CDEError, RuntimeError):
    """Training cannot go on, because the loss is not finite for example; the last checkpoint stays as it is."""


class ClusterError(CDEError, RuntimeError):
    """The machines of a distributed job cannot be reached, are full, keep dying, or make no progress."""


class MissingDependencyError(CDEError, ImportError):
    """An optional package is needed for this call; the message holds the install command."""


def missing_dependency(package: str, extra: str) -> MissingDependencyError:
    """Build the error for an optional package that is not installed.

    >>> str(missing_dependency("mteb", "eval"))
    'mteb is not installed. Install it with: pip install "cderetrieval[eval]"'
    """
    return MissingDependencyError(f'{package} is not installed. Install it with: pip install "cderetrieval[{extra}]"')


@contextmanager
def needs(package: str, extra: str) -> Iterator[None]:
    """Import an optional package in this block; where it is missing, the error says how to install it."""
    try:
        yield
    except ImportError as error:
        raise missing_dependency(package, extra) from error
