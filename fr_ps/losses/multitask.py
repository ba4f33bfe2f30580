"""All losses of a batch: identity, attributes, adversaries, and their total."""

from collections.abc import Mapping

from torch import Tensor, nn

from fr_ps.losses.margin import MarginLoss
from fr_ps.losses.weighting import Weighting
from fr_ps.models.network import ADVERSARIAL_PREFIX, SHARED_PREFIX


class MultiTaskLoss(nn.Module):
    """Outputs and targets to the total loss and its parts.

    Args:
        identity: (embeddings, people) -> scalar.
        attributes: attribute to (logits, classes) -> scalar; serves that attribute's adversary too. An attribute that
            is not in it is not trained.
        weighting: from the parts to the total.
    """

    identity: MarginLoss
    weighting: Weighting

    def __init__(self, identity: MarginLoss, attributes: Mapping[str, nn.Module], weighting: Weighting) -> None:
        super().__init__()
        self.identity = identity
        self.attributes = nn.ModuleDict(attributes)
        self.weighting = weighting

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and each part without gradient.

        Samples whose label is missing (-1) are left out of that task's loss; a task without a labelled sample in the
        batch has no part in it.
        """
        parts = self.parts(outputs, targets)
        shared = [output for name, output in outputs.items() if name.startswith(SHARED_PREFIX)]
        penalties = {"identity": self.diagnostics(outputs)["norm/penalty"]}
        return self.weighting(parts, shared, penalties), {task: part.detach() for task, part in parts.items()}

    def parts(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each task's loss by itself, with its gradient."""
        parts = {"identity": self.identity(outputs["identity"], targets["identity"])}
        for task, loss in self.attributes.items():
            known = targets[task] >= 0
            if not known.any():
                continue
            for output in (task, ADVERSARIAL_PREFIX + task):
                if output in outputs:
                    parts[output] = loss(outputs[output][known], targets[task][known])
        return parts

    def end_epoch(self, means: Mapping[str, float]) -> None:
        """Pass the mean losses of an epoch to the weighting.

        `means` holds `loss/TASK` of each part that the epoch had, and the means of what `observe` returns.
        """
        losses = {task: means[f"loss/{task}"] for task in self.weighting.weights() if f"loss/{task}" in means}
        if "identity" in losses:
            losses["identity"] -= means.get("norm/penalty", 0.0)  # absent: resumed from a checkpoint of an older version
        self.weighting.end_epoch(losses)

    def diagnostics(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the identity loss tells of a batch beside its value, without gradient."""
        return self.identity.diagnostics(outputs["identity"].detach())
