"""Where a Milvus collection is: ``milvus://HOST:PORT/collection``, or the path of a Milvus Lite file.

    milvus://localhost:19530/articles                      a server or a cluster
    milvus://user:password@host:19530/database/articles    with a login and a database
    articles.db, data/articles.db/english                  Milvus Lite in this process; collection: "documents"
    milvus://localhost/articles?index=FLAT&timeout=60      with options

Options: ``index`` (see :mod:`.fields`), ``tls=true``, ``timeout`` in seconds for one request, its retries included.
A login can also stand in the environment variable ``MILVUS_TOKEN``. It is never stored or shown.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from ..errors import ConfigError
from ..files import as_path

SCHEME = "milvus://"
DEFAULT_PORT = 19530
DEFAULT_COLLECTION = "documents"
DEFAULT_TIMEOUT = 30.0
TOKEN_VARIABLE = "MILVUS_TOKEN"
OPTIONS = ("index", "tls", "timeout")
# Names of the collections behind one are longer by up to 20 characters, and Milvus allows 255.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_LITE = re.compile(r"(?P<path>[^?]*\.db)(?:/(?P<collection>[^/?]+))?(?:\?(?P<options>.*))?", re.DOTALL)
_SERVER = re.compile(r"[^/]*(:\d+(/|\?|$)|@)")
_HOST = re.compile(r"[\w.-]+|[0-9A-Fa-f:.]+")


@dataclass(frozen=True)
class Location:
    """A collection on a server, or in a file."""

    # ``http://host:port``, or the path of a file.
    address: str
    # Its name.
    collection: str
    # Database on a server; empty for the default one.
    database: str = ""
    # ``user:password`` or an API key.
    token: str = field(default="", repr=False)
    # Type of index, ``"auto"`` by default.
    index: str = "auto"
    # Most seconds for one request.
    timeout: float = DEFAULT_TIMEOUT

    def __post_init__(self) -> None:
        if "\0" in self.address:
            raise ConfigError(f"the Milvus address {self.address!r} holds a null character.")
        for what, name in (("collection", self.collection), ("database", self.database or "_")):
            if not _NAME.fullmatch(name):
                raise ConfigError(f"{what} {name!r}: use letters, digits and underscores, at most 200, no digit first.")
        if not 0 < self.timeout <= 86_400:
            raise ConfigError(f"timeout={self.timeout!r} must be above 0 seconds and at most a day.")

    @property
    def lite(self) -> bool:
        """Whether it is a Milvus Lite file."""
        return "://" not in self.address

    def __str__(self) -> str:
        """As a user writes it, without a login."""
        parts = [self.address.split("://", 1)[-1], *([self.database] if self.database else []), self.collection]
        options = {
            "index": self.index if self.index != "auto" else "",
            "tls": "true" if self.address.startswith("https") else "",
            "timeout": f"{self.timeout:g}" if self.timeout != DEFAULT_TIMEOUT else "",
        }
        query = "&".join(f"{name}={value}" for name, value in options.items() if value)
        return ("" if self.lite else SCHEME) + "/".join(parts) + (f"?{query}" if query else "")


def is_location(text: str | os.PathLike[str]) -> bool:
    """Whether an ``index=`` or a path means a Milvus collection.

    >>> [is_location(text) for text in ("milvus://localhost/articles", "a.db/articles", "HNSW32", "index/")]
    [True, True, False, False]
    """
    name = os.fspath(text)
    return name.startswith(SCHEME) or _LITE.fullmatch(name) is not None


def parse_location(text: str | os.PathLike[str]) -> Location:
    """Read a location.

    >>> str(parse_location("milvus://root:secret@localhost:19530/articles"))
    'milvus://localhost:19530/articles'
    >>> parse_location("data/articles.db").collection
    'documents'
    """
    name = os.fspath(text)
    rest = name.removeprefix(SCHEME)
    found = _LITE.fullmatch(rest)
    if found and not (name.startswith(SCHEME) and _SERVER.match(rest)):
        options = _options(found["options"] or "", name)
        if options.pop("tls", False):
            raise ConfigError(f"{name!r}: a file has no TLS.")
        return Location(str(as_path(found["path"])), found["collection"] or DEFAULT_COLLECTION, **options)
    return _server(name)


def _server(name: str) -> Location:
    shown = _hidden(name)
    try:
        parts = urlsplit(name)
        port = parts.port or DEFAULT_PORT
    except ValueError:  # its words may hold a piece of a password
        raise ConfigError(f"the Milvus address {shown!r} cannot be read: is its port a number? {_usage()}") from None
    names = [unquote(part) for part in parts.path.split("/") if part]
    host = parts.hostname
    if not host or not _HOST.fullmatch(host) or not 1 <= len(names) <= 2 or parts.fragment or "@" in parts.path:
        raise ConfigError(f"{shown!r} names no host and collection. {_usage()}")
    options = _options(parts.query, shown)
    scheme = "https" if options.pop("tls", False) else "http"
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    token = login or os.environ.get(TOKEN_VARIABLE, "")
    return Location(address, names[-1], names[0] if len(names) == 2 else "", token, **options)


def _options(query: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(found) - set(OPTIONS))
    if unknown:
        raise ConfigError(f"{name!r}: option {unknown[0]!r} is unknown; there are: {', '.join(OPTIONS)}.")
    if "timeout" in found:
        try:
            found["timeout"] = float(found["timeout"])
        except ValueError as error:
            raise ConfigError(f"{name!r}: timeout={found['timeout']!r} is no number of seconds.") from error
    if "tls" in found:
        if found["tls"] not in ("true", "false"):
            raise ConfigError(f"{name!r}: tls={found['tls']!r} must be true or false.")
        found["tls"] = found["tls"] == "true"
    return found


def _hidden(name: str) -> str:
    """The address without what stands before the last @, which may be a password, and without options."""
    return SCHEME + name.removeprefix(SCHEME).rpartition("@")[2].partition("?")[0]


def _usage() -> str:
    return (
        "Write milvus://HOST:PORT/collection, or the path of a Milvus Lite file, name.db/collection. In a login, write "
        "@ : / ? and # as %40 %3A %2F %3F and %23."
    )
