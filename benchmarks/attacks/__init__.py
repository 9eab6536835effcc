"""Attacks on the package, each a module with one `run`: what the campaign is made of."""
