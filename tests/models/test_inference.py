"""Scoring a model: the answers are the model's, whatever the batches and the order."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fr_ps.config import ModelConfig
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.evaluation.analyses.attributes import NAMES
from fr_ps.evaluation.evaluate_predictions import validation_metrics
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
    config = ModelConfig(backbone="convnextv2_atto", channels=32, reduction=8)
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
def test_answers_do_not_depend_on_the_batch_size(dataset: Dataset, network: FaceNetwork, batch: int) -> None:
    rows = np.arange(len(dataset.labels))
    expected = predict(network, dataset.store, rows, 8)
    got = predict(network, dataset.store, rows, batch)
    assert got.embeddings.shape == (len(rows), 32)
    assert got.embeddings.dtype == np.float32
    assert close(expected, got)
    assert np.ptp(got.embeddings, axis=0).max() > 1e-3


def test_answers_follow_the_order_of_the_rows(dataset: Dataset, network: FaceNetwork) -> None:
    rows = np.random.default_rng(0).permutation(len(dataset.labels))[:17]
    expected = predict(network, dataset.store, np.arange(len(dataset.labels)), 8)
    assert close(expected, predict(network, dataset.store, rows, 4), rows)


def test_metrics_do_not_depend_on_the_order_of_the_rows(dataset: Dataset, network: FaceNetwork) -> None:
    values = []
    for rows in (np.arange(len(dataset.labels)), np.random.default_rng(0).permutation(len(dataset.labels))):
        found = validation_metrics(predict(network, dataset.store, rows, 8), dataset.labels.subset(rows), ATTRIBUTES)
        values.append(found.values)
    assert values[0].keys() == values[1].keys()
    for name, value in values[0].items():
        assert values[1][name] == (value if value is None else pytest.approx(value, abs=1e-6))


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
        raw = np.exp(outputs[task].double().numpy())
        np.testing.assert_allclose(got.probabilities[task], raw / raw.sum(axis=1, keepdims=True), atol=1e-5)


def test_progress_counts_every_row_once(dataset: Dataset, network: FaceNetwork) -> None:
    done: list[int] = []
    predict(network, dataset.store, np.arange(10), 4, done.append)
    assert done == [4, 4, 2]


def oracle(dataset: Dataset, rows: np.ndarray) -> Predictions:
    """Answers that are all right."""
    labels = dataset.labels.subset(rows)
    people = np.unique(labels.ids, return_inverse=True)[1]
    return Predictions(
        np.eye(people.max() + 1, dtype=np.float32)[people],
        {
            task: np.eye(len(labels.class_names(task)), dtype=np.float32)[labels.codes[:, column]]
            for column, task in enumerate(ATTRIBUTES)
        },
    )


def test_an_oracle_is_right_in_everything_that_is_defined(dataset: Dataset) -> None:
    rows = np.arange(len(dataset.labels))
    found = validation_metrics(oracle(dataset, rows), dataset.labels, ATTRIBUTES)
    defined = found.defined()
    assert {"identity/auc", "identity/rank1", "identity/eer", "identity/auc_person_balanced", "gender/auc"} <= set(defined)
    assert "the same" in found.reasons["identity/dprime"]  # 1 of all genuine pairs, 0 of all others
    assert all(value == (0 if name.endswith(("eer", "ece")) else 1) for name, value in defined.items())


def test_an_attribute_that_was_not_trained_is_undefined_and_says_so(dataset: Dataset) -> None:
    rows = np.arange(len(dataset.labels))
    found = validation_metrics(oracle(dataset, rows), dataset.labels, ["gender"])
    for task in ATTRIBUTES:
        for name in NAMES:
            undefined = found.values[f"{task}/{name}"] is None
            assert undefined == (task != "gender")
            if undefined:
                assert "not trained" in found.reasons[f"{task}/{name}"]


@pytest.mark.parametrize("people", ["one", "singles"])
def test_without_genuine_or_impostor_pairs_all_of_identity_is_undefined_with_a_reason(dataset: Dataset, people: str) -> None:
    ids = dataset.labels.ids
    rows = np.flatnonzero(ids == ids[0]) if people == "one" else np.unique(ids, return_index=True)[1]
    found = validation_metrics(oracle(dataset, rows), dataset.labels.subset(rows), ATTRIBUTES)
    identity = {name: value for name, value in found.values.items() if name.startswith("identity/")}
    assert {"identity/auc", "identity/auc_person_balanced", "identity/eer", "identity/rank1"} <= set(identity)
    assert set(identity.values()) == {None}
    assert all(found.reasons[name] for name in identity)
