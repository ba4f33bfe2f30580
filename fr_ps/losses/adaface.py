"""AdaFace: the kind of margin follows the embedding's norm, as a sign of quality. Kim et al., CVPR 2022, arXiv:2204.00964."""

import torch
from torch import Tensor

from fr_ps.losses.margin import MarginLoss, add_angle


class AdaFace(MarginLoss):
    """cos(theta + g_angle) - g_add for the true person, with g_angle = -m z and g_add = m z + m.

    z = h (|x| - mean) / deviation, clamped to [-1, 1] and without gradient; mean and deviation are running ones of the
    norms. At z = -1 (poor pictures) that is ArcFace, at 0 CosFace, and at 1 a negative angle, which lets hard samples
    of good pictures count more. theta + g_angle is held within [0, pi] as in the paper's code: beyond, the true person's
    own logit gets no gradient.

    A batch's mean and deviation enter the running ones with the share t_alpha, the first 1 / t_alpha batches with equal
    shares. (The paper's code starts at a mean of 20 and a deviation of 100 instead, from which a training of some
    hundred steps would not get away.)

    Args:
        channels: of the embedding.
        people: to tell apart.
        scale: s.
        margin: m, below pi / 2.
        h: the margin follows norms within 1 / h deviations of the mean.
        t_alpha: share of a batch in the running mean and deviation, above 0, at most 1.
        person_weights: (people,) of the cross-entropy; None: 1.
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
        h: float,
        t_alpha: float,
        person_weights: Tensor | None = None,
    ) -> None:
        super().__init__(channels, num_subjects, scale=scale, person_weights=person_weights)
        self.margin, self.h, self.t_alpha = margin, h, t_alpha
        for name in ("batches", "norm_mean", "norm_std"):
            self.register_buffer(name, torch.zeros(()))

    def forward(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        """The loss of (B, C) embeddings of the (B,) true people, a scalar; in training, their norms are learnt first."""
        if self.training and len(embeddings) > 1:  # one embedding has no deviation
            self._update_norm_statistics(embeddings.detach().to(self.weight.dtype).norm(dim=1))
        return super().forward(embeddings, targets)

    def apply_margin(self, cosine: Tensor, norm: Tensor) -> Tensor:
        z = self._standardise(norm.detach()).clamp(-1, 1)
        angle = -self.margin * z
        turned = add_angle(cosine, angle)
        turned = torch.where((angle < 0) & (cosine > angle.cos()), 1.0, turned)  # theta + g_angle is below 0
        turned = torch.where((angle > 0) & (cosine < -angle.cos()), -1.0, turned)  # and beyond pi
        return turned - (self.margin * z + self.margin)

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
