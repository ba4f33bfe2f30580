"""Weights of classes and of people, and the focus on rare ones, from how many samples each has."""

import torch
from torch import Tensor


def balanced_alpha(counts: Tensor) -> Tensor:
    """Class weights in inverse proportion to the (classes,) counts, summing to 1; 0 for a class without samples.

    Of two classes, each gets the frequency of the other one.
    """
    inverse = torch.where(counts > 0, 1 / counts.clamp_min(1).float(), torch.zeros(()))
    return inverse / inverse.sum()


def balanced_weights(counts: Tensor) -> Tensor:
    """Class weights in inverse proportion to the (classes,) counts, whose mean over the samples is 1."""
    alpha = balanced_alpha(counts)
    return alpha * counts.sum() / (alpha * counts).sum()


def gamma_from_counts(counts: Tensor) -> Tensor:
    """Focusing exponents of (classes,) counts: 0 for the most frequent, for others the root of log2(most / count).

    The exponents that the original project set by hand for its two-class tasks are within 0.35 of it. A class without
    samples gets 0.
    """
    return torch.where(counts > 0, counts.max() / counts.clamp_min(1), torch.ones(())).log2().sqrt()


def soft_person_weights(sessions: Tensor) -> Tensor:
    """The root of least / count of (people,) numbers of sessions, each 1 or more: from 1 for the rarest down."""
    return (sessions.min() / sessions).sqrt()


def original_person_weights(sessions: Tensor) -> Tensor:
    """1 - frequency of (people,) numbers of sessions, scaled to run from 0.3 to 1; all 1 for equal numbers."""
    rarity = (sessions.max() - sessions).float()
    return 0.3 + 0.7 * rarity / rarity.max() if rarity.any() else torch.ones_like(rarity)
