"""The command `train`."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from jsonargparse import ActionConfigFile, Namespace

from fr_ps.arguments import Command, Parser, Processes, add_switch, training_config
from fr_ps.config import Config
from fr_ps.errors import InputError
from fr_ps.progress import echo
from fr_ps.terminal import echo_loading, echo_run_id
from fr_ps.tracking.run_folder import CONFIG_FILE, RUNS_FOLDER


def _add_train_arguments(train: Parser) -> None:
    train.description = "Train a model, evaluate it once on the test set, and track the run. The last printed line is the run id."
    train.add_argument("--config", action=ActionConfigFile, help="YAML file of settings; flags override it")
    train.add_argument(
        "--resume", type=str, default=None, help="id of the run to resume; without a value, the last interrupted run"
    )
    train.add_argument(
        "--processes",
        type=Processes,
        default=None,
        help="number of processes on this machine that train together, for example one per GPU",
    )
    add_switch(train, "allow_changed", "with --resume: allow changed settings or data, and record the changes")
    # None as nested key: a flag is `--optim.lr`, not `--config.optim.lr`. jsonargparse then builds only the groups
    # (`OptimConfig`, ...), and `training_config` builds the `Config` from them.
    train.add_class_arguments(Config, None)


def _train(arguments: Namespace) -> None:
    # First the checks that do not need torch, so that their errors come at once.
    from fr_ps.config.dependencies import check_selected_metric_is_trainable, inactive_settings
    from fr_ps.training.launch import run_torchrun, started_by_torchrun
    from fr_ps.training.resume import changed_settings
    from fr_ps.training.schedule import check_lowest_rate

    under_torchrun = started_by_torchrun()
    config = training_config(arguments)
    check_lowest_rate(config.schedule, lr=config.optim.lr)
    if not arguments.resume:
        check_selected_metric_is_trainable(config)
    if arguments.allow_changed and not arguments.resume:
        raise InputError("--allow-changed needs --resume; a new run has no earlier settings")
    if (arguments.processes or 1) > 1 and not under_torchrun:
        echo_loading(f"PyTorch in {arguments.processes} processes")
        run_torchrun(arguments.processes, sys.argv[1:])  # runs this command again in each process
        return
    for setting, condition in inactive_settings(config):  # `echo` prints in the main process only
        echo(f"note: {setting} has no effect; it applies only if {condition.text}")
    echo_loading(f"PyTorch and MLflow, then the data {config.data.root} for a training of {config.model.backbone}")
    folder = RUNS_FOLDER / arguments.resume if arguments.resume else None
    if folder:
        echo(f"resuming run {folder.name}")
    is_main = not under_torchrun or os.environ["RANK"] == "0"  # `is_main_process` would import torch
    changed = changed_settings(folder, config, arguments.allow_changed) if folder and is_main else {}

    from fr_ps.distributed import is_main_process, process_group

    with process_group():
        if is_main_process():
            _train_in_main_process(config, arguments, folder, changed)
        else:
            _train_in_other_process(config, arguments, folder)


def _train_in_other_process(config: Config, arguments: Namespace, folder: Path | None) -> None:
    """Train beside the main process, which prints, logs and writes for all."""
    from fr_ps.distributed import receive_from_main_process
    from fr_ps.tracking.silent_run import SilentRun
    from fr_ps.training.prepare import check_selected_metrics, prepare_training
    from fr_ps.training.train import train

    prepared = prepare_training(config, echo, folder)
    check_selected_metrics(prepared)
    run_id = receive_from_main_process()  # sent in _train_in_main_process
    run = SilentRun(RUNS_FOLDER / run_id)
    train(config, run, echo, prepared=prepared, allow_changed=arguments.allow_changed)


def _train_in_main_process(config: Config, arguments: Namespace, folder: Path | None, changed: Mapping[str, str]) -> None:
    """Train in the main process, which logs to the run and prints. It may be the only one."""
    from fr_ps.distributed import from_main_process
    from fr_ps.evaluation.report import terminal_table
    from fr_ps.tracking.lifecycle import resume_run, start_run
    from fr_ps.training.divergence import DivergedError
    from fr_ps.training.prepare import check_selected_metrics, prepare_training
    from fr_ps.training.setup import default_run_name
    from fr_ps.training.train import train

    system_metrics = config.train.system_metrics
    prepared = prepare_training(config, echo, folder)  # before the start of the run, so that an error leaves no run
    check_selected_metrics(prepared)
    if folder:
        opened = resume_run(folder, system_metrics=system_metrics)
    else:
        opened = start_run(config.name or default_run_name(config), RUNS_FOLDER, system_metrics=system_metrics)
    with opened as run:
        from_main_process(lambda: run.id)  # received in _train_in_other_process
        try:
            result = train(config, run, echo, prepared=prepared, allow_changed=arguments.allow_changed, changed_settings=changed)
        except DivergedError as error:
            command = f"fr-ps train --resume {run.id} --allow-changed --optim.lr VALUE"
            raise InputError(f"{error}; continue with another learning rate: {command}") from None
        except (KeyboardInterrupt, SystemExit):
            if (run.folder / CONFIG_FILE).exists():
                echo(f"resume with: fr-ps train --resume {run.id}")
            raise
        echo("\n".join(["", terminal_table(result.metrics), "", *result.warnings, f"run folder: {run.folder}"]))
    echo_run_id(run.display_id)


COMMANDS = {"train": Command(_add_train_arguments, _train)}
