"""The commands `runs` and `sync`."""

from jsonargparse import Namespace

from fr_ps.arguments import Command, Parser
from fr_ps.errors import InputError
from fr_ps.tracking.run_folder import RUNS_FOLDER, find_run, run_folders


def _add_runs_arguments(runs: Parser) -> None:
    runs.description = "List the runs of this folder, with their true status and their undelivered events."


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
    from tabulate import tabulate

    from fr_ps.tracking.sync import sync_interrupted

    runs = sync_interrupted(RUNS_FOLDER)
    rows = [
        {
            "run": one.id,
            "MLflow run": one.mlflow_id or "-",
            "name": one.name,
            "kind": one.kind,
            "status": f"{one.status} ({one.note})" if one.note else one.status,
            "epoch": one.epoch or "",
            "started": one.started,
            "undelivered": one.pending_events or "",
        }
        for one in runs
    ]
    print(tabulate(rows, headers="keys", disable_numparse=True) if rows else f"no runs under {RUNS_FOLDER.resolve()}")
    if any(one.pending_events for one in runs):
        print("\nundelivered: events that are not in MLflow yet; deliver them with: fr-ps sync")


def _sync(arguments: Namespace) -> None:
    from tabulate import tabulate

    from fr_ps.progress import progress
    from fr_ps.tracking.sync import find_lost_run, move_to_store, pending_runs, sync

    only = find_run(arguments.run, RUNS_FOLDER) if arguments.run else None
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
    rows = [[one.id, one.mlflow_id or "-", one.sent, one.remaining, one.reason] for one in results]
    headers = ["run", "MLflow run", "sent", "undelivered", "reason"]
    print(tabulate(rows, headers=headers, disable_numparse=True) if rows else "All events of all runs are delivered.")
    for one in results:
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
