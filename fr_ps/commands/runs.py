"""The commands `runs` and `sync`."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from fr_ps.arguments import Command, Parser, add_switch
from fr_ps.errors import InputError
from fr_ps.progress import echo
from fr_ps.terminal import echo_loading
from fr_ps.tracking.run_folder import RUNS_FOLDER, find_run_by_prefix, run_folders

if TYPE_CHECKING:
    from fr_ps.tracking.listing import RunSummary

_TABLE_WIDTH, _SHORT_ID = 100, 8
_INTERRUPTED = "interrupted"


def _add_runs_arguments(runs: Parser) -> None:
    runs.description = "List the runs of this folder, with their true status and their undelivered events."
    add_switch(
        runs,
        "open",
        "also list open MLflow runs that mlflow run left without an fr-ps process; always done for a store in a local file",
    )
    runs.add_argument("--end", type=str, default=None, help="MLflow id of a run that --open lists: set its status to KILLED")


def _add_sync_arguments(sync: Parser) -> None:
    sync.description = "Deliver undelivered events to MLflow, as after an outage."
    sync.add_argument("--run", type=str, default=None, help="run id: deliver this run only")
    sync.add_argument(
        "--store",
        type=str,
        default=None,
        help="URI of an MLflow tracking store: move the runs to it and deliver all their events again; for a server with a new "
        "address, or a store that was deleted and created again",
    )


def _runs(arguments: Namespace) -> None:
    from fr_ps.tracking.listing import list_runs
    from fr_ps.tracking.sync import sync_interrupted

    if arguments.end:
        _end(arguments.end)
        return
    listed = list_runs(RUNS_FOLDER)
    # Before any request to MLflow, which may not answer.
    echo(_table(listed) if listed else f"no runs under {RUNS_FOLDER.resolve()}")
    runs = sync_interrupted(listed)
    created = [one for one, before in zip(runs, listed) if one.mlflow_id != before.mlflow_id]
    notes = [f"{one.id}  is now MLflow run {one.mlflow_id}" for one in created]
    notes += [f"{one.id}  {one.status} ({one.note})" for one in runs if one.note not in ("", _INTERRUPTED)]
    if notes:
        print("\n" + "\n".join(notes))
    pending = [one.pending_events for one in runs if one.pending_events]
    if pending:
        print(f"\nundelivered: {sum(pending)} events of {len(pending)} runs are not in MLflow yet; deliver them with: fr-ps sync")
    if arguments.open or _is_local_store():
        _print_open_runs(also_none=arguments.open)


def _is_local_store() -> bool:
    """Whether the tracking store is a file, which always answers."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    return not uri or uri.startswith("sqlite:")


def _table(runs: "Sequence[RunSummary]") -> str:
    """The table of the runs, whose names are shortened to fit in a terminal."""
    from tabulate import tabulate

    rows = [
        {
            "run": one.id,
            "MLflow": (one.mlflow_id or "-")[:_SHORT_ID],
            "name": "",
            "kind": one.kind,
            "status": f"{one.status} ({one.note})" if one.note == _INTERRUPTED else one.status,
            "epoch": str(one.epoch or ""),
            "val\nAUC": _format(one.validation_auc),
            "test\nAUC": _format(one.test_auc),
        }
        for one in runs
    ]
    others = max(map(len, tabulate(rows, headers="keys", disable_numparse=True).splitlines())) - len("name")
    width = max(_SHORT_ID, _TABLE_WIDTH - others)
    for row, one in zip(rows, runs):
        row["name"] = one.name if len(one.name) <= width else f"{one.name[: width - 3]}..."
    return tabulate(rows, headers="keys", disable_numparse=True)


def _format(auc: float | None) -> str:
    return "" if auc is None else f"{auc:.4f}"


def _print_open_runs(also_none: bool) -> None:
    """Print the open MLflow runs without an fr-ps process; `also_none`: a line if there are none."""
    from fr_ps.errors import one_line
    from fr_ps.tracking.open_runs import open_runs

    try:
        found = open_runs()
    except Exception as error:  # the table above is complete without MLflow
        print(f"\nMLflow does not answer ({one_line(error, 120)}); its open runs are not listed")
        return
    if not found:
        if also_none:
            print("\nno open MLflow runs without an fr-ps process")
        return
    print("\nOpen MLflow runs without an fr-ps process. If conda is missing, use --env-manager local.")
    print("A run that is just starting is listed too, until its data are read: end only a run whose command has ended.")
    for one in found:
        print(f"{one.id}  {one.entry_point}, {one.started}; end it with: fr-ps runs --end {one.id[:_SHORT_ID]}")


def _end(run: str) -> None:
    from fr_ps.tracking.open_runs import end_open_run

    print(f"ended with the status KILLED: {end_open_run(run)}")


def _sync(arguments: Namespace) -> None:
    echo_loading("MLflow", "mlflow")
    from tabulate import tabulate

    from fr_ps.progress import progress
    from fr_ps.tracking.sync import find_lost_run, move_to_store, pending_runs, sync

    only = find_run_by_prefix(arguments.run, RUNS_FOLDER) if arguments.run else None
    if arguments.run and only is None:
        raise InputError(f"--run {arguments.run}: no such run under {RUNS_FOLDER.resolve()}; fr-ps runs lists all runs")
    not_moved = move_to_store([only] if only else run_folders(RUNS_FOLDER), arguments.store) if arguments.store else []
    skipped = {one.id for one in not_moved}
    events = {
        folder: pending
        for folder, pending in pending_runs(RUNS_FOLDER).items()
        if folder.name not in skipped and only in (None, folder)
    }
    with progress("sync", sum(events.values()), "events") as advance:
        results = not_moved + sync(list(events), advance)
    rows = [[one.id, one.mlflow_id or "-", one.sent, one.remaining] for one in results]
    headers = ["run", "MLflow run", "sent", "undelivered"]
    print(tabulate(rows, headers=headers, disable_numparse=True) if rows else "All events of all runs are delivered.")
    for one in results:
        if one.reason:
            print(f"{one.id}: {one.reason}")
        if one.note:
            print(one.note)
        for rejected in one.rejected:
            print(f"{one.id}: MLflow rejected {rejected}")
    if failed := [one for one in results if one.reason and not one.running]:
        first = failed[0]
        number = "1 run is" if len(failed) == 1 else f"{len(failed)} runs are"
        remedy = "check that the store answers and run fr-ps sync again; if its address has changed: fr-ps sync --store URI"
        raise InputError(
            f"{number} not delivered; {first.id} to {first.store or 'its store'}: {first.reason.rstrip('.')}"
            + ("" if "fr-ps sync" in first.reason else f"; {remedy}")
        )
    if lost := find_lost_run(RUNS_FOLDER):
        folder, store = lost
        raise InputError(
            f"run {folder.name} was delivered to the MLflow store {store}, which no longer has it; if the store was deleted, "
            f"deliver all runs of this folder again: fr-ps sync --store {store}"
        )


COMMANDS = {"runs": Command(_add_runs_arguments, _runs), "sync": Command(_add_sync_arguments, _sync)}
