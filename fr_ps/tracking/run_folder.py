"""The folder of a run: its paths, and `run.json`, which links the run to MLflow. Written before the training starts."""

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
from fr_ps.tracking.environment import command_line

RUNS_FOLDER = Path("runs")
# Paths in the folder of a run.
RUN_INFO_FILE = "run.json"
CONFIG_FILE = "config.yaml"
CHECKPOINTS_FOLDER = Path("checkpoints")
LAST_CHECKPOINT, BEST_CHECKPOINT = CHECKPOINTS_FOLDER / "last", CHECKPOINTS_FOLDER / "best"
RESUME_CHECKPOINTS = CHECKPOINTS_FOLDER / "resume"
"""Folder of the checkpoints to resume from, whose names are consecutive numbers."""
MODEL_FOLDER = "model"
"""Name of the model folder inside a checkpoint to resume from."""
FOLDER_PLACEHOLDER = "FOLDER OF THIS FILE"
"""Placeholder in a model card for its folder; the description of a registered version has the version's URI in its place."""
MODEL_CARD_FILE = "README.md"
"""The model card, in a model folder."""
MIN_PREFIX = 4
"""Fewest characters that may stand for a run id."""
DEFAULT_EXPERIMENT = "fr-ps"
PARENT_TAG = "mlflow.parentRunId"


@dataclass(frozen=True)
class ParentRun:
    """The MLflow run of a study, the parent of the runs of its trials.

    Attributes:
        mlflow_id: id of the parent run.
        experiment_id: MLflow experiment of the parent run and of its children.
    """

    mlflow_id: str
    experiment_id: str


@dataclass(frozen=True)
class RunInfo:
    """Content of `run.json`.

    Attributes:
        id: our run id.
        name: display name.
        mlflow_id: id of the MLflow run; None until MLflow has created it.
        experiment: name of the MLflow experiment, used if `experiment_id` is empty.
        experiment_id: id of the MLflow experiment; empty: found or created by name.
        tracking_uri: MLFLOW_TRACKING_URI at the start of the run, without credentials and query; empty: the default store.
        host: name of the machine that started the run.
        begun: start time in milliseconds since 1970.
        tags: tags that the MLflow run is created with.
        earlier_ids: MLflow ids of the run in the tracking stores that it was moved from.
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
        check_path_component(self.id, "run id")

    @property
    def parent_id(self) -> str:
        """MLflow id of the parent run (for a trial, the run of its study); empty without a parent."""
        return self.tags.get(PARENT_TAG, "")

    def write(self, folder: Path) -> None:
        """Write `run.json` into `folder`, without secrets."""
        write_json(folder / RUN_INFO_FILE, redact_tree(asdict(self)))


def new_run_info(run_id: str, name: str, parent: ParentRun | None = None) -> RunInfo:
    """The `RunInfo` of a run that starts now, from MLflow's environment variables.

    MLFLOW_RUN_ID, which `mlflow run` sets, applies to the first run of this process only. It does not apply to a run with a
    `parent`.

    Raises:
        InputError: MLFLOW_EXPERIMENT_NAME is not a valid name.
    """
    from fr_ps.tracking.uris import redacted_uri  # importing mlflow takes a second

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
    """Read `run.json` of the run in `folder`.

    Raises:
        InputError: the file is missing or damaged.
    """
    return read_json(folder / RUN_INFO_FILE, RunInfo, "expected a run folder, as runs/ID, with run.json as fr-ps wrote it")


def run_folders(runs: Path) -> list[Path]:
    """The folders of all runs under `runs`, oldest first."""
    return [file.parent for file in sorted(runs.glob(f"*/{RUN_INFO_FILE}"))]


def find_run(run: str, runs: Path) -> Path | None:
    """The folder of the run with this id, ours or MLflow's, in `runs`; None without such a run."""
    if not run:
        return None
    if "/" not in run and is_file(runs / run / RUN_INFO_FILE):
        return runs / run
    for folder in run_folders(runs):
        with suppress(InputError):  # damage of another run
            info = read_run_info(folder)
            if run in (info.mlflow_id, *info.earlier_ids):
                return folder
    return None


def find_run_by_prefix(run: str, runs: Path) -> Path | None:
    """As `find_run`, also by the beginning of an id, with `MIN_PREFIX` characters or more.

    Raises:
        InputError: the prefix matches several runs.
    """
    found = find_run(run, runs)
    if found or len(run) < MIN_PREFIX or "/" in run:
        return found
    matches = []
    for folder in run_folders(runs):
        with suppress(InputError):  # damage of another run
            info = read_run_info(folder)
            if any(one and one.startswith(run) for one in (folder.name, info.mlflow_id, *info.earlier_ids)):
                matches.append(folder)
    if len(matches) > 1:
        raise InputError(
            f"{run}: the prefix matches {len(matches)} runs, as {matches[-2].name} and {matches[-1].name}; give more characters"
        )
    return matches[0] if matches else None


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints to resume from of the run in `folder`, newest first. Only their names are checked."""
    return sorted((path for path in (folder / RESUME_CHECKPOINTS).glob("*") if path.name.isdigit()), reverse=True)


def _source_tags() -> dict[str, str]:
    """The tags that `mlflow run` sets for the source column of the run table, and the whole command line."""
    command = command_line()
    # Words with a slash are left out, since MLflow's pages show only what follows the last slash of the source. For
    # `fr-ps promote --model models:/faces/1`, that would be `1`.
    source = " ".join(word for word in command.split()[:2] if "/" not in word)
    tags = {"mlflow.source.name": source[:500], "mlflow.source.type": "LOCAL", "fr_ps.command": command[:500]}
    with suppress(KeyError, OSError):  # the user of a container may have no name
        tags["mlflow.user"] = getpass.getuser()
    return tags
