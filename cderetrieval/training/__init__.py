"""Training: pairs, clusters, batches, false negatives, losses, gradient caching, families of models, recipes."""
