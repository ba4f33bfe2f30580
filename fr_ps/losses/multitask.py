"""All losses of a batch: identity, attributes, adversaries, and their total."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from fr_ps.losses.contrastive import supervised_contrastive
from fr_ps.losses.margin import MarginLoss
from fr_ps.losses.weighting import Weighting
from fr_ps.models.network import NetworkOutput

ADVERSARIAL_PREFIX = "adversarial_"
"""Prefix of the attribute in the name of its adversarial task, as in `adversarial_gender`."""


class LossOutput(NamedTuple):
    """The losses of one batch, each a scalar.

    Attributes:
        total: the output of the task weighting, of which the gradient is computed (`Weighting`).
        tasks: task to its loss before weighting.
        diagnostics: without gradient. Of the fused identity embedding: `norm/mean`, the mean norm; `norm/clamped`, the share of
            norms for which `MarginLoss.saturated` is true; `loss/contrastive`, if used. `norm/penalty`: the part of the identity
            loss that depends on the norms only (`MarginLoss.penalty`), averaged over the losses of the fused embedding and of
            the branches.
    """

    total: Tensor
    tasks: dict[str, Tensor]
    diagnostics: dict[str, Tensor]

    def detach(self) -> "LossOutput":
        """The same values without their graph."""
        return LossOutput(self.total.detach(), {task: loss.detach() for task, loss in self.tasks.items()}, self.diagnostics)

    def scalars(self) -> dict[str, Tensor]:
        """Metric name to value: `loss/total`, `loss/TASK`, and the diagnostics."""
        return {"loss/total": self.total} | {f"loss/{task}": loss for task, loss in self.tasks.items()} | self.diagnostics


class MultiTaskLoss(nn.Module):
    """Computes the losses of all tasks and their weighted total from the outputs of the network and the targets.

    Args:
        identity: (embeddings, targets) -> scalar.
        attributes: attribute to its loss, a module (logits, classes) -> scalar. It is called again on the logits of the
            adversary, for the adversarial loss. An attribute that is missing here is not trained.
        weighting: task losses to the total.
        branches: branch to the identity loss of its own embedding; the loss of the task `identity` is the mean over the fused
            embedding and all these branches, each with the same weight.
        contrastive: weight of the supervised contrastive loss in the identity loss.
        temperature: of the contrastive loss.
    """

    identity: MarginLoss
    weighting: Weighting

    def __init__(
        self,
        identity: MarginLoss,
        attributes: Mapping[str, nn.Module],
        weighting: Weighting,
        *,
        branches: Mapping[str, MarginLoss] = MappingProxyType({}),
        contrastive: float = 0.0,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        self.identity = identity
        self.branches = nn.ModuleDict(branches)
        self.attributes = nn.ModuleDict(attributes)
        self.weighting = weighting
        self.contrastive, self.temperature = contrastive, temperature

    def forward(
        self, outputs: NetworkOutput, targets: Mapping[str, Tensor], labelled: Mapping[str, Tensor] | None = None
    ) -> LossOutput:
        """The losses of a batch.

        Samples with a missing label (-1) are left out of that task's loss. A task without a labelled sample in the batch has
        no loss.

        Args:
            outputs: of the network.
            targets: task to the (B,) classes.
            labelled: from `find_labelled`; None: found here, which waits for the GPU if the targets are on one.
        """
        losses = self.task_losses(outputs, targets, labelled)
        # The penalty is a part of `losses["identity"]`. A weighting that takes the size of a loss as the difficulty of its task
        # computes that size without the penalty, which remains in the total (see `Weighting`).
        penalty = self._identity_penalty(outputs)
        total = self.weighting(losses, list(outputs.shared.values()), {"identity": penalty})
        return LossOutput(total, losses, self._diagnostics(outputs, targets["identity"]) | {"norm/penalty": penalty})

    def task_losses(
        self, outputs: NetworkOutput, targets: Mapping[str, Tensor], labelled: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Task to its loss before weighting, with graph; the arguments as in `forward`."""
        if labelled is None:
            labelled = find_labelled(targets)
        losses = {"identity": self._identity_loss(outputs, targets["identity"])}
        for task, loss in self.attributes.items():
            if task not in labelled:
                continue
            rows = labelled[task]
            classes = targets[task][rows]
            losses[task] = loss(outputs.logits[task][rows], classes)
            if task in outputs.adversarial:
                losses[ADVERSARIAL_PREFIX + task] = loss(outputs.adversarial[task][rows], classes)
        return losses

    @property
    def identity_losses(self) -> list[MarginLoss]:
        """The loss of the fused embedding, and those of the branches."""
        return [self.identity, *(cast(MarginLoss, loss) for loss in self.branches.values())]

    @property
    def sharded(self) -> bool:
        """Whether each process holds a part of the centres (`MarginLoss.part`)."""
        return self.identity.part is not None

    def _identity_loss(self, outputs: NetworkOutput, subjects: Tensor) -> Tensor:
        losses = []
        for margin_loss, embeddings in self._identity_embeddings(outputs):
            loss = margin_loss(embeddings, subjects)
            if self.contrastive:
                loss = loss + self.contrastive * supervised_contrastive(embeddings, subjects, self.temperature)
            losses.append(loss)
        return torch.stack(losses).mean()

    @torch.no_grad()
    def _identity_penalty(self, outputs: NetworkOutput) -> Tensor:
        """The part of the identity loss that depends on the norms only."""
        penalties = [loss.penalty(embeddings.float().norm(dim=1)) for loss, embeddings in self._identity_embeddings(outputs)]
        return torch.stack(penalties).mean()

    @torch.no_grad()
    def _diagnostics(self, outputs: NetworkOutput, subjects: Tensor) -> dict[str, Tensor]:
        found = self.identity.diagnostics(outputs.embedding)
        if self.contrastive:
            found["loss/contrastive"] = supervised_contrastive(outputs.embedding, subjects, self.temperature)
        return found

    def _identity_embeddings(self, outputs: NetworkOutput) -> list[tuple[MarginLoss, Tensor]]:
        """Each identity loss and the (B, C) embeddings that it gets."""
        embeddings = [outputs.embedding, *(outputs.branch_embeddings[name] for name in self.branches)]
        return list(zip(self.identity_losses, embeddings))

    def end_epoch(self, losses: Mapping[str, float], identity_penalty: float) -> None:
        """Pass the mean losses of an epoch to the weighting.

        Args:
            losses: task to mean loss; a task without a loss in the epoch is absent.
            identity_penalty: mean penalty in `losses["identity"]`, which is subtracted before the weighting gets that loss.
        """
        means = {task: losses[task] for task in self.weighting.weights() if task in losses}
        if "identity" in means:
            means["identity"] -= identity_penalty
        self.weighting.end_epoch(means)


def find_labelled(targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Task to the positions of the (B,) labels that are not missing (-1); without the tasks that have none."""
    found = {task: torch.nonzero(target >= 0)[:, 0] for task, target in targets.items()}
    return {task: rows for task, rows in found.items() if len(rows)}
