"""What a training needs before its first step: device, data, split and network.

The command `train` prepares them before it starts a run, so that an error leaves no run behind. A trial of a search prepares
them in its run; there an error ends that run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fr_ps.config import Config
from fr_ps.config.loss import GRADIENT_WEIGHTINGS
from fr_ps.data.labels import Labels
from fr_ps.device import configure_device, pick_precision, process_device
from fr_ps.distributed import from_main_process
from fr_ps.errors import InputError
from fr_ps.evaluation.evaluate_predictions import validation_metrics
from fr_ps.evaluation.metrics import Metrics
from fr_ps.models.inference import Predictions
from fr_ps.models.network import FaceNetwork
from fr_ps.progress import Echo
from fr_ps.tracking.run_folder import list_checkpoints
from fr_ps.training.batch_loader import BatchLoader
from fr_ps.training.build_model import build_model, resolve_branch_folders
from fr_ps.training.early_stopping import BestTracker
from fr_ps.training.schedule import check_lowest_rate
from fr_ps.training.setup import TrainingSetup, build_setup

_RANDOM_WIDTH = 16
"""Dimension of random embeddings."""


@dataclass(frozen=True)
class PreparedTraining:
    """A training before its first step.

    Attributes:
        setup: what is trained on which data; `setup.info.provenance` has no run id yet, `fit` adds it.
        loader: loader of the training batches.
        network: the network with its initial weights, on the CPU.
        device: device of the training.
        has_checkpoint: whether the run has a checkpoint, whose weights replace the initial ones.
    """

    setup: TrainingSetup
    loader: BatchLoader
    network: FaceNetwork
    device: torch.device
    has_checkpoint: bool


def prepare_training(config: Config, echo: Echo, folder: Path | None = None) -> PreparedTraining:
    """Open the data, split it and build the network. It creates neither a run nor its folder.

    It sets torch's global options and seeds torch's generator. The generator gives the initial weights of network and losses, and
    then the dropout of a training in one process. Several processes set a new seed in each step (`Trainer.train_step`).

    Args:
        config: the settings.
        echo: prints a line for the user.
        folder: folder of the run, if it exists; with a checkpoint in it, `model.weights` is not loaded.

    Raises:
        InputError: device, data, split, branches, weights or the schedule cannot be used.
    """
    check_lowest_rate(config.schedule, lr=config.optim.lr)  # `fr-ps train` has checked it, a trial or other caller has not
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    device = process_device(config.device)
    precision = pick_precision(config.train.precision, device)
    if precision == torch.float16 and config.loss.weighting in GRADIENT_WEIGHTINGS:
        raise InputError(
            f"train.precision is {config.train.precision}, which is float16 on this GPU; expected float32 with loss.weighting "
            f"{config.loss.weighting}, whose gradients inside the network are too small for float16"
        )
    configure_device(device, precision, deterministic=config.train.deterministic)
    branch_folders = resolve_branch_folders(config)
    setup, loader = build_setup(config, branch_folders, device, echo)
    has_checkpoint = from_main_process(lambda: folder is not None and bool(list_checkpoints(folder)))
    torch.manual_seed(config.train.seed)
    network = build_model(config, setup.info, branch_folders, echo, load_initial_weights=not has_checkpoint)
    return PreparedTraining(setup, loader, network, device, has_checkpoint)


def check_selected_metrics(prepared: PreparedTraining) -> None:
    """Check that `train.select` and `train.watch` are defined on the validation part, with random predictions.

    Every process calls it; the main process computes. With a checkpoint nothing is checked: the run was checked when it started.

    Raises:
        InputError: a metric is unknown, undefined for these subjects and labels, or has too little support.
    """
    if not prepared.has_checkpoint:
        from_main_process(lambda: _check_selected_metrics(prepared.setup))


def _check_selected_metrics(setup: TrainingSetup) -> None:
    labels, train = setup.dataset.labels.subset(setup.split.val), setup.config.train
    if not len(labels):
        return
    metrics = metrics_of_random_predictions(labels, setup.info.trained)
    for setting, names in (("train.select", (train.select,)), ("train.watch", train.watch)):
        for name in names:
            BestTracker(name, setting=setting).update(metrics)


def metrics_of_random_predictions(labels: Labels, trained: Sequence[str]) -> Metrics:
    """The `val/...` metrics of random predictions: which metrics are undefined depends on the labels only."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(len(labels), _RANDOM_WIDTH)).astype(np.float32)
    probabilities: dict[str, np.ndarray] = {
        task: rng.dirichlet(np.ones(len(groups)), len(labels)).astype(np.float32) for task, groups in labels.classes.items()
    }
    return validation_metrics(Predictions(embeddings, probabilities), labels, trained).with_prefix("val")
