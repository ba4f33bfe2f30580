"""Identity losses: softmax cross-entropy over the cosines to one direction per subject, with a margin for the true one."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from fr_ps.distributed import gather_rows, with_summed_gradient

_BLOCK = 1 << 14
"""Centres that are drawn at a time."""


class MarginLoss(nn.Module, ABC):
    """Mean cross-entropy of scaled cosines, with a margin on the cosine to the true subject.

    A subclass defines `apply_margin`. It overrides `penalty` if the norms add a term to the loss, and `saturated` if norms are
    clamped.

    Args:
        channels: C of the embedding.
        num_subjects: number of classes.
        scale: s, which multiplies the cosines.
        person_weights: (num_subjects,) factors of the cross-entropy of each subject's samples; None: 1.
        part: the subjects whose centres this process holds, if they are divided among the processes (`own_part`); None: all.

    Attributes:
        weight: the class centres, one row per subject, not normalised.
        sampled: in a step that trains a sample of the centres (`fr_ps.training.sampled_centres`): (rows,) the subject of each row
            of `weight`, ascending, all of them in `part` if it is set. None in other steps, in which `weight` has one row for
            each subject; if `part` is set, for each subject in `part`.
    """

    weight: nn.Parameter
    person_weights: Tensor | None
    sampled: Tensor | None = None

    def __init__(
        self,
        channels: int,
        num_subjects: int,
        *,
        scale: float,
        person_weights: Tensor | None = None,
        part: range | None = None,
    ) -> None:
        super().__init__()
        self.num_subjects, self.part = num_subjects, part
        self.weight = nn.Parameter(_draw_centres(num_subjects, channels, range(num_subjects) if part is None else part))
        self.scale = scale
        self.register_buffer("person_weights", person_weights, persistent=False)  # a setting, not learnt

    @abstractmethod
    def apply_margin(self, cosine: Tensor, norm: Tensor) -> Tensor:
        """The (B,) cosines to the true subjects with the margin; `norm` (B,) are the norms of the embeddings."""

    def penalty(self, norm: Tensor) -> Tensor:
        """The term that the (B,) norms add to the loss, a scalar."""
        return norm.new_zeros(())

    def saturated(self, norm: Tensor) -> Tensor:
        """(B,) whether a norm is outside the range in which the margin depends on it; False if the margin never depends on it."""
        return torch.zeros_like(norm, dtype=torch.bool)

    def logits(self, embeddings: Tensor, target_rows: Tensor, held: Tensor | None = None) -> Tensor:
        """(B, rows of `weight`) scaled cosines of (B, C) embeddings to the centres, with the margin at the (B,) `target_rows`.

        `held` (B,): whether `weight` has the row of the true subject. Where False, `target_rows` holds an arbitrary row, which
        gets no margin. None: True everywhere.
        """
        cosine = functional.linear(functional.normalize(embeddings), functional.normalize(self.weight))
        target_cosine = cosine.gather(1, target_rows[:, None])[:, 0]
        with_margin = self.apply_margin(target_cosine, embeddings.norm(dim=1))
        if held is not None:
            with_margin = torch.where(held, with_margin, target_cosine)
        return self.scale * cosine.scatter(1, target_rows[:, None], with_margin[:, None])

    def forward(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        """The loss of (B, C) embeddings with (B,) target subjects, a scalar."""
        with torch.autocast(embeddings.device.type, enabled=False):  # cosines near 1 need more than bfloat16
            embeddings = embeddings.to(self.weight.dtype)
            return self._cross_entropy(embeddings, targets) + self.penalty(embeddings.norm(dim=1))

    def diagnostics(self, embeddings: Tensor) -> dict[str, Tensor]:
        """Of (B, C) embeddings: the mean norm, and the share of saturated norms."""
        norm = embeddings.float().norm(dim=1)
        return {"norm/mean": norm.mean(), "norm/clamped": self.saturated(norm).float().mean()}

    def _cross_entropy(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        if self.part is None:
            losses = self._cross_entropies(embeddings, targets)
        else:
            losses = self._sharded_cross_entropies(embeddings, targets, self.part)
        if self.person_weights is None:
            return losses.mean()
        # Not `cross_entropy(weight=...)`: it divides by the sum of the batch's weights, so that the low weights of a batch with
        # only frequent subjects would cancel.
        return (self.person_weights[targets] * losses).mean()

    def _cross_entropies(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        """(B,) cross-entropies over the rows of `weight`."""
        rows = targets if self.sampled is None else torch.searchsorted(self.sampled, targets)
        return functional.cross_entropy(self.logits(embeddings, rows), rows, reduction="none")

    def _sharded_cross_entropies(self, embeddings: Tensor, targets: Tensor, part: range) -> Tensor:
        """(B,) cross-entropies over the rows of all processes.

        All processes have the same embeddings, and each has its own `part` of the centres. They exchange two numbers per sample,
        and in the backward pass the gradients of the embeddings.
        """
        held = (targets >= part.start) & (targets < part.stop)
        rows = targets - part.start if self.sampled is None else torch.searchsorted(self.sampled, targets)
        rows = torch.where(held, rows, 0)  # where the target is in another part, any row will do: `held` masks it
        logits = self.logits(with_summed_gradient(embeddings), rows, held)
        own_target = torch.where(held, logits.gather(1, rows[:, None])[:, 0], 0)
        # Row p of (processes, B) is 0 where process p lacks the true centre, so the sum is the logit of the true subject.
        target = gather_rows(own_target[None]).sum(0)
        # For any constant c, logsumexp(logits) - target = logsumexp(logits - c) - (target - c). With c = target, no difference of
        # two large numbers remains, in which rounding would erase a loss near 0.
        shift = target.detach()
        log_sum = gather_rows((logits - shift[:, None]).logsumexp(1)[None]).logsumexp(0)
        return log_sum - (target - shift)  # `target - shift` is 0 and has the gradient of the target's logit


class ConstantMargin(MarginLoss):
    """A loss whose margin is the same for all subjects and embeddings.

    Args:
        margin: its meaning is that of the subclass.
        channels, num_subjects, scale, person_weights, part: as in `MarginLoss`.
    """

    def __init__(
        self,
        channels: int,
        num_subjects: int,
        *,
        scale: float,
        margin: float,
        person_weights: Tensor | None = None,
        part: range | None = None,
    ) -> None:
        super().__init__(channels, num_subjects, scale=scale, person_weights=person_weights, part=part)
        self.margin = margin


class ArcFace(ConstantMargin):
    """A constant angular margin: cos(theta + m) for the true subject. Deng et al., CVPR 2019, arXiv:1801.07698.

    For theta + m > pi, where cos(theta + m) would increase, it is cos theta - m sin m, as in the paper's code. The margin also
    applies for cos theta <= 0, unlike that of MagFace. For cos theta > 0 both losses agree if MagFace's margin is constant and
    its lambda_g is 0.

    Args:
        margin: m in radians, 0 to pi / 2.
        channels, num_subjects, scale, person_weights, part: as in `MarginLoss`.
    """

    def apply_margin(self, cosine: Tensor, norm: Tensor) -> Tensor:
        below_pi = cosine > -math.cos(self.margin)
        return torch.where(below_pi, add_angle(cosine, self.margin), cosine - self.margin * math.sin(self.margin))


class CosFace(ConstantMargin):
    """A constant margin on the cosine: cos theta - m for the true subject. Wang et al., CVPR 2018, arXiv:1801.09414.

    Args:
        margin: m.
        channels, num_subjects, scale, person_weights, part: as in `MarginLoss`.
    """

    def apply_margin(self, cosine: Tensor, norm: Tensor) -> Tensor:
        return cosine - self.margin


class AdaFace(MarginLoss):
    """A margin that follows the norm of the embedding as a sign of image quality. Kim et al., CVPR 2022, arXiv:2204.00964.

    cos(theta + g_angle) - g_add for the true subject, with g_angle = -m z and g_add = m z + m.

    z = h (|x| - mean) / deviation, clamped to [-1, 1] and without gradient; mean and deviation are running statistics of the
    norms. z = -1 (poor images) gives ArcFace, and z = 0 CosFace; z = 1 gives a negative angle, which increases the weight of hard
    samples of good images. theta + g_angle is clamped to [0, pi] as in the paper's code: beyond, the true subject's logit gets no
    gradient.

    A batch enters the running statistics with weight t_alpha; the first 1 / t_alpha batches have equal weights. (The paper's
    code starts from a mean of 20 and a deviation of 100, whose effect lasts for some hundred steps.)

    Args:
        margin: m, below pi / 2.
        h: the margin follows norms within 1 / h deviations of the mean.
        t_alpha: weight of a batch in the running statistics, above 0, at most 1.
        channels, num_subjects, scale, person_weights, part: as in `MarginLoss`.
    """

    batches: Tensor
    norm_mean: Tensor
    norm_std: Tensor

    def __init__(
        self,
        channels: int,
        num_subjects: int,
        *,
        scale: float,
        margin: float,
        h: float = 0.333,
        t_alpha: float = 0.01,
        person_weights: Tensor | None = None,
        part: range | None = None,
    ) -> None:
        super().__init__(channels, num_subjects, scale=scale, person_weights=person_weights, part=part)
        self.margin, self.h, self.t_alpha = margin, h, t_alpha
        for name in ("batches", "norm_mean", "norm_std"):
            self.register_buffer(name, torch.zeros(()))

    def forward(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        """As in `MarginLoss`; in training, the statistics of the norms are updated first."""
        if self.training and len(embeddings) > 1:  # one embedding has no deviation
            self._update_norm_statistics(embeddings.detach().to(self.weight.dtype).norm(dim=1))
        return super().forward(embeddings, targets)

    def apply_margin(self, cosine: Tensor, norm: Tensor) -> Tensor:
        z = self._standardise(norm.detach()).clamp(-1, 1)
        angle = -self.margin * z
        rotated = add_angle(cosine, angle)
        rotated = torch.where((angle < 0) & (cosine > angle.cos()), 1.0, rotated)  # theta + g_angle is below 0
        rotated = torch.where((angle > 0) & (cosine < -angle.cos()), -1.0, rotated)  # theta + g_angle is above pi
        return rotated - (self.margin * z + self.margin)

    def saturated(self, norm: Tensor) -> Tensor:
        return self._standardise(norm).abs() > 1

    def _standardise(self, norm: Tensor) -> Tensor:
        return self.h * (norm - self.norm_mean) / (self.norm_std + 1e-3)

    @torch.no_grad()
    def _update_norm_statistics(self, norm: Tensor) -> None:
        self.batches += 1
        share = (1 / self.batches).clamp_min(self.t_alpha)
        self.norm_mean.lerp_(norm.mean(), share)
        self.norm_std.lerp_(norm.std(), share)


class MagFace(MarginLoss):
    """An angular margin that grows with the norm of the embedding. Meng et al., CVPR 2021, arXiv:2103.06627.

    cos(theta + m(a)) for the true subject, and a regulariser that increases norms.

    a = |x| clamped to [lower_norm, upper_norm]; m(a) is linear from lower_margin to upper_margin. For cos theta <= 0 there is no
    margin (the "easy margin" of the paper's code). The loss is the mean cross-entropy plus lambda_g times the mean of
    g(a) = a / upper_norm^2 + 1 / a.

    Args:
        lower_norm: l_a.
        upper_norm: u_a.
        lower_margin: m(l_a) in radians.
        upper_margin: m(u_a) in radians.
        lambda_g: weight of g.
        channels, num_subjects, scale, person_weights, part: as in `MarginLoss`.
    """

    def __init__(
        self,
        channels: int,
        num_subjects: int,
        *,
        scale: float,
        lower_norm: float,
        upper_norm: float,
        lower_margin: float,
        upper_margin: float,
        lambda_g: float,
        person_weights: Tensor | None = None,
        part: range | None = None,
    ) -> None:
        super().__init__(channels, num_subjects, scale=scale, person_weights=person_weights, part=part)
        self.lambda_g = lambda_g
        self.lower_norm, self.upper_norm = lower_norm, upper_norm
        self.lower_margin = lower_margin
        self.slope = (upper_margin - lower_margin) / (upper_norm - lower_norm)

    def margin(self, norm: Tensor) -> Tensor:
        """m(a) in radians of clamped norms a."""
        return self.lower_margin + self.slope * (norm - self.lower_norm)

    def regulariser(self, norm: Tensor) -> Tensor:
        """g(a) of clamped norms a: convex, smallest at upper_norm."""
        return norm / self.upper_norm**2 + 1 / norm

    def apply_margin(self, cosine: Tensor, norm: Tensor) -> Tensor:
        margin = self.margin(norm.clamp(self.lower_norm, self.upper_norm))
        return torch.where(cosine > 0, add_angle(cosine, margin), cosine)

    def penalty(self, norm: Tensor) -> Tensor:
        return self.lambda_g * self.regulariser(norm.clamp(self.lower_norm, self.upper_norm)).mean()

    def saturated(self, norm: Tensor) -> Tensor:
        """Whether a norm is outside `lower_norm` to `upper_norm`; there it changes neither the margin nor the regulariser."""
        return (norm < self.lower_norm) | (norm > self.upper_norm)


def _draw_centres(num_subjects: int, channels: int, part: range) -> Tensor:
    """The rows `part` of a (num_subjects, channels) Gaussian initialisation.

    All rows are drawn, in blocks, and those outside `part` are discarded: so the rows do not depend on the division into parts.
    """
    own = torch.empty(len(part), channels)
    for start in range(0, num_subjects, _BLOCK):
        block = torch.empty(min(_BLOCK, num_subjects - start), channels).normal_(std=1 / math.sqrt(channels))
        first, last = max(start, part.start), min(start + len(block), part.stop)
        if first < last:
            own[first - part.start : last - part.start] = block[first - start : last - start]
    return own


def add_angle(cosine: Tensor, angle: Tensor | float) -> Tensor:
    """cos(theta + angle) of cos theta, theta from 0 to pi; value and gradient are finite everywhere."""
    # The derivative of the square root is infinite at cos = +-1.
    sine = (1 - cosine.square()).clamp_min(1e-7).sqrt()
    if isinstance(angle, Tensor):
        return cosine * angle.cos() - sine * angle.sin()
    return cosine * math.cos(angle) - sine * math.sin(angle)
