"""A run of MLflow that others are parts of, as the trials of a study."""

import os
import sys
from pathlib import Path

from fr_ps.errors import InputError, one_line
from fr_ps.progress import echo
from fr_ps.redaction import redact
from fr_ps.tracking.run import new_run_id
from fr_ps.tracking.run_folder import RUN_INFO_FILE, ParentRun, RunInfo, new_run_info, read_run_info
from fr_ps.tracking.run_lock import run_lock


def start_parent_run(name: str, runs: Path) -> tuple[RunInfo, ParentRun]:
    """Make such a run in MLflow, and its folder under `runs`; `resumed_run` of that folder is the run itself.

    In the run that `mlflow run` began, where it did. Its parts need its id, so that this one waits for MLflow.

    Raises:
        InputError: MLflow does not answer, or `runs` cannot be written.
    """
    from fr_ps.tracking.mlflow_sink import MlflowSink  # mlflow takes a second

    card = new_run_info(new_run_id(), name)
    with run_lock(runs / card.id):
        card.write(runs / card.id)
        store = MlflowSink(runs / card.id, card)
        try:
            store.connect()
            if store.note:
                echo(store.note, sys.stderr)
            return store.info, ParentRun(str(store.info.mlflow_id), store.experiment_id())
        except InputError:
            raise
        except Exception as error:  # whatever it is, the parts would be without their whole
            where = redact(os.environ.get("MLFLOW_TRACKING_URI", "")) or "its default store"
            raise InputError(
                f"MLflow ({where}) does not take the run of the study, which holds its trials together ({one_line(error)}); "
                "see that it answers, or set MLFLOW_TRACKING_URI"
            ) from None


def refresh_parent(parent: ParentRun, folder: Path) -> ParentRun:
    """`parent`, whose run is in `folder`, with the MLflow id that it has now: `fr-ps sync --store` may have moved it.

    Raises:
        InputError: its `run.json` is damaged.
        Exception: whatever keeps MLflow from answering.
    """
    from fr_ps.tracking.mlflow_sink import MlflowSink

    card = read_run_info(folder) if (folder / RUN_INFO_FILE).is_file() else None
    if card is None or not card.mlflow_id or card.mlflow_id == parent.mlflow_id:
        return parent
    return ParentRun(card.mlflow_id, MlflowSink(folder, card).experiment_id())


def ensure_parent_folder(info: RunInfo, runs: Path) -> Path:
    """The folder under `runs` of a parent that was perhaps begun on another machine; made where it is not there yet.

    Raises:
        InputError: it cannot be written.
    """
    folder = runs / info.id
    if not (folder / RUN_INFO_FILE).is_file():
        with run_lock(folder):
            info.write(folder)
    return folder
