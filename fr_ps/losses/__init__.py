"""Losses: identity, attributes, and how they are weighed against each other."""

from collections.abc import Mapping

from torch import Tensor

from fr_ps.config import LossConfig
from fr_ps.losses.focal import FocalLoss, balanced_alpha
from fr_ps.losses.magface import MagFace
from fr_ps.losses.multitask import ADVERSARIAL, MultiTaskLoss
from fr_ps.losses.weighting import FixedWeighting, UncertaintyWeighting


def build_losses(config: LossConfig, channels: int, people: int, counts: Mapping[str, Tensor]) -> MultiTaskLoss:
    """The losses of `config`.

    Args:
        config: of the losses.
        channels: of the identity embedding.
        people: in the training part.
        counts: attribute to the (classes,) numbers of its training samples, for the attributes that are trained.
    """
    identity = MagFace(
        channels,
        people,
        scale=config.scale,
        lower_norm=config.lower_norm,
        upper_norm=config.upper_norm,
        lower_margin=config.lower_margin,
        upper_margin=config.upper_margin,
        lambda_g=config.lambda_g,
    )
    attributes = {task: FocalLoss(balanced_alpha(count), config.focal_gamma) for task, count in counts.items()}
    weights = {"identity": config.identity}
    weights |= dict.fromkeys(attributes, config.attribute)
    weights |= dict.fromkeys([ADVERSARIAL + task for task in attributes], config.adversarial)
    weighting = UncertaintyWeighting(list(weights)) if config.weighting == "uncertainty" else FixedWeighting(weights)
    return MultiTaskLoss(identity, attributes, weighting)
