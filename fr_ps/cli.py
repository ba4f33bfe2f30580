"""The command line: each subcommand parses, calls one function, prints. No logic, and no torch before it is needed."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Literal

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt

from fr_ps import __version__
from fr_ps.arguments import Parser, parse
from fr_ps.cli_data import add_data_command, run_data
from fr_ps.config import BACKBONES, Config, ModelConfig, PrepareConfig
from fr_ps.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; returns the exit code: 0, 2 (bad input), 130 (SIGINT).

    A fault of ours leaves as an exception (exit code 1, with its traceback), SIGTERM as SystemExit(143).
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        arguments = parse(build_parser(), sys.argv[1:] if argv is None else argv)
        COMMANDS[arguments.command](arguments[arguments.command])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped by SIGINT", file=sys.stderr)
        return 130
    return 0


def build_parser() -> ArgumentParser:
    """The parser of all subcommands."""
    parser = Parser(prog="fr-ps", version=__version__, description="Multi-task face recognition on photometric-stereo maps.")
    commands = parser.add_subcommands(dest="command")

    prepare = Parser(description="Raw captures to a prepared data set: albedo, normals, depth, labels.")
    prepare.add_class_arguments(PrepareConfig, None)
    commands.add_subcommand("prepare", prepare, help="raw captures to a prepared data set")

    add_data_command(commands)

    train = Parser(description="Train, evaluate on test once, track; the last line printed is the run id.")
    train.add_argument("--config", action=ActionConfigFile, help="YAML file of settings; flags override it")
    train.add_class_arguments(Config, None)
    commands.add_subcommand("train", train, help="train, evaluate on test once, track")

    evaluate = Parser(description="Score a model on a prepared data set and write a report.")
    evaluate.add_argument("--model", type=str, required=True, help="run id, or model folder")
    evaluate.add_argument("--data", type=str, required=True, help="prepared data set")
    evaluate.add_argument("--out", type=str, required=True, help="folder for the report")
    evaluate.add_argument(
        "--split", type=str | None, default=None, help="train, val, test or gallery of the model's own split; else every row"
    )
    evaluate.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    evaluate.add_argument("--batch", type=int, default=64, help="sessions a batch")
    commands.add_subcommand("evaluate", evaluate, help="score a model on data")

    models = Parser(description="What every backbone costs: parameters, multiply-adds, feature map, a step's time.")
    models.add_argument("--backbone", type=str | None, default=None, help="only this one, which may be timm:NAME")
    models.add_argument("--size", type=PositiveInt, default=112, help="side of the maps in pixels")
    models.add_argument("--channels_in", type=Literal[1, 3], default=1, help="1: albedo or depth; 3: normals")
    models.add_argument(
        "--smoke", type=bool, default=True, help="whether each but the largest does a training step, which is timed"
    )
    models.add_argument("--device", type=str, default="auto", help="of the step: auto, cpu, cuda or mps")
    commands.add_subcommand("models", models, help="what every backbone costs")
    return parser


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
    from fr_ps.evaluation.report import terminal_table
    from fr_ps.tracking.find import RUNS_FOLDER
    from fr_ps.tracking.mlflow_run import mlflow_run
    from fr_ps.training.record import default_name
    from fr_ps.training.train import train

    settings = vars(arguments)
    settings.pop("config")
    config = Config(**settings)
    with mlflow_run(config.name or default_name(config), RUNS_FOLDER) as run:
        result = train(config, run)
    print(f"\n{terminal_table(result.metrics)}\n\nrun folder: {run.folder}\n{run.shown_id}")


def _evaluate(arguments: Namespace) -> None:
    from fr_ps.device import pick_device
    from fr_ps.evaluation.evaluate import evaluate_folder
    from fr_ps.evaluation.report import terminal_table
    from fr_ps.tracking.find import RUNS_FOLDER, model_folder
    from fr_ps.tracking.mlflow_run import mlflow_run

    folder = model_folder(arguments.model)
    out = Path(arguments.out)
    with mlflow_run(f"evaluate-{Path(arguments.data).name}", RUNS_FOLDER) as run:
        metrics = evaluate_folder(
            folder,
            Path(arguments.data),
            out,
            run,
            part=arguments.split,
            device=pick_device(arguments.device),
            batch=arguments.batch,
        )
    print(f"\n{terminal_table(metrics)}\n\nreport: {out / 'report.html'}\n{run.shown_id}")


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


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(143)


COMMANDS = {"prepare": _prepare, "data": run_data, "train": _train, "evaluate": _evaluate, "models": _models}
