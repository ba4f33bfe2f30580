"""Training batches: what the store holds, augmented, with the targets of every loss."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fr_ps.config import AugmentConfig, BatchConfig
from fr_ps.data.augment import augment
from fr_ps.data.dataset import Dataset
from fr_ps.data.labels import ATTRIBUTES, MISSING
from fr_ps.data.sampling import class_batches, pk_batches, random_batches
from fr_ps.errors import InputError


class BatchLoader:
    """The batches of the training part; every one a pure function of (seed, epoch, index).

    Args:
        dataset: labels and maps.
        rows: of the training part.
        batch: P and K, and what is balanced.
        change: the augmentation.
        seed: of the run.
        device: where the batches go.
        dropout: probability that a session lacks a modality.

    Raises:
        InputError: the classes to balance are fewer than two.
    """

    def __init__(
        self,
        dataset: Dataset,
        rows: np.ndarray,
        batch: BatchConfig,
        change: AugmentConfig,
        seed: int,
        device: torch.device,
        modality_dropout: float = 0.0,
    ) -> None:
        self.labels = dataset.labels
        self.store, self.rows, self.config, self.augmentation = dataset.store, rows, batch, change
        self.seed, self.device, self.modality_dropout = seed, device, modality_dropout
        self.subjects, identity = np.unique(dataset.labels.ids[rows], return_inverse=True)
        codes = dataset.labels.codes[rows]
        self.targets = {"identity": torch.from_numpy(identity.astype(np.int64))}
        self.targets |= {task: torch.from_numpy(codes[:, column].astype(np.int64)) for column, task in enumerate(ATTRIBUTES)}
        if batch.balance == "class":
            _check_two_classes(batch.attribute, codes[:, ATTRIBUTES.index(batch.attribute)])

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, as indices into the training part."""
        identities, people, sessions = self.targets["identity"].numpy(), self.config.people, self.config.sessions
        if self.config.balance == "none":
            return random_batches(len(identities), people * sessions, self.seed, epoch)
        if self.config.balance == "class":
            classes = self.targets[self.config.attribute].numpy()
            return class_batches(identities, classes, people, sessions, self.seed, epoch)
        return pk_batches(identities, people, sessions, self.seed, epoch)

    def load(self, indices: np.ndarray, epoch: int, index: int) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor], Tensor]:
        """The maps (modality to (B, C, H, W)) and targets (task to (B,)) of one batch of `order`.

        And which maps each session is taken to have, (B, modalities) true or false, one true a row at least.
        """
        maps = {modality: torch.from_numpy(array) for modality, array in self.store.read(self.rows[indices]).items()}
        seed = np.random.SeedSequence([self.seed, epoch, index]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(seed >> np.uint64(1)))
        changed = augment(maps, self.augmentation, generator)
        present = sample_present_mask(len(indices), len(maps), self.modality_dropout, generator)
        index_tensor = torch.from_numpy(indices)
        return (
            {modality: array.to(self.device) for modality, array in changed.items()},
            {task: target[index_tensor].to(self.device) for task, target in self.targets.items()},
            present.to(self.device),
        )

    def session_names(self, indices: np.ndarray) -> list[str]:
        """`id/session` of some of the training part."""
        return [f"{self.labels.ids[row]}/{self.labels.sessions[row]}" for row in self.rows[indices]]

    def sessions_per_subject(self) -> Tensor:
        """(people,) numbers of training sessions of each person, in the order of `people`."""
        return torch.bincount(self.targets["identity"], minlength=len(self.subjects))

    def class_counts(self, classes: Mapping[str, int]) -> dict[str, Tensor]:
        """Attribute to the numbers of training samples of each class, of the attributes that have two classes or more."""
        counts = {
            task: torch.bincount(self.targets[task][self.targets[task] >= 0], minlength=classes[task]) for task in ATTRIBUTES
        }
        return {task: count for task, count in counts.items() if (count > 0).sum() >= 2}


def sample_present_mask(count: int, modalities: int, dropout: float, generator: torch.Generator) -> Tensor:
    """(count, modalities) whether each is there: missing with the probability `dropout`; one drawn evenly if all would be."""
    present = torch.rand(count, modalities, generator=generator) >= dropout
    kept = torch.randint(modalities, (count,), generator=generator)
    return present | (~present.any(dim=1, keepdim=True) & torch.nn.functional.one_hot(kept, modalities).bool())


def _check_two_classes(attribute: str, codes: np.ndarray) -> None:
    present = len(np.unique(codes[codes != MISSING]))
    if present < 2:
        raise InputError(
            f"batch.attribute is {attribute!r}, of whose classes the training sessions have {present}; expected an attribute of "
            "which they have two or more (or set batch.balance=identity)"
        )
