"""Corpora: BEIR folders, document files, and retrieval tasks made from what every machine already has."""
