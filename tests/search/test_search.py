"""`fr-ps search` from start to end: workers that are killed, a search that is stopped, a server that comes and goes."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import pytest
import torch
import yaml
from mlflow_server import Server
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from fr_ps.arguments import training_config
from fr_ps.cli import main, parse_command_line
from fr_ps.config import SearchConfig
from fr_ps.errors import InputError
from fr_ps.models.folder import load_model
from fr_ps.search.spec import build_study_spec
from fr_ps.search.storage import Storage, open_study
from fr_ps.tracking.journal import JOURNAL_FILE
from fr_ps.tracking.listing import last_status
from fr_ps.tracking.resolve import resolve_model
from fr_ps.tracking.run_lock import run_lock
from tests.search.conftest import DEADLINE, EPOCHS, OVER, SETTINGS, Launcher, Place, command, is_gone, until
from tests.search.postgresql import Server as Database
from tests.search.postgresql import postgresql
from tests.tracking import servers

# It starts while the searches that are refused need the processor less.
pytestmark = pytest.mark.usefixtures("tracking")
TRIALS, SEPARATE_TRIALS = 8, 6
RATES = [0.0003, 0.0006, 0.001, 0.002, 0.003, 0.006]
OBJECTIVE = "val/identity/auc"
STATUSES = {"complete": "FINISHED", "pruned": "KILLED"}
NewPlace = Callable[..., Place]


class Refused:
    """A folder for searches that are refused before anything is trained."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.storage = f"sqlite:///{folder}/studies.db"

    def __call__(self, trials: int = 0, **settings: Any) -> str:
        """The line that a search with these settings is refused by, in whose storage are `trials` then."""
        tree = {"study": {"name": "bad", "storage": self.storage}, "space": {"optim.lr": RATES}} | SETTINGS | settings
        (self.folder / "bad.yaml").write_text(yaml.safe_dump(tree))
        line = refusal(self.folder / "bad.yaml", self.capsys)
        assert not list(self.folder.glob("runs/*/checkpoints"))
        if (self.folder / "studies.db").exists():
            studies = optuna.get_all_study_summaries(self.storage)
            assert sum(study.n_trials for study in studies) == trials
        return line


def refusal(file: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a search with this study file is refused by."""
    assert main(["search", "--config", str(file)]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert said.splitlines()[-1] == line
    assert re.search(r"; \w|expected|must|needs", line), f"no remedy in: {line}"
    return line


@pytest.fixture
def refused_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Searches for which MLflow does not answer."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    for name, value in (("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0"), ("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", servers.refusing())
    return Refused(tmp_path, capsys)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"space": {"optim.rate": [0.1]}}, ("optim.rate", "optim.lr")),
        ({"space": {"schedule.name": ["cosine", "sine"]}}, ("space.schedule.name", "sine", "polynomial")),
        ({"space": {"optim.lr": [0.1, -0.1]}}, ("space.optim.lr", "-0.1", "above 0")),
        ({"space": {"optim.lr": {"low": 0.1, "high": 0.01}}}, ("space.optim.lr", "low 0.1", "high 0.01")),
        ({"space": {}}, ("space", "expected")),
        ({"objectives": {OBJECTIVE: "minimize"}}, (f"objectives.{OBJECTIVE}", "minimize", "maximize")),
        ({"objectives": {"test/identity/auc": "maximize"}}, ("test/identity/auc", "val/")),
        ({"study": {}}, ("study.name",)),
        ({"study": {"name": "bad", "storage": "sqlite:////nowhere/at/all.db"}}, ("study.storage", "/nowhere/at")),
        ({"study": {"name": "bad", "storage": "studies.db"}}, ("study.storage", "sqlite:///")),
        ({"sampler": {"name": "grid"}, "space": {"optim.lr": {"low": 0.1, "high": 0.2}}}, ("space.optim.lr", "grid", "step")),
        ({"pruner": {"epochs": EPOCHS}}, ("pruner.epochs", "train.epochs")),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_what_is_wrong_with_a_study_file_is_said_before_anything_is_made(refused_search, settings, words):
    line = refused_search(**settings)
    for word in words:
        assert word in line
    assert not list(refused_search.folder.glob("runs/*"))
    assert not list(refused_search.folder.glob("studies.db"))


def test_a_database_that_does_not_answer_is_refused_without_its_password(refused_search):
    port = servers.free_port()
    line = refused_search(study={"name": "bad", "storage": f"postgresql+psycopg2://someone:secret@127.0.0.1:{port}/studies"})
    assert "study.storage" in line
    assert str(port) in line
    assert "secret" not in line


def test_a_file_that_is_no_database_is_refused(refused_search):
    (refused_search.folder / "other.db").write_text("no database " * 100)
    line = refused_search(study={"name": "bad", "storage": f"sqlite:///{refused_search.folder}/other.db"})
    assert "other.db" in line


def test_mlflow_that_does_not_answer_is_refused(refused_search):
    assert "MLFLOW_TRACKING_URI" in refused_search()


def test_a_start_after_one_that_mlflow_refused_does_not_wait_for_that_one(refused_search, monkeypatch):
    monkeypatch.setattr("fr_ps.search.launcher._METADATA_TIMEOUT", 120.0)
    refused_search()
    begun = time.monotonic()
    refused_search()
    assert time.monotonic() - begun < 60


def test_a_study_that_is_not_ours_is_refused(refused_search):
    study = optuna.create_study(storage=refused_search.storage, study_name="bad", direction="maximize")
    study.tell(study.ask(), 0.5)
    line = refused_search(trials=1)
    assert "'bad'" in line
    assert "study.name" in line


def test_a_study_with_another_direction_is_refused(refused_search):
    optuna.create_study(storage=refused_search.storage, study_name="bad", direction="minimize")
    line = refused_search()
    assert "minimize" in line
    assert "study.name" in line


INTERRUPTED_READ = """
import signal, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine
from fr_ps.search.worker import main

@event.listens_for(Engine, "after_cursor_execute")
def interrupt(connection, cursor, statement, *_):
    if statement.startswith("SELECT trials") and list(Path("runs").glob("*/run.json")) and not Path("interrupted").exists():
        Path("interrupted").touch()
        signal.raise_signal(signal.SIGINT)

sys.exit(main())
"""
"""A worker that gets SIGINT when it first reads the trials after the run of its first one was begun."""


@pytest.fixture
def start_worker(refused_search: Refused) -> Iterator[Callable[..., tuple["subprocess.Popen[str]", optuna.Study]]]:
    """Starts a worker of a study of two trials, for whose runs MLflow does not answer; returns it and the study."""
    begun = []

    def start(*program: str) -> tuple["subprocess.Popen[str]", optuna.Study]:
        tree = SETTINGS | {"study": {"name": "two", "storage": refused_search.storage}, "budget": {"trials": 2}}
        tree |= {
            "space": {"optim.lr": RATES[:2]},
            "sampler": {"name": "grid"},
            "pruner": {"name": "none"},
            "train": {"epochs": 1},
        }
        Path("two.yaml").write_text(yaml.safe_dump(tree))
        arguments = parse_command_line(["search", "--config", "two.yaml"])["search"]
        config = SearchConfig(**{field.name: arguments[field.name] for field in fields(SearchConfig)})
        order = build_study_spec(config, training_config(arguments)).as_json()
        order |= {"parent": {"mlflow_id": "none", "experiment_id": "0"}, "threads": 1, "began": time.time()}
        study, _ = open_study(Storage(config.study.storage, config.study.heartbeat), "two", ["maximize"])
        with Path("worker.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, *program],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )
        begun.append(process)
        assert process.stdin is not None
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        return process, study

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def wait_in_worker(process: "subprocess.Popen[str]", look: Callable[[], bool]) -> None:
    begun = time.monotonic()
    while not look():
        assert process.poll() is None, Path("worker.log").read_text()
        assert time.monotonic() - begun < DEADLINE, Path("worker.log").read_text()
        time.sleep(0.05)


def test_a_worker_that_gets_sigint_while_the_end_of_a_trial_waits_for_mlflow_begins_no_other(start_worker):
    process, study = start_worker("-m", "fr_ps.search.worker")

    def at_its_end() -> bool:
        runs = [trial.user_attrs.get("run", "") for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]
        return any(
            (Path("runs") / run / JOURNAL_FILE).is_file() and last_status(Path("runs") / run) == "FINISHED" for run in runs
        )

    wait_in_worker(process, at_its_end)
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE) == 130
    assert len(list(Path().glob("runs/*"))) == 1, Path("worker.log").read_text()


def test_a_worker_that_gets_sigint_in_the_middle_of_a_read_of_the_database_ends(start_worker):
    process, study = start_worker("-c", INTERRUPTED_READ)
    wait_in_worker(process, Path("interrupted").exists)
    assert process.wait(DEADLINE) == 130
    assert [trial.state for trial in study.get_trials()] == [TrialState.WAITING]


@dataclass(frozen=True)
class Story:
    """What befell a study.

    Attributes:
        place: of it.
        killed: number of the trial whose worker was killed.
        workers: ids of the workers that lived when the search was stopped.
        stopped: its exit code then.
        left: commands of the processes that it left.
        waiting: the trials after that.
        status: of the study's run after that.
        again: when it was started again; from then on the tracking server answers.
        code: the exit code of the search that was started again.
    """

    place: Place
    killed: int
    workers: Sequence[int]
    stopped: int
    left: Sequence[str]
    waiting: Sequence[FrozenTrial]
    status: str
    again: datetime
    code: int


@pytest.fixture(scope="module")
def story(new_place: NewPlace, tracking: Server) -> Story:
    """Two workers; the tracking server is killed, then a worker, the search is stopped, and started again to the end."""
    # With this seed the first six trials have all six rates, and those after them repeat some.
    study, sampler, pruner = {"seed": 5, "heartbeat": 2}, {"name": "random"}, {"name": "none"}
    budget, after = {"trials": TRIALS}, {"seeds": 1, "register": "faces"}
    place = new_place("story", study=study, sampler=sampler, pruner=pruner, space={"optim.lr": RATES}, budget=budget, after=after)
    first = place.start(workers=2)
    until("workers", lambda: "2 workers" in first.said, place)
    until("a trial in the middle", place.in_the_middle, place)
    tracking.kill()
    tracking.start()
    killed = until("a worker that dies in the middle of a trial", lambda: kill_in_the_middle(place), place)

    def to_be_stopped() -> bool:
        """Both work and MLflow answers, or only a few trials are left; and at least one is in the middle."""
        few = len(place.trials(*OVER)) >= TRIALS - 4
        return bool((few or (len(first.workers()) == 2 and answers(tracking))) and place.in_the_middle())

    workers = until("the middle of the search", lambda: to_be_stopped() and interrupt_in_the_middle(first, place), place)
    stopped, left, waiting = first.ended(), [command(pid) for pid in place.processes()], place.study.get_trials()
    status = place.status(place.parent)
    tracking.wait()
    again = datetime.now()
    code = place.start(workers=2).ended()
    return Story(place, killed.number, workers, stopped, left, waiting, status, again, code)


def kill_in_the_middle(place: Place) -> FrozenTrial | None:
    """Kill a worker; its trial, if that had not ended before."""
    for pid, trial in place.in_the_middle().items():
        os.kill(pid, signal.SIGKILL)
        until("the end of what was killed", lambda pid=pid: is_gone(pid), place)
        still = place.trials()[trial.number]
        return still if still.state == TrialState.RUNNING else None
    return None


def interrupt_in_the_middle(launcher: Launcher, place: Place) -> list[int]:
    """Give the launcher SIGINT; returns its workers, none if no trial was in the middle any longer.

    The workers stand still until SIGINT waits for those in the middle: however long the launcher takes to pass it on, no
    trial ends before.
    """
    workers = launcher.workers()
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        working = [pid for pid in place.in_the_middle() if pid in workers]
        if not working:
            return []
        launcher.process.send_signal(signal.SIGINT)
        until("workers that are told to stop", lambda: all(map(waits_for_sigint, working)), place)
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    return workers


def waits_for_sigint(pid: int) -> bool:
    (pending,) = re.findall(r"ShdPnd:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(pending, 16) >> signal.SIGINT - 1 & 1)


def answers(server: Server) -> bool:
    try:
        urllib.request.urlopen(f"{server.uri}/health", timeout=1)
    except OSError:
        return False
    return True


def test_a_search_that_is_stopped_leaves_no_process_and_no_running_trial(story):
    assert story.stopped == 130
    assert story.left == []
    assert all(is_gone(pid) for pid in story.workers)
    assert TrialState.RUNNING not in {trial.state for trial in story.waiting}
    assert sum(trial.state in OVER for trial in story.waiting) < TRIALS
    assert any(trial.state == TrialState.WAITING and trial.user_attrs for trial in story.waiting)
    assert story.status == "KILLED"
    for launcher in story.place.launchers:
        assert "Traceback" not in launcher.said + launcher.errors.read_text()


def test_every_trial_is_done_once_and_that_of_a_killed_worker_again(story):
    assert story.code == 0, story.place.launchers[-1].errors.read_text()
    trials = story.place.trials()
    assert sum(trial.state in OVER for trial in trials) == TRIALS
    (failed,) = [trial for trial in trials if trial.state not in OVER]
    assert (failed.number, failed.state) == (story.killed, TrialState.FAIL)
    (again,) = [one for one in trials if RetryHeartbeatStaleTrialCallback.retried_trial_number(one) == failed.number]
    assert again.state in OVER
    assert again.params == failed.params
    assert again.user_attrs["run"] == failed.user_attrs["run"]


def test_mlflow_has_every_trial_once_under_one_parent(story):
    parts, parent = story.place.runs()
    assert {run.data.tags["mlflow.parentRunId"] for run in parts} == {parent.info.run_id}
    trials = [run for run in parts if "fr_ps.trial" in run.data.tags]
    assert len(trials) == TRIALS
    for run in trials:
        assert run.info.status == run.data.tags["fr_ps.status"] == STATUSES[run.data.tags["fr_ps.trial_state"]]
        assert run.data.tags["fr_ps.kind"] == "trial"
    assert len({run.data.tags["fr_ps.run_id"] for run in trials}) == TRIALS


def test_a_run_knows_its_trial_and_the_trial_its_run(story):
    parts = story.place.trial_runs()
    trials = {trial.number: trial for trial in story.place.trials(*OVER)}
    assert parts.keys() == trials.keys()
    for number, run in parts.items():
        trial = trials[number]
        assert trial.user_attrs["run"] == run.data.tags["fr_ps.run_id"]
        assert trial.user_attrs.get("mlflow_run", run.info.run_id) == run.info.run_id
        assert run.data.tags["fr_ps.trial_state"] == trial.state.name.lower()
        assert float(run.data.params["optim/lr"]) == trial.params["optim.lr"]
        assert run.data.metrics[f"objective/{OBJECTIVE}"] == trial.value


def test_a_trial_that_ends_while_mlflow_answers_knows_its_run_there_however_short_it_was(story):
    parts = {number: run.info.run_id for number, run in story.place.trial_runs().items()}
    trials = {trial.number: trial for trial in story.place.trials(*OVER) if trial.datetime_complete > story.again}
    assert {number: trial.user_attrs.get("mlflow_run") for number, trial in trials.items()} == {
        number: parts[number] for number in trials
    }


def test_curves_have_every_epoch_once_and_a_repeated_setting_is_not_trained_again(story):
    trials = {trial.number: trial for trial in story.place.trials(*OVER)}
    twins = 0
    for number, run in story.place.trial_runs().items():
        trial = trials[number]
        curve = story.place.curve(run.info.run_id, OBJECTIVE)
        reason = run.data.tags["fr_ps.trial_reason"]
        same = [one for one in trials.values() if one.params == trial.params and one.datetime_complete < trial.datetime_start]
        if same:
            twins += 1
            found = re.fullmatch(r"the same settings as trial (\d+), whose values these are", reason)
            assert found, reason
            assert int(found[1]) in {one.number for one in same}
            assert trial.value == trials[int(found[1])].value
            assert curve == []
            continue
        assert reason == ""
        assert [step for step, _ in curve] == list(range(1, EPOCHS + 1))
        assert [step for step, _ in story.place.curve(run.info.run_id, "train/loss/total")] == list(range(1, EPOCHS + 1))
        assert trial.intermediate_values.items() <= dict(curve).items()
        assert trial.value == max(value for _, value in curve)
    assert twins


def test_the_run_of_the_study_is_finished_and_says_what_came_out(story, tmp_path):
    place = story.place
    _, parent = place.runs()
    assert place.launchers[-1].last_line == parent.info.run_id
    assert parent.info.status == parent.data.tags["fr_ps.status"] == "FINISHED"
    assert parent.data.tags["fr_ps.trial.best"] == str(place.study.best_trial.number)
    best = place.curve(parent.info.run_id, f"best/{OBJECTIVE}")
    steps, values = [step for step, _ in best], [value for _, value in best]
    assert steps == sorted(set(steps))
    assert values == sorted(values)
    assert best[-1] == (TRIALS, place.study.best_value)
    folder = Path(place.client.download_artifacts(parent.info.run_id, "report", str(tmp_path)))
    assert {"search.html", "best.yaml", "trials.csv", "study.yaml"} <= {file.name for file in folder.iterdir()}
    arguments = parse_command_line(["train", "--config", str(folder / "best.yaml")])["train"]
    assert arguments.optim.lr == place.study.best_params["optim.lr"]
    assert arguments.train.select == OBJECTIVE
    with (folder / "trials.csv").open() as file:
        rows = [(int(row["trial"]), row["state"]) for row in csv.DictReader(file)]
    states = {trial.number: trial.state.name.lower() for trial in place.trials()} | {story.killed: "killed"}
    assert rows == sorted(states.items())


def test_after_a_search_the_gain_is_told_and_a_version_registered_that_is_a_model(story, monkeypatch):
    place = story.place
    said = place.launchers[-1].said
    assert re.search(r"Best settings against the base.*\n.*metric +best +base +difference", said), said
    assert re.search(r"^the best .* the base: identity/auc ", said, re.MULTILINE), said
    parts, parent = place.runs()
    finals = {run.info.run_name: run for run in parts if "fr_ps.trial" not in run.data.tags}
    best, base = f"story-trial-{place.study.best_trial.number:03d}-seed-0", "story-base-seed-0"
    assert finals.keys() == {best, base}
    for run in parts:
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        tested = any(name.startswith("test/") for name in run.data.metrics)
        assert tested == (run in finals.values())
    assert {run.info.status for run in finals.values()} == {"FINISHED"}
    tested_auc = {name: run.data.metrics["test/identity/auc"] for name, run in finals.items()}
    assert parent.data.metrics["gain/identity/auc"] == pytest.approx(tested_auc[best] - tested_auc[base])
    (version,) = place.client.search_model_versions("name='faces'")
    assert (str(version.version), version.run_id) == ("1", finals[best].info.run_id)
    assert version.tags["fr_ps.study"] == "story"
    assert "registered as models:/faces/1" in said
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place.environment["MLFLOW_TRACKING_URI"])
    network, info = load_model(resolve_model("models:/faces/1"), torch.device("cpu"))
    assert network.modalities == ("albedo",)
    assert info.provenance["run"] == finals[best].data.tags["fr_ps.run_id"]


def test_optuna_and_its_dashboard_open_the_storage_as_it_is(story):
    place = story.place
    program = str(Path(sys.executable).with_name("optuna"))
    said = {}
    for words in (["studies"], ["trials", "--study-name", place.name]):
        command = [program, *words, "--storage", place.storage, "--format", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        said[words[0]] = json.loads(done.stdout)
    assert [one["name"] for one in said["studies"]] == [place.name]
    assert [one["number"] for one in said["trials"]] == [trial.number for trial in place.trials()]
    answered: list[str] = []
    asked: dict[str, Any] = {"PATH_INFO": "/api/studies", "REQUEST_METHOD": "GET", "wsgi.errors": io.StringIO()}
    setup_testing_defaults(asked)
    body = b"".join(optuna_dashboard.wsgi(place.storage)(asked, lambda status, *_: answered.append(status)))
    assert answered == ["200 OK"]
    assert [one["study_name"] for one in json.loads(body)["study_summaries"]] == [place.name]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"space": {"optim.lr": [*RATES, 0.01]}}, ("optim.lr", "0.01")),
        ({"space": {"optim.weight_decay": [0.1]}}, ("space", "absent")),
        ({"objectives": {"val/identity/eer": "minimize"}}, ("minimize",)),
        ({"objectives": {"val/gender/auc": "maximize"}}, (OBJECTIVE, "objectives")),
        ({"optim": {"weight_decay": 0.1}}, ("optim.weight_decay", "0.05", "0.1")),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_study_that_goes_on_otherwise_than_it_began_is_refused(story, tmp_path, monkeypatch, capsys, change, words):
    place = story.place
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place.environment["MLFLOW_TRACKING_URI"])
    tree = yaml.safe_load((place.folder / "study.yaml").read_text())
    tree["study"]["storage"] = place.storage
    Path("other.yaml").write_text(yaml.safe_dump(tree | change))
    line = refusal(Path("other.yaml"), capsys)
    for word in ("'story'", "study.name", *words):
        assert word in line
    assert not list(Path().glob("runs/*"))
    assert len(place.trials()) == TRIALS + 1


def test_a_search_in_another_folder_leaves_the_run_of_the_study_to_the_process_that_has_it(story, tmp_path, monkeypatch, capsys):
    place = story.place
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place.environment["MLFLOW_TRACKING_URI"])
    words = ["--study.storage", place.storage, "--after.seeds", "0", "--after.register", ""]
    with run_lock(place.folder / "runs" / place.parent):
        assert main(["search", "--config", str(place.folder / "study.yaml"), *words]) == 0
    assert not list(tmp_path.glob("runs/*/report"))
    assert "helps with the trials" in capsys.readouterr().out


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with postgresql() as server:
        yield server


@dataclass(frozen=True)
class Separate:
    """Two searches of one study, started separately; the one that began it was killed.

    Attributes:
        place: of the study.
        trial: number of the one that it was doing.
        other: the other search.
        seconds: that its worker lived on.
        kept: whether that trial had a checkpoint then, or had come to its end.
        code: of the other search.
    """

    place: Place
    trial: int
    other: Launcher
    seconds: float
    kept: bool
    code: int


@pytest.fixture(scope="module")
def separate(new_place: NewPlace, database: Database) -> Separate:
    """A grid of six combinations, one of which is refused."""
    storage = database.database("studies")
    space: dict[str, Any] = {
        "loss.identity_loss": ["cosface", "magface"],
        "loss.scale": [100.0, 64.0],  # of the first, MagFace would need a larger lambda_g
        "optim.lr": {"choices": [0.001, 0.003], "when": {"loss.identity_loss": "cosface"}},
    }
    place = new_place(
        "separate",
        study={"storage": storage},
        loss={"identity_loss": "cosface"},
        space=space,
        sampler={"name": "grid"},
        pruner={"name": "median", "startup": 2, "epochs": 1},
    )
    both = [place.start(workers=1), place.start(workers=1)]
    until("both at work", lambda: all("1 workers" in one.said for one in both), place)
    (leader,) = [one for one in both if one.process.pid == place.owner(place.parent)]
    (other,) = [one for one in both if one is not leader]

    def of_the_leader() -> tuple[int, FrozenTrial] | None:
        workers = leader.workers()
        return next(((pid, trial) for pid, trial in place.in_the_middle().items() if pid in workers), None)

    worker, trial = until("a trial of the one that began in the middle", of_the_leader, place)
    leader.process.kill()
    begun = time.monotonic()
    until("the end of its worker", lambda: is_gone(worker), place)
    seconds = time.monotonic() - begun
    checkpoints = place.folder / "runs" / trial.user_attrs["run"] / "checkpoints" / "resume"
    kept = any(checkpoints.glob("*")) or place.trials()[trial.number].state in OVER
    return Separate(place, trial.number, other, seconds, kept, other.ended())


def test_searches_started_separately_on_postgresql_do_each_trial_once_though_one_is_killed(separate):
    place = separate.place
    assert separate.seconds < 60
    assert separate.kept
    assert separate.code == 0, separate.other.errors.read_text()
    assert place.processes() == []
    over = place.trials(*OVER)
    assert len(over) == SEPARATE_TRIALS
    assert separate.trial in {one.number for one in over}  # it was put back, and gone on with
    # What two made at once beyond the grid is never begun.
    assert all(one.state == TrialState.WAITING and not one.params for one in place.trials() if one not in over)


def test_a_grid_does_each_combination_once_and_prunes_the_one_that_cannot_be_built(separate):
    combinations = {}
    for trial in separate.place.trials(*OVER):
        combinations[trial.params["loss.identity_loss"], trial.params["loss.scale"], trial.params.get("optim.lr")] = trial
    cosface = {("cosface", scale, rate) for scale in (100.0, 64.0) for rate in (0.001, 0.003)}
    assert combinations.keys() == cosface | {("magface", 100.0, None), ("magface", 64.0, None)}
    refused = combinations["magface", 100.0, None]
    assert refused.state == TrialState.PRUNED
    assert re.match(r"cannot be built: loss.lambda_g is 35.0; expected \d+\.\d or more", refused.user_attrs["reason"])
    tags = separate.place.trial_runs()[refused.number].data.tags
    assert tags["fr_ps.trial_reason"] == refused.user_attrs["reason"]


def test_one_run_holds_what_searches_started_separately_did_and_the_one_that_is_left_writes_it(separate, database):
    place = separate.place
    parts, parent = place.runs()
    assert separate.other.last_line == parent.info.run_id
    assert (parent.info.status, parent.data.tags["fr_ps.run_id"]) == ("FINISHED", place.parent)
    assert {run.data.tags["mlflow.parentRunId"] for run in parts} == {parent.info.run_id}
    assert len(parts) == SEPARATE_TRIALS
    runs = place.trial_runs()
    for trial in place.trials(*OVER):
        run, state = runs[trial.number], trial.state.name.lower()
        assert run.data.tags["fr_ps.run_id"] == trial.user_attrs["run"]
        assert run.info.run_id == trial.user_attrs["mlflow_run"]
        assert (run.data.tags["fr_ps.trial_state"], run.info.status) == (state, STATUSES[state])
        curve = place.curve(run.info.run_id, OBJECTIVE)
        epochs = EPOCHS if trial.state == TrialState.COMPLETE else trial.user_attrs["epochs"]
        assert [step for step, _ in curve] == list(range(1, epochs + 1))
        assert trial.intermediate_values.items() <= dict(curve).items()
    files = {Path(file.path).name for file in place.client.list_artifacts(parent.info.run_id, "report")}
    assert {"search.html", "best.yaml", "trials.csv"} <= files
    assert database.password not in (place.folder / "runs" / place.parent / "report" / "study.yaml").read_text()


def test_the_best_so_far_has_its_curve_though_the_search_that_began_was_killed(separate):
    place = separate.place
    best = place.curve(place.runs()[1].info.run_id, f"best/{OBJECTIVE}")
    assert best
    assert best[-1] == (SEPARATE_TRIALS, place.study.best_value)


def test_two_that_open_a_new_postgresql_database_at_once_both_open_it(database):
    refusals: list[InputError] = []
    for number in range(4):
        url, together = database.database(f"new_{number}"), threading.Barrier(2)

        def open_it(url: str = url, together: threading.Barrier = together) -> None:
            together.wait()
            try:
                Storage(url, 1).rdb.engine.dispose()
            except InputError as error:
                refusals.append(error)

        threads = [threading.Thread(target=open_it) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert refusals == []
