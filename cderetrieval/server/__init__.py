"""A collection on a Milvus server in the place of the local store and index.

A corpus that outgrows one machine cannot have its one source of truth in a file of that machine, so here the server
holds everything: documents, vectors, contexts, settings. :class:`~.store.ServerStore` and :class:`~.view.ServerView`
offer a retriever what :class:`~cderetrieval.store.Store` and :class:`~cderetrieval.view.IndexView` offer it
(:mod:`cderetrieval.backend` says what that is); :mod:`.change` is one transaction, :mod:`.guard` keeps two processes
from building one collection.
"""

from .store import ServerStore
from .view import ServerView

__all__ = ["ServerStore", "ServerView"]
