"""The command line: each subcommand parses, calls one function, prints. No logic, and no torch before it is needed."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import ActionConfigFile, Namespace
from jsonargparse.typing import PositiveInt

from fr_ps import __version__
from fr_ps.arguments import Command, Parser, parse, training_config
from fr_ps.cli_data import DATA_COMMANDS
from fr_ps.cli_evaluate import EVALUATION_COMMANDS
from fr_ps.cli_registry import REGISTRY_COMMANDS
from fr_ps.cli_search import SEARCH_COMMANDS
from fr_ps.cli_serving import SERVING_COMMANDS
from fr_ps.config import BACKBONES, Config, ModelConfig, PrepareConfig
from fr_ps.errors import InputError
from fr_ps.process import exit_code
from fr_ps.progress import say


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code: 0, 2 (bad input), 130 (SIGINT).

    A fault of ours leaves as an exception (exit code 1, with its traceback), SIGTERM as SystemExit(143).
    """

    def run() -> None:
        arguments = read_arguments(sys.argv[1:] if argv is None else argv)
        COMMANDS[arguments.command].run(arguments[arguments.command])

    return exit_code(run)


def read_arguments(argv: Sequence[str]) -> Namespace:
    """What a command line says, parsed and instantiated; its `command` names the subcommand.

    Raises:
        InputError: anything wrong with it, in one line.
    """
    parser = Parser(prog="fr-ps", version=__version__, description="Multi-task face recognition on photometric-stereo maps.")
    commands = parser.add_subcommands(dest="command")
    asked = argv[0] if argv else ""
    for name, command in COMMANDS.items():
        # To declare the settings of all commands takes a quarter of a second: only those of the one that is asked for.
        commands.add_subcommand(name, declared := Parser(), help=command.help)
        if name == asked:
            command.declare(declared)
    return parse(parser, argv)


def _declare_prepare(prepare: Parser) -> None:
    prepare.description = "Raw captures to a prepared data set: albedo, normals, depth, labels."
    prepare.add_class_arguments(PrepareConfig, None)


def _declare_train(train: Parser) -> None:
    train.description = "Train, evaluate on test once, track; the last line printed is the run id."
    train.add_argument("--config", action=ActionConfigFile, help="YAML file of settings; flags override it")
    train.add_argument(
        "--resume", type=str | None, default=None, help="run id (or nothing: the last interrupted one) to go on with"
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


def _declare_runs(runs: Parser) -> None:
    runs.description = "The runs of this folder with their true status, and which of them MLflow does not know all of."


def _declare_sync(sync: Parser) -> None:
    sync.description = "Deliver to MLflow what an outage held back."
    sync.add_argument("--run", type=str | None, default=None, help="run id: only that one")


def _declare_models(models: Parser) -> None:
    models.description = "What every backbone costs: parameters, multiply-adds, feature map, a step's time."
    models.add_argument("--backbone", type=str | None, default=None, help="only this one, which may be timm:NAME")
    models.add_argument("--size", type=PositiveInt, default=112, help="side of the maps in pixels")
    models.add_argument("--channels_in", type=Literal[1, 3], default=1, help="1: albedo or depth; 3: normals")
    models.add_argument(
        "--smoke", type=bool, default=True, help="whether each but the largest does a training step, which is timed"
    )
    models.add_argument("--device", type=str, default="auto", help="of the step: auto, cpu, cuda or mps")


def _prepare(arguments: Namespace) -> None:
    from tabulate import tabulate

    from fr_ps.data.prepare import orientation_warning, prepare, summary_rows
    from fr_ps.photometric.captures import list_sources
    from fr_ps.progress import progress

    config = PrepareConfig(**vars(arguments))
    with progress("prepare", len(list_sources(Path(config.captures), {})), "sessions") as advance:
        outcomes = prepare(config, advance)
    counts, skipped, more = summary_rows(outcomes)
    print(tabulate(counts, headers=["sessions", "number"]))
    if skipped:
        print("\n" + tabulate(skipped, headers=["id", "session", "skipped because"], disable_numparse=True))
    if more:
        print(f"... and {more} more, in {config.out}/prepare.csv")
    if warning := orientation_warning(outcomes, config.light_axes):
        print("\n" + warning)
    print(f"\nprepared data set: {config.out}")


def _train(arguments: Namespace) -> None:
    from fr_ps.tracking.layout import RUNS_FOLDER
    from fr_ps.training.resume import changed_settings

    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        raise InputError(f"WORLD_SIZE is {os.environ['WORLD_SIZE']}: a training is one process as yet; start torchrun with one")
    config = training_config(arguments)
    if arguments.allow_changed and not arguments.resume:
        raise InputError("--allow-changed goes with --resume; a new run has nothing that could have changed")
    folder = RUNS_FOLDER / arguments.resume if arguments.resume else None
    changed = changed_settings(folder, config, arguments.allow_changed) if folder else {}

    from fr_ps.evaluation.report import terminal_table
    from fr_ps.tracking.lifecycle import new_run, resumed_run
    from fr_ps.training.record import default_name
    from fr_ps.training.train import train

    with resumed_run(folder) if folder else new_run(config.name or default_name(config), RUNS_FOLDER) as run:
        result = train(config, run, say, arguments.allow_changed, changed)
        say("\n".join(["", terminal_table(result.metrics), "", *result.warnings, f"run folder: {run.folder}"]))
    say(run.shown_id)


def _runs(arguments: Namespace) -> None:
    from tabulate import tabulate

    from fr_ps.tracking.layout import RUNS_FOLDER
    from fr_ps.tracking.sync import tell_interrupted

    found = tell_interrupted(RUNS_FOLDER)
    rows = [
        {
            "run": one.id,
            "in MLflow": one.mlflow_id or "-",
            "name": one.name,
            "kind": one.kind,
            "status": f"{one.status} ({one.note})" if one.note else one.status,
            "epoch": one.epoch or "",
            "begun": one.begun,
            "not delivered": one.pending or "",
        }
        for one in found
    ]
    print(tabulate(rows, headers="keys", disable_numparse=True) if rows else f"no runs under {RUNS_FOLDER.resolve()}")
    if any(one.pending for one in found):
        print("\nnot delivered: events that MLflow does not have yet; fr-ps sync delivers them")


def _sync(arguments: Namespace) -> None:
    from tabulate import tabulate

    from fr_ps.progress import progress
    from fr_ps.tracking.card import find_run
    from fr_ps.tracking.layout import RUNS_FOLDER
    from fr_ps.tracking.sync import sync, unsynced

    folders = unsynced(RUNS_FOLDER)
    if arguments.run:
        only = find_run(arguments.run, RUNS_FOLDER)
        if only is None:
            raise InputError(
                f"--run {arguments.run}: no such run under {RUNS_FOLDER.resolve()}; fr-ps runs lists those there are"
            )
        folders = {folder: pending for folder, pending in folders.items() if folder == only}
    with progress("sync", sum(folders.values()), "events") as advance:
        found = sync(list(folders), advance)
    rows = [[one.id, one.mlflow_id or "-", one.sent, one.left, one.why] for one in found]
    headers = ["run", "in MLflow", "sent", "left", "because"]
    print(tabulate(rows, headers=headers, disable_numparse=True) if rows else "MLflow knows all of every run")
    for one in found:
        for refused in one.refused:
            print(f"{one.id}: MLflow refused {refused}")
    if failed := [one for one in found if one.why and not one.running]:
        raise InputError(
            f"{len(failed)} runs are not delivered ({failed[0].why}); see that MLflow answers, and run fr-ps sync again"
        )


def _models(arguments: Namespace) -> None:
    from tabulate import tabulate

    from fr_ps.device import pick_device
    from fr_ps.models.table import row

    # One that the settings of a training refuse is refused in the same words.
    names = [ModelConfig(backbone=arguments.backbone).backbone] if arguments.backbone else BACKBONES
    device = pick_device(arguments.device) if arguments.smoke else None
    rows = [row(name, arguments.channels_in, arguments.size, device) for name in names]
    print(tabulate(rows, headers="keys", floatfmt=".2f", missingval="-"))
    print(
        f"\nparameters in millions, of the backbone and of the whole network; multiply-adds in billions, of the whole network"
        f" on one map of {arguments.channels_in} x {arguments.size} x {arguments.size}"
    )
    if arguments.smoke:
        print("step: forward and backward of two maps; -: too large to be tried here")


COMMANDS = {
    "prepare": Command("raw captures to a prepared data set", _declare_prepare, _prepare),
    **DATA_COMMANDS,
    "train": Command("train, evaluate on test once, track", _declare_train, _train),
    **EVALUATION_COMMANDS,
    **SEARCH_COMMANDS,
    **REGISTRY_COMMANDS,
    **SERVING_COMMANDS,
    "runs": Command("runs of this folder with their true status", _declare_runs, _runs),
    "sync": Command("deliver to MLflow what an outage held back", _declare_sync, _sync),
    "models": Command("what every backbone costs", _declare_models, _models),
}
