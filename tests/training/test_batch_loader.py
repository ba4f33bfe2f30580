"""Training batches."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fr_ps.config import AugmentConfig, BatchConfig
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.training.batch_loader import BatchLoader, sample_present_mask
from tests.conftest import AssertRejected

PLAIN = AugmentConfig(flip=0, crop=1, rotation=0, noise=0)
ROWS = np.array([0, 1, 2, 3, 8, 9, 10, 16, 17, 18, 19])
"""Rows of three subjects that are not neighbours in the table; one has three sessions."""


@pytest.fixture(scope="module")
def dataset(prepared: Path) -> Dataset:
    return open_dataset(prepared, ["normal"])


def feed(dataset: Dataset, seed: int = 0, change: AugmentConfig | None = None) -> BatchLoader:
    return BatchLoader(dataset, ROWS, BatchConfig(people=2, sessions=3), change or AugmentConfig(), seed, torch.device("cpu"))


def batches(source: BatchLoader, epoch: int) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    return [
        (maps["normal"], dict(targets))
        for index, chosen in enumerate(source.epoch_indices(epoch))
        for maps, targets, *_ in [source.load(chosen, epoch, index)]
    ]


def same(a: list[tuple[torch.Tensor, dict[str, torch.Tensor]]], b: list[tuple[torch.Tensor, dict[str, torch.Tensor]]]) -> bool:
    return all(
        torch.equal(x, y) and all(torch.equal(targets[task], others[task]) for task in targets)
        for (x, targets), (y, others) in zip(a, b, strict=True)
    )


def test_batches_are_a_pure_function_of_seed_and_epoch(dataset: Dataset) -> None:
    first = batches(feed(dataset, seed=5), epoch=3)
    torch.manual_seed(99)
    used = feed(dataset, seed=5)
    batches(used, epoch=0)
    assert same(first, batches(used, epoch=3))
    for other in (batches(feed(dataset, seed=5), epoch=4), batches(feed(dataset, seed=6), epoch=3)):
        assert not same(first, other)


def test_a_batch_does_not_depend_on_those_before_it(dataset: Dataset) -> None:
    """So that a resumed training sees what an uninterrupted one would have."""
    source = feed(dataset)
    order = source.epoch_indices(1)
    assert torch.equal(batches(source, 1)[-1][0], feed(dataset).load(order[-1], 1, len(order) - 1).maps["normal"])


def test_the_same_sessions_are_augmented_differently_in_every_batch_and_epoch(dataset: Dataset) -> None:
    source, chosen = feed(dataset), np.arange(6)
    drawn = [source.load(chosen, epoch, index).maps["normal"] for epoch in (0, 1) for index in (0, 1)]
    for a, x in enumerate(drawn):
        for y in drawn[:a]:
            assert not torch.equal(x, y)


def test_without_augmentation_a_batch_holds_the_maps_of_the_store(dataset: Dataset) -> None:
    source = feed(dataset, change=PLAIN)
    for index, chosen in enumerate(source.epoch_indices(0)):
        maps, *_ = source.load(chosen, 0, index)
        np.testing.assert_allclose(maps["normal"].numpy(), dataset.store.maps["normal"][ROWS[chosen]], atol=1e-5)


def test_targets_agree_with_the_table(dataset: Dataset) -> None:
    source = feed(dataset)
    people = sorted(set(dataset.labels.ids[ROWS]))
    assert list(source.subjects) == people
    assert len(people) == 3
    for index, chosen in enumerate(source.epoch_indices(0)):
        _, targets, *_ = source.load(chosen, 0, index)
        for place, row in enumerate(ROWS[chosen]):
            assert people[targets["identity"][place]] == dataset.labels.ids[row]
            for column, task in enumerate(ATTRIBUTES):
                assert targets[task][place] == dataset.labels.codes[row, column]
        assert all(target.dtype == torch.int64 for target in targets.values())


def test_a_batch_has_k_training_sessions_of_each_of_p_subjects(dataset: Dataset) -> None:
    source = feed(dataset)
    seen: set[int] = set()
    for epoch in range(6):
        for chosen in source.epoch_indices(epoch):
            ids = dataset.labels.ids[ROWS[chosen]]
            assert sorted(np.unique(ids, return_counts=True)[1]) == [3, 3]
            seen |= set(ROWS[chosen].tolist())
    assert seen == set(ROWS.tolist())


def with_codes(dataset: Dataset, codes: np.ndarray) -> Dataset:
    return replace(dataset, labels=replace(dataset.labels, codes=codes))


def test_balanced_classes_are_sampled_round_robin(dataset: Dataset) -> None:
    codes = np.full_like(dataset.labels.codes, -1)
    codes[:, ATTRIBUTES.index("pose")] = 0
    codes[8, ATTRIBUTES.index("pose")] = 1  # one of the eleven sessions
    batch = BatchConfig(people=2, sessions=3, balance="class", attribute="pose")
    source = BatchLoader(with_codes(dataset, codes), ROWS, batch, PLAIN, 0, torch.device("cpu"))
    for index, chosen in enumerate(source.epoch_indices(0)):
        _, targets, *_ = source.load(chosen, 0, index)
        assert sorted(targets["pose"].tolist()) == [0, 0, 0, 1, 1, 1]
        assert set(ROWS[chosen[targets["pose"] == 1]].tolist()) == {8}


def test_without_balancing_every_session_occurs_once_per_epoch(dataset: Dataset) -> None:
    batch = BatchConfig(people=2, sessions=3, balance="none")
    source = BatchLoader(dataset, ROWS, batch, PLAIN, 0, torch.device("cpu"))
    first, last = source.epoch_indices(0)
    assert sorted(ROWS[[*first, *last[:5]]].tolist()) == sorted(ROWS.tolist())
    assert len(set(last.tolist())) == 6


@pytest.mark.parametrize("balance", ["identity", "class", "none"])
def test_an_epoch_has_the_number_of_batches_of_the_setting(dataset: Dataset, balance: Any) -> None:
    codes = np.resize([0, 1], dataset.labels.codes.shape).astype(np.int8)
    batch = BatchConfig(people=2, sessions=3, balance=balance, steps=7)
    source = BatchLoader(with_codes(dataset, codes), ROWS, batch, PLAIN, 0, torch.device("cpu"))
    assert [len(source.epoch_indices(epoch)) for epoch in (0, 1)] == [7, 7]
    assert not np.array_equal(source.epoch_indices(0), source.epoch_indices(1))


@pytest.mark.parametrize("code", [-1, 0])
def test_an_attribute_without_two_classes_to_balance_is_rejected_at_once(
    dataset: Dataset, code: int, rejected: AssertRejected
) -> None:
    codes = np.resize([0, 1], dataset.labels.codes.shape).astype(np.int8)
    codes[ROWS, ATTRIBUTES.index("emotion")] = code
    batch = BatchConfig(balance="class", attribute="emotion")
    with rejected("batch.attribute is 'emotion'", f"have {code + 1} of its classes", "batch.balance"):
        BatchLoader(with_codes(dataset, codes), ROWS, batch, PLAIN, 0, torch.device("cpu"))
    BatchLoader(with_codes(dataset, codes), ROWS, replace(batch, balance="identity"), PLAIN, 0, torch.device("cpu"))


def test_batches_leave_the_store_as_it_was(dataset: Dataset) -> None:
    before = dataset.store.read(ROWS)["normal"].copy()
    batches(feed(dataset), 0)
    np.testing.assert_array_equal(before, dataset.store.read(ROWS)["normal"])


def test_counts_are_those_of_the_training_part_and_one_class_is_not_trained(dataset: Dataset) -> None:
    codes = dataset.labels.codes.copy()
    codes[:] = np.arange(len(codes))[:, None] % 2
    codes[:, 1] = 1  # spectacles: one class
    codes[:, 2] = -1  # facial hair: nothing known
    codes[ROWS[:4], 3] = -1  # pose: some unknown
    codes[np.setdiff1d(np.arange(len(codes)), ROWS), 4] = 2  # emotion: a third class, of others only
    counts = feed(with_codes(dataset, codes)).class_counts_of_trained_attributes(
        {task: 3 if task == "emotion" else 2 for task in ATTRIBUTES}
    )
    assert {task: count.tolist() for task, count in counts.items()} == {
        "gender": [np.sum(ROWS % 2 == 0), np.sum(ROWS % 2 == 1)],
        "pose": [np.sum(ROWS[4:] % 2 == 0), np.sum(ROWS[4:] % 2 == 1)],
        "emotion": [np.sum(ROWS % 2 == 0), np.sum(ROWS % 2 == 1), 0],
    }


def test_the_sessions_of_each_training_subject_are_counted(dataset: Dataset) -> None:
    assert feed(dataset).sessions_per_subject().tolist() == [4, 3, 4]


def drawn(modalities: int, dropout: float, seed: int = 0, count: int = 20_000) -> torch.Tensor:
    return sample_present_mask(count, modalities, dropout, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
def test_modalities_are_missing_with_the_probability_of_the_dropout_but_for_the_one_that_is_left(
    modalities: int, dropout: float
) -> None:
    """Each alike: d, less the share of sessions that would lack all and keep this one, d^n / n; within four deviations."""
    present = drawn(modalities, dropout)
    assert present.any(dim=1).all()
    expected = dropout - dropout**modalities / modalities
    deviation = (expected * (1 - expected) / len(present)) ** 0.5
    for missing in (~present).double().mean(dim=0).tolist():
        assert missing == pytest.approx(expected, abs=4 * deviation)


def test_modalities_are_missing_independently_of_each_other() -> None:
    """Of three: the share that lacks both of two is d^2 (1 - d) + d^3 / 3."""
    present, dropout = drawn(3, 0.4), 0.4
    expected = dropout**2 * (1 - dropout) + dropout**3 / 3
    for a, b in ((0, 1), (0, 2), (1, 2)):
        both = (~present[:, a] & ~present[:, b]).double().mean().item()
        assert both == pytest.approx(expected, abs=4 * (expected / len(present)) ** 0.5)


def test_without_dropout_or_with_one_modality_nothing_is_missing() -> None:
    assert drawn(3, 0.0).all()
    assert drawn(1, 0.9).all()


def test_the_missing_modalities_are_a_function_of_the_generator() -> None:
    assert torch.equal(drawn(3, 0.5, seed=1), drawn(3, 0.5, seed=1))
    assert not torch.equal(drawn(3, 0.5, seed=1), drawn(3, 0.5, seed=2))


def test_the_present_mask_of_a_batch_is_a_function_of_seed_epoch_and_index(prepared: Path) -> None:
    source = open_dataset(prepared, ["normal", "albedo", "depth"])

    def present(epoch: int, index: int, dropout: float = 0.5) -> torch.Tensor:
        made = BatchLoader(source, ROWS, BatchConfig(people=2, sessions=3), PLAIN, 0, torch.device("cpu"), dropout)
        return made.load(np.arange(11), epoch, index).present

    assert present(0, 0).shape == (11, 3)
    assert torch.equal(present(1, 2), present(1, 2))
    assert not present(1, 2).all()
    for other in (present(1, 3), present(2, 2)):
        assert not torch.equal(present(1, 2), other)
    assert present(1, 2, dropout=0.0).all()


def test_dropout_changes_neither_the_maps_nor_the_targets_of_a_batch(prepared: Path) -> None:
    """The mask marks missing maps. The batch still holds them, and the network ignores them."""
    source = open_dataset(prepared, ["normal", "albedo"])
    made = [
        BatchLoader(source, ROWS, BatchConfig(people=2, sessions=3), AugmentConfig(), 0, torch.device("cpu"), dropout).load(
            np.arange(6), 0, 0
        )
        for dropout in (0.0, 0.9)
    ]
    (maps, targets, *_), (others, same_targets, *_) = made
    assert list(maps) == list(others) == ["normal", "albedo"]
    assert all(torch.equal(maps[modality], others[modality]) for modality in maps)
    assert all(torch.equal(targets[task], same_targets[task]) for task in targets)
