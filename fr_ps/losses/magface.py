"""MagFace: an angular margin that grows with the embedding's norm. Meng et al., CVPR 2021, arXiv:2103.06627."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class MagFace(nn.Module):
    """Identity loss over the people of the training part; holds one direction a person.

    With a = |x| clamped to [lower_norm, upper_norm], the logit of the true person is s cos(theta + m(a)) where cos theta
    is above 0 (the easy margin) and s cos theta elsewhere, that of the others s cos theta; m(a) is linear from
    lower_margin to upper_margin. The loss is the mean cross-entropy plus lambda_g times the mean of
    g(a) = a / upper_norm^2 + 1 / a.

    Args:
        channels: of the embedding.
        people: to tell apart.
        scale: s.
        lower_norm: l_a.
        upper_norm: u_a.
        lower_margin: in radians.
        upper_margin: in radians.
        lambda_g: weight of g.
    """

    def __init__(
        self,
        channels: int,
        people: int,
        *,
        scale: float,
        lower_norm: float,
        upper_norm: float,
        lower_margin: float,
        upper_margin: float,
        lambda_g: float,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(people, channels))
        nn.init.normal_(self.weight, std=1 / math.sqrt(channels))
        self.scale, self.lambda_g = scale, lambda_g
        self.lower_norm, self.upper_norm = lower_norm, upper_norm
        self.lower_margin = lower_margin
        self.slope = (upper_margin - lower_margin) / (upper_norm - lower_norm)

    def margin(self, norm: Tensor) -> Tensor:
        """m(a) in radians of clamped norms a."""
        return self.lower_margin + self.slope * (norm - self.lower_norm)

    def regulariser(self, norm: Tensor) -> Tensor:
        """g(a) of clamped norms a: convex, smallest at upper_norm."""
        return norm / self.upper_norm**2 + 1 / norm

    def logits(self, embeddings: Tensor, people: Tensor) -> Tensor:
        """(B, people) scaled cosines, the true person's with its margin."""
        cosine = functional.linear(functional.normalize(embeddings), functional.normalize(self.weight))
        norm = embeddings.norm(dim=1).clamp(self.lower_norm, self.upper_norm)
        true = cosine.gather(1, people[:, None])
        # The derivative of the square root is infinite at cos = +-1.
        sine = (1 - true.square()).clamp_min(1e-7).sqrt()
        margin = self.margin(norm)[:, None]
        with_margin = torch.where(true > 0, true * margin.cos() - sine * margin.sin(), true)
        return self.scale * cosine.scatter(1, people[:, None], with_margin)

    def forward(self, embeddings: Tensor, people: Tensor) -> Tensor:
        """The loss of (B, C) embeddings of the (B,) true people, a scalar."""
        with torch.autocast(embeddings.device.type, enabled=False):  # cosines near 1 need more than bfloat16
            embeddings = embeddings.float()
            norm = embeddings.norm(dim=1).clamp(self.lower_norm, self.upper_norm)
            entropy = functional.cross_entropy(self.logits(embeddings, people), people)
            return entropy + self.lambda_g * self.regulariser(norm).mean()

    def observe(self, embeddings: Tensor) -> dict[str, Tensor]:
        """The mean norm of (B, C) embeddings, and the share of them that is clamped, where the regulariser is blind."""
        norm = embeddings.float().norm(dim=1)
        clamped = (norm < self.lower_norm) | (norm > self.upper_norm)
        return {"norm/mean": norm.mean(), "norm/clamped": clamped.float().mean()}
