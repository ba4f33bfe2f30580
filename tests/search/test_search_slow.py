"""`fr-ps search` as processes: killed workers, a stopped search, a server that restarts, several searches of one study."""

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
from fr_ps.cli import parse_command_line
from fr_ps.config import SearchConfig
from fr_ps.errors import InputError
from fr_ps.models.folder import load_model
from fr_ps.search.spec import build_study_spec
from fr_ps.search.storage import Storage, open_study
from fr_ps.tracking.journal import JOURNAL_FILE
from fr_ps.tracking.listing import last_status
from fr_ps.tracking.resolve import resolve_model
from tests.search.conftest import (
    DEADLINE,
    EPOCHS,
    OBJECTIVE,
    RATES,
    SETTINGS,
    Launcher,
    Place,
    RejectedSearch,
    command,
    is_gone,
    until,
)
from tests.search.postgresql import Server as Database
from tests.search.postgresql import postgresql

pytestmark = pytest.mark.slow
TRIALS, SEPARATE_TRIALS = 8, 6
OVER = (TrialState.COMPLETE, TrialState.PRUNED)
STATUSES = {"complete": "FINISHED", "pruned": "KILLED"}
NewPlace = Callable[..., Place]

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
"""A worker that receives SIGINT in its first read of the trials after the start of its first run."""


@pytest.fixture
def start_worker(rejected_search: RejectedSearch) -> Iterator[Callable[..., tuple["subprocess.Popen[str]", optuna.Study]]]:
    """Starts a worker of a study with two trials, with MLflow unreachable; returns worker and study."""
    started = []

    def start(*program: str) -> tuple["subprocess.Popen[str]", optuna.Study]:
        tree = SETTINGS | {"study": {"name": "two", "storage": rejected_search.storage}, "budget": {"trials": 2}}
        tree |= {
            "space": {"optim.lr": RATES[:2]},
            "sampler": {"name": "grid"},
            "pruner": {"name": "none"},
            "train": {"epochs": 1},
        }
        Path("two.yaml").write_text(yaml.safe_dump(tree))
        arguments = parse_command_line(["search", "--config", "two.yaml"])["search"]
        config = SearchConfig(**{field.name: arguments[field.name] for field in fields(SearchConfig)})
        job = build_study_spec(config, training_config(arguments)).as_json()
        job |= {"parent": {"mlflow_id": "none", "experiment_id": "0"}, "threads": 1, "began": time.time()}
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
        started.append(process)
        assert process.stdin is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        return process, study

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_in_worker(process: "subprocess.Popen[str]", look: Callable[[], bool]) -> None:
    started = time.monotonic()
    while not look():
        assert process.poll() is None, Path("worker.log").read_text()
        assert time.monotonic() - started < DEADLINE, Path("worker.log").read_text()
        time.sleep(0.05)


def test_a_worker_that_receives_sigint_while_a_trial_waits_for_mlflow_starts_no_other(start_worker):
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


def test_a_worker_that_receives_sigint_in_a_read_of_the_database_ends(start_worker):
    process, study = start_worker("-c", INTERRUPTED_READ)
    wait_in_worker(process, Path("interrupted").exists)
    assert process.wait(DEADLINE) == 130
    assert [trial.state for trial in study.get_trials()] == [TrialState.WAITING]


@dataclass(frozen=True)
class Story:
    """A study with interruptions.

    Attributes:
        place: of the study.
        killed: number of the trial whose worker was killed.
        workers: ids of the workers that ran when the search was stopped.
        stopped: exit code of the stopped search.
        left: commands of the processes that it left.
        waiting: the trials after the stop.
        status: of the study's run after the stop.
        again: time of the second start; the tracking server runs from then on.
        code: exit code of the second start.
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
    """Two workers. The tracking server is killed, then a worker; the search is stopped, and started again to its end."""
    # With this seed the first six trials have all six rates, and those after them repeat some.
    study, sampler, pruner = {"seed": 5, "heartbeat": 2}, {"name": "random"}, {"name": "none"}
    budget, after = {"trials": TRIALS}, {"seeds": 1, "register": "faces"}
    place = new_place("story", study=study, sampler=sampler, pruner=pruner, space={"optim.lr": RATES}, budget=budget, after=after)
    first = place.start(workers=2)
    until("workers", lambda: "2 workers" in first.output, place)
    until("a trial in the middle", place.in_the_middle, place)
    tracking.kill()
    tracking.start()
    killed = until("a worker killed in the middle of a trial", lambda: kill_in_the_middle(place), place)

    def to_be_stopped() -> bool:
        """Both workers run and MLflow answers, or few trials are left; and a trial is in the middle."""
        few = len(place.trials(*OVER)) >= TRIALS - 4
        return bool((few or (len(first.workers()) == 2 and answers(tracking))) and place.in_the_middle())

    workers = until("the middle of the search", lambda: to_be_stopped() and interrupt_in_the_middle(first, place), place)
    stopped, left, waiting = first.wait(), [command(pid) for pid in place.processes()], place.study.get_trials()
    status = place.status(place.parent)
    tracking.wait()
    again = datetime.now()
    code = place.start(workers=2).wait()
    return Story(place, killed.number, workers, stopped, left, waiting, status, again, code)


def kill_in_the_middle(place: Place) -> FrozenTrial | None:
    """Kill a worker; returns its trial, None where it had ended before."""
    for pid, trial in place.in_the_middle().items():
        os.kill(pid, signal.SIGKILL)
        until("the end of the killed worker", lambda pid=pid: is_gone(pid), place)
        still = place.trials()[trial.number]
        return still if still.state == TrialState.RUNNING else None
    return None


def interrupt_in_the_middle(launcher: Launcher, place: Place) -> list[int]:
    """Send SIGINT to the launcher; returns its workers, none where no trial is in the middle.

    The workers are stopped until SIGINT is pending for those in the middle: no trial ends before.
    """
    workers = launcher.workers()
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        working = [pid for pid in place.in_the_middle() if pid in workers]
        if not working:
            return []
        launcher.process.send_signal(signal.SIGINT)
        until("SIGINT in the workers", lambda: all(map(has_pending_sigint, working)), place)
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    return workers


def has_pending_sigint(pid: int) -> bool:
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
        assert "Traceback" not in launcher.output + launcher.errors.read_text()


def test_every_trial_runs_once_and_that_of_a_killed_worker_again(story):
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


def test_runs_and_trials_refer_to_each_other(story):
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


def test_a_trial_that_ends_while_mlflow_answers_has_the_id_of_its_run_there(story):
    parts = {number: run.info.run_id for number, run in story.place.trial_runs().items()}
    trials = {trial.number: trial for trial in story.place.trials(*OVER) if trial.datetime_complete > story.again}
    assert {number: trial.user_attrs.get("mlflow_run") for number, trial in trials.items()} == {
        number: parts[number] for number in trials
    }


def test_curves_have_every_epoch_once_and_repeated_settings_are_not_trained_again(story):
    trials = {trial.number: trial for trial in story.place.trials(*OVER)}
    copies = 0
    for number, run in story.place.trial_runs().items():
        trial = trials[number]
        curve = story.place.curve(run.info.run_id, OBJECTIVE)
        reason = run.data.tags["fr_ps.trial_reason"]
        same = [one for one in trials.values() if one.params == trial.params and one.datetime_complete < trial.datetime_start]
        if same:
            copies += 1
            found = re.fullmatch(r"same settings as trial (\d+); values copied", reason)
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
    assert copies


def test_the_run_of_the_study_has_the_results(story, tmp_path):
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


def test_after_a_search_the_improvement_is_printed_and_a_model_registered(story, monkeypatch):
    place = story.place
    output = place.launchers[-1].output
    assert re.search(r"Best settings and base settings.*\n.*metric +best +base +difference", output), output
    assert re.search(r"^the best settings .*: identity/auc ", output, re.MULTILINE), output
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
    assert "registered as models:/faces/1" in output
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place.environment["MLFLOW_TRACKING_URI"])
    network, info = load_model(resolve_model("models:/faces/1"), torch.device("cpu"))
    assert network.modalities == ("albedo",)
    assert info.provenance["run"] == finals[best].data.tags["fr_ps.run_id"]


def test_optuna_and_its_dashboard_open_the_storage(story):
    place = story.place
    program = str(Path(sys.executable).with_name("optuna"))
    listed = {}
    for words in (["studies"], ["trials", "--study-name", place.name]):
        command = [program, *words, "--storage", place.storage, "--format", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        listed[words[0]] = json.loads(done.stdout)
    assert [one["name"] for one in listed["studies"]] == [place.name]
    assert [one["number"] for one in listed["trials"]] == [trial.number for trial in place.trials()]
    statuses: list[str] = []
    request: dict[str, Any] = {"PATH_INFO": "/api/studies", "REQUEST_METHOD": "GET", "wsgi.errors": io.StringIO()}
    setup_testing_defaults(request)
    body = b"".join(optuna_dashboard.wsgi(place.storage)(request, lambda status, *_: statuses.append(status)))
    assert statuses == ["200 OK"]
    assert [one["study_name"] for one in json.loads(body)["study_summaries"]] == [place.name]


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with postgresql() as server:
        yield server


@dataclass(frozen=True)
class Separate:
    """Two searches of one study, started separately; the leader was killed.

    Attributes:
        place: of the study.
        trial: number of the trial of the leader's worker.
        other: the other search.
        seconds: from the kill to the end of that worker.
        kept: whether that trial had a checkpoint then, or had ended.
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
    """A grid of six combinations, one of them invalid."""
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
    until("both searches", lambda: all("1 workers" in one.output for one in both), place)
    (leader,) = [one for one in both if one.process.pid == place.lock_holder(place.parent)]
    (other,) = [one for one in both if one is not leader]

    def of_the_leader() -> tuple[int, FrozenTrial] | None:
        workers = leader.workers()
        return next(((pid, trial) for pid, trial in place.in_the_middle().items() if pid in workers), None)

    worker, trial = until("a trial of the leader in the middle", of_the_leader, place)
    leader.process.kill()
    started = time.monotonic()
    until("the end of its worker", lambda: is_gone(worker), place)
    seconds = time.monotonic() - started
    checkpoints = place.folder / "runs" / trial.user_attrs["run"] / "checkpoints" / "resume"
    kept = any(checkpoints.glob("*")) or place.trials()[trial.number].state in OVER
    return Separate(place, trial.number, other, seconds, kept, other.wait())


def test_separate_searches_on_postgresql_run_each_trial_once_though_one_is_killed(separate):
    place = separate.place
    assert separate.seconds < 60
    assert separate.kept
    assert separate.code == 0, separate.other.errors.read_text()
    assert place.processes() == []
    over = place.trials(*OVER)
    assert len(over) == SEPARATE_TRIALS
    assert separate.trial in {one.number for one in over}  # released, and resumed
    # Surplus trials that two searches add at once never start.
    assert all(one.state == TrialState.WAITING and not one.params for one in place.trials() if one not in over)


def test_a_grid_runs_each_combination_once_and_prunes_the_invalid_one(separate):
    combinations = {}
    for trial in separate.place.trials(*OVER):
        combinations[trial.params["loss.identity_loss"], trial.params["loss.scale"], trial.params.get("optim.lr")] = trial
    cosface = {("cosface", scale, rate) for scale in (100.0, 64.0) for rate in (0.001, 0.003)}
    assert combinations.keys() == cosface | {("magface", 100.0, None), ("magface", 64.0, None)}
    rejected = combinations["magface", 100.0, None]
    assert rejected.state == TrialState.PRUNED
    assert re.match(r"cannot be built: loss.lambda_g is 35.0; expected \d+\.\d or more", rejected.user_attrs["reason"])
    tags = separate.place.trial_runs()[rejected.number].data.tags
    assert tags["fr_ps.trial_reason"] == rejected.user_attrs["reason"]


def test_separate_searches_share_one_run_and_the_remaining_one_writes_it(separate, database):
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


def test_the_curve_of_the_best_value_is_complete_though_the_leader_was_killed(separate):
    place = separate.place
    best = place.curve(place.runs()[1].info.run_id, f"best/{OBJECTIVE}")
    assert best
    assert best[-1] == (SEPARATE_TRIALS, place.study.best_value)


def test_two_threads_open_a_new_postgresql_database_at_once(database):
    errors: list[InputError] = []
    for number in range(4):
        url, together = database.database(f"new_{number}"), threading.Barrier(2)

        def open_it(url: str = url, together: threading.Barrier = together) -> None:
            together.wait()
            try:
                Storage(url, 1).rdb.engine.dispose()
            except InputError as error:
                errors.append(error)

        threads = [threading.Thread(target=open_it) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
