"""Models: text to vectors. They receive tensors and know nothing of corpora, stores or indexes."""
