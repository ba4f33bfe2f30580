"""Training batches: maps on the device, augmented, with the targets of every loss."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fr_ps.config import AugmentConfig, BatchConfig
from fr_ps.data.augment import MapBatch, apply_augmentation, draw_augmentation
from fr_ps.data.dataset import Dataset
from fr_ps.data.labels import ATTRIBUTES, MISSING
from fr_ps.data.sampling import class_batches, pk_batches, random_batches
from fr_ps.device import to_device
from fr_ps.distributed import own_rows, world_size
from fr_ps.errors import InputError
from fr_ps.losses.multitask import find_labelled
from fr_ps.training.map_source import open_map_source


class Batch(NamedTuple):
    """One training batch, on the device.

    With several processes, `maps` and `present` are those of this process's share of the B sessions; `targets` and `labelled` are
    those of all B.

    Attributes:
        maps: modality to (B, C, H, W).
        targets: task to the (B,) classes; -1 for a missing label.
        present: (B, modalities) bool, which maps of a session reach the fusion and the joint branch, in the order of
            `data.modalities`; one or more per session. The branch of a modality reads its map even where False.
        labelled: task to the positions, within the batch, of the sessions that have a label; a task without such sessions is left
            out. Computed on the CPU, because `nonzero` on a GPU makes the CPU wait until the size of its result is known.
    """

    maps: dict[str, Tensor]
    targets: dict[str, Tensor]
    present: Tensor
    labelled: dict[str, Tensor]


class BatchLoader:
    """The batches of the training part; each is a pure function of (seed, epoch, batch number).

    Args:
        dataset: labels and maps.
        rows: (n,) indices of the training part into `dataset.labels`.
        batch: batch size and balancing.
        augmentation: strength of the augmentation.
        seed: `train.seed`.
        device: where the batches are put.
        modality_dropout: probability that a map of a session is dropped.

    Raises:
        InputError: the training part has fewer than two classes of the attribute to balance, or the processes cannot share a
            batch equally.
    """

    def __init__(
        self,
        dataset: Dataset,
        rows: np.ndarray,
        batch: BatchConfig,
        augmentation: AugmentConfig,
        seed: int,
        device: torch.device,
        modality_dropout: float = 0.0,
    ) -> None:
        self.labels = dataset.labels
        self.rows, self.batch_config, self.augment_config = rows, batch, augmentation
        self.num_modalities = len(dataset.store.maps)
        self.map_source = open_map_source(dataset.store, rows, device)
        self.seed, self.device, self.modality_dropout = seed, device, modality_dropout
        training_subjects, identity = np.unique(dataset.labels.subject_of[rows], return_inverse=True)
        self.subjects = dataset.labels.subjects[training_subjects]
        codes = dataset.labels.codes[rows]
        self.targets = {"identity": torch.from_numpy(identity.astype(np.int64))}
        self.targets |= {task: torch.from_numpy(codes[:, column].astype(np.int64)) for column, task in enumerate(ATTRIBUTES)}
        if batch.balance == "class":
            _check_two_classes(batch.attribute, codes[:, ATTRIBUTES.index(batch.attribute)])
        if batch.balance == "none":
            _check_equal_shares(
                min(batch.people * batch.sessions, len(rows)),
                "sessions",
                "and at most the number of training sessions divided by batch.sessions",
            )
        else:
            # A batch is a sequence of groups, each of `batch.sessions` sessions of one subject. Each process gets a contiguous
            # part of the batch (`own_rows`), and no group is divided.
            _check_equal_shares(
                min(batch.people, len(self.subjects)),
                f"subjects ({batch.sessions} sessions each)",
                "and at most the number of training subjects",
            )

    def epoch_indices(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, each a (B,) array of indices into the training part; all epochs have the same number."""
        identities, people, sessions = self.targets["identity"].numpy(), self.batch_config.people, self.batch_config.sessions
        num_batches = self.batch_config.steps
        if self.batch_config.balance == "none":
            return random_batches(len(identities), people * sessions, self.seed, epoch, num_batches)
        if self.batch_config.balance == "class":
            classes = self.targets[self.batch_config.attribute].numpy()
            return class_batches(identities, classes, people, sessions, self.seed, epoch, num_batches)
        return pk_batches(identities, people, sessions, self.seed, epoch, num_batches)

    def stream(self, batches: Sequence[np.ndarray], epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on.

        With `map_source.prefetch`, a thread reads the maps of the next batch.

        Args:
            batches: from `epoch_indices`.
            epoch: of the batches.
            start: number of the first batch.
        """
        if not self.map_source.prefetch:
            for number in range(start, len(batches)):
                yield self.load(batches[number], epoch, number)
            return
        if start >= len(batches):
            return
        with ThreadPoolExecutor(1, "maps") as executor:
            next_maps = executor.submit(self._read, batches[start])
            for number in range(start, len(batches)):
                maps = next_maps.result()
                if number + 1 < len(batches):
                    next_maps = executor.submit(self._read, batches[number + 1])
                yield self._build_batch(maps, batches[number], epoch, number)

    def load(self, indices: np.ndarray, epoch: int, batch_number: int) -> Batch:
        """Load and augment one batch.

        Args:
            indices: (B,) into the training part, from `epoch_indices`.
            epoch: of the batch; part of the seed.
            batch_number: of the batch in the epoch, from 0; part of the seed.
        """
        return self._build_batch(self._read(indices), indices, epoch, batch_number)

    def _read(self, indices: np.ndarray) -> MapBatch:
        """The maps of this process's share of the sessions at (B,) `indices` into the training part."""
        return self.map_source.read(indices[own_rows(len(indices))])

    def _build_batch(self, maps: MapBatch, indices: np.ndarray, epoch: int, batch_number: int) -> Batch:
        """The batch of (B,) indices, augmented by random numbers of (seed, epoch, batch number).

        The random numbers are those of the whole batch, so that they do not depend on the number of processes.

        Args:
            maps: of the sessions of this process.
            indices: of the whole batch.
            epoch, batch_number: of the batch.
        """
        own = own_rows(len(indices))
        generator = torch.Generator().manual_seed(combined_seed(self.seed, epoch, batch_number))
        drawn = draw_augmentation(len(indices), self.num_modalities, self.augment_config, generator)
        present = sample_present_mask(len(indices), self.num_modalities, self.modality_dropout, generator)
        targets = {task: target[torch.from_numpy(indices)] for task, target in self.targets.items()}
        labelled = find_labelled(targets)
        return Batch(
            apply_augmentation(maps, drawn.part(own)),
            {task: to_device(target, self.device) for task, target in targets.items()},
            to_device(present[own], self.device),
            {task: to_device(rows, self.device) for task, rows in labelled.items()},
        )

    def session_names(self, indices: np.ndarray) -> list[str]:
        """`id/session` of each of the `indices` into the training part."""
        return [f"{self.labels.ids[row]}/{self.labels.sessions[row]}" for row in self.rows[indices]]

    def sessions_per_subject(self) -> Tensor:
        """(subjects,) number of training sessions of each subject, in the order of `subjects`."""
        return torch.bincount(self.targets["identity"], minlength=len(self.subjects))

    def class_counts_of_trained_attributes(self, classes: Mapping[str, int]) -> dict[str, Tensor]:
        """Attribute to its (classes,) number of training samples, for the attributes with samples of two classes or more.

        Args:
            classes: attribute to its number of classes.
        """
        counts = {
            task: torch.bincount(self.targets[task][self.targets[task] >= 0], minlength=classes[task]) for task in ATTRIBUTES
        }
        return {task: count for task, count in counts.items() if (count > 0).sum() >= 2}


def combined_seed(*numbers: int) -> int:
    """A seed for torch that depends on all `numbers`, below 2^63 as a signed 64-bit integer requires."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def sample_present_mask(count: int, num_modalities: int, dropout: float, generator: torch.Generator) -> Tensor:
    """(count, num_modalities) bool: each is False with probability `dropout`; a row without True gets one at random."""
    present = torch.rand(count, num_modalities, generator=generator) >= dropout
    kept = torch.randint(num_modalities, (count,), generator=generator)
    return present | (~present.any(dim=1, keepdim=True) & torch.nn.functional.one_hot(kept, num_modalities).bool())


def _check_two_classes(attribute: str, codes: np.ndarray) -> None:
    num_classes = len(np.unique(codes[codes != MISSING]))
    if num_classes < 2:
        raise InputError(
            f"batch.attribute is {attribute!r}; the training sessions have {num_classes} of its classes; expected an attribute "
            "with two or more (or set batch.balance=identity)"
        )


def _check_equal_shares(count: int, unit: str, limit_text: str) -> None:
    processes = world_size()
    if count % processes:
        raise InputError(
            f"a batch has {count} {unit}, which {processes} processes cannot share equally; set "
            f"batch.people to a multiple of {processes}, {limit_text}"
        )
