"""Searches for tests: rejected ones in this process, and ones as processes with a real tracking server."""

import json
import os
import re
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

from fr_ps.cli import main
from fr_ps.tracking.journal import JOURNAL_FILE
from fr_ps.tracking.listing import last_status
from tests.forked import ForkedCommand
from tests.tracking import servers

EPOCHS = 6
DEADLINE = 120.0
"""Seconds to wait for an event that takes about ten."""
SEARCH_TIMEOUT = 240.0
"""Seconds to wait for the end of a search that takes about thirty."""
RATES = [0.0003, 0.0006, 0.001, 0.002, 0.003, 0.006]
OBJECTIVE = "val/identity/auc"
SETTINGS: dict[str, Any] = {
    "data": {"root": "synthetic", "val_people": 3, "test_people": 3},
    "synthetic": {"people": 12, "sessions": 3, "size": 32},
    "batch": {"people": 6, "sessions": 2},
    "model": {"backbone": "timm:test_resnet", "channels": 32, "fsm": False},
    "train": {"epochs": EPOCHS, "threads": 1},
    "after": {"seeds": 0},
}
"""Settings of all studies: an epoch takes some tenths of a second."""
Found = TypeVar("Found")


class Launcher:
    """A process of `fr-ps search`, with its workers.

    Args:
        folder: to run it in.
        environment: of it.
        workers: how many.
        log: file for its output; standard error goes to a file beside it.
    """

    def __init__(self, folder: Path, environment: dict[str, str], workers: int, log: Path) -> None:
        self.log, self.errors = log, log.with_suffix(".err")
        words = ["search", "--config", "study.yaml", "--workers", str(workers)]
        self.process = ForkedCommand(words, folder, environment, self.log, self.errors)

    @property
    def output(self) -> str:
        return self.log.read_text()

    @property
    def last_line(self) -> str:
        return self.output.splitlines()[-1]

    def workers(self) -> list[int]:
        """Process ids of its running workers."""
        found = []
        for file in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            with suppress(OSError):
                found += [int(pid) for pid in file.read_text().split()]
        return [pid for pid in found if "fr_ps.search.worker" in command(pid)]

    def wait(self) -> int:
        """Its exit code, after its end."""
        try:
            return self.process.wait(SEARCH_TIMEOUT)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the search does not end: {self.output}{self.errors.read_text()}")


class StudyFolder:
    """A folder with a study file, and the study in Optuna and MLflow.

    Args:
        path: of the folder, which is empty.
        tracking: address of the tracking server.
        settings: of the study file, in addition to SETTINGS.
    """

    def __init__(self, path: Path, tracking: str, **settings: Any) -> None:
        self.path, self.launchers = path, list[Launcher]()
        tree = {group: {**SETTINGS.get(group, {}), **settings.pop(group, {})} for group in (*SETTINGS, "study")}
        self.name = tree["study"].setdefault("name", path.name)
        self.storage = tree["study"].get("storage", f"sqlite:///{path}/studies.db")
        (path / "study.yaml").write_text(yaml.safe_dump(tree | settings))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        self.environment = kept | {"MLFLOW_TRACKING_URI": tracking, "MLFLOW_EXPERIMENT_NAME": self.name}
        self.client = MlflowClient(tracking)
        self._study: optuna.Study | None = None

    def start(self, workers: int) -> Launcher:
        launcher = Launcher(self.path, self.environment, workers, self.path / f"launcher-{len(self.launchers)}.log")
        self.launchers.append(launcher)
        return launcher

    @property
    def study(self) -> optuna.Study:
        """The study, opened by Optuna alone."""
        if self._study is None:
            self._study = optuna.load_study(study_name=self.name, storage=self.storage)
        return self._study

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    @property
    def parent(self) -> str:
        """The fr-ps id of the study's run."""
        return str(self.study.user_attrs["fr_ps.parent"]["card"]["id"])

    def runs(self) -> tuple[list[Run], Run]:
        """The child runs in MLflow, and the study's run."""
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
        """The points (step, value) in MLflow, duplicates included."""
        return sorted((point.step, point.value) for point in self.client.get_metric_history(run, metric))

    def lock_holder(self, run: str) -> int:
        """Id of the process that holds, or held, the lock of a run; -1 for none."""
        try:
            return int(json.loads((self.path / "runs" / run / "owner.lock").read_text())["pid"])
        except (OSError, ValueError):
            return -1

    def trials_in_the_middle(self) -> dict[int, FrozenTrial]:
        """Id of a worker process to its trial, with one or more epochs done and two or more left."""
        trials, found = self.trials(), {}
        for trial in trials:
            first = trial.system_attrs.get("failed_trial")
            done = len(trial.intermediate_values) - (0 if first is None else len(trials[first].intermediate_values))
            pid = self.lock_holder(trial.user_attrs.get("run", ""))
            if trial.state == TrialState.RUNNING and done and max(trial.intermediate_values) < EPOCHS - 1 and not is_gone(pid):
                found[pid] = trial
        return found

    def status(self, run: str) -> str:
        """The last status in the journal of a run; empty where it has none."""
        folder = self.path / "runs" / run
        return last_status(folder) if (folder / JOURNAL_FILE).is_file() else ""

    def processes(self) -> list[int]:
        """Ids of all processes with this working folder."""
        found = []
        for link in Path("/proc").glob("[0-9]*/cwd"):
            with suppress(OSError):
                if link.readlink() == self.path:
                    found.append(int(link.parent.name))
        return found

    def close(self) -> None:
        """Kill the processes that a failed test has left."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for launcher in self.launchers:
            launcher.process.wait()


def is_gone(pid: int) -> bool:
    """Whether a process has ended; its parent may still have to wait for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def until(event: str, look: Callable[[], Found], study_folder: StudyFolder) -> Found:
    """The first true result of `look`."""
    started = time.monotonic()
    while time.monotonic() - started < DEADLINE:
        if found := look():
            return found
        if study_folder.launchers and all(launcher.process.poll() is not None for launcher in study_folder.launchers):
            break
        time.sleep(0.05)
    logs = [*study_folder.path.glob("launcher-*"), *study_folder.path.glob("runs/*/worker-*.log")]
    pytest.fail(f"no event: {event}\n" + "\n".join(f"{log.name}: {log.read_text()[-2000:]}" for log in logs))


class RejectedSearch:
    """A folder for searches that are rejected before anything is trained."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.storage = f"sqlite:///{folder}/studies.db"

    def __call__(self, trials: int = 0, **settings: Any) -> str:
        """The error of a search with these settings; the storage has `trials` trials then."""
        tree = {"study": {"name": "bad", "storage": self.storage}, "space": {"optim.lr": RATES}} | SETTINGS | settings
        (self.folder / "bad.yaml").write_text(yaml.safe_dump(tree))
        line = rejection(self.folder / "bad.yaml", self.capsys)
        assert not list(self.folder.glob("runs/*/checkpoints"))
        if (self.folder / "studies.db").exists():
            studies = optuna.get_all_study_summaries(self.storage)
            assert sum(study.n_trials for study in studies) == trials
        return line


def rejection(file: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The error, one line, of a search with this study file."""
    assert main(["search", "--config", str(file)]) == 2
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert errors.splitlines()[-1] == line
    assert re.search(r"; \w|expected|must|needs", line), f"no remedy in: {line}"
    return line


@pytest.fixture
def rejected_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RejectedSearch:
    """Searches for which MLflow is unreachable."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    for name, value in (("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0"), ("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", servers.refusing())
    return RejectedSearch(tmp_path, capsys)


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory, new_sqlite: Path) -> Iterator[Server]:
    """A tracking server; `new_study_folder` waits until it has started."""
    server = Server(tmp_path_factory.mktemp("tracking"))
    shutil.copy(new_sqlite, server.folder / "server.db")
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def new_study_folder(tracking: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., StudyFolder]]:
    """Creates a folder with a study of that name; the tracking server has started by then."""
    study_folders = []

    def make(name: str, **settings: Any) -> StudyFolder:
        tracking.wait()
        study_folders.append(StudyFolder(tmp_path_factory.mktemp(name, numbered=False), tracking.uri, **settings))
        return study_folders[-1]

    yield make
    for study_folder in study_folders:
        study_folder.close()


def command(pid: int) -> str:
    """The command line of a process, with its id and parent; empty where it has ended."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        return f"{pid} of {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[1]}: {words}"
    except OSError:
        return ""


def four_at_once(program: str, argument: str) -> list[str]:
    """The output of four processes of a Python program after `ready`, at which all of them continue at once."""
    command = [sys.executable, "-c", program, argument]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    return outputs
