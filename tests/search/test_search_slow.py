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

import mlflow
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
    RejectedSearch,
    StudyFolder,
    command,
    is_gone,
    until,
)
from tests.search.postgresql import PostgresServer, postgresql

pytestmark = pytest.mark.slow
TRIALS, SEPARATE_TRIALS = 8, 6
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
STATUSES = {"complete": "FINISHED", "pruned": "KILLED"}
NewStudyFolder = Callable[..., StudyFolder]

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
class InterruptedStudy:
    """A study with interruptions.

    Attributes:
        study_folder: of the study.
        killed_trial: number of the trial whose worker was killed.
        stopped_workers: ids of the workers that ran when the search was stopped.
        stop_code: exit code of the stopped search.
        left_processes: commands of the processes that it left.
        trials_after_stop: of the study.
        status_after_stop: of the study's run.
        restarted_at: time of the second start; the tracking server runs from then on.
        restart_code: exit code of the second start.
    """

    study_folder: StudyFolder
    killed_trial: int
    stopped_workers: Sequence[int]
    stop_code: int
    left_processes: Sequence[str]
    trials_after_stop: Sequence[FrozenTrial]
    status_after_stop: str
    restarted_at: datetime
    restart_code: int


@pytest.fixture(scope="module")
def interrupted(new_study_folder: NewStudyFolder, tracking: Server) -> InterruptedStudy:
    """Two workers. The tracking server is killed, then a worker; the search is stopped, and started again to its end."""
    # With this seed the first six trials have all six rates, and those after them repeat some.
    study, sampler, pruner = {"seed": 5, "heartbeat": 2}, {"name": "random"}, {"name": "none"}
    budget, after = {"trials": TRIALS}, {"seeds": 1, "register": "faces"}
    study_folder = new_study_folder(
        "interrupted", study=study, sampler=sampler, pruner=pruner, space={"optim.lr": RATES}, budget=budget, after=after
    )
    first = study_folder.start(workers=2)
    until("workers", lambda: "2 workers" in first.output, study_folder)
    until("a trial in the middle", study_folder.trials_in_the_middle, study_folder)
    tracking.kill()
    tracking.start()
    killed = until("a worker killed in the middle of a trial", lambda: kill_in_the_middle(study_folder), study_folder)

    def to_be_stopped() -> bool:
        """Both workers run and MLflow answers, or few trials are left; and a trial is in the middle."""
        few = len(study_folder.trials(*ENDED)) >= TRIALS - 4
        return bool((few or (len(first.workers()) == 2 and answers(tracking))) and study_folder.trials_in_the_middle())

    workers = until(
        "the middle of the search", lambda: to_be_stopped() and interrupt_in_the_middle(first, study_folder), study_folder
    )
    stop_code, left, trials = first.wait(), [command(pid) for pid in study_folder.processes()], study_folder.study.get_trials()
    status = study_folder.status(study_folder.parent)
    tracking.wait()
    restarted_at = datetime.now()
    restart_code = study_folder.start(workers=2).wait()
    return InterruptedStudy(study_folder, killed.number, workers, stop_code, left, trials, status, restarted_at, restart_code)


def kill_in_the_middle(study_folder: StudyFolder) -> FrozenTrial | None:
    """Kill a worker; returns its trial, None where it had ended before."""
    for pid, trial in study_folder.trials_in_the_middle().items():
        os.kill(pid, signal.SIGKILL)
        until("the end of the killed worker", lambda pid=pid: is_gone(pid), study_folder)
        still = study_folder.trials()[trial.number]
        return still if still.state == TrialState.RUNNING else None
    return None


def interrupt_in_the_middle(launcher: Launcher, study_folder: StudyFolder) -> list[int]:
    """Send SIGINT to the launcher; returns its workers, none where no trial is in the middle.

    The workers are stopped until SIGINT is pending for those in the middle: no trial ends before.
    """
    workers = launcher.workers()
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        working = [pid for pid in study_folder.trials_in_the_middle() if pid in workers]
        if not working:
            return []
        launcher.process.send_signal(signal.SIGINT)
        until("SIGINT in the workers", lambda: all(map(has_pending_sigint, working)), study_folder)
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


def test_a_search_that_is_stopped_leaves_no_process_and_no_running_trial(interrupted):
    assert interrupted.stop_code == 130
    assert interrupted.left_processes == []
    assert all(is_gone(pid) for pid in interrupted.stopped_workers)
    # The trial of the killed worker is still RUNNING if its lease had not expired when the search was stopped.
    others = [trial for trial in interrupted.trials_after_stop if trial.number != interrupted.killed_trial]
    assert TrialState.RUNNING not in {trial.state for trial in others}
    assert sum(trial.state in ENDED for trial in interrupted.trials_after_stop) < TRIALS
    assert any(trial.state == TrialState.WAITING and trial.user_attrs for trial in interrupted.trials_after_stop)
    assert interrupted.status_after_stop == "KILLED"
    for launcher in interrupted.study_folder.launchers:
        assert "Traceback" not in launcher.output + launcher.errors.read_text()


def test_every_trial_runs_once_and_that_of_a_killed_worker_again(interrupted):
    assert interrupted.restart_code == 0, interrupted.study_folder.launchers[-1].errors.read_text()
    trials = interrupted.study_folder.trials()
    assert sum(trial.state in ENDED for trial in trials) == TRIALS
    (failed,) = [trial for trial in trials if trial.state not in ENDED]
    assert (failed.number, failed.state) == (interrupted.killed_trial, TrialState.FAIL)
    (again,) = [one for one in trials if RetryHeartbeatStaleTrialCallback.retried_trial_number(one) == failed.number]
    assert again.state in ENDED
    assert again.params == failed.params
    assert again.user_attrs["run"] == failed.user_attrs["run"]


def test_mlflow_has_every_trial_once_under_one_parent(interrupted):
    children, parent = interrupted.study_folder.runs()
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    trials = [run for run in children if "fr_ps.trial" in run.data.tags]
    assert len(trials) == TRIALS
    for run in trials:
        assert run.info.status == run.data.tags["fr_ps.status"] == STATUSES[run.data.tags["fr_ps.trial_state"]]
        assert run.data.tags["fr_ps.kind"] == "trial"
    assert len({run.data.tags["fr_ps.run_id"] for run in trials}) == TRIALS


def test_runs_and_trials_refer_to_each_other(interrupted):
    children = interrupted.study_folder.trial_runs()
    trials = {trial.number: trial for trial in interrupted.study_folder.trials(*ENDED)}
    assert children.keys() == trials.keys()
    for number, run in children.items():
        trial = trials[number]
        assert trial.user_attrs["run"] == run.data.tags["fr_ps.run_id"]
        assert trial.user_attrs.get("mlflow_run", run.info.run_id) == run.info.run_id
        assert run.data.tags["fr_ps.trial_state"] == trial.state.name.lower()
        assert float(run.data.params["optim/lr"]) == trial.params["optim.lr"]
        assert run.data.metrics[f"best/{OBJECTIVE}"] == trial.value


def test_a_trial_that_ends_while_mlflow_answers_has_the_id_of_its_run_there(interrupted):
    children = {number: run.info.run_id for number, run in interrupted.study_folder.trial_runs().items()}
    trials = {
        trial.number: trial
        for trial in interrupted.study_folder.trials(*ENDED)
        if trial.datetime_complete > interrupted.restarted_at
    }
    assert {number: trial.user_attrs.get("mlflow_run") for number, trial in trials.items()} == {
        number: children[number] for number in trials
    }


def test_curves_have_every_epoch_once_and_repeated_settings_are_not_trained_again(interrupted):
    trials = {trial.number: trial for trial in interrupted.study_folder.trials(*ENDED)}
    copies = 0
    for number, run in interrupted.study_folder.trial_runs().items():
        trial = trials[number]
        curve = interrupted.study_folder.curve(run.info.run_id, OBJECTIVE)
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
        assert [step for step, _ in interrupted.study_folder.curve(run.info.run_id, "train/loss/total")] == list(
            range(1, EPOCHS + 1)
        )
        assert trial.intermediate_values.items() <= dict(curve).items()
        assert trial.value == max(value for _, value in curve)
    assert copies


def test_the_run_of_the_study_has_the_results(interrupted, tmp_path):
    study_folder = interrupted.study_folder
    _, parent = study_folder.runs()
    assert study_folder.launchers[-1].last_line == parent.info.run_id
    assert parent.info.status == parent.data.tags["fr_ps.status"] == "FINISHED"
    assert parent.data.tags["fr_ps.trial.best"] == str(study_folder.study.best_trial.number)
    best = study_folder.curve(parent.info.run_id, f"best/{OBJECTIVE}")
    steps, values = [step for step, _ in best], [value for _, value in best]
    assert steps == sorted(set(steps))
    assert values == sorted(values)
    assert best[-1] == (TRIALS, study_folder.study.best_value)
    folder = Path(study_folder.client.download_artifacts(parent.info.run_id, "report", str(tmp_path)))
    assert {"search.html", "best.yaml", "trials.csv", "study.yaml"} <= {file.name for file in folder.iterdir()}
    arguments = parse_command_line(["train", "--config", str(folder / "best.yaml")])["train"]
    assert arguments.optim.lr == study_folder.study.best_params["optim.lr"]
    assert arguments.train.select == OBJECTIVE
    with (folder / "trials.csv").open() as file:
        rows = [(int(row["trial"]), row["state"]) for row in csv.DictReader(file)]
    states = {trial.number: trial.state.name.lower() for trial in study_folder.trials()} | {interrupted.killed_trial: "killed"}
    assert rows == sorted(states.items())


def test_after_a_search_the_improvement_is_printed_and_a_model_registered(interrupted, monkeypatch):
    study_folder = interrupted.study_folder
    output = study_folder.launchers[-1].output
    assert re.search(r"Best settings and base settings.*\n.*metric +best +base +difference", output), output
    assert re.search(r"^the best settings .*: identity/auc ", output, re.MULTILINE), output
    children, parent = study_folder.runs()
    finals = {run.info.run_name: run for run in children if "fr_ps.trial" not in run.data.tags}
    best, base = f"interrupted-trial-{study_folder.study.best_trial.number:03d}-seed-0", "interrupted-base-seed-0"
    assert finals.keys() == {best, base}
    for run in children:
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        tested = any(name.startswith("test/") for name in run.data.metrics)
        assert tested == (run in finals.values())
    assert {run.info.status for run in finals.values()} == {"FINISHED"}
    tested_auc = {name: run.data.metrics["test/identity/auc"] for name, run in finals.items()}
    assert parent.data.metrics["gain/identity/auc"] == pytest.approx(tested_auc[best] - tested_auc[base])
    (version,) = study_folder.client.search_model_versions("name='faces'")
    assert (str(version.version), version.run_id) == ("1", finals[best].info.run_id)
    assert version.tags["fr_ps.study"] == "interrupted"
    assert "registered as models:/faces/1" in output
    monkeypatch.setenv("MLFLOW_TRACKING_URI", study_folder.environment["MLFLOW_TRACKING_URI"])
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # of an earlier test, which would take precedence
    network, info = load_model(resolve_model("models:/faces/1"), torch.device("cpu"))
    assert network.modalities == ("albedo",)
    assert info.provenance["run"] == finals[best].data.tags["fr_ps.run_id"]


def test_optuna_and_its_dashboard_open_the_storage(interrupted):
    study_folder = interrupted.study_folder
    program = str(Path(sys.executable).with_name("optuna"))
    listed = {}
    for words in (["studies"], ["trials", "--study-name", study_folder.name]):
        command = [program, *words, "--storage", study_folder.storage, "--format", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        listed[words[0]] = json.loads(done.stdout)
    assert [one["name"] for one in listed["studies"]] == [study_folder.name]
    assert [one["number"] for one in listed["trials"]] == [trial.number for trial in study_folder.trials()]
    statuses: list[str] = []
    request: dict[str, Any] = {"PATH_INFO": "/api/studies", "REQUEST_METHOD": "GET", "wsgi.errors": io.StringIO()}
    setup_testing_defaults(request)
    body = b"".join(optuna_dashboard.wsgi(study_folder.storage)(request, lambda status, *_: statuses.append(status)))
    assert statuses == ["200 OK"]
    assert [one["study_name"] for one in json.loads(body)["study_summaries"]] == [study_folder.name]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgresql() as server:
        yield server


@dataclass(frozen=True)
class TwoSearches:
    """Two searches of one study, started separately; the leader was killed.

    Attributes:
        study_folder: of the study.
        leader_trial: number of the trial of the leader's worker.
        seconds_to_end: from the kill of the leader to the end of that worker.
        has_checkpoint: whether that trial had a checkpoint then, or had ended.
        remaining: the other search.
        exit_code: of the other search.
    """

    study_folder: StudyFolder
    leader_trial: int
    seconds_to_end: float
    has_checkpoint: bool
    remaining: Launcher
    exit_code: int


@pytest.fixture(scope="module")
def two_searches(new_study_folder: NewStudyFolder, postgres: PostgresServer) -> TwoSearches:
    """A grid of six combinations, one of them invalid."""
    storage = postgres.database("studies")
    space: dict[str, Any] = {
        "loss.identity_loss": ["cosface", "magface"],
        "loss.scale": [100.0, 64.0],  # of the first, MagFace would need a larger lambda_g
        "optim.lr": {"choices": [0.001, 0.003], "when": {"loss.identity_loss": "cosface"}},
    }
    study_folder = new_study_folder(
        "separate",
        study={"storage": storage},
        loss={"identity_loss": "cosface"},
        space=space,
        sampler={"name": "grid"},
        pruner={"name": "median", "startup": 2, "epochs": 1},
    )
    both = [study_folder.start(workers=1), study_folder.start(workers=1)]
    until("both searches", lambda: all("1 workers" in one.output for one in both), study_folder)
    (leader,) = [one for one in both if one.process.pid == study_folder.lock_holder(study_folder.parent)]
    (other,) = [one for one in both if one is not leader]

    def of_the_leader() -> tuple[int, FrozenTrial] | None:
        workers = leader.workers()
        return next(((pid, trial) for pid, trial in study_folder.trials_in_the_middle().items() if pid in workers), None)

    worker, trial = until("a trial of the leader in the middle", of_the_leader, study_folder)
    leader.process.kill()
    started = time.monotonic()
    until("the end of its worker", lambda: is_gone(worker), study_folder)
    seconds = time.monotonic() - started
    checkpoints = study_folder.path / "runs" / trial.user_attrs["run"] / "checkpoints" / "resume"
    has_checkpoint = any(checkpoints.glob("*")) or study_folder.trials()[trial.number].state in ENDED
    return TwoSearches(study_folder, trial.number, seconds, has_checkpoint, other, other.wait())


def test_separate_searches_on_postgresql_run_each_trial_once_though_one_is_killed(two_searches):
    study_folder = two_searches.study_folder
    assert two_searches.seconds_to_end < 60
    assert two_searches.has_checkpoint
    assert two_searches.exit_code == 0, two_searches.remaining.errors.read_text()
    assert study_folder.processes() == []
    ended = study_folder.trials(*ENDED)
    assert len(ended) == SEPARATE_TRIALS
    assert two_searches.leader_trial in {one.number for one in ended}  # released, and resumed
    # Surplus trials that two searches add at once never start.
    assert all(one.state == TrialState.WAITING and not one.params for one in study_folder.trials() if one not in ended)


def test_a_grid_runs_each_combination_once_and_prunes_the_invalid_one(two_searches):
    combinations = {}
    for trial in two_searches.study_folder.trials(*ENDED):
        combinations[trial.params["loss.identity_loss"], trial.params["loss.scale"], trial.params.get("optim.lr")] = trial
    cosface = {("cosface", scale, rate) for scale in (100.0, 64.0) for rate in (0.001, 0.003)}
    assert combinations.keys() == cosface | {("magface", 100.0, None), ("magface", 64.0, None)}
    rejected = combinations["magface", 100.0, None]
    assert rejected.state == TrialState.PRUNED
    assert re.match(r"infeasible settings: loss.lambda_g is 35.0; expected \d+\.\d or more", rejected.user_attrs["reason"])
    tags = two_searches.study_folder.trial_runs()[rejected.number].data.tags
    assert tags["fr_ps.trial_reason"] == rejected.user_attrs["reason"]


def test_separate_searches_share_one_run_and_the_remaining_one_writes_it(two_searches, postgres):
    study_folder = two_searches.study_folder
    children, parent = study_folder.runs()
    assert two_searches.remaining.last_line == parent.info.run_id
    assert (parent.info.status, parent.data.tags["fr_ps.run_id"]) == ("FINISHED", study_folder.parent)
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert len(children) == SEPARATE_TRIALS
    runs = study_folder.trial_runs()
    for trial in study_folder.trials(*ENDED):
        run, state = runs[trial.number], trial.state.name.lower()
        assert run.data.tags["fr_ps.run_id"] == trial.user_attrs["run"]
        assert run.info.run_id == trial.user_attrs["mlflow_run"]
        assert (run.data.tags["fr_ps.trial_state"], run.info.status) == (state, STATUSES[state])
        curve = study_folder.curve(run.info.run_id, OBJECTIVE)
        epochs = EPOCHS if trial.state == TrialState.COMPLETE else trial.user_attrs["epochs"]
        assert [step for step, _ in curve] == list(range(1, epochs + 1))
        assert trial.intermediate_values.items() <= dict(curve).items()
    files = {Path(file.path).name for file in study_folder.client.list_artifacts(parent.info.run_id, "report")}
    assert {"search.html", "best.yaml", "trials.csv"} <= files
    assert postgres.password not in (study_folder.path / "runs" / study_folder.parent / "report" / "study.yaml").read_text()


def test_the_curve_of_the_best_value_is_complete_though_the_leader_was_killed(two_searches):
    study_folder = two_searches.study_folder
    best = study_folder.curve(study_folder.runs()[1].info.run_id, f"best/{OBJECTIVE}")
    assert best
    assert best[-1] == (SEPARATE_TRIALS, study_folder.study.best_value)


def test_two_threads_open_a_new_postgresql_database_at_once(postgres):
    errors: list[InputError] = []
    for number in range(4):
        url, together = postgres.database(f"new_{number}"), threading.Barrier(2)

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
