"""Runs that `mlflow run` opened for this folder, and whose command did not begin: MLflow keeps them RUNNING for ever.

For example, `mlflow run .` opens its run before it looks for conda, and leaves it open if there is none.
"""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mlflow import MlflowClient

from fr_ps.errors import InputError
from fr_ps.tracking.mlflow_sink import RUN_ID_TAG, STATUS_TAG
from fr_ps.tracking.run_folder import MIN_PREFIX
from fr_ps.tracking.uris import open_client, sqlite_path, tracking_uri


@dataclass(frozen=True)
class UnattendedRun:
    """A run of MLflow without a process of fr-ps.

    Attributes:
        id: MLflow run id.
        entry_point: of the MLproject.
        started: date and time of the start.
    """

    id: str
    entry_point: str
    started: str


def unattended_runs() -> list[UnattendedRun]:
    """The running runs that `mlflow run` opened for this folder and that no command of fr-ps has taken over.

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
    return [
        UnattendedRun(
            run.info.run_id,
            run.data.tags.get("mlflow.project.entryPoint", "main"),
            f"{datetime.fromtimestamp(run.info.start_time / 1000):%Y-%m-%d %H:%M}",
        )
        for run in running
        if RUN_ID_TAG not in run.data.tags
        and run.info.run_id != os.environ.get("MLFLOW_RUN_ID")  # the run of this command
        and Path(run.data.tags.get("mlflow.source.name", "")) == Path.cwd()
    ]


def end_unattended_run(run: str) -> str:
    """Set the status of an unattended run to KILLED; returns its id.

    Args:
        run: MLflow run id, or its beginning.

    Raises:
        InputError: there is no such unattended run, or several.
        Exception: any failure of MLflow.
    """
    found = [one.id for one in unattended_runs() if one.id.startswith(run)]
    if len(found) != 1 or len(run) < MIN_PREFIX:
        number = (
            f"{len(found)} runs of mlflow run without a process of fr-ps have this id" if found else "no run without a process"
        )
        raise InputError(f"--end {run}: {number}; expected one of the ids that fr-ps runs lists below its table")
    client = open_client(tracking_uri())
    client.set_tag(found[0], STATUS_TAG, "KILLED")
    client.set_terminated(found[0], "KILLED")
    return found[0]


def _open_store() -> MlflowClient | None:
    """A client of the tracking store in use; None if it is a SQLite file that does not exist."""
    file = sqlite_path(uri := tracking_uri())
    return None if file and not file.exists() else open_client(uri)
