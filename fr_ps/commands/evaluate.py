"""The commands `evaluate` and `compare`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser, Namespace

from fr_ps.arguments import Command, Parser, add_batch_flag, add_device_flag, add_model_flag, add_overwrite_flag, add_switch
from fr_ps.errors import InputError
from fr_ps.progress import echo
from fr_ps.terminal import echo_loading, echo_model, echo_run_id
from fr_ps.tracking.run_folder import RUNS_FOLDER

if TYPE_CHECKING:
    from fr_ps.evaluation.inputs import EvaluationOptions
    from fr_ps.outputs import Inputs


def _add_evaluate_arguments(evaluate: Parser) -> None:
    evaluate.description = "Evaluate a model on a prepared data set and write a report."
    add_model_flag(evaluate)
    evaluate.add_argument("--data", type=str, required=True, help="prepared data set")
    evaluate.add_argument("--out", type=str, required=True, help="folder for the report")
    evaluate.add_argument(
        "--split", type=str, default=None, help="train, val, test or gallery of the model's own split; default: all rows"
    )
    add_switch(
        evaluate,
        "baselines",
        "fit linear baselines of identity and attributes on the training subjects of the model, and compare it with them and, if "
        "installed, with dlib",
    )
    evaluate.add_argument(
        "--baselines_data",
        type=str,
        default=None,
        help="with --baselines: prepared data set with the training subjects of the model; default: that of --data",
    )
    add_switch(evaluate, "jitter", "also evaluate on maps under random similarity transforms (5 degrees, 10 %, 4 px)")
    _add_scoring_arguments(evaluate)


def _add_compare_arguments(compare: Parser) -> None:
    compare.description = "Compare two models on the same pairs of a prepared data set: differences with confidence intervals."
    compare.add_argument(
        "--model",
        type=str,
        action="append",
        required=True,
        help="run id, models:/NAME/VERSION, models:/NAME@ALIAS, or folder; given twice: A, then B",
    )
    compare.add_argument("--data", type=str, required=True, help="prepared data set")
    compare.add_argument("--out", type=str, default="comparison", help="folder for the report")
    compare.add_argument(
        "--split", type=str, default=None, help="train, val, test or gallery of A's own split; default: all rows"
    )
    _add_scoring_arguments(compare)


def _evaluate(arguments: Namespace) -> None:
    if arguments.baselines_data and not arguments.baselines:
        raise InputError("--baselines-data needs --baselines; without it nothing is fitted on that data set")
    echo_loading(f"PyTorch and MLflow, then {arguments.model} and {arguments.data}")
    from fr_ps.device import pick_device
    from fr_ps.evaluation.evaluate_model import evaluate_model
    from fr_ps.evaluation.inputs import open_inputs
    from fr_ps.evaluation.report import terminal_table
    from fr_ps.tracking.lifecycle import start_run
    from fr_ps.tracking.resolve import display_name, resolve_model

    folder = resolve_model(arguments.model)
    out = Path(arguments.out)
    inputs = {"--model": folder, "--data": arguments.data, "--pairs": arguments.pairs}
    check_report_folder(out, inputs | {"--baselines-data": arguments.baselines_data}, arguments.overwrite)
    options = replace(
        _make_options(arguments),
        baselines=arguments.baselines,
        baselines_data=Path(arguments.baselines_data) if arguments.baselines_data else None,
        jitter=arguments.jitter,
    )
    device = pick_device(arguments.device)
    echo_model("model", arguments.model, folder)
    opened = open_inputs(folder, Path(arguments.data), options, device)  # errors of the inputs leave no run
    with start_run(f"evaluate {display_name(arguments.model)} on {_tested_name(arguments)}", RUNS_FOLDER) as run:
        summary = evaluate_model(opened, out, run, batch=arguments.batch)
        echo("\n" + terminal_table(summary.metrics, summary.tables))
        echo("\n".join(["", *summary.notes, f"report: {out / 'report.html'}"]))
    echo_run_id(run.display_id)


def _compare(arguments: Namespace) -> None:
    if len(arguments.model) != 2:
        raise InputError(f"--model given {len(arguments.model)} times; expected twice, for A and B")
    echo_loading(f"PyTorch and MLflow, then {' and '.join(arguments.model)}")
    from fr_ps.device import pick_device
    from fr_ps.evaluation.compare_models import compare_models, model_names
    from fr_ps.evaluation.inputs import open_inputs
    from fr_ps.report.table import table_text
    from fr_ps.tracking.lifecycle import start_run
    from fr_ps.tracking.resolve import display_name, resolve_model

    first, second = folders = [resolve_model(model) for model in arguments.model]
    out = Path(arguments.out)
    inputs = {"--model": first, "--model (B)": second, "--data": arguments.data, "--pairs": arguments.pairs}
    check_report_folder(out, inputs, arguments.overwrite)
    options, device = _make_options(arguments), pick_device(arguments.device)
    opened = [open_inputs(folder, Path(arguments.data), options, device, first) for folder in folders]
    for label, name, model, one in zip("AB", model_names(*(one.info for one in opened)), arguments.model, opened):
        echo_model(f"{label} = {name}", model, one.model)
    first_name, second_name = map(display_name, arguments.model)
    with start_run(f"compare {first_name} with {second_name} on {_tested_name(arguments)}", RUNS_FOLDER) as run:
        comparison = compare_models(opened, out, run, batch=arguments.batch)
        echo("".join(f"\n{table_text(table)}\n" for table in comparison.tables))
        echo("\n".join([*comparison.notes, f"report: {out / 'report.html'}"]))
    echo_run_id(run.display_id)


def check_report_folder(out: Path, inputs: "Inputs", overwrite: bool) -> None:
    """Check that writing a report into `out` overwrites nothing but an earlier report.

    `out` must contain no input, and no report files that fr-ps did not write. It must neither contain nor be inside `runs`,
    `mlruns` or `mlflow.db`, even if these do not exist yet.

    Raises:
        InputError: names the conflicting path.
    """
    from fr_ps.evaluation.report import REPORT_FILES, is_report
    from fr_ps.outputs import check_output_folder

    for reserved in (RUNS_FOLDER, Path("mlruns"), Path("mlflow.db")):
        if reserved.resolve().is_relative_to(out.resolve()):
            raise InputError(f"{out}: is or contains {reserved}, which belongs to the runs; use a separate folder for the report")
        if out.resolve().is_relative_to(reserved.resolve()):
            raise InputError(f"{out}: is inside {reserved}, which belongs to the runs; use a separate folder for the report")
    check_output_folder(out, inputs, is_report, REPORT_FILES, overwrite)


def _add_scoring_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--pairs",
        type=str,
        default=None,
        help="CSV of id_a,session_a,id_b,session_b (and fold): pairs to verify; default: all pairs",
    )
    parser.add_argument(
        "--measure", type=Literal["cosine", "euclidean"], default="cosine", help="similarity of embeddings in verification"
    )
    add_device_flag(parser)
    add_batch_flag(parser)
    add_overwrite_flag(parser)


def _tested_name(arguments: Namespace) -> str:
    """Name of the data set, and the part of it, for the names of runs."""
    return " ".join([Path(arguments.data).resolve().name, *([arguments.split] if arguments.split else [])])


def _make_options(arguments: Namespace) -> "EvaluationOptions":
    from fr_ps.evaluation.inputs import EvaluationOptions

    return EvaluationOptions(arguments.split, Path(arguments.pairs) if arguments.pairs else None, arguments.measure)


COMMANDS = {
    "evaluate": Command(_add_evaluate_arguments, _evaluate),
    "compare": Command(_add_compare_arguments, _compare),
}
