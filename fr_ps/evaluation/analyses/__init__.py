"""Whom, what and how well: each file one analysis of a model's answers."""
