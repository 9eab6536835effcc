"""Evaluation: metrics, significance, tables, and the harnesses of BEIR and MTEB."""
