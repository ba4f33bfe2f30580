"""Doing trials: one trial, the process that does them, the crew of these."""
