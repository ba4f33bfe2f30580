"""Predictions are those of the network, for every batch size and order."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fr_ps.config import ModelConfig
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.models import build_network
from fr_ps.models.inference import Predictions, predict
from fr_ps.models.network import FaceNetwork


@pytest.fixture(scope="module")
def dataset(prepared: Path) -> Dataset:
    return open_dataset(prepared, ["albedo"])


@pytest.fixture(scope="module")
def network(dataset: Dataset) -> FaceNetwork:
    torch.manual_seed(0)
    classes = {attribute: len(groups) for attribute, groups in dataset.labels.classes.items()}
    config = ModelConfig(backbone="timm:test_resnet", channels=32, reduction=8)
    made = build_network({"albedo": config}, "concat", classes)
    with torch.no_grad():
        made({"albedo": torch.from_numpy(dataset.store.read(np.arange(12))["albedo"])})
    return made.eval()


def close(a: Predictions, b: Predictions, rows: np.ndarray | slice = slice(None)) -> bool:
    together = [
        (a.embeddings[rows], b.embeddings),
        *((a.probabilities[task][rows], b.probabilities[task]) for task in ATTRIBUTES),
    ]
    return all(np.abs(x - y).max() < 1e-5 for x, y in together)


@pytest.mark.parametrize("batch", [1, 5, 100])
def test_predictions_do_not_depend_on_the_batch_size(dataset: Dataset, network: FaceNetwork, batch: int) -> None:
    rows = np.arange(len(dataset.labels))
    expected = predict(network, dataset.store, rows, 8)
    got = predict(network, dataset.store, rows, batch)
    assert got.embeddings.shape == (len(rows), 32)
    assert got.embeddings.dtype == np.float32
    assert close(expected, got)
    assert np.ptp(got.embeddings, axis=0).max() > 1e-3


def test_predictions_follow_the_order_of_the_rows(dataset: Dataset, network: FaceNetwork) -> None:
    rows = np.random.default_rng(0).permutation(len(dataset.labels))[:17]
    expected = predict(network, dataset.store, np.arange(len(dataset.labels)), 8)
    assert close(expected, predict(network, dataset.store, rows, 4), rows)


@pytest.mark.parametrize("training", [True, False])
def test_the_network_keeps_its_mode_and_its_statistics(dataset: Dataset, network: FaceNetwork, training: bool) -> None:
    network.train(training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    predict(network, dataset.store, np.arange(6), 4)
    assert all(module.training is training for module in network.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    network.eval()


def test_probabilities_are_the_softmax_of_the_networks_logits(dataset: Dataset, network: FaceNetwork) -> None:
    with torch.no_grad():
        outputs = network({"albedo": torch.from_numpy(dataset.store.read(np.arange(5))["albedo"])})
    got = predict(network, dataset.store, np.arange(5), 5)
    for task in ATTRIBUTES:
        raw = np.exp(outputs.logits[task].double().numpy())
        np.testing.assert_allclose(got.probabilities[task], raw / raw.sum(axis=1, keepdims=True), atol=1e-5)


def test_progress_counts_every_row_once(dataset: Dataset, network: FaceNetwork) -> None:
    done: list[int] = []
    predict(network, dataset.store, np.arange(10), 4, done.append)
    assert done == [4, 4, 2]
