"""The network: a branch a modality, their embeddings fused for every task, and the answers."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fr_ps.models.branch import IDENTITY, Branch, Features
from fr_ps.models.fusion import FUSIONS, build_class_head

ADVERSARIAL_PREFIX = "adversarial_"
"""Before an attribute's name: the output of its discriminator."""
SHARED_PREFIX = "shared_"
"""Before a modality's name: the map of it from which all its embeddings are made."""


class FaceNetwork(nn.Module):
    """Maps of one modality or more to an identity embedding and the logits of every attribute.

    The identity embedding's direction says who, and its norm (MagFace) how well that can be seen. After BN and averaging
    the norms start at 5 to 8, below MagFace's l_a = 10, where they are clamped and get no gradient: a learnt gain a
    modality brings them to some 20 to 30 from the start.

    Args:
        branches: modality to the branch that reads it.
        fusion: the name of how their embeddings become one.
        channels: of the fused embeddings where the fusion chooses them.
        classes: attribute to its number of classes.
        reversal: alpha of the gradient reversal; may be set anew before any step.
    """

    INITIAL_GAIN = 4.0

    def __init__(
        self, branches: Mapping[str, Branch], fusion: str, *, channels: int, classes: Mapping[str, int], reversal: float
    ) -> None:
        super().__init__()
        self.reversal_alpha = reversal
        self.modalities = tuple(branches)
        self.branches = nn.ModuleDict(branches)
        self.embedding_widths = {
            task: [branch.embedding_widths[task] for branch in branches.values()] for task in (IDENTITY, *classes)
        }
        narrow = {task: min(channels, max(self.embedding_widths[task])) for task in classes}
        self.heads = nn.ModuleDict(
            {task: build_class_head(fusion, self.embedding_widths[task], narrow[task], count) for task, count in classes.items()}
        )
        self.log_gains = nn.ParameterDict(
            {modality: nn.Parameter(torch.tensor(self.INITIAL_GAIN).log()) for modality in branches}
        )
        self.identity = FUSIONS[fusion](self.embedding_widths[IDENTITY], channels)

    @property
    def channels(self) -> int:
        """Of the identity embedding."""
        return self.identity.width  # type: ignore[return-value]

    @property
    def adversarial_tasks(self) -> tuple[str, ...]:
        """The attributes that have a discriminator that is trained."""
        return tuple(task for task in self.heads if any(task in branch.adversarial_tasks for branch in self.branches.values()))  # type: ignore[operator]

    def forward(self, maps: Mapping[str, Tensor], present: Tensor | None = None) -> dict[str, Tensor]:
        """Task to output: `identity` (B, channels), each attribute (B, classes).

        In training also `adversarial_...` of each attribute that has a discriminator, and the shared maps, `shared_...`.

        Args:
            maps: modality to (B, C, H, W); one of the network's that is not in it is missing.
            present: (B, modalities) which of them are taken as there, at least one a row; None: all in `maps`.

        Raises:
            InputError: a training batch of one.
        """
        features = self.encode(maps)
        outputs = self.decode(features, present)
        for modality, of_one in features.items():
            if self.training:
                outputs[SHARED_PREFIX + modality] = of_one.shared
        for task in self.adversarial_tasks if self.training else ():
            # The mean over branches, so that there is one adversary of an attribute, which sees all that could betray it.
            logits = [of_one.adversarial[task] for of_one in features.values() if task in of_one.adversarial]
            outputs[ADVERSARIAL_PREFIX + task] = torch.stack(logits).mean(dim=0)
        return outputs

    def encode(self, maps: Mapping[str, Tensor]) -> dict[str, Features]:
        """Modality to what its branch makes of it, of those that are in `maps`."""
        return {
            modality: branch(maps[modality], self.reversal_alpha)
            for modality, branch in self.branches.items()
            if modality in maps
        }

    def decode(self, features: Mapping[str, Features], present: Tensor | None = None) -> dict[str, Tensor]:
        """Task to output, from what some branches say; arguments as of `forward`."""
        known = torch.tensor([modality in features for modality in self.modalities])
        shared = next(iter(features.values())).shared
        known = known.to(shared.device).expand(shared.shape[0], -1)
        present = known if present is None else known & present
        outputs = {task: head(self._task_embeddings(task, features, present), present) for task, head in self.heads.items()}
        gained = self._task_embeddings(IDENTITY, features, present)
        gained = [embedding * self.log_gains[modality].exp() for modality, embedding in zip(self.modalities, gained)]
        outputs[IDENTITY] = self.identity(gained, present)
        return outputs

    def _task_embeddings(self, task: str, features: Mapping[str, Features], present: Tensor) -> Sequence[Tensor]:
        """Of each modality, zero where it is missing."""
        some = next(iter(features.values())).embeddings[task]
        return [
            features[modality].embeddings[task].where(present[:, [index]], 0)
            if modality in features
            else some.new_zeros(some.shape[0], self.embedding_widths[task][index])
            for index, modality in enumerate(self.modalities)
        ]
