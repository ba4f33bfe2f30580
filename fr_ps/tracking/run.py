"""The logging interface of a run. Each call appends to the journal in the run's folder; `delivery` sends it to MLflow."""

import secrets
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from fr_ps.redaction import redact
from fr_ps.tracking.journal import Journal, RunStatus, read_events

SYSTEM_PREFIX = "system/"
"""Prefix of system metrics, as in MLflow. Their steps count samples, not epochs."""


class EndRunAsKilled(Exception):
    """Raised in the block of a run to end it on purpose and without an error, with the status KILLED."""


class Run:
    """An open run. No call waits for a server or fails because of one; this class does not use MLflow.

    Attributes:
        id: run id of fr-ps, which is the name of the folder; it exists before MLflow is contacted.
        folder: run folder, `runs/ID`.
        journal: journal in that folder.
        mlflow_id: id of the MLflow run; None until MLflow has created it.
        metric_history: metric to step to value, of all logged points, including those before a resume.
        system_samples: number of system metric samples logged before a resume; the step of the next one.

    Raises:
        InputError: the folder cannot be written, or its journal is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.id = folder.name
        self.folder = folder
        self.journal = Journal(folder)
        self.mlflow_id: str | None = None
        self.metric_history: dict[str, dict[int, float]] = {}
        self.system_samples = 0
        self._params: set[str] = set()
        for _, event in read_events(self.journal.path):
            if event.kind == "params":
                self._params |= set(event.data)
            if event.kind == "metrics":
                step, values = event.data["step"], event.data["values"]
                self._record({name: value for name, value in values.items() if is_epoch_metric(name)}, step)
                if not all(map(is_epoch_metric, values)):
                    self.system_samples = max(self.system_samples, step + 1)

    @property
    def display_id(self) -> str:
        """The id for the user: MLflow's, or ours before there is one."""
        return self.mlflow_id or self.id

    def log_params(self, values: Mapping[str, str]) -> None:
        """Log params. A param that is already logged keeps its first value."""
        new = {name: value for name, value in values.items() if name not in self._params}
        if new:
            self.journal.append("params", new)
            self._params |= set(new)

    def set_tags(self, values: Mapping[str, str]) -> None:
        """Set tags. A later value of a tag replaces an earlier one."""
        self.journal.append("tags", dict(values))

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log the values of metrics at one step.

        The first value of a metric at a step counts: points of a step that is repeated after a resume are dropped.
        """
        new = {name: float(value) for name, value in values.items() if step not in self.metric_history.get(name, {})}
        if new:
            self.journal.append("metrics", {"step": step, "values": new})
            self._record(new, step)

    def log_final_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Make `values` the last points of their metrics, which MLflow shows in its tables.

        A metric whose last point already equals its entry in `values` gets no further point.

        Args:
            values: metric to its final value.
            step: of the new points. If a metric has a point at this step or later, its new point is one step after its last one.
        """
        by_step: dict[int, dict[str, float]] = {}
        for name, value in values.items():
            points = self.metric_history.get(name, {})
            last = max(points, default=-1)
            if last < 0 or points[last] != float(value):
                by_step.setdefault(max(step, last + 1), {})[name] = value
        for at, of_step in by_step.items():
            self.log_metrics(of_step, at)

    def log_system_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log one sample of the system metrics; thread-safe. It is not added to `metric_history`."""
        self.journal.append(
            "metrics", {"step": step, "values": {f"{SYSTEM_PREFIX}{name}": value for name, value in values.items()}}
        )

    def log_dataset(self, name: str, source: str, digest: str, profile: Mapping[str, int], context: str) -> None:
        """Log the data set of the run: its source, digest and profile."""
        data = {"name": name, "source": source, "digest": digest, "profile": dict(profile), "context": context}
        self.journal.append("dataset", data)

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Log a file or folder as an artifact under `folder`.

        A path outside of the run's folder must stay in place until it is delivered.
        """
        self.journal.append("artifact", {"path": self._stored_path(path), "folder": folder})

    def log_model(self, folder: Path, step: int, name: str = "") -> None:
        """Log a model folder as an MLflow model, with the metrics at `step`; `name` is by default that of the folder."""
        path = self._stored_path(folder)
        self.journal.append("model", {"path": path, "name": logged_model_name(name or folder.name), "step": step})

    def set_status(self, status: RunStatus) -> None:
        """Set the status of the run."""
        self.journal.append("status", {"status": status})

    def tag_other_run(self, mlflow_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of another MLflow run: of the empty one that `mlflow run` creates for a command that resumes a run."""
        self.journal.append("elsewhere", {"run": mlflow_id, "tags": dict(tags)})

    def _stored_path(self, path: Path) -> str:
        inside = path.resolve().is_relative_to(self.folder.resolve())
        return str(path.resolve().relative_to(self.folder.resolve()) if inside else path.resolve())

    def _record(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.metric_history.setdefault(name, {})[step] = value


def logged_model_name(text: str) -> str:
    """`text` as the name of a logged model: without secrets, and with a hyphen for each character that MLflow does not allow."""
    # Redacted first: without its punctuation, an address with a password is not recognised as one.
    return "".join("-" if character in "/:.%\"'" else character for character in redact(text))


def is_epoch_metric(metric: str) -> bool:
    """Whether the steps of a metric count epochs."""
    return not metric.startswith(SYSTEM_PREFIX)


def new_run_id() -> str:
    """A new, unique run id that sorts by time."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
