"""The commands `register`, `promote` and `export`."""

from pathlib import Path

from jsonargparse import Namespace

from fr_ps.arguments import (
    Command,
    Parser,
    UnitInterval,
    add_batch_flag,
    add_device_flag,
    add_model_flag,
    add_overwrite_flag,
    add_switch,
)
from fr_ps.commands.evaluate import check_report_folder
from fr_ps.errors import InputError
from fr_ps.progress import echo
from fr_ps.terminal import echo_loading, echo_model, echo_run_id
from fr_ps.tracking.run_folder import RUNS_FOLDER


def _add_register_arguments(register: Parser) -> None:
    register.description = "Register the best checkpoint of a run as the next version of a model."
    register.add_argument("--model", type=str, required=True, help="run id")
    register.add_argument("--name", type=str, required=True, help="name of the registered model")
    register.add_argument("--tags", type=dict[str, str] | None, default=None, help="tags of the version, as {site: lab 3}")
    register.add_argument("--description", type=str, default="", help="description of the version; default: its model card")


def _add_promote_arguments(promote: Parser) -> None:
    promote.description = "Make a version the champion if it is significantly better than the present champion."
    promote.add_argument(
        "--model", type=str, required=True, help="models:/NAME/VERSION; for --rollback and --demote models:/NAME"
    )
    promote.add_argument("--data", type=str, default=None, help="folder of the champion's data set, if it was moved")
    promote.add_argument("--limit", type=UnitInterval, default=0.05, help="largest accepted drop of identity AUC in any group")
    promote.add_argument("--out", type=str, default="promotion", help="folder for the report of the comparison")
    add_overwrite_flag(promote)
    add_switch(promote, "dry_run", "print the decision without changing the champion")
    add_switch(promote, "rollback", "restore the previous champion")
    add_switch(promote, "demote", "remove the champion")
    add_device_flag(promote)
    add_batch_flag(promote)


def _add_export_arguments(export: Parser) -> None:
    export.description = "Export a model to ONNX, check it against torch, and print size, latency and accuracy."
    add_model_flag(export)
    export.add_argument("--out", type=str, required=True, help="folder to write")
    export.add_argument("--data", type=str, default=None, help="prepared data set for the accuracy; default: no accuracy")
    export.add_argument("--split", type=str, default="test", help="part of the model's own split of --data; all: all rows")
    add_batch_flag(export)


def _register(arguments: Namespace) -> None:
    echo_loading("PyTorch and MLflow")
    from fr_ps.serving.registry import register

    echo(register(arguments.model, arguments.name, arguments.tags, arguments.description).uri)


def _promote(arguments: Namespace) -> None:
    if arguments.rollback or arguments.demote:
        _rollback_or_demote(arguments)
        return
    echo_loading(f"PyTorch and MLflow, then {arguments.model}")
    from fr_ps.device import pick_device
    from fr_ps.report.table import table_text
    from fr_ps.serving.promote import check_promotion, decision_text, promote
    from fr_ps.serving.registry import parse_version
    from fr_ps.tracking.lifecycle import start_run
    from fr_ps.tracking.resolve import display_name

    parse_version(arguments.model)  # before a run is started
    check_report_folder(Path(arguments.out), {"--data": arguments.data}, arguments.overwrite)
    device = pick_device(arguments.device)
    for label, (version, folder) in check_promotion(arguments.model, arguments.data).items():
        echo_model(label, version.uri, folder)
    with start_run(f"promote {display_name(arguments.model)}", RUNS_FOLDER) as run:
        decision = promote(
            arguments.model,
            run,
            Path(arguments.out),
            data=arguments.data,
            limit=arguments.limit,
            dry_run=arguments.dry_run,
            device=device,
            batch=arguments.batch,
        )
        if decision.tables and decision.previous:
            echo(f"champion: {decision.previous.uri}; challenger: {decision.challenger.uri}\n")
        for table in decision.tables:
            echo(table_text(table) + "\n")
        echo("\n".join([decision_text(decision, arguments.dry_run), *decision.reasons]))
    echo_run_id(run.display_id)


def _rollback_or_demote(arguments: Namespace) -> None:
    echo_loading("PyTorch and MLflow")
    from fr_ps.serving.registry import demote, roll_back

    if arguments.rollback and arguments.demote:
        raise InputError("--rollback and --demote: expected one of them")
    name = arguments.model.removeprefix("models:/")
    if name == arguments.model or not name or "/" in name or "@" in name:
        raise InputError(f"--model {arguments.model}: expected models:/NAME, without a version")
    if arguments.demote:
        echo(f"{demote(name).uri} is no longer the champion; no champion now")
    else:
        before, after = roll_back(name)
        echo(f"{after.uri} is the champion again" + (f" instead of version {before.number}" if before else ""))


def _export(arguments: Namespace) -> None:
    echo_loading(f"PyTorch, then {arguments.model}")
    from tabulate import tabulate

    from fr_ps.serving.export import export
    from fr_ps.serving.recognizer import load_recognizer

    recognizer = load_recognizer(arguments.model, "cpu", "torch")
    part = None if arguments.split == "all" else arguments.split
    exported = export(
        recognizer, Path(arguments.out), Path(arguments.data) if arguments.data else None, part=part, batch=arguments.batch
    )
    echo(tabulate(exported.rows, headers="keys", floatfmt=".4f", missingval="-"))
    echo("")
    for line in exported.lines:
        echo(line)
    echo(f"exported: {exported.file}")


COMMANDS = {
    "register": Command(_add_register_arguments, _register),
    "promote": Command(_add_promote_arguments, _promote),
    "export": Command(_add_export_arguments, _export),
}
