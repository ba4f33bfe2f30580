"""Losses: identity, attributes, and how they are weighed against each other."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from fr_ps.config import LossConfig
from fr_ps.errors import InputError
from fr_ps.losses.adaface import AdaFace
from fr_ps.losses.arcface import ArcFace
from fr_ps.losses.class_weights import (
    balanced_alpha,
    balanced_weights,
    focus_on_rare,
    original_person_weights,
    soft_person_weights,
)
from fr_ps.losses.cosface import CosFace
from fr_ps.losses.cross_entropy import CrossEntropy
from fr_ps.losses.focal import FocalLoss
from fr_ps.losses.magface import MagFace
from fr_ps.losses.margin import MarginLoss
from fr_ps.losses.multitask import MultiTaskLoss
from fr_ps.losses.weighting import DynamicWeightAverage, FixedWeighting, UncertaintyWeighting, Weighting
from fr_ps.models.network import ADVERSARIAL


def _magface(config: LossConfig, channels: int, people: int, person_weights: Tensor | None) -> MarginLoss:
    return MagFace(
        channels,
        people,
        scale=config.scale,
        lower_norm=config.lower_norm,
        upper_norm=config.upper_norm,
        lower_margin=config.lower_margin,
        upper_margin=config.upper_margin,
        lambda_g=config.lambda_g,
        person_weights=person_weights,
    )


def _arcface(config: LossConfig, channels: int, people: int, person_weights: Tensor | None) -> MarginLoss:
    return ArcFace(channels, people, scale=config.scale, margin=config.arcface_margin, person_weights=person_weights)


def _cosface(config: LossConfig, channels: int, people: int, person_weights: Tensor | None) -> MarginLoss:
    return CosFace(channels, people, scale=config.scale, margin=config.cosface_margin, person_weights=person_weights)


def _adaface(config: LossConfig, channels: int, people: int, person_weights: Tensor | None) -> MarginLoss:
    return AdaFace(
        channels,
        people,
        scale=config.scale,
        margin=config.adaface_margin,
        h=config.adaface_h,
        t_alpha=config.adaface_t_alpha,
        person_weights=person_weights,
    )


IDENTITY_LOSSES: dict[str, Callable[[LossConfig, int, int, Tensor | None], MarginLoss]] = {
    "magface": _magface,
    "arcface": _arcface,
    "cosface": _cosface,
    "adaface": _adaface,
}

PERSON_WEIGHTS: dict[str, Callable[[Tensor], Tensor | None]] = {
    "none": lambda sessions: None,
    "soft": soft_person_weights,
    "original": original_person_weights,
}


def _focal(config: LossConfig, task: str, counts: Tensor) -> nn.Module:
    alpha, gamma = _per_class(config, "class_weights", task, counts), _per_class(config, "focal_gammas", task, counts)
    rule = focus_on_rare(counts) if config.focal_gamma == "counts" else config.focal_gamma
    return FocalLoss(balanced_alpha(counts) if alpha is None else alpha, rule if gamma is None else gamma)


def _cross_entropy(config: LossConfig, task: str, counts: Tensor) -> nn.Module:
    weights = _per_class(config, "class_weights", task, counts)
    return CrossEntropy(balanced_weights(counts) if weights is None else weights, config.label_smoothing)


ATTRIBUTE_LOSSES: dict[str, Callable[[LossConfig, str, Tensor], nn.Module]] = {
    "focal": _focal,
    "cross_entropy": _cross_entropy,
}

WEIGHTINGS: dict[str, Callable[[LossConfig, Mapping[str, float]], Weighting]] = {
    "fixed": lambda config, weights: FixedWeighting(weights),
    "uncertainty": lambda config, weights: UncertaintyWeighting(list(weights)),
    "dwa": lambda config, weights: DynamicWeightAverage(
        [task for task in weights if not task.startswith(ADVERSARIAL)],
        {task: weight for task, weight in weights.items() if task.startswith(ADVERSARIAL)},
        config.dwa_temperature,
    ),
}


def build_losses(config: LossConfig, channels: int, sessions: Tensor, counts: Mapping[str, Tensor]) -> MultiTaskLoss:
    """The losses of `config`.

    Args:
        config: of the losses.
        channels: of the identity embedding.
        sessions: (people,) numbers of training sessions of each person in the training part.
        counts: attribute to the (classes,) numbers of its training samples, for the attributes that are trained.

    Raises:
        InputError: numbers a class of an attribute that has another number of classes.
    """
    person_weights = PERSON_WEIGHTS[config.person_weights](sessions)
    identity = IDENTITY_LOSSES[config.identity_loss](config, channels, len(sessions), person_weights)
    attributes = {task: ATTRIBUTE_LOSSES[config.attribute_loss](config, task, count) for task, count in counts.items()}
    weights = {"identity": config.identity}
    weights |= dict.fromkeys(attributes, config.attribute)
    weights |= dict.fromkeys([ADVERSARIAL + task for task in attributes], config.adversarial)
    return MultiTaskLoss(identity, attributes, WEIGHTINGS[config.weighting](config, weights))


def _per_class(config: LossConfig, key: str, task: str, counts: Tensor) -> Tensor | None:
    """What the setting `key` says of the classes of `task`; None: nothing."""
    values = getattr(config, key).get(task)
    if values is None:
        return None
    if len(values) != len(counts):
        raise InputError(f"loss.{key}.{task} is {values!r}; expected {len(counts)} numbers, one a class")
    return torch.tensor(values)
