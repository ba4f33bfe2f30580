"""`register`, `promote`, `export`: parse, call one function, print."""

from pathlib import Path

from jsonargparse import Namespace

from fr_ps.arguments import BatchSize, Command, Parser, UnitInterval, add_overwrite_flag
from fr_ps.commands.evaluate import check_report_folder
from fr_ps.errors import InputError
from fr_ps.progress import echo


def _add_register_arguments(register: Parser) -> None:
    register.description = "Make the best model of a run the next version of a registered model."
    register.add_argument("--model", type=str, required=True, help="run id")
    register.add_argument("--name", type=str, required=True, help="of the registered model")
    register.add_argument("--tags", type=dict[str, str] | None, default=None, help="of the version, as {site: lab 3}")
    register.add_argument("--description", type=str, default="", help="of the version; else its model card")


def _add_promote_arguments(promote: Parser) -> None:
    promote.description = "Make a version the champion, if it is measurably better than the one there is."
    promote.add_argument("--model", type=str, required=True, help="models:/NAME/VERSION; of --rollback and --demote models:/NAME")
    promote.add_argument("--data", type=str, default=None, help="where the champion's data lie, if not where they lay")
    promote.add_argument("--limit", type=UnitInterval, default=0.05, help="identity AUC that a group may lose")
    promote.add_argument("--out", type=str, default="promotion", help="folder for the report of the comparison")
    add_overwrite_flag(promote)
    for name, what in (
        ("dry_run", "only say what would become of it"),
        ("rollback", "make the champion before this one the champion again"),
        ("demote", "let the model have no champion"),
    ):
        promote.add_argument(f"--{name}", type=bool, nargs="?", const=True, default=False, help=what)
    promote.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    promote.add_argument("--batch", type=BatchSize, default=64, help="sessions a batch")


def _add_export_arguments(export: Parser) -> None:
    export.description = "A model as ONNX, checked against torch, with a table of size, latency and accuracy."
    export.add_argument("--model", type=str, required=True, help="run id, models:/NAME/VERSION, models:/NAME@ALIAS, or folder")
    export.add_argument("--out", type=str, required=True, help="folder to write")
    export.add_argument("--data", type=str, default=None, help="prepared data set to be accurate on; else no accuracy")
    export.add_argument("--split", type=str, default="test", help="part of the model's own split of --data; all: every row")
    export.add_argument("--batch", type=BatchSize, default=64, help="sessions a batch")


def _register(arguments: Namespace) -> None:
    """Register, and print the version."""
    from fr_ps.serving.registry import register

    echo(register(arguments.model, arguments.name, arguments.tags, arguments.description).uri)


def _promote(arguments: Namespace) -> None:
    """Compare with the champion, decide, and print why."""
    if arguments.rollback or arguments.demote:
        return _rollback_or_demote(arguments)
    from fr_ps.device import pick_device
    from fr_ps.report.table import table_text
    from fr_ps.serving.promote import decision_text, promote
    from fr_ps.serving.registry import parse_version
    from fr_ps.tracking.layout import RUNS_FOLDER
    from fr_ps.tracking.lifecycle import start_run

    parse_version(arguments.model)  # a slip of the pen needs no run
    check_report_folder(Path(arguments.out), {"--data": arguments.data}, arguments.overwrite)
    with start_run(f"promote-{arguments.model}", RUNS_FOLDER) as run:
        decision = promote(
            arguments.model,
            run,
            Path(arguments.out),
            data=arguments.data,
            limit=arguments.limit,
            dry_run=arguments.dry_run,
            device=pick_device(arguments.device),
            batch=arguments.batch,
        )
        if decision.tables and decision.previous:
            echo(f"A: {decision.previous.uri}, the champion; B: {decision.challenger.uri}\n")
        for table in decision.tables:
            echo(table_text(table) + "\n")
        echo("\n".join([decision_text(decision, arguments.dry_run), *decision.reasons]))
    echo(run.display_id)
    return None


def _rollback_or_demote(arguments: Namespace) -> None:
    from fr_ps.serving.registry import demote, roll_back

    if arguments.rollback and arguments.demote:
        raise InputError("--rollback and --demote: expected one of them")
    name = arguments.model.removeprefix("models:/")
    if name == arguments.model or not name or "/" in name or "@" in name:
        raise InputError(f"--model {arguments.model}: expected models:/NAME, as this is about all its versions")
    if arguments.demote:
        echo(f"{demote(name).uri} is not the champion any more; there is none")
    else:
        before, after = roll_back(name)
        echo(f"{after.uri} is the champion again" + (f" instead of version {before.number}" if before else ""))


def _export(arguments: Namespace) -> None:
    """Export, and print the table."""
    from tabulate import tabulate

    from fr_ps.serving.export import export
    from fr_ps.serving.recognizer import load_recognizer

    recognizer = load_recognizer(arguments.model, "cpu")
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
