"""Builds the losses from the settings."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn

from fr_ps.config import LossConfig
from fr_ps.config.loss import GRADIENT_WEIGHTINGS
from fr_ps.distributed import own_part, world_size
from fr_ps.errors import InputError
from fr_ps.losses.classification import (
    CrossEntropy,
    FocalLoss,
    balanced_alpha,
    balanced_weights,
    gamma_from_counts,
    original_person_weights,
    soft_person_weights,
)
from fr_ps.losses.gradient_weighting import GradientWeighting, gradient_method
from fr_ps.losses.margin import AdaFace, ArcFace, CosFace, MagFace, MarginLoss
from fr_ps.losses.multitask import ADVERSARIAL_PREFIX, MultiTaskLoss
from fr_ps.losses.weighting import DynamicWeightAverage, FixedWeighting, UncertaintyWeighting, Weighting

IDENTITY_LOSSES: dict[str, Callable[[LossConfig], Callable[..., MarginLoss]]] = {
    "magface": lambda config: partial(
        MagFace,
        lower_norm=config.lower_norm,
        upper_norm=config.upper_norm,
        lower_margin=config.lower_margin,
        upper_margin=config.upper_margin,
        lambda_g=config.lambda_g,
    ),
    "arcface": lambda config: partial(ArcFace, margin=config.arcface_margin),
    "cosface": lambda config: partial(CosFace, margin=config.cosface_margin),
    "adaface": lambda config: partial(AdaFace, margin=config.adaface_margin),
}
"""By name: a function that takes the settings and returns a factory, which takes the arguments of `MarginLoss`."""

PERSON_WEIGHTS: dict[str, Callable[[Tensor], Tensor | None]] = {
    "none": lambda sessions: None,
    "soft": soft_person_weights,
    "original": original_person_weights,
}


def _focal(config: LossConfig, task: str, counts: Tensor) -> nn.Module:
    alpha = _per_class_setting(config, "class_weights", task, counts)
    gamma = _per_class_setting(config, "focal_gammas", task, counts)
    default_gamma = gamma_from_counts(counts) if config.focal_gamma == "counts" else config.focal_gamma
    return FocalLoss(balanced_alpha(counts) if alpha is None else alpha, default_gamma if gamma is None else gamma)


def _cross_entropy(config: LossConfig, task: str, counts: Tensor) -> nn.Module:
    weights = _per_class_setting(config, "class_weights", task, counts)
    return CrossEntropy(balanced_weights(counts) if weights is None else weights, config.label_smoothing)


ATTRIBUTE_LOSSES: dict[str, Callable[[LossConfig, str, Tensor], nn.Module]] = {
    "focal": _focal,
    "cross_entropy": _cross_entropy,
}


def _gradient_weighting(
    name: str, config: LossConfig, tasks: Mapping[str, float], adversarial: Mapping[str, float]
) -> GradientWeighting:
    return GradientWeighting(tasks, adversarial, gradient_method(name, config.cagrad_c))


WEIGHTINGS: dict[str, Callable[[LossConfig, Mapping[str, float], Mapping[str, float]], Weighting]] = {
    "fixed": lambda config, tasks, adversarial: FixedWeighting({**tasks, **adversarial}),
    "uncertainty": lambda config, tasks, adversarial: UncertaintyWeighting([*tasks, *adversarial]),
    "dwa": lambda config, tasks, adversarial: DynamicWeightAverage(list(tasks), adversarial, config.dwa_temperature),
    **{name: partial(_gradient_weighting, name) for name in GRADIENT_WEIGHTINGS},
}
"""Name to a function (settings, weights of the tasks, weights of the adversarial losses) -> weighting."""


def build_losses(
    config: LossConfig,
    channels: int,
    sessions_per_subject: Tensor,
    class_counts: Mapping[str, Tensor],
    adversarial_attributes: Collection[str],
    branch_widths: Mapping[str, int] = MappingProxyType({}),
) -> MultiTaskLoss:
    """The losses of `config`.

    With several processes and `sampled_subject_share` below 1, each process holds the class centres of its part of the subjects.

    Args:
        config: the settings of the losses.
        channels: of the identity embedding.
        sessions_per_subject: (subjects,) number of training sessions.
        class_counts: trained attribute to its (classes,) number of training samples.
        adversarial_attributes: attributes that have an adversarial discriminator.
        branch_widths: unfrozen branch to the width of its own identity embedding; used only if `config.branches` is true.

    Raises:
        InputError: a setting with one number per class has the wrong length, or the processes divide the class centres
            and there are fewer subjects than processes.
    """
    num_subjects, person_weights = len(sessions_per_subject), PERSON_WEIGHTS[config.person_weights](sessions_per_subject)
    part = _own_part(config, num_subjects)
    identity = build_identity_loss(config, channels, num_subjects, person_weights, part)
    widths = branch_widths if config.branches else {}
    branches = {name: build_identity_loss(config, width, num_subjects, person_weights, part) for name, width in widths.items()}
    attributes = {task: ATTRIBUTE_LOSSES[config.attribute_loss](config, task, count) for task, count in class_counts.items()}
    task_weights = {"identity": config.identity} | dict.fromkeys(attributes, config.attribute)
    adversaries = [ADVERSARIAL_PREFIX + task for task in attributes if task in adversarial_attributes]
    weighting = WEIGHTINGS[config.weighting](config, task_weights, dict.fromkeys(adversaries, config.adversarial))
    return MultiTaskLoss(
        identity,
        attributes,
        weighting,
        branches=branches,
        contrastive=config.contrastive,
        temperature=config.contrastive_temperature,
    )


def build_identity_loss(
    config: LossConfig, channels: int, num_subjects: int, person_weights: Tensor | None, part: range | None = None
) -> MarginLoss:
    """The identity loss of `config`; the other arguments as in `MarginLoss`."""
    loss = IDENTITY_LOSSES[config.identity_loss](config)
    return loss(channels, num_subjects, scale=config.scale, person_weights=person_weights, part=part)


def _own_part(config: LossConfig, num_subjects: int) -> range | None:
    """The subjects whose centres this process holds; None: all."""
    if config.sampled_subject_share == 1 or world_size() == 1:
        return None
    if num_subjects < world_size():
        raise InputError(
            f"with loss.sampled_subject_share below 1 (it is {config.sampled_subject_share:g}), each of the {world_size()} "
            f"processes needs the centres of at least one subject, but there are only {num_subjects} training subjects; set "
            "loss.sampled_subject_share to 1, or start fewer processes"
        )
    return own_part(num_subjects)


def _per_class_setting(config: LossConfig, key: str, task: str, counts: Tensor) -> Tensor | None:
    """The value per class of `task` in the setting `key`; None if the setting does not list `task`."""
    values = getattr(config, key).get(task)
    if values is None:
        return None
    if len(values) != len(counts):
        raise InputError(f"loss.{key}.{task} is {values!r}; expected {len(counts)} numbers, one per class")
    return torch.tensor(values)
