"""Evaluation of a model: scores, metrics, report."""
