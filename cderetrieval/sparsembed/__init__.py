"""The modules of the sparsembed package: ``model``, ``retrieve``, ``train``, ``losses``, ``utils``.

A program that was written for sparsembed runs after changing its import:

    from cderetrieval.sparsembed import model, retrieve, train, losses, utils

Names and arguments are those of sparsembed 0.1; models, index, losses and metrics are this package's own, without the
defects of that one: padding never votes, embeddings come from the final states, every loss has a gradient, and
documents are indexed in linear time. New programs do better with :class:`~cderetrieval.Retriever`.
"""
