"""What a training or an evaluation tells, and where it goes first: into the journal of the run's folder."""

import secrets
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from fr_ps.tracking.journal import Journal, RunStatus, read_events

SYSTEM_PREFIX = "system/"
"""Before the names of metrics of the machine, as MLflow names them; their steps are samples, not epochs."""


class RunStopped(Exception):
    """Ends a run before its end, on purpose and without an error: its status is KILLED."""


class Run:
    """A run that is being written. Telling it something never waits for a server, and never fails because of one.

    Nothing here knows MLflow: what carries the journal there stands beside it (`delivery`), or there is nothing, and what
    was told stays on disk.

    Attributes:
        id: ours, known before any contact with a server; the name of the folder.
        folder: of the run on disk, `runs/ID`.
        journal: of what was told.
        mlflow_id: once there is one.
        curves: metric to step to value, of all points told so far, also by earlier processes.
        samples: of the machine, which earlier processes took.

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
        """The id to print for the user."""
        return self.mlflow_id or self.id

    def log_params(self, values: Mapping[str, str]) -> None:
        """Settings, which never change: those that were told before keep their value."""
        new = {name: value for name, value in values.items() if name not in self._params}
        if new:
            self.journal.append("params", new)
            self._params |= set(new)

    def set_tags(self, values: Mapping[str, str]) -> None:
        """Text about the run that may change."""
        self.journal.append("tags", dict(values))

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Points of curves, all at one step.

        A curve that has a point at that step keeps it: a step that is done again after a resume adds nothing.
        """
        new = {name: float(value) for name, value in values.items() if step not in self.metric_history.get(name, {})}
        if new:
            self.journal.append("metrics", {"step": step, "values": new})
            self._record(new, step)

    def log_system_metrics(self, values: Mapping[str, float], step: int) -> None:
        """A sample of the machine, by any thread. These curves stay out of `curves`."""
        self.journal.append(
            "metrics", {"step": step, "values": {f"{SYSTEM_PREFIX}{name}": value for name, value in values.items()}}
        )

    def log_dataset(self, name: str, source: str, digest: str, profile: Mapping[str, int], context: str) -> None:
        """The data that the run reads: where they are, their digest, and what is in them."""
        data = {"name": name, "source": source, "digest": digest, "profile": dict(profile), "context": context}
        self.journal.append("dataset", data)

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """A file, or a folder with all in it, to keep with the run under `folder`.

        What is not in the run's own folder must stay where it is until it is delivered.
        """
        self.journal.append("artifact", {"path": self._stored_path(path), "folder": folder})

    def log_model(self, folder: Path, step: int) -> None:
        """A model folder that others are to load and serve; the points of curves at `step` say how good it is."""
        self.journal.append("model", {"path": self._stored_path(folder), "name": folder.name, "step": step})

    def set_status(self, status: RunStatus) -> None:
        """How the run stands from now on."""
        self.journal.append("status", {"status": status})

    def tag_other_run(self, mlflow_id: str, tags: Mapping[str, str]) -> None:
        """Text about another run in MLflow that has to do with this one."""
        self.journal.append("elsewhere", {"run": mlflow_id, "tags": dict(tags)})

    def _stored_path(self, path: Path) -> str:
        inside = path.resolve().is_relative_to(self.folder.resolve())
        return str(path.resolve().relative_to(self.folder.resolve()) if inside else path.resolve())

    def _record(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.metric_history.setdefault(name, {})[step] = value


def is_epoch_metric(metric: str) -> bool:
    """Whether the steps of a metric are epochs."""
    return not metric.startswith(SYSTEM_PREFIX)


def new_run_id() -> str:
    """A run id of ours: sortable by time, unique."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
