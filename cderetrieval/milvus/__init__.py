"""Milvus, for what outgrows one machine, through pymilvus's `MilvusClient` alone.

:mod:`.collection` is the collection that a retriever speaks to, and :mod:`.change` one transaction of it;
:mod:`.rebuild` makes a collection for a new context while :mod:`.leases` keeps other processes from doing the same.
Below, :mod:`.location` reads addresses, :mod:`.connection` bounds calls and translates errors, :mod:`.expressions` says
which rows are meant, :mod:`.rows` writes documents, :mod:`.fields` says what a collection and its index are,
:mod:`.remote` fills and searches one, :mod:`.records` keeps settings and contexts beside it, :mod:`.breadth` measures
how widely its index has to look.
"""
