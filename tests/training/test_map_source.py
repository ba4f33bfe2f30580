"""Maps on the device, or read from the store: the same maps, and prefetched without a change."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fr_ps.config import AugmentConfig, BatchConfig
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.training import map_source
from fr_ps.training.batch_loader import Batch, BatchLoader
from fr_ps.training.map_source import DeviceMaps, StoreMaps, open_map_source

CPU = torch.device("cpu")
ROWS = np.array([5, 2, 9, 4, 7, 0, 3, 8, 1])


@pytest.fixture
def dataset(prepared: Path) -> Dataset:
    return open_dataset(prepared, ["albedo", "normal"])


def same(batch: Batch, other: Batch) -> bool:
    pairs = [(batch.maps, other.maps), (batch.targets, other.targets), (batch.labelled, other.labelled)]
    return all(one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one) for one, two in pairs)


def test_the_maps_on_the_device_are_those_of_the_store(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_source, "_COPIED_ROWS", 4)  # two whole chunks and one row
    on_device, stored = DeviceMaps(dataset.store, ROWS, CPU), StoreMaps(dataset.store, ROWS, CPU)
    indices = np.array([8, 0, 3, 3])
    expected = dataset.store.read(ROWS[indices])
    for source in (on_device, stored):
        for modality, maps in source.read(indices).items():
            assert np.array_equal(maps.numpy(), expected[modality])


@pytest.mark.parametrize(("free", "kind"), [(10**9, DeviceMaps), (1000, StoreMaps)])
def test_maps_are_copied_to_a_device_with_enough_memory(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, free: int, kind: type
) -> None:
    monkeypatch.setattr(map_source, "_free_memory", lambda device: free)
    assert isinstance(open_map_source(dataset.store, ROWS, CPU), kind)


def test_the_cpu_reads_from_the_store(dataset: Dataset) -> None:
    assert isinstance(open_map_source(dataset.store, ROWS, CPU), StoreMaps)


@pytest.mark.parametrize("start", [0, 1, 3])
def test_prefetching_does_not_change_the_batches(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, start: int) -> None:
    loader = BatchLoader(dataset, ROWS, BatchConfig(people=2, sessions=3, steps=4), AugmentConfig(), 3, CPU)
    batches = loader.epoch_indices(1)
    plain = list(loader.stream(batches, 1, start))
    monkeypatch.setattr(StoreMaps, "prefetch", True)
    ahead = list(loader.stream(batches, 1, start))
    assert len(ahead) == len(plain) == 4 - start
    assert all(map(same, ahead, plain))
