"""All that a retriever does to its collection: add, sync, remove, refresh; each is one transaction."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, Self, Unpack

from ..context.spec import OWN, ContextLike, ContextSpec
from ..corpora.files import FileOptions, Paths, read_files
from ..documents import Row, document_rows
from ..errors import ContextError, InputError
from ..filters import parse_filter
from ..store.codec import encode_id
from ..vectors import Vectors
from .changes import Changes, Tally, unless_skipped
from .cut import splitter_for
from .local import INCOMPLETE
from .names import check_names
from .searcher import Searcher

logger = logging.getLogger(__name__)


class Updater(Searcher):
    """A searcher that also changes its collection; the base of :class:`~.retriever.Retriever`."""

    # How many documents the last `add`, `sync` or `remove` of this object touched.
    last_change: Changes | None = None

    def add(
        self,
        documents: Any,
        *,
        vectors: Vectors | Mapping[str, Vectors] | None = None,
        skip_empty: bool = False,
        show_progress: bool = True,
    ) -> Self:
        """Add documents; one whose id is there already replaces it. All of them or, after an error, none.

        Parameters
        ----------
        documents
            Dictionaries with the key and text fields, strings (which get the numbers 0, 1, ... as ids), a pandas frame,
            BEIR rows, a dictionary of id to document, or any iterable of these; it is read once and not held.
        vectors
            Ready vectors of the documents, in order, shape (n, dimension), made by this retriever's encoder: an array,
            a scipy csr_array, or term embeddings. For several models a dictionary of names to these; the other
            models embed.
        skip_empty
            Leave out documents with an empty text, and log how many, in place of an error.
        show_progress
            Show progress bars on a terminal.

        Raises
        ------
        InputError
            If a document lacks a field, has an empty text, or shares its id with another of this call.
        """
        self._put(documents, vectors, skip_empty, show_progress, Tally())
        return self

    def add_files(self, paths: Paths, *, show_progress: bool = True, **how: Unpack[FileOptions]) -> Self:
        r"""Add documents from files, folders, globs and standard input; what becomes one, `read_files` says.

        Parameters
        ----------
        paths
            One or several files, folders or globs; ``"-"`` is standard input. A file that cannot be read is named in a
            warning and skipped.
        show_progress
            Show progress bars on a terminal.
        **how
            ``lines``, ``stdin_as``, ``skip_empty``, ``strict``, ``max_bytes``, as for
            :func:`~cderetrieval.corpora.files.read_files`.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> from cderetrieval import Retriever
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "owls.md").write_text("# Owls\n\nThey hunt at night.\n")
        >>> Retriever("bm25").add_files(folder)("night")[0][0]["id"]
        'owls.md'
        """
        settings, passages = self._collection.settings, self._collection.passages
        files = read_files(paths, key=settings.key, on=settings.on, passages=passages, **how)
        return self.add(files, show_progress=show_progress)

    def sync(self, documents: Any, *, skip_empty: bool = False, show_progress: bool = True) -> Changes:
        """Make the index hold these documents and no others, in one transaction.

        New and changed ones are embedded, those that are there unchanged are left alone, and those that are not among
        them are removed. They are read once; only their ids are held. Of files that could not be read, as `read_files`
        found them, the documents stay; of a table, whose rows may have any id, all that are not known to be of another
        file.

        Parameters
        ----------
        documents, skip_empty, show_progress
            As in `add`.

        Returns
        -------
        Changes
            How many documents were added, replaced, left as they are, and removed.

        Raises
        ------
        InputError
            If there are no documents at all, or as in `add`; the index then stays as it was.

        Examples
        --------
        >>> from cderetrieval import Retriever
        >>> from cderetrieval.testing import HashEncoder
        >>> retriever = Retriever(HashEncoder()).add([{"id": 1, "text": "owls"}, {"id": 2, "text": "bees"}])
        >>> retriever.sync([{"id": 2, "text": "bees"}, {"id": 3, "text": "ants"}])
        Changes(added=1, replaced=0, unchanged=1, removed=1)
        """
        seen: set[str] = set()
        return self._put(documents, None, skip_empty, show_progress, Tally(seen))

    def remove(self, ids: Any = None, *, filter: Mapping[str, Any] | None = None) -> Self:
        """Remove documents by id, or those that a filter lets pass. All of them or, after an error, none.

        Parameters
        ----------
        ids
            One id, or several.
        filter
            In place of ids: as in a search, see :func:`~cderetrieval.filters.parse_filter`.

        Raises
        ------
        InputError
            If an id is not there, or the filter is empty, which would remove everything.
        """
        if (ids is None) == (filter is None):
            raise InputError("remove takes ids or filter=, one of the two.")
        wanted = None if filter is None else parse_filter(filter)
        if wanted is not None and not any(wanted.conditions()):
            raise InputError("filter= is empty, and would remove everything; remove(retriever.ids()) does.")
        with self._collection.transaction():
            if wanted is None:
                found = list(ids) if isinstance(ids, Iterable) and not isinstance(ids, str | bytes) else [ids]
                if missing := self._collection.missing(found):
                    raise InputError(
                        f"{len(missing)} of {len(found)} ids are not in this index, the first is {missing[0]!r}. "
                        "Nothing was removed."
                    )
            else:
                found = list(wanted.passing(lambda: ((row[0], row[2]) for row in self._collection.rows())))
            self._collection.remove(found)
            tally = Tally()
            tally.removed = len(set(map(encode_id, found)))  # one may be named twice
        self._report(tally)
        return self

    def refresh(self, context: ContextLike | ContextSpec = OWN, *, show_progress: bool = True) -> Self:
        """Make a new context and embed every document in it. Until all is done, searches see the index as it was.

        Parameters
        ----------
        context
            As in a new retriever; ``"own"`` samples today's corpus.
        show_progress
            Show progress bars on a terminal.
        """
        if not any(part.embedder.takes_context for part in self._parts.values()):
            raise ContextError("this retriever's model takes no context; there is none to refresh.")
        if len(self) == 0:
            raise InputError("the index is empty: add documents first.")
        with self._changing():
            refreshed = {
                name: part.refresh(part.embedder.told(context), show_progress) if part.embedder.takes_context else part
                for name, part in self._parts.items()
            }
        self._parts = refreshed
        return self

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep other processes from writing until the ``with`` block ends, so that several changes follow each other.

        Without it each change has the lock for itself alone, and gives it up when it is done. Others read meanwhile.

        Raises
        ------
        LockedError
            If another process is writing.

        Examples
        --------
        >>> from cderetrieval import Retriever
        >>> from cderetrieval.testing import HashEncoder
        >>> retriever = Retriever(HashEncoder())
        >>> with retriever.exclusive():
        ...     _ = retriever.add([{"id": 1, "text": "owls"}]).remove(1)
        """
        return self._collection.exclusive()

    def _put(self, documents: Any, vectors: Any, skip_empty: bool, show_progress: bool, tally: Tally) -> Changes:
        ready, collection = self._ready(vectors), self._collection
        with self._changing():
            collection.check_settings()
            settings, next_id = collection.settings, collection.get_setting("next_id", 0)
            checked = partial(document_rows, skip_empty=skip_empty, passages=collection.passages)
            rows = checked(documents, settings.key, settings.on, next_id)
            changed = tally.changed(collection.taken(rows), collection, all_of_them=bool(ready))
            for first in changed:  # none: no model is loaded
                self._store(chain([first], changed), next_id, ready, show_progress)
            for part in () if tally.added or tally.replaced > tally.kept else self._parts.values():
                part.check()
            if tally.seen is not None:
                gone = [document_id for document_id in collection.ids() if repr(document_id) not in tally.seen]
                gone = unless_skipped(gone, getattr(documents, "skipped", ()), collection)
                collection.remove(gone)
                tally.removed = len(gone)
        tally.settle(collection)
        return self._report(tally)

    def _ready(self, vectors: Any) -> dict[str, Any]:
        """Ready vectors by the names of their models."""
        if vectors is None:
            return {}
        if list(self._parts) == [""]:
            return {"": vectors}
        if not isinstance(vectors, Mapping):
            raise InputError("there are several models: pass vectors= as a dictionary of their names to vectors.")
        check_names(vectors, self._parts, "vectors=")
        return dict(vectors)

    def _store(self, rows: Iterable[Row], next_id: int, ready: Mapping[str, Any], show_progress: bool) -> None:
        """Store documents, decide contexts, and embed, inside a transaction; `ready` vectors are not made."""
        samplers = {name: part.sampler() for name, part in self._parts.items()}
        if any(samplers[name] is not None for name in ready):
            raise ContextError(
                "ready vectors were made in some context, and this retriever has none yet: pass it to "
                "Retriever(context=...)."
            )
        splitter = splitter_for(self._collection, self._parts.values(), ready=bool(ready))
        numbers = [next_id]
        rows = _numbered(rows, numbers)
        for sampler in samplers.values():
            rows = rows if sampler is None else sampler.watch(rows)
        first, count = self._collection.put_documents(rows, splitter)
        self._collection.set_setting("next_id", numbers[-1])
        if self._collection.passages.how is not None:
            self._collection.set_setting("passages", self._collection.passages.how)
        passages = count
        if splitter is not None and splitter.documents:
            passages += splitter.spans - splitter.documents
            found = splitter.spans - splitter.heads
            logger.info("%d of %d documents were split into %d passages.", splitter.documents, count, found)
        for name, part in self._parts.items():
            part.decide(samplers[name], show_progress)
            if name in ready:
                part.put(ready[name], first, passages)
            else:
                part.embed(count, show_progress, after_seq=first - 1)

    def _report(self, tally: Tally) -> Changes:
        self.last_change = tally.changes
        logger.info("%s", self.last_change)
        return self.last_change

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One transaction that ends with the settings."""
        with self._collection.transaction():
            yield
            settings = replace(self._collection.settings, fusion=self._collection.fusion)
            self._collection.set_setting("retriever", settings.to_dict())

    def _complete(self) -> None:
        """Embed what a model has no vectors of."""
        with self._changing():
            for part in self._parts.values():
                if not part.is_complete:
                    part.decide(part.sampled(), show_progress=False)
                    part.embed(self._collection.count(), show_progress=False)
            self._collection.set_setting(INCOMPLETE, None)


def _numbered(rows: Iterable[Row], numbers: list[int]) -> Iterator[Row]:
    """Pass rows through; the next string gets a number above all whole-number ids, or it would replace one."""
    for row in rows:
        if isinstance(row[0], int) and row[0] >= numbers[-1]:
            numbers[-1] = row[0] + 1
        yield row
