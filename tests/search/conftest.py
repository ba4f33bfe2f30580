"""`fr-ps search` as its users run it: processes of their own in a folder of their own, with a real tracking server."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import optuna
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow_server import Server
from optuna.trial import FrozenTrial, TrialState

from fr_ps.tracking.journal import JOURNAL_FILE
from fr_ps.tracking.listing import last_status
from tests.forked import ForkedCommand

EPOCHS = 6
DEADLINE = 480.0
"""Seconds after which something that takes some ten at most is not waited for any longer."""
SETTINGS: dict[str, Any] = {
    "data": {"root": "synthetic", "val_people": 3, "test_people": 3},
    "synthetic": {"people": 12, "sessions": 3, "size": 32},
    "batch": {"people": 6, "sessions": 2},
    "model": {"backbone": "timm:test_resnet", "channels": 32, "fsm": False},
    "train": {"epochs": EPOCHS, "threads": 1},
    "after": {"seeds": 0},
}
"""Of all studies of these tests: an epoch takes some tenths of a second."""
OVER = (TrialState.COMPLETE, TrialState.PRUNED)
Found = TypeVar("Found")


class Launcher:
    """A process of `fr-ps search`, with its workers.

    Args:
        folder: to run it in.
        environment: of it.
        workers: how many.
        log: file for what it prints; what it says on standard error goes beside it.
    """

    def __init__(self, folder: Path, environment: dict[str, str], workers: int, log: Path) -> None:
        self.log, self.errors = log, log.with_suffix(".err")
        words = ["search", "--config", "study.yaml", "--workers", str(workers)]
        self.process = ForkedCommand(words, folder, environment, self.log, self.errors)

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def last_line(self) -> str:
        return self.said.splitlines()[-1]

    def workers(self) -> list[int]:
        """Ids of its living workers."""
        found = []
        for file in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            with suppress(OSError):
                found += [int(pid) for pid in file.read_text().split()]
        return [pid for pid in found if "fr_ps.search.worker" in command(pid)]

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"a search does not end: {self.said}{self.errors.read_text()}")


class Place:
    """A folder with a study file, and what Optuna and MLflow say of that study.

    Args:
        folder: empty.
        tracking: address of the tracking server.
        settings: of the study file, beside those of all.
    """

    def __init__(self, folder: Path, tracking: str, **settings: Any) -> None:
        self.folder, self.launchers = folder, list[Launcher]()
        tree = {group: {**SETTINGS.get(group, {}), **settings.pop(group, {})} for group in (*SETTINGS, "study")}
        self.name = tree["study"].setdefault("name", folder.name)
        self.storage = tree["study"].get("storage", f"sqlite:///{folder}/studies.db")
        (folder / "study.yaml").write_text(yaml.safe_dump(tree | settings))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        self.environment = kept | {"MLFLOW_TRACKING_URI": tracking, "MLFLOW_EXPERIMENT_NAME": self.name}
        self.client = MlflowClient(tracking)
        self._study: optuna.Study | None = None

    def start(self, workers: int) -> Launcher:
        launcher = Launcher(self.folder, self.environment, workers, self.folder / f"launcher-{len(self.launchers)}.log")
        self.launchers.append(launcher)
        return launcher

    @property
    def study(self) -> optuna.Study:
        """As Optuna itself opens it."""
        if self._study is None:
            self._study = optuna.load_study(study_name=self.name, storage=self.storage)
        return self._study

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    @property
    def parent(self) -> str:
        """Our id of the study's run."""
        return str(self.study.user_attrs["fr_ps.parent"]["card"]["id"])

    def runs(self) -> tuple[list[Run], Run]:
        """All runs of its experiment in MLflow: those that are parts, and the one that is none."""
        experiment = self.client.get_experiment_by_name(self.name)
        runs = self.client.search_runs([experiment.experiment_id])
        (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        return [run for run in runs if run is not parent], parent

    def trial_runs(self) -> dict[int, Run]:
        """Number of a trial to its run in MLflow."""
        runs = [run for run in self.runs()[0] if "fr_ps.trial" in run.data.tags]
        found = {int(run.data.tags["fr_ps.trial"]): run for run in runs}
        assert len(found) == len(runs)
        return found

    def curve(self, run: str, metric: str) -> list[tuple[int, float]]:
        """The points of MLflow, each as often as it is there."""
        return sorted((point.step, point.value) for point in self.client.get_metric_history(run, metric))

    def owner(self, run: str) -> int:
        """Id of the process that has, or had, the run of our id; -1 for none."""
        try:
            return int(json.loads((self.folder / "runs" / run / "owner.lock").read_text())["pid"])
        except (OSError, ValueError):
            return -1

    def in_the_middle(self) -> dict[int, FrozenTrial]:
        """Id of a process that lives to its trial, of which it did an epoch at least and has two to do."""
        trials, found = self.trials(), {}
        for trial in trials:
            first = trial.system_attrs.get("failed_trial")
            done = len(trial.intermediate_values) - (0 if first is None else len(trials[first].intermediate_values))
            pid = self.owner(trial.user_attrs.get("run", ""))
            if trial.state == TrialState.RUNNING and done and max(trial.intermediate_values) < EPOCHS - 1 and not is_gone(pid):
                found[pid] = trial
        return found

    def status(self, run: str) -> str:
        """What the run of our id wrote down last; empty for nothing."""
        folder = self.folder / "runs" / run
        return last_status(folder) if (folder / JOURNAL_FILE).is_file() else ""

    def processes(self) -> list[int]:
        """Ids of all that live in the folder."""
        found = []
        for place in Path("/proc").glob("[0-9]*/cwd"):
            with suppress(OSError):
                if place.readlink() == self.folder:
                    found.append(int(place.parent.name))
        return found

    def close(self) -> None:
        """End whatever a test that failed has left."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for launcher in self.launchers:
            launcher.process.wait()


def is_gone(pid: int) -> bool:
    """Whether a process has ended, its parent may know it or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def until(what: str, look: Callable[[], Found], place: Place) -> Found:
    """What `look` returns as soon as that is something."""
    begun = time.monotonic()
    while time.monotonic() - begun < DEADLINE:
        if found := look():
            return found
        if place.launchers and all(launcher.process.poll() is not None for launcher in place.launchers):
            break
        time.sleep(0.05)
    logs = [*place.folder.glob("launcher-*"), *place.folder.glob("runs/*/worker-*.log")]
    pytest.fail(f"waited for {what}\n" + "\n".join(f"{log.name}: {log.read_text()[-2000:]}" for log in logs))


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory, new_sqlite: Path) -> Iterator[Server]:
    """A tracking server that is being started; `new_place` waits until it answers."""
    server = Server(tmp_path_factory.mktemp("tracking"))
    shutil.copy(new_sqlite, server.folder / "server.db")
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def new_place(tracking: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Place]]:
    """Makes a place for a study of that name; the tracking server answers when it is made."""
    places = []

    def make(name: str, **settings: Any) -> Place:
        tracking.wait()
        places.append(Place(tmp_path_factory.mktemp(name, numbered=False), tracking.uri, **settings))
        return places[-1]

    yield make
    for place in places:
        place.close()


def command(pid: int) -> str:
    """The command line of a process with its id and parent; empty for none that lives."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        return f"{pid} of {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[1]}: {words}"
    except OSError:
        return ""


def four_at_once(program: str, argument: str) -> list[str]:
    """What each of four processes of a Python program prints after it says `ready`, all of them going on at once."""
    command = [sys.executable, "-c", program, argument]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    return said
