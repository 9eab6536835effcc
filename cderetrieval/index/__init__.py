"""Indexes: vectors to nearest numbers. Caches, each of which can be rebuilt from the store."""
