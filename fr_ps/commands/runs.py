"""`runs` and `sync`: parse, call one function, print."""

from jsonargparse import Namespace

from fr_ps.arguments import Command, Parser
from fr_ps.errors import InputError


def _add_runs_arguments(runs: Parser) -> None:
    runs.description = "The runs of this folder with their true status, and which of them MLflow does not know all of."


def _add_sync_arguments(sync: Parser) -> None:
    sync.description = "Deliver to MLflow what an outage held back."
    sync.add_argument("--run", type=str, default=None, help="run id: only that one")
    sync.add_argument(
        "--store",
        type=str,
        default=None,
        help="address of an MLflow store that the runs belong to from now on, and to which all of each is delivered anew: "
        "for a server that moved, or a store that was lost and made again",
    )


def _runs(arguments: Namespace) -> None:
    from tabulate import tabulate

    from fr_ps.tracking.layout import RUNS_FOLDER
    from fr_ps.tracking.sync import sync_interrupted

    found = sync_interrupted(RUNS_FOLDER)
    rows = [
        {
            "run": one.id,
            "in MLflow": one.mlflow_id or "-",
            "name": one.name,
            "kind": one.kind,
            "status": f"{one.status} ({one.note})" if one.note else one.status,
            "epoch": one.epoch or "",
            "begun": one.started,
            "not delivered": one.pending_events or "",
        }
        for one in found
    ]
    print(tabulate(rows, headers="keys", disable_numparse=True) if rows else f"no runs under {RUNS_FOLDER.resolve()}")
    if any(one.pending_events for one in found):
        print("\nnot delivered: events that MLflow does not have yet; fr-ps sync delivers them")


def _sync(arguments: Namespace) -> None:
    from tabulate import tabulate

    from fr_ps.progress import progress
    from fr_ps.tracking.layout import RUNS_FOLDER
    from fr_ps.tracking.run_folder import find_run
    from fr_ps.tracking.sync import missing_from_store, move_to_store, pending_runs, run_folders, sync

    only = find_run(arguments.run, RUNS_FOLDER) if arguments.run else None
    if arguments.run and only is None:
        raise InputError(f"--run {arguments.run}: no such run under {RUNS_FOLDER.resolve()}; fr-ps runs lists those there are")
    moved = move_to_store([only] if only else run_folders(RUNS_FOLDER), arguments.store) if arguments.store else []
    stay = {one.id for one in moved}
    folders = {
        folder: pending
        for folder, pending in pending_runs(RUNS_FOLDER).items()
        if folder.name not in stay and only in (None, folder)
    }
    with progress("sync", sum(folders.values()), "events") as advance:
        found = moved + sync(list(folders), advance)
    rows = [[one.id, one.mlflow_id or "-", one.sent, one.remaining, one.reason] for one in found]
    headers = ["run", "in MLflow", "sent", "left", "because"]
    print(tabulate(rows, headers=headers, disable_numparse=True) if rows else "Every event of every run is delivered.")
    for one in found:
        if one.note:
            print(one.note)
        for refused in one.rejected:
            print(f"{one.id}: MLflow refused {refused}")
    if failed := [one for one in found if one.reason and not one.running]:
        first = failed[0]
        number = "1 run is" if len(failed) == 1 else f"{len(failed)} runs are"
        remedy = "see that the store answers and run fr-ps sync again; if it has another address now: fr-ps sync --store URI"
        raise InputError(
            f"{number} not delivered; {first.id} to {first.store or 'its store'}: {first.reason.rstrip('.')}"
            + ("" if "fr-ps sync" in first.reason else f"; {remedy}")
        )
    for folder, where in missing_from_store(RUNS_FOLDER).items():
        raise InputError(
            f"run {folder.name} was delivered to the MLflow store {where}, which no longer has it; if the store was deleted, "
            f"fr-ps sync --store {where} delivers all runs of this folder to it again"
        )


COMMANDS = {"runs": Command(_add_runs_arguments, _runs), "sync": Command(_add_sync_arguments, _sync)}
