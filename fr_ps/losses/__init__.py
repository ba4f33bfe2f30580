"""Losses of identity and attributes, and multi-task weighting."""

from fr_ps.losses.build import ATTRIBUTE_LOSSES, IDENTITY_LOSSES, PERSON_WEIGHTS, WEIGHTINGS, build_identity_loss, build_losses
from fr_ps.losses.multitask import MultiTaskLoss

__all__ = [
    "ATTRIBUTE_LOSSES",
    "IDENTITY_LOSSES",
    "PERSON_WEIGHTS",
    "WEIGHTINGS",
    "MultiTaskLoss",
    "build_identity_loss",
    "build_losses",
]
