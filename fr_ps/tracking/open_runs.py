"""Open MLflow runs of this folder without an fr-ps process, which MLflow keeps RUNNING for ever.

For example, `mlflow run .` opens its run before it looks for conda, and leaves it open if there is none.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from fr_ps.errors import InputError
from fr_ps.tracking.mlflow_sink import RUN_ID_TAG, STATUS_TAG
from fr_ps.tracking.run_folder import MIN_PREFIX, RUNS_FOLDER, read_run_info, run_folders
from fr_ps.tracking.uris import open_client, sqlite_path, tracking_uri

_ENTRY_POINTS = ("main", "train", "resume", "evaluate", "compare", "search", "promote")
"""The entry points of the MLproject whose commands log to the run that `mlflow run` opened; the others never touch it."""
_FILE_SCHEME = "file://"


@dataclass(frozen=True)
class OpenRun:
    """An open MLflow run without an fr-ps process, or whose process is still starting.

    Attributes:
        id: MLflow run id.
        entry_point: of the MLproject.
        started: date and time of the start.
    """

    id: str
    entry_point: str
    started: str


def open_runs(runs: Path = RUNS_FOLDER) -> list[OpenRun]:
    """The RUNNING runs that `mlflow run` opened for this folder and that no fr-ps process has adopted.

    A command adopts its run after it has read its data, and packed them if they are new. Until then the run is among these.

    Args:
        runs: folder of the runs; an MLflow run that one of them names is adopted, even if an outage kept its tags back.

    Raises:
        Exception: any failure of MLflow.
    """
    client = _open_store()
    if client is None:
        return []
    experiments = [one.experiment_id for one in client.search_experiments()]
    running = client.search_runs(
        experiments, "attributes.status = 'RUNNING' AND tags.`mlflow.source.type` = 'PROJECT'", order_by=["attributes.start_time"]
    )
    adopted = _adopted_ids(runs) | {os.environ.get("MLFLOW_RUN_ID")}  # the last: the run of this command
    return [
        OpenRun(run.info.run_id, _entry_point(run), f"{datetime.fromtimestamp(run.info.start_time / 1000):%Y-%m-%d %H:%M}")
        for run in running
        if run.info.run_id not in adopted
        and not {RUN_ID_TAG, "fr_ps.kind"} & run.data.tags.keys()  # only the kind: its command resumed another run
        and _entry_point(run) in _ENTRY_POINTS
        and _is_this_folder(run.data.tags.get("mlflow.source.name", ""))
    ]


def end_open_run(run: str) -> str:
    """Set the status of one of `open_runs` to KILLED; returns its id.

    Args:
        run: MLflow run id, or its beginning.

    Raises:
        InputError: there is no such open run, or several.
        Exception: any failure of MLflow.
    """
    found = [one.id for one in open_runs() if one.id.startswith(run)]
    if len(found) != 1 or len(run) < MIN_PREFIX:
        number = f"the prefix matches {len(found)} open runs" if found else "no open run without an fr-ps process"
        raise InputError(f"--end {run}: {number}; expected one of the ids that fr-ps runs --open lists")
    client = open_client(tracking_uri())
    client.set_tag(found[0], STATUS_TAG, "KILLED")
    client.set_terminated(found[0], "KILLED")
    return found[0]


def _open_store() -> MlflowClient | None:
    """A client of the tracking store in use; None if it is a SQLite file that does not exist."""
    file = sqlite_path(uri := tracking_uri())
    return None if file and not file.exists() else open_client(uri)


def _adopted_ids(runs: Path) -> set[str | None]:
    """The MLflow ids in the `run.json` files."""
    found: set[str | None] = set()
    for folder in run_folders(runs):
        with suppress(InputError):  # a damaged file
            info = read_run_info(folder)
            found |= {info.mlflow_id, *info.earlier_ids}
    return found


def _entry_point(run: MlflowRun) -> str:
    return str(run.data.tags.get("mlflow.project.entryPoint", "main"))


def _is_this_folder(source: str) -> bool:
    """Whether the source that `mlflow run` names is the current folder: as a path, or in a git checkout as file://CHECKOUT#FOLDER.

    MLflow does not percent-encode the latter.
    """
    path = Path(source)
    if source.startswith(_FILE_SCHEME):
        checkout, _, folder = source.removeprefix(_FILE_SCHEME).partition("#")
        path = Path(checkout) / folder
    return path.resolve() == Path.cwd().resolve()
