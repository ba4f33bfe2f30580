"""Analyses of a model's predictions, one per module."""
