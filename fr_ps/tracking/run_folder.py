"""run.json: what a run is called here and in MLflow, and where it belongs. Written before anything is trained."""

import getpass
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fr_ps.config.checks import check_display_name
from fr_ps.errors import InputError
from fr_ps.files import check_path_component, is_file, write_json
from fr_ps.json_files import Milliseconds, read_json
from fr_ps.redaction import redact, redact_tree
from fr_ps.tracking.provenance import command_line

RUN_INFO_FILE = "run.json"
DEFAULT_EXPERIMENT = "fr-ps"
PARENT_TAG = "mlflow.parentRunId"


@dataclass(frozen=True)
class ParentRun:
    """A run in MLflow that others are parts of.

    Attributes:
        mlflow_id: of it.
        experiment_id: of MLflow, in which its parts must be, too.
    """

    mlflow_id: str
    experiment_id: str


@dataclass(frozen=True)
class RunInfo:
    """Who a run is.

    Attributes:
        id: ours.
        name: to show.
        mlflow_id: of the run in MLflow; None before there is one.
        experiment: its name; where `experiment_id` is empty.
        experiment_id: of MLflow; empty: found, or made, by name.
        tracking_uri: as MLFLOW_TRACKING_URI said it, without user information and query; empty: MLflow's default.
        host: the machine that began it.
        begun: milliseconds since 1970.
        tags: that the run in MLflow begins with.
        earlier_ids: of the run in the MLflow stores that it belonged to before.
    """

    id: str
    name: str
    mlflow_id: str | None = None
    experiment: str = DEFAULT_EXPERIMENT
    experiment_id: str = ""
    tracking_uri: str = ""
    host: str = ""
    begun: Milliseconds = 0
    tags: dict[str, str] = field(default_factory=dict)
    earlier_ids: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_path_component(self.id, "id of the run")

    @property
    def parent(self) -> str:
        """The MLflow id of the run that it is a part of, as a trial is of a study; empty for none."""
        return self.tags.get(PARENT_TAG, "")

    def write(self, folder: Path) -> None:
        """Write it to the run's folder, without secrets."""
        write_json(folder / RUN_INFO_FILE, redact_tree(asdict(self)))


def new_run_info(run_id: str, name: str, parent: ParentRun | None = None) -> RunInfo:
    """The card of a run that begins now, from the environment variables of MLflow.

    MLFLOW_RUN_ID, which `mlflow run` sets, is taken once: a second run of this process gets a run of its own. So does one
    with a `parent`, of which it becomes a part.

    Raises:
        InputError: MLFLOW_EXPERIMENT_NAME is no name.
    """
    from fr_ps.tracking.uris import redacted_uri  # mlflow takes a second

    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "")
    if experiment:
        check_display_name("MLFLOW_EXPERIMENT_NAME", experiment)
    return RunInfo(
        id=run_id,
        name=redact(name),
        mlflow_id=None if parent else os.environ.pop("MLFLOW_RUN_ID", None),
        experiment=redact(experiment) or DEFAULT_EXPERIMENT,
        experiment_id=parent.experiment_id if parent else os.environ.get("MLFLOW_EXPERIMENT_ID", ""),
        tracking_uri=redacted_uri(os.environ.get("MLFLOW_TRACKING_URI", "")),
        host=socket.gethostname(),
        begun=int(time.time() * 1000),
        tags=_source_tags() | ({PARENT_TAG: parent.mlflow_id} if parent else {}),
    )


def read_run_info(folder: Path) -> RunInfo:
    """The card of the run in `folder`.

    Raises:
        InputError: there is none, or it is damaged.
    """
    return read_json(folder / RUN_INFO_FILE, RunInfo, "expected the folder of a run, as runs/ID, with the file as fr-ps wrote it")


def find_run(run: str, runs: Path) -> Path | None:
    """The folder under `runs` of the run with this id, ours or MLflow's; None if there is none.

    Raises:
        InputError: the card of that run is damaged.
    """
    if run and "/" not in run and is_file(runs / run / RUN_INFO_FILE):
        return runs / run
    for folder in [file.parent for file in sorted(runs.glob(f"*/{RUN_INFO_FILE}"))] if run else []:
        with suppress(InputError):  # another run's damage is not this one's
            card = read_run_info(folder)
            if run in (card.mlflow_id, *card.earlier_ids):
                return folder
    return None


def _source_tags() -> dict[str, str]:
    """What `mlflow run` would have set, so that the run table shows where a run came from."""
    tags = {"mlflow.source.name": command_line()[:500], "mlflow.source.type": "LOCAL"}
    with suppress(KeyError, OSError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    return tags
