"""Milvus, for what outgrows one machine, through pymilvus's `MilvusClient` alone.

:mod:`.location` reads addresses, :mod:`.connection` bounds calls and translates errors, :mod:`.expressions` says which
rows are meant, :mod:`.rows` writes documents, :mod:`.schema` says what a collection and its index are,
:mod:`.collection` fills and searches one, :mod:`.notes` keeps settings and contexts beside it, :mod:`.breadth` measures
how widely its index has to look.
"""
