"""Pairs of sessions: similarity, error rates and verification metrics."""
