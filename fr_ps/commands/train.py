"""`train`: parse, call one function, print."""

import os

from jsonargparse import ActionConfigFile, Namespace

from fr_ps.arguments import Command, Parser, training_config
from fr_ps.config import Config
from fr_ps.errors import InputError
from fr_ps.progress import echo


def _add_train_arguments(train: Parser) -> None:
    train.description = "Train, evaluate on test once, track; the last line printed is the run id."
    train.add_argument("--config", action=ActionConfigFile, help="YAML file of settings; flags override it")
    train.add_argument(
        "--resume", type=str, default=None, help="run id of the training to resume; without an id: the last interrupted one"
    )
    train.add_argument(
        "--allow_changed",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="with --resume: settings or data may differ; what does is written down",
    )
    train.add_class_arguments(Config, None)


def _train(arguments: Namespace) -> None:
    from fr_ps.tracking.layout import RUNS_FOLDER
    from fr_ps.training.resume import changed_settings

    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        raise InputError(f"WORLD_SIZE is {os.environ['WORLD_SIZE']}: a training is one process as yet; start torchrun with one")
    from fr_ps.config.dependencies import inactive_settings
    from fr_ps.training.schedule import check_lowest_rate

    config = training_config(arguments)
    check_lowest_rate(config.schedule, lr=config.optim.lr)
    for setting, condition in inactive_settings(config):
        echo(f"note: {setting} has no effect here; it has one only where {condition.text}")
    if arguments.allow_changed and not arguments.resume:
        raise InputError("--allow-changed goes with --resume; a new run has nothing that could have changed")
    folder = RUNS_FOLDER / arguments.resume if arguments.resume else None
    changed = changed_settings(folder, config, arguments.allow_changed) if folder else {}

    from fr_ps.evaluation.report import terminal_table
    from fr_ps.tracking.lifecycle import resume_run, start_run
    from fr_ps.training.setup import default_run_name
    from fr_ps.training.train import train

    sampled = config.train.system_metrics
    with (
        resume_run(folder, system_metrics=sampled)
        if folder
        else start_run(config.name or default_run_name(config), RUNS_FOLDER, system_metrics=sampled)
    ) as run:
        result = train(config, run, echo, allow_changed=arguments.allow_changed, changed_settings=changed)
        echo("\n".join(["", terminal_table(result.metrics), "", *result.warnings, f"run folder: {run.folder}"]))
    echo(run.display_id)


COMMANDS = {"train": Command(_add_train_arguments, _train)}
