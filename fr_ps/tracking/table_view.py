"""The saved view of the run table: the columns that matter, without a click. Its address is printed where there is a server.

MLflow's web page stores the view behind its button "Share" as a tag of the experiment, and opens it by its key in the address.
"""

import json
import os
from contextlib import suppress
from urllib.parse import urlencode

from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException

from fr_ps.tracking.run_folder import DEFAULT_EXPERIMENT
from fr_ps.tracking.uris import default_tracking_uri, redacted_uri, tracking_uri

SERVER_SCHEMES = ("http://", "https://")
"""How the URI of a tracking server starts."""
VIEW_KEY = "fr-ps"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW_KEY}"
_LOCAL_SERVER = "http://127.0.0.1:5000"
"""Address of `mlflow ui`."""
_TRAINING_PAGES = {"workflowType": "machine_learning"}
"""Without it, MLflow shows pages for evaluations of language models."""
_RUN_NAME = "attributes.`Run Name`"
_COLUMN_WIDTHS = {
    "metrics.`best/val/identity/auc`": 145,
    "metrics.`test/identity/auc`": 120,
    "metrics.`best/val/identity/eer`": 145,
    "metrics.`test/identity/eer`": 120,
    "tags.`fr_ps.backbone`": 150,
    "tags.`fr_ps.modality`": 130,
    "tags.`fr_ps.protocol`": 130,
    "tags.`fr_ps.status`": 110,
    "tags.`fr_ps.study`": 120,
}
"""Column to its width in pixels, from left to right. `fr_ps.study` names the study of a trial, its parent."""
_VIEW = {
    "selectedColumns": list(_COLUMN_WIDTHS),
    "columnOrder": [_RUN_NAME, *_COLUMN_WIDTHS],
    "columnWidths": {_RUN_NAME: 290} | _COLUMN_WIDTHS,
}


def save_view(client: MlflowClient, experiment: Experiment) -> None:
    """Store the view in `experiment`, unless it has it. A store that rejects it keeps its own table."""
    text = json.dumps(_VIEW)
    if experiment.tags.get(VIEW_TAG) != text:
        with suppress(MlflowException):  # no permission; a store that does not answer fails in the next request
            client.set_experiment_tag(experiment.experiment_id, VIEW_TAG, text)


def view_url(server: str, experiment_id: str) -> str:
    """Address of the run table with the columns of the view; `server` is the URL of an MLflow server."""
    return f"{_experiment_url(server, experiment_id)}?{urlencode(_TRAINING_PAGES | {'viewStateShareKey': VIEW_KEY})}"


def run_url(server: str, experiment_id: str, run_id: str) -> str:
    """Address of the page of a run; `server` as for `view_url`."""
    return f"{_experiment_url(server, experiment_id)}/{run_id}?{urlencode(_TRAINING_PAGES)}"


def _experiment_url(server: str, experiment_id: str) -> str:
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs"


def print_view_command(program: str = "mlflow") -> None:
    """Print how to open the run table of the store in use, as the last line of `make train`; it never fails.

    Nothing is printed if a server serves the store: the end of the run has printed its address.

    Args:
        program: path of the program `mlflow`.
    """
    uri = tracking_uri()
    if uri.startswith(SERVER_SCHEMES):
        return
    address = _LOCAL_SERVER
    with suppress(Exception):  # of any kind of store: the training before it has succeeded
        if experiment := MlflowClient(uri).get_experiment_by_name(os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT):
            address = view_url(_LOCAL_SERVER, experiment.experiment_id)
    store = "" if uri == default_tracking_uri() else f" --backend-store-uri {redacted_uri(uri)}"
    print(f"view: run `{program} ui{store}`, then open {address}")
