"""Training: pairs, clusters, batches, false negatives, the loss with its gradient cache, recipes, the trainer."""
