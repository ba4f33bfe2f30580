"""CosFace: a constant margin on the cosine. Wang et al., CVPR 2018, arXiv:1801.09414."""

from torch import Tensor

from fr_ps.losses.margin import MarginLoss


class CosFace(MarginLoss):
    """cos theta - m for the true person.

    Args:
        channels: of the embedding.
        people: to tell apart.
        scale: s.
        margin: m.
        person_weights: (people,) of the cross-entropy; None: 1.
    """

    def __init__(
        self, channels: int, num_subjects: int, *, scale: float, margin: float, person_weights: Tensor | None = None
    ) -> None:
        super().__init__(channels, num_subjects, scale=scale, person_weights=person_weights)
        self.margin = margin

    def apply_margin(self, cosine: Tensor, norm: Tensor) -> Tensor:
        return cosine - self.margin
