"""Training batches."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fr_ps.config import AugmentConfig, BatchConfig
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.training.feed import Feed

PLAIN = AugmentConfig(flip=0, crop=1, rotation=0, noise=0)
ROWS = np.array([0, 1, 2, 3, 8, 9, 10, 16, 17, 18, 19])
"""Of three people who are not neighbours in the table; one has three sessions."""


@pytest.fixture(scope="module")
def dataset(prepared: Path) -> Dataset:
    return open_dataset(prepared, ["normal"])


def feed(dataset: Dataset, seed: int = 0, change: AugmentConfig | None = None) -> Feed:
    return Feed(dataset, ROWS, BatchConfig(people=2, sessions=3), change or AugmentConfig(), seed, torch.device("cpu"))


def batches(source: Feed, epoch: int) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    return [
        (maps["normal"], dict(targets))
        for index, chosen in enumerate(source.order(epoch))
        for maps, targets in [source.batch(chosen, epoch, index)]
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
    order = source.order(1)
    assert torch.equal(batches(source, 1)[-1][0], feed(dataset).batch(order[-1], 1, len(order) - 1)[0]["normal"])


def test_the_same_sessions_are_augmented_differently_in_every_batch_and_epoch(dataset: Dataset) -> None:
    source, chosen = feed(dataset), np.arange(6)
    drawn = [source.batch(chosen, epoch, index)[0]["normal"] for epoch in (0, 1) for index in (0, 1)]
    for a, x in enumerate(drawn):
        for y in drawn[:a]:
            assert not torch.equal(x, y)


def test_without_augmentation_a_batch_is_what_the_store_holds(dataset: Dataset) -> None:
    source = feed(dataset, change=PLAIN)
    for index, chosen in enumerate(source.order(0)):
        maps, _ = source.batch(chosen, 0, index)
        np.testing.assert_allclose(maps["normal"].numpy(), dataset.store.maps["normal"][ROWS[chosen]], atol=1e-5)


def test_targets_agree_with_the_table(dataset: Dataset) -> None:
    source = feed(dataset)
    people = sorted(set(dataset.labels.ids[ROWS]))
    assert list(source.people) == people
    assert len(people) == 3
    for index, chosen in enumerate(source.order(0)):
        _, targets = source.batch(chosen, 0, index)
        for place, row in enumerate(ROWS[chosen]):
            assert people[targets["identity"][place]] == dataset.labels.ids[row]
            for column, task in enumerate(ATTRIBUTES):
                assert targets[task][place] == dataset.labels.codes[row, column]
        assert all(target.dtype == torch.int64 for target in targets.values())


def test_only_rows_of_the_training_part_are_drawn_and_a_batch_has_p_people_with_k_sessions(dataset: Dataset) -> None:
    source = feed(dataset)
    seen: set[int] = set()
    for epoch in range(6):
        for chosen in source.order(epoch):
            ids = dataset.labels.ids[ROWS[chosen]]
            assert sorted(np.unique(ids, return_counts=True)[1]) == [3, 3]
            seen |= set(ROWS[chosen].tolist())
    assert seen == set(ROWS.tolist())


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
    changed = replace(dataset, labels=replace(dataset.labels, codes=codes))
    counts = feed(changed).class_counts({task: 3 if task == "emotion" else 2 for task in ATTRIBUTES})
    assert {task: count.tolist() for task, count in counts.items()} == {
        "gender": [np.sum(ROWS % 2 == 0), np.sum(ROWS % 2 == 1)],
        "pose": [np.sum(ROWS[4:] % 2 == 0), np.sum(ROWS[4:] % 2 == 1)],
        "emotion": [np.sum(ROWS % 2 == 0), np.sum(ROWS % 2 == 1), 0],
    }


def test_the_sessions_of_each_person_of_the_training_part_are_counted(dataset: Dataset) -> None:
    assert feed(dataset).person_counts().tolist() == [4, 3, 4]
