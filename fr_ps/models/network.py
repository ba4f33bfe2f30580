"""The network: a branch for each modality, a joint branch that reads all of them, or both.

For each task the embeddings of the branches are fused; each attribute has a head.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fr_ps.config import JOINT
from fr_ps.distributed import gather_rows
from fr_ps.models.branch import IDENTITY, Branch, Features
from fr_ps.models.fusion import FUSIONS, build_class_head
from fr_ps.models.layers import mirror_maps
from fr_ps.models.linear_attributes import LinearAttributes
from fr_ps.models.linear_embedding import LinearEmbedding


class NetworkOutput(NamedTuple):
    """The outputs of one batch. The last three are empty in evaluation.

    Attributes:
        embedding: (B, `FaceNetwork.embedding_size`) identity embedding; in evaluation followed by that of the
            `LinearEmbedding`, if the network has one.
        logits: attribute to (B, classes) logits.
        adversarial: attribute to (B, classes) logits of its adversarial discriminator.
        shared: branch to the (B, channels, h, w) feature map from which all its embeddings are made.
        branch_embeddings: branch to its own (B, width of the branch) identity embedding, before the fusion; only for the
            branches in `branch_loss_widths`. A session whose map is dropped (`present` is False) has that of the map all the
            same; the fusion gets 0 in its place, and the joint branch 0 in place of the map.
    """

    embedding: Tensor
    logits: dict[str, Tensor]
    adversarial: dict[str, Tensor]
    shared: dict[str, Tensor]
    branch_embeddings: dict[str, Tensor]

    def gathered(self) -> "NetworkOutput":
        """The outputs of the sessions of all processes (`gather_rows`). The maps in `shared` stay those of this process."""
        # One exchange for all outputs: they are joined as columns, gathered, and split again.
        own = [self.embedding, *self.logits.values(), *self.adversarial.values(), *self.branch_embeddings.values()]
        parts = iter(gather_rows(torch.cat(own, dim=1)).split([tensor.shape[1] for tensor in own], dim=1))

        def take(names: Iterable[str]) -> dict[str, Tensor]:
            return {name: next(parts) for name in names}

        # The fields in the order of `own`.
        embedding, logits, adversarial = next(parts), take(self.logits), take(self.adversarial)
        branch_embeddings = take(self.branch_embeddings)
        return NetworkOutput(embedding, logits, adversarial, self.shared, branch_embeddings)

    def float(self) -> "NetworkOutput":
        """The outputs in float32. The maps in `shared` stay as they are, since gradients are taken with respect to them."""
        return self._replace(
            embedding=self.embedding.float(),
            logits={name: tensor.float() for name, tensor in self.logits.items()},
            adversarial={name: tensor.float() for name, tensor in self.adversarial.items()},
            branch_embeddings={name: tensor.float() for name, tensor in self.branch_embeddings.items()},
        )


class FaceNetwork(nn.Module):
    """Computes an identity embedding and the logits of every attribute from the maps of one modality or more.

    The direction of the identity embedding encodes the subject; its norm (MagFace) encodes the quality. At initialisation the
    norms would be 5 to 8, below MagFace's l_a = 10, where they are clamped and get no gradient. A learnt gain per branch,
    initially `INITIAL_GAIN`, raises them to about 20 to 30.

    Args:
        branches: modality to the branch that reads it; `joint` to the branch that reads all.
        fusion: name of the fusion of their embeddings.
        channels: for the fusions fc and gated only: width of the fused identity embedding. The fused embedding of an attribute
            is as wide, or as wide as the widest branch embedding of the attribute if that is smaller.
        classes: attribute to its number of classes.
        flip_average: whether the outputs in evaluation mode are means over the maps and their mirror images.
        linear_share: share of the linear embedding (`LinearEmbedding`: a fitted projection of the maps) in the cosine
            similarity, in evaluation mode; 0: the network has none.
        attribute_share: share of linear classifiers in the logits of attributes, in evaluation mode; needs a linear embedding.
        registration: whether the identity part of the linear embedding reads registered maps.

    Attributes:
        reversal_alpha: alpha of the gradient reversal; the trainer sets it before each step.
    """

    INITIAL_GAIN = 4.0

    def __init__(
        self,
        branches: Mapping[str, Branch],
        fusion: str,
        *,
        channels: int,
        classes: Mapping[str, int],
        flip_average: bool = False,
        linear_share: float = 0.0,
        attribute_share: float = 0.0,
        registration: bool = False,
    ) -> None:
        super().__init__()
        self.reversal_alpha = 1.0
        self.flip_average = flip_average
        self.modalities = branches[JOINT].joint_modalities if JOINT in branches else tuple(branches)
        self.branches = nn.ModuleDict(branches)
        self.embedding_widths = {
            task: [branch.embedding_widths[task] for branch in branches.values()] for task in (IDENTITY, *classes)
        }
        widths = {task: min(channels, max(self.embedding_widths[task])) for task in classes}
        self.heads = nn.ModuleDict(
            {task: build_class_head(fusion, self.embedding_widths[task], widths[task], count) for task, count in classes.items()}
        )
        self.log_gains = nn.ParameterDict({name: nn.Parameter(torch.tensor(self.INITIAL_GAIN).log()) for name in branches})
        # The fusion of the identity embeddings. The name is a key of stored weights.
        self.identity = FUSIONS[fusion](self.embedding_widths[IDENTITY], channels)
        self.linear_share = linear_share
        self.linear = LinearEmbedding(self.modalities, registration) if linear_share else None
        self.attribute_share = attribute_share
        self.linear_attributes = None
        if self.linear is not None and attribute_share:
            self.linear_attributes = LinearAttributes(self.linear.attribute_width, classes)

    @property
    def embedding_size(self) -> int:
        """Width of the trained identity embedding, without the linear one."""
        return self.identity.width  # type: ignore[return-value]

    @property
    def branch_loss_widths(self) -> dict[str, int]:
        """Branch to the width of its own identity embedding, for the branches that may have a loss of their own: those that are
        not frozen; {} for a single branch."""
        widths = dict(zip(self.branches, self.embedding_widths[IDENTITY]))
        unfrozen = {name: width for name, width in widths.items() if not self.branches[name].frozen}
        return unfrozen if len(self.branches) > 1 else {}

    @property
    def adversarial_attributes(self) -> tuple[str, ...]:
        """The attributes with a discriminator that is trained."""
        branches = [cast(Branch, branch) for branch in self.branches.values()]
        return tuple(task for task in self.heads if any(task in branch.adversarial_attributes for branch in branches))

    def forward(self, maps: Mapping[str, Tensor], present: Tensor | None = None) -> NetworkOutput:
        """The outputs of a batch. Only in training mode, they have `adversarial`, `shared` and `branch_embeddings`.

        Args:
            maps: modality to (B, C, H, W); modalities may be absent.
            present: (B, modalities) which modalities of a session are used, at least one per row; None: all in `maps`.

        Raises:
            InputError: one session in training mode, for which batch norm is undefined.
        """
        features = self.encode(maps, present)
        outputs = self.decode(features, maps, present)
        if not self.training:
            return outputs
        adversarial = {}
        for task in self.adversarial_attributes:
            # The mean over branches: one adversary per attribute, with access to everything that could reveal it.
            logits = [of_branch.adversarial[task] for of_branch in features.values() if task in of_branch.adversarial]
            adversarial[task] = torch.stack(logits).mean(dim=0)
        shared = {name: of_branch.shared for name, of_branch in features.items()}
        branch_embeddings = {
            name: self._scaled(name, of_branch.embeddings[IDENTITY])
            for name, of_branch in features.items()
            if name in self.branch_loss_widths
        }
        return outputs._replace(adversarial=adversarial, shared=shared, branch_embeddings=branch_embeddings)

    def encode(self, maps: Mapping[str, Tensor], present: Tensor | None = None) -> dict[str, Features]:
        """Branch to its features, for the modalities in `maps`; `present` as in `forward`.

        With `flip_average`, in evaluation mode, those of the B mirror images follow those of the B maps.
        """
        maps, present = self._with_mirror_images(maps, present)
        # `joint` is no key of `maps`; `_encode_joint` runs that branch.
        features = {name: branch(maps[name], self.reversal_alpha) for name, branch in self.branches.items() if name in maps}
        return features | self._encode_joint(maps, present)

    def encode_subset(
        self, features: Mapping[str, Features], maps: Mapping[str, Tensor], modalities: Sequence[str]
    ) -> dict[str, Features]:
        """Branch to its features for some of the modalities, from the `features` of all `maps`.

        Only the joint branch, whose features depend on every map, runs again.
        """
        found = {name: features[name] for name in modalities if name in features}
        if JOINT in features and len(modalities) == len(maps):
            return found | {JOINT: features[JOINT]}
        return found | self._encode_joint(*self._with_mirror_images({modality: maps[modality] for modality in modalities}))

    def _encode_joint(self, maps: Mapping[str, Tensor], present: Tensor | None) -> dict[str, Features]:
        if JOINT not in self.branches:
            return {}
        branch = cast(Branch, self.branches[JOINT])
        return {JOINT: branch(branch.stack(maps, present), self.reversal_alpha)}

    def decode(
        self, features: Mapping[str, Features], maps: Mapping[str, Tensor], present: Tensor | None = None
    ) -> NetworkOutput:
        """The outputs, computed from the features of some branches.

        Args:
            features: of the branches.
            maps: the maps that they were made from, for the linear embedding.
            present: as in `forward`.
        """
        used = self._used_branches(features, present)
        logits = {task: head(self._task_embeddings(task, features, used), used) for task, head in self.heads.items()}
        embeddings = self._task_embeddings(IDENTITY, features, used)
        scaled = [self._scaled(name, embedding) for name, embedding in zip(self.branches, embeddings)]
        embedding = self.identity(scaled, used)
        if self._is_flip_averaging:
            embedding = _average_embeddings(embedding.unflatten(0, (2, -1)))
            logits = {task: of_task.unflatten(0, (2, -1)).mean(dim=0) for task, of_task in logits.items()}
        if self.linear is not None and not self.training:
            embedding, logits = self._with_linear_part(self.linear, embedding, logits, maps, present)
        return NetworkOutput(embedding, logits, {}, {}, {})

    def _used_branches(self, features: Mapping[str, Features], present: Tensor | None) -> Tensor:
        """(B, branches) bool, or (2 B, branches) with `flip_average` in evaluation mode: whether the fusion uses a branch.

        It does if `features` has the branch and, with `present`, the session has a map that the branch reads.
        """
        shared = next(iter(features.values())).shared
        # Created on the device, because copying the mask from the CPU would make the CPU wait for the GPU.
        available = [shared.new_full((shared.shape[0],), name in features, dtype=torch.bool) for name in self.branches]
        if present is None:
            return torch.stack(available, dim=1)
        present_rows = present.repeat(2, 1) if self._is_flip_averaging else present  # mirror images follow
        has_map = [
            present_rows.any(dim=1) if name == JOINT else present_rows[:, self.modalities.index(name)] for name in self.branches
        ]
        return torch.stack(available, dim=1) & torch.stack(has_map, dim=1)

    def _with_linear_part(
        self,
        linear: LinearEmbedding,
        embedding: Tensor,
        logits: dict[str, Tensor],
        maps: Mapping[str, Tensor],
        present: Tensor | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The (B, C + D) embedding and the logits of the trained network, joined with those of the linear part."""
        columns = None if present is None else dict(zip(self.modalities, present.unbind(dim=1)))
        centred = linear.centred_features(maps, columns)
        projected = linear.project(centred)
        joined = linear.join(projected)
        # (B, 1): 0 for a session without a map that the linear embedding reads, and before the fit; else 1.
        has_maps = (joined.abs().sum(dim=1, keepdim=True) > 0).to(joined.dtype)
        embedding = _join(embedding, joined, self.linear_share * has_maps)
        if self.linear_attributes is not None:
            of_linear = self.linear_attributes(linear.attribute_features(projected, centred))
            fitted = self.linear_attributes.is_fitted()
            logits = _mix_logits(logits, of_linear, {task: self.attribute_share * has_maps * fitted[task] for task in logits})
        return embedding, logits

    @property
    def _is_flip_averaging(self) -> bool:
        """Whether the outputs are means over the maps and their mirror images."""
        return self.flip_average and not self.training

    def _scaled(self, name: str, embedding: Tensor) -> Tensor:
        """The (B, C) identity embedding of the branch `name` times its learnt gain."""
        return embedding * self.log_gains[name].exp()

    def _with_mirror_images(
        self, maps: Mapping[str, Tensor], present: Tensor | None = None
    ) -> tuple[Mapping[str, Tensor], Tensor | None]:
        """With `flip_average`, in evaluation mode, the B maps and then their B mirror images."""
        if not self._is_flip_averaging:
            return maps, present
        both = {modality: torch.cat([of_one, mirror_maps(of_one, modality)]) for modality, of_one in maps.items()}
        return both, None if present is None else present.repeat(2, 1)

    def _task_embeddings(self, task: str, features: Mapping[str, Features], used: Tensor) -> Sequence[Tensor]:
        """The embeddings of `task`, one per branch, zero where (B, branches) `used` is False."""
        template = next(iter(features.values())).embeddings[task]
        return [
            features[name].embeddings[task].where(used[:, [index]], 0)
            if name in features
            else template.new_zeros(template.shape[0], self.embedding_widths[task][index])
            for index, name in enumerate(self.branches)
        ]


def _average_embeddings(embeddings: Tensor) -> Tensor:
    """(k, B, C) -> (B, C): the mean of the k directions (unit vectors), times the mean of the k norms."""
    norm = embeddings.norm(dim=2, keepdim=True).mean(dim=0)
    return functional.normalize(embeddings, dim=2).mean(dim=0) * norm


def _join(embedding: Tensor, linear: Tensor, share: Tensor) -> Tensor:
    """(B, C + D): both parts joined, with the norm of `embedding`.

    The cosine of two outputs with equal shares is the mean of the cosines of both parts, weighted by the shares.

    Args:
        embedding: (B, C).
        linear: (B, D) unit vectors.
        share: (B, 1) share of `linear`.
    """
    norm = embedding.norm(dim=1, keepdim=True)
    return torch.cat([functional.normalize(embedding, dim=1) * (1 - share).sqrt(), linear * share.sqrt()], dim=1) * norm


def _mix_logits(logits: Mapping[str, Tensor], linear: Mapping[str, Tensor], shares: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Attribute to (B, classes), the weighted mean of the logarithms of both probabilities.

    Args:
        logits: attribute to (B, classes).
        linear: attribute to (B, classes).
        shares: attribute to the (B, 1) share of `linear`.
    """
    return {
        task: (1 - shares[task]) * of_task.float().log_softmax(dim=1) + shares[task] * linear[task].log_softmax(dim=1)
        for task, of_task in logits.items()
    }
