"""The run in MLflow: begins, records, ends with the status that is true."""

import getpass
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from fr_ps.errors import InputError
from fr_ps.files import locked, write_json
from fr_ps.tracking.contract import new_id

RUN_FILE = "run.json"
RUN_ID_TAG = "fr_ps.run_id"
STATUS_TAG = "fr_ps.status"
DEFAULT_EXPERIMENT = "fr-ps"
_PARAM_LENGTH = 6000
_METRICS_PER_BATCH = 1000
# Its notes on every new database stand between the user and the one line that says what is wrong.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)


class MlflowRun:
    """A run recorded in MLflow through its client, by explicit run id: no global state of mlflow is used."""

    def __init__(self, folder: Path, client: MlflowClient, mlflow_id: str) -> None:
        self.id = folder.name
        self.folder = folder
        self.client = client
        self.mlflow_id = mlflow_id

    @property
    def shown_id(self) -> str:
        return self.mlflow_id

    def params(self, values: Mapping[str, str]) -> None:
        cut = {key: value if len(value) <= _PARAM_LENGTH else value[: _PARAM_LENGTH - 3] + "..." for key, value in values.items()}
        self.client.log_batch(self.mlflow_id, params=[Param(key, value) for key, value in cut.items()])

    def tags(self, values: Mapping[str, str]) -> None:
        self.client.log_batch(self.mlflow_id, tags=[RunTag(key, value) for key, value in values.items()])

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        points = [Metric(key, float(value), now, step) for key, value in values.items()]
        for start in range(0, len(points), _METRICS_PER_BATCH):
            self.client.log_batch(self.mlflow_id, metrics=points[start : start + _METRICS_PER_BATCH])

    def dataset(self, name: str, source: str, digest: str, profile: Mapping[str, int], context: str) -> None:
        entity = Dataset(
            name=name,
            digest=digest,
            source_type="local",
            source=json.dumps({"uri": source}),
            profile=json.dumps(dict(profile)),
        )
        self.client.log_inputs(self.mlflow_id, [DatasetInput(entity, [InputTag("mlflow.data.context", context)])])

    def artifact(self, path: Path, folder: str = "") -> None:
        if path.is_dir():
            self.client.log_artifacts(self.mlflow_id, str(path), folder or None)
        else:
            self.client.log_artifact(self.mlflow_id, str(path), folder or None)


@contextmanager
def mlflow_run(name: str, runs: Path) -> Iterator[MlflowRun]:
    """A run in MLflow, and its folder under `runs`; its status at the end says how the block ended.

    FINISHED after the last line, KILLED after Ctrl-C or SIGTERM, FAILED after any other exception. Attaches to
    MLFLOW_RUN_ID where `mlflow run` set it; else it starts one in the experiment of MLFLOW_EXPERIMENT_ID or
    MLFLOW_EXPERIMENT_NAME, or `fr-ps`.
    """
    run_id = new_id()
    folder = runs / run_id
    folder.mkdir(parents=True)
    mlflow_id = os.environ.pop("MLFLOW_RUN_ID", None)
    with locked(runs):  # two processes that open a new SQLite store at once break it in its migration
        client = MlflowClient()
        if mlflow_id:
            client.update_run(mlflow_id, name=name)
        else:
            mlflow_id = client.create_run(_experiment(client), tags=_source_tags(), run_name=name).info.run_id
    run = MlflowRun(folder, client, mlflow_id)
    run.tags({RUN_ID_TAG: run_id, STATUS_TAG: "RUNNING"})
    write_json(folder / RUN_FILE, {"id": run_id, "mlflow_id": mlflow_id, "name": name})
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        run.tags({STATUS_TAG: status})
        client.set_terminated(mlflow_id, status)


def _experiment(client: MlflowClient) -> str:
    given = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if given:
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", DEFAULT_EXPERIMENT)
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name)
        except MlflowException:  # another process was faster; anything else shows in the next line
            found = client.get_experiment_by_name(name)
    if found is None:
        raise InputError(f"MLflow experiment {name!r} can be neither found nor made; check MLFLOW_TRACKING_URI")
    return found.experiment_id


def _source_tags() -> dict[str, str]:
    """What `mlflow run` would have set, so that the run table shows where a run came from."""
    tags = {"mlflow.source.name": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:500], "mlflow.source.type": "LOCAL"}
    with suppress(KeyError, OSError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    return tags
