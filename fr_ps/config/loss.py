"""Settings of the losses and of their weighting."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from fr_ps.config.checks import MAX_WEIGHT, check_range, check_setting, check_types
from fr_ps.config.names import Attribute

_MAX_GAMMA = 100.0
"""Largest focusing exponent."""
_MAX_NORM = 1e6
GRADIENT_WEIGHTINGS = ("upgrad", "pcgrad", "cagrad", "mgda", "aligned_mtl")
"""Weightings by the gradients at the shared feature maps, inside the network."""


@dataclass(frozen=True)
class LossConfig:
    """Identity, attribute and adversarial losses, and their weighting.

    Args:
        weighting: fixed: the weights below; uncertainty: learned weights (Kendall et al. 2018), initially equal; dwa: larger
            weights for losses that fall more slowly (Liu et al. 2019), fixed weights for adversarial losses. The others
            combine the gradients of the tasks at the shared feature map: upgrad: no loss rises; mgda: all losses fall;
            pcgrad: removes conflicting components pair by pair; cagrad: maximises the smallest decrease of a loss, near the
            sum of the gradients; aligned_mtl: gradients of equal magnitude. Layers after the map use the fixed weights. The
            gradient of the adversaries is projected so that it raises no task loss.
        identity: fixed weight of the identity loss.
        attribute: fixed weight of each attribute loss.
        adversarial: fixed weight of each adversarial loss.
        reversal: alpha of the gradient reversal before the discriminators.
        reversal_ramp: multiply alpha by 2 / (1 + exp(-10 p)) - 1, which rises from 0 over the progress p of the training
            (Ganin et al. 2016); default: constant alpha.
        dwa_temperature: temperature of dwa; larger values give more equal weights.
        cagrad_c: c of cagrad: radius around the sum of the gradients, relative to its norm; below 1, so that the sum of the
            losses falls.
        identity_loss: magface (margin grows with the embedding norm), arcface (constant angular margin), cosface (constant
            cosine margin), or adaface (margin depends on the image quality).
        person_weights: weights of the subjects in the identity loss: none: equal; soft: square root of (smallest number of
            sessions / the subject's); original: 1 - frequency, scaled to 0.3 to 1.
        contrastive: weight of a supervised contrastive loss (Khosla et al. 2020) in the identity loss: in a batch, the embeddings
            of a subject attract each other and repel all others. It needs two or more sessions per subject in a batch
            (batch.sessions); 0: off.
        contrastive_temperature: temperature of the contrastive loss; the smaller, the more the hardest pairs count.
        branches: in a fusion, compute the identity loss also on the embedding of each branch, with separate class directions, so
            that each branch learns to recognise by itself. The identity loss is the mean over the fusion and its branches; frozen
            branches are left out.
        sampled_subject_share: share of the subjects in the identity loss of a training step (Partial FC, An et al. 2022): the
            subjects of the step and a random sample of the others. 1: all, the exact loss. A smaller share saves time and
            memory with many thousands of subjects. With several processes, each then holds the class centres of a part of the
            subjects.
        attribute_loss: loss of the attributes and of their adversaries.
        class_weights: attribute to one weight per class (alpha of focal), as {gender: [0.9, 0.1]}. Default: inverse class
            frequencies; their sum over the classes is 1 (focal), or their mean over the training sessions is 1 (cross_entropy).
        focal_gamma: focusing exponent of focal; counts: 0 for the most frequent class, else
            sqrt(log2(largest count / count)).
        focal_gammas: attribute to one exponent per class, as {gender: [2, 0]}; overrides focal_gamma.
        label_smoothing: label smoothing of cross_entropy.
        scale: s, the factor on the cosines of the identity loss.
        lower_norm: l_a of MagFace, the norm with the smallest margin.
        upper_norm: u_a of MagFace, the norm with the largest margin.
        lower_margin: margin at lower_norm, in radians.
        upper_margin: margin at upper_norm, in radians.
        lambda_g: weight of MagFace's norm regulariser.
        allow_unsafe_lambda: allow a lambda_g below the bound of the MagFace paper, as the 20 of the original project.
        arcface_margin: margin of ArcFace, in radians.
        cosface_margin: margin of CosFace, on the cosine.
        adaface_margin: m of AdaFace, in radians and on the cosine.
    """

    weighting: Literal["fixed", "uncertainty", "dwa", "upgrad", "pcgrad", "cagrad", "mgda", "aligned_mtl"] = "uncertainty"
    identity: float = 1.0
    attribute: float = 1.0
    adversarial: float = 0.1
    reversal: float = 0.1
    reversal_ramp: bool = False
    dwa_temperature: float = 2.0
    cagrad_c: float = 0.5
    identity_loss: Literal["magface", "arcface", "cosface", "adaface"] = "magface"
    person_weights: Literal["none", "soft", "original"] = "none"
    contrastive: float = 0.0
    contrastive_temperature: float = 0.1
    branches: bool = False
    sampled_subject_share: float = 1.0
    attribute_loss: Literal["focal", "cross_entropy"] = "focal"
    class_weights: dict[Attribute, list[float]] = field(default_factory=dict)
    focal_gamma: float | Literal["counts"] = 1.0
    focal_gammas: dict[Attribute, list[float]] = field(default_factory=dict)
    label_smoothing: float = 0.0
    scale: float = 64.0
    lower_norm: float = 10.0
    upper_norm: float = 110.0
    lower_margin: float = 0.45
    upper_margin: float = 0.8
    lambda_g: float = 35.0
    allow_unsafe_lambda: bool = False
    arcface_margin: float = 0.5
    cosface_margin: float = 0.35
    adaface_margin: float = 0.4

    def __post_init__(self) -> None:
        check_types(self, "loss.")
        check_range(self, "loss.", 0, MAX_WEIGHT, "identity", "attribute", "adversarial", "reversal", "contrastive")
        check_range(self, "loss.", 0, 2, "cosface_margin")
        for key, most in (("dwa_temperature", MAX_WEIGHT), ("scale", 10_000), ("contrastive_temperature", 100)):
            check_setting(0 < getattr(self, key) <= most, f"loss.{key}", getattr(self, key), f"above 0, at most {most:g}")
        check_setting(
            0 < self.sampled_subject_share <= 1, "loss.sampled_subject_share", self.sampled_subject_share, "above 0, at most 1"
        )
        for key in ("arcface_margin", "adaface_margin"):
            check_setting(0 <= getattr(self, key) < 1.571, f"loss.{key}", getattr(self, key), "from 0 to below pi / 2")
        check_setting(0 <= self.cagrad_c < 1, "loss.cagrad_c", self.cagrad_c, "0 or more and below 1")
        self._check_attribute_losses()
        self._check_magface()

    def _check_attribute_losses(self) -> None:
        gamma = self.focal_gamma
        valid = gamma == "counts" or (isinstance(gamma, (int, float)) and gamma is not True and 0 <= gamma <= _MAX_GAMMA)
        check_setting(valid, "loss.focal_gamma", gamma, f"a number from 0 to {_MAX_GAMMA:g}, or counts")
        for key, most in (("class_weights", MAX_WEIGHT), ("focal_gammas", _MAX_GAMMA)):
            for attribute, values in getattr(self, key).items():
                known = get_args(Attribute)
                check_setting(attribute in known, f"loss.{key}", attribute, f"attributes among {', '.join(known)}")
                valid = len(values) > 0 and all(0 <= value <= most for value in values)
                check_setting(valid, f"loss.{key}.{attribute}", values, f"one number per class, each 0 to {most:g}")
        check_setting(0 <= self.label_smoothing < 1, "loss.label_smoothing", self.label_smoothing, "0 or more and below 1")
        possible = self.label_smoothing == 0 or self.attribute_loss == "cross_entropy"
        check_setting(possible, "loss.label_smoothing", self.label_smoothing, "0, as loss.attribute_loss is not cross_entropy")

    def _check_magface(self) -> None:
        check_setting(self.upper_norm <= _MAX_NORM, "loss.upper_norm", self.upper_norm, f"{_MAX_NORM:g} or less")
        check_range(self, "loss.", 0, 1e18, "lambda_g")  # the largest possible min_lambda_g, at the largest norms and scale
        check_setting(
            0 < self.lower_norm < self.upper_norm,
            "loss.lower_norm",
            self.lower_norm,
            f"between 0 and loss.upper_norm ({self.upper_norm:g})",
        )
        check_setting(
            0 <= self.lower_margin <= self.upper_margin,
            "loss.lower_margin",
            self.lower_margin,
            f"between 0 and loss.upper_margin ({self.upper_margin:g})",
        )
        check_setting(self.upper_margin < 1.571, "loss.upper_margin", self.upper_margin, "below pi / 2")
        bound = self.min_lambda_g
        safe = self.allow_unsafe_lambda or self.identity_loss != "magface" or self.lambda_g >= bound
        check_setting(
            safe,
            "loss.lambda_g",
            self.lambda_g,
            f"{bound:.1f} or more, MagFace's bound at these settings (or loss.allow_unsafe_lambda)",
        )

    @property
    def min_lambda_g(self) -> float:
        """Smallest lambda_g for which the loss has one optimal norm: s k u^2 l^2 / (u^2 - l^2), k the margin's slope.

        Meng et al., "MagFace: A Universal Representation for Face Recognition and Quality Assessment", CVPR 2021.
        """
        slope = (self.upper_margin - self.lower_margin) / (self.upper_norm - self.lower_norm)
        upper, lower = self.upper_norm**2, self.lower_norm**2
        return self.scale * slope * upper * lower / (upper - lower)
