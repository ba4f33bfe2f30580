"""A training from settings to result: `train`, and its first half `fit`, which the trials of a study call."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from fr_ps.config import Config
from fr_ps.device import pick_precision
from fr_ps.distributed import from_main_process, is_main_process, world_size
from fr_ps.errors import OutOfMemoryError
from fr_ps.losses import build_losses
from fr_ps.models.network import FaceNetwork
from fr_ps.models.sync_norm import synchronise_batch_norms
from fr_ps.progress import Echo
from fr_ps.tracking.run import Run
from fr_ps.tracking.run_folder import CONFIG_FILE
from fr_ps.training.batch_loader import BatchLoader
from fr_ps.training.checkpoint_manager import CheckpointManager, describe_environment
from fr_ps.training.divergence import NonFiniteGuard, divergence_warning
from fr_ps.training.early_stopping import BestTracker
from fr_ps.training.finalize import TrainResult, finalize, predict_best
from fr_ps.training.fit_linear import fit_linear_embedding, no_pictures_warning
from fr_ps.training.optim import ModelEma, build_optimizer
from fr_ps.training.prepare import PreparedTraining, prepare_training
from fr_ps.training.schedule import warmup_note
from fr_ps.training.setup import TrainingSetup, log_setup, write_config
from fr_ps.training.train_state import TrainState
from fr_ps.training.trainer import EpochCallback, Trainer


@dataclass(frozen=True)
class FitResult:
    """A training after its last epoch, before the test.

    Attributes:
        setup: what was trained on which data.
        state: the weights of the last epoch, and the validation metrics of the best one.
        steps_per_epoch: optimizer steps per epoch.
        warnings: the line of `divergence_warning`, if the losses grew.
    """

    setup: TrainingSetup
    state: TrainState
    steps_per_epoch: int
    warnings: tuple[str, ...] = ()


def train(
    config: Config,
    run: Run,
    echo: Echo = print,
    *,
    prepared: PreparedTraining | None = None,
    allow_changed: bool = False,
    changed_settings: Mapping[str, str] | None = None,
) -> TrainResult:
    """Train, select the best epoch on validation, evaluate it once on test, and log everything to `run`.

    Under torchrun, all processes call it, with one run folder. The sessions of each training batch, and those of validation and
    test, are divided among the processes. The main process computes the metrics and writes.

    If the run's folder has a checkpoint, the training resumes from it. With the same settings, data, code, machine and
    number of processes, its final weights equal those of an uninterrupted training, bit for bit; on a GPU only with
    train.deterministic.

    Args:
        config: the settings.
        run: logs the training; its folder holds checkpoints and report.
        echo: prints a line for the user.
        prepared: from `prepare_training` with the same settings; None: made here.
        allow_changed: whether a resumed training may have other data or another split.
        changed_settings: the settings that changed since the start of the run, a mapping from name to `before -> now`.

    Raises:
        InputError: data or settings that cannot be used, a full disk, or a training that diverged.
    """
    result = fit(config, run, echo, prepared=prepared, allow_changed=allow_changed, changed_settings=changed_settings)
    if not is_main_process():
        predict_best(run.folder, result.setup, next(result.state.network.parameters()).device)
        return TrainResult(result.state.best_metrics, result.state.best_epoch, result.state.epoch)
    return finalize(result.setup, result.state, run, steps_per_epoch=result.steps_per_epoch, warnings=result.warnings)


def fit(
    config: Config,
    run: Run,
    echo: Echo = print,
    *,
    prepared: PreparedTraining | None = None,
    on_epoch: EpochCallback | None = None,
    allow_changed: bool = False,
    changed_settings: Mapping[str, str] | None = None,
) -> FitResult:
    """Train and select the best epoch on validation: `train` without test and report.

    Args:
        config: the settings.
        run: logs the training; its folder holds the checkpoints.
        echo: prints a line for the user.
        prepared: from `prepare_training` with the same settings; None: made here.
        on_epoch: called after each epoch that this call trains (not for epochs before a resume); an exception ends the training.
        allow_changed: whether a resumed training may have other data or another split.
        changed_settings: the settings that changed since the start of the run, a mapping from name to `before -> now`.

    Raises:
        InputError: data or settings that cannot be used, a full disk, or a training that diverged.
    """
    if is_main_process():
        # Written first, so that the run can be resumed if it is killed while the data is read (if `prepared` is None), or while
        # `network.linear` is fitted.
        if not (run.folder / CONFIG_FILE).exists():
            write_config(run.folder, config)
        run.set_tags({"fr_ps.kind": "train"})
    prepared = prepared or prepare_training(config, echo, run.folder)
    setup, loader, network, device = _with_run_id(prepared.setup, run.id), prepared.loader, prepared.network, prepared.device
    if not prepared.has_checkpoint:
        if network.linear is not None and is_main_process():
            if config.augment.leave_out_light and (warning := no_pictures_warning(setup.dataset, setup.split.train)):
                echo(warning)
            fit_linear_embedding(network, setup.dataset, setup.split.train, config.augment, config.train.seed)
        # The other processes get the weights of the main process, which alone has fitted the linear embedding.
        network.load_state_dict(from_main_process(network.state_dict))
    if world_size() > 1 and config.train.sync_batch_norm:
        synchronise_batch_norms(network, device)
    network.to(device)
    if device.type == "cuda":
        network.to(memory_format=torch.channels_last)  # with which CUDA's convolutions are fastest
    state = build_train_state(setup, loader, network)
    environment = describe_environment(setup, loader, next(network.parameters()).device)
    checkpoints = CheckpointManager(run, setup, state, environment)
    checkpoints.resume(echo, allow_changed)
    if changed_settings:  # as tags: MLflow params are immutable
        run.set_tags({f"fr_ps.changed.{name}": change for name, change in changed_settings.items()})
    if is_main_process():
        log_setup(setup, run, echo)
    trainer = Trainer(setup, loader, state, checkpoints, run, echo, on_epoch)
    epochs, steps_per_epoch = config.train.epochs, trainer.steps_per_epoch
    if note := warmup_note(config.schedule, lr=config.optim.lr, epochs=epochs, steps_per_epoch=steps_per_epoch):
        echo(note)
    try:
        trainer.train()
    except torch.OutOfMemoryError:
        raise OutOfMemoryError(
            f"{device} has too little memory for the training; lower batch.people or batch.sessions (and raise train.accumulate "
            "to keep the sessions of a step), set train.precision to auto, or choose a smaller model.backbone or model.input_size"
        ) from None
    if not is_main_process():
        return FitResult(setup, state, trainer.steps_per_epoch)
    warning = divergence_warning(run.metric_history, setup.info.trained)
    if warning:
        run.set_tags({"fr_ps.warning": warning})
    return FitResult(setup, state, trainer.steps_per_epoch, (warning,) if warning else ())


def _with_run_id(setup: TrainingSetup, run_id: str) -> TrainingSetup:
    """The setup with the id of the run's folder in the provenance of its model."""
    return replace(setup, info=replace(setup.info, provenance=setup.info.provenance | {"run": run_id}))


def build_train_state(setup: TrainingSetup, loader: BatchLoader, network: FaceNetwork) -> TrainState:
    """Losses, optimizer, EMA and trackers for `network`, at epoch 0."""
    config = setup.config
    device = next(network.parameters()).device
    counts = loader.class_counts_of_trained_attributes(setup.info.num_classes())
    losses = build_losses(
        config.loss,
        network.embedding_size,
        loader.sessions_per_subject(),
        counts,
        network.adversarial_attributes,
        network.branch_loss_widths,
    ).to(device)
    trackers = {config.train.select: BestTracker(config.train.select, config.train.patience)}
    trackers |= {metric: BestTracker(metric, setting="train.watch") for metric in config.train.watch if metric not in trackers}
    optimizer = build_optimizer(config.optim, [network, *losses.identity_losses], losses.weighting)
    guard = NonFiniteGuard([network, losses], max_consecutive=config.train.bad_steps)
    precision = pick_precision(config.train.precision, device)
    # `init_scale` is below torch's default of 65536, because each step whose scaled gradients overflow is skipped and counts
    # towards train.bad_steps.
    scaler = torch.amp.GradScaler(device.type, init_scale=1024.0, enabled=precision == torch.float16)
    return TrainState(network, losses, optimizer, ModelEma(network, config.train.ema), guard, trackers, scaler)
