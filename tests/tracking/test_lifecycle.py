"""A run ends with its true status, and failures of MLflow neither end nor delay it."""

import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow_server import Server

from fr_ps.errors import InputError
from fr_ps.tracking import delivery, lifecycle
from fr_ps.tracking.delivery import DeliveryQueue
from fr_ps.tracking.journal import JOURNAL_FILE
from fr_ps.tracking.lifecycle import resume_run, start_run
from fr_ps.tracking.listing import last_status
from fr_ps.tracking.mlflow_sink import STATUS_TAG
from fr_ps.tracking.run import EndRunAsKilled
from fr_ps.tracking.run_folder import read_run_info
from fr_ps.tracking.run_lock import is_locked
from tests.tracking import servers

RUNS = Path("runs")


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delays of tenths of a second."""
    for name, seconds in (("_BATCH_DELAY", 0.05), ("_MIN_BACKOFF", 0.1), ("_MAX_BACKOFF", 0.3), ("_CLOSING_BACKOFF", 0.1)):
        monkeypatch.setattr(delivery, name, seconds)


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a run waits for one second."""
    monkeypatch.setattr(lifecycle, "_TIMEOUT", 1.0)
    monkeypatch.setattr(lifecycle, "_TIMEOUT_UNFINISHED", 0.5)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")


def delivery_ended() -> None:
    """Wait for the end of all delivery threads."""
    for thread in threading.enumerate():
        if isinstance(thread, delivery.DeliveryThread):
            thread.join(30)


def test_a_run_is_locked_logged_and_delivered(store):
    lines: list[str] = []
    with start_run("a name", RUNS, lines.append) as run:
        assert run.folder == RUNS / run.id
        assert is_locked(run.folder)
        assert last_status(run.folder) == "RUNNING"
        run.log_metrics({"a": 1.0}, 1)
        run.log_artifact(run.folder / "run.json")
    assert not is_locked(run.folder)
    assert run.display_id == run.mlflow_id == read_run_info(run.folder).mlflow_id
    stored = store.get_run(run.mlflow_id)
    assert stored.info.run_name == "a name"
    assert stored.info.status == stored.data.tags[STATUS_TAG] == last_status(run.folder) == "FINISHED"
    assert stored.data.metrics == {"a": 1.0}
    assert store.get_experiment_by_name("fr-ps").experiment_id == stored.info.experiment_id
    assert [file.path for file in store.list_artifacts(run.mlflow_id)] == ["run.json"]
    assert DeliveryQueue(run.folder).pending() == 0
    assert lines == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("broken"), "FAILED"),
        (InputError("bad input; change it"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(143), "KILLED"),
        (MemoryError(), "FAILED"),
        (EndRunAsKilled(), "KILLED"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
def test_the_exception_that_ends_a_run_is_raised_and_sets_its_status(store, error, status):
    with pytest.raises(type(error)) as caught, start_run("x", RUNS) as run:
        raise error
    assert caught.value is error
    stored = store.get_run(run.mlflow_id)
    assert stored.info.status == stored.data.tags[STATUS_TAG] == last_status(run.folder) == status
    assert stored.info.end_time >= stored.info.start_time
    assert not is_locked(run.folder)


def test_a_run_adopts_the_run_of_mlflow_run_in_any_experiment(store, monkeypatch):
    experiment = store.create_experiment("someone else's")
    started = store.create_run(experiment, run_name="polite-ant-7").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", started)
    with start_run("a name", RUNS) as run:
        assert run.display_id == started  # before any contact
    assert run.mlflow_id == started
    assert store.get_run(started).info.run_name == "a name"
    assert store.get_run(started).info.status == "FINISHED"
    with start_run("the next", RUNS) as second:
        pass
    assert second.mlflow_id != started


def test_an_mlflow_run_is_adopted_once(store, monkeypatch):
    """As from an entry point with two trainings in separate processes."""
    started = store.create_run("0").info.run_id
    for name in ("first", "second"):
        monkeypatch.setenv("MLFLOW_RUN_ID", started)
        lines: list[str] = []
        with start_run(name, RUNS, lines.append) as run:
            run.log_metrics({"a": 1.0}, 1)
        assert (run.mlflow_id == started) == (name == "first")
        assert [line for line in lines if "gets a new MLflow run" in line] == lines
        assert len(lines) == (name == "second")
    assert store.get_run(started).info.run_name == "first"
    assert len(store.get_metric_history(started, "a")) == 1


def test_a_resume_does_not_tag_the_mlflow_run_of_another_run(store, monkeypatch):
    with start_run("first", RUNS) as first, suppress(KeyboardInterrupt), start_run("x", RUNS) as run:
        raise KeyboardInterrupt
    before = store.get_run(first.mlflow_id).data.tags
    monkeypatch.setenv("MLFLOW_RUN_ID", first.mlflow_id)
    with resume_run(run.folder):
        pass
    assert store.get_run(first.mlflow_id).data.tags == before


@pytest.mark.parametrize("by", ["MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"])
def test_the_environment_chooses_the_experiment(store, monkeypatch, by):
    experiment = store.create_experiment("mine")
    monkeypatch.setenv(by, "mine" if by.endswith("NAME") else experiment)
    with start_run("x", RUNS) as run:
        pass
    assert store.get_run(run.mlflow_id).info.experiment_id == experiment


def test_a_resumed_run_is_the_same_run_here_and_in_mlflow(store):
    with suppress(KeyboardInterrupt), start_run("x", RUNS) as run:
        run.log_metrics({"a": 1.0}, 1)
        raise KeyboardInterrupt
    with resume_run(run.folder) as again:
        assert (again.id, again.display_id) == (run.id, run.mlflow_id)
        again.log_metrics({"a": 5.0}, 1)
        again.log_metrics({"a": 2.0}, 2)
    assert [(one.step, one.value) for one in store.get_metric_history(run.mlflow_id, "a")] == [(1, 1.0), (2, 2.0)]
    assert store.get_run(run.mlflow_id).info.status == "FINISHED"
    assert len(store.search_runs([store.get_run(run.mlflow_id).info.experiment_id])) == 1


def test_the_empty_run_of_mlflow_run_gets_a_tag_with_the_resumed_run(store, monkeypatch):
    with start_run("x", RUNS) as run:
        pass
    empty = store.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", empty)
    with resume_run(run.folder) as again:
        pass
    assert again.mlflow_id == run.mlflow_id
    tags = store.get_run(empty).data.tags
    assert (tags["fr_ps.kind"], tags["fr_ps.resumes"]) == ("resume", run.mlflow_id)
    assert "MLFLOW_RUN_ID" not in os.environ


def test_a_running_run_cannot_be_resumed(store, rejected):
    with start_run("x", RUNS) as run, rejected(f"process {os.getpid()}"), resume_run(run.folder):
        raise AssertionError
    assert last_status(run.folder) == "FINISHED"


def test_removing_an_incomplete_last_line_is_reported(store):
    with start_run("x", RUNS) as run:
        run.log_metrics({"a": 1.0}, 1)
    with run.journal.path.open("ab") as file:
        file.write(b'{"kind": "met')
    lines: list[str] = []
    with resume_run(run.folder, lines.append) as again:
        assert again.metric_history == {"a": {1: 1.0}}
    (line,) = lines
    assert f"{run.journal.path}: removed an incomplete last line (13 bytes)" in line
    assert store.get_run(run.mlflow_id).info.status == "FINISHED"


def test_a_damaged_journal_is_an_error_and_stays(store, rejected):
    with start_run("x", RUNS) as run:
        pass
    text = "damage\n" + run.journal.path.read_text()
    run.journal.path.write_text(text)
    with rejected(run.journal.path, "byte 7 is damaged"), resume_run(run.folder):
        raise AssertionError
    assert run.journal.path.read_text() == text
    assert not is_locked(run.folder)


def test_a_folder_that_is_not_a_run_is_an_error(tmp_path, rejected):
    with rejected(tmp_path / "run.json", "no such file"), resume_run(tmp_path):
        raise AssertionError


def test_a_runs_folder_that_cannot_be_written_is_an_error(small_disk, rejected):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with rejected(small_disk, "cannot be written"), start_run("x", small_disk / "runs"):
        raise AssertionError


def test_resuming_a_read_only_run_is_an_error_and_changes_nothing(store, small_disk, rejected):
    with start_run("x", small_disk) as run:
        pass
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    before = run.journal.path.read_bytes()
    with rejected(run.folder, "cannot be written"), resume_run(run.folder):
        raise AssertionError
    assert run.journal.path.read_bytes() == before


def test_a_disk_that_fills_up_ends_the_run_with_a_final_status(store, small_disk, rejected):
    lines: list[str] = []

    def fill() -> None:
        with start_run("x", small_disk, lines.append) as run:
            for step in range(10_000):
                run.log_metrics({f"m{number}": 0.1 for number in range(50)}, step)

    with rejected(JOURNAL_FILE, "the disk is full"):
        fill()
    (folder,) = [path.parent for path in small_disk.glob("*/run.json")]
    assert last_status(folder) == "FAILED"


@pytest.mark.usefixtures("short_timeouts")
@pytest.mark.parametrize("how", ["refuses", "hangs", "answers 500", "is no address"])
def test_a_broken_server_neither_delays_nor_fails_a_run_and_the_rest_is_reported(monkeypatch, how):
    lines: list[str] = []
    with servers.hanging() as hanging, servers.failing() as (failing, _):
        uri = {"refuses": servers.refusing(), "hangs": hanging, "answers 500": failing, "is no address": "http://[::1"}[how]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with start_run("x", RUNS, lines.append) as run:
            started = time.monotonic()
            for step in range(300):
                run.log_metrics({"a": float(step), "b": 1.0}, step)
            took = time.monotonic() - started
            time.sleep(0.5)  # the delivery fails during the run
            run.set_tags({"after": "that"})
        ended = time.monotonic() - started
        assert took < 5
        assert ended < 20
        delivery_ended()
    assert lines[-1].startswith("tracking: 303 events not delivered to MLflow (")
    assert lines[-1].endswith("deliver them with: fr-ps sync")
    assert all("\n" not in line for line in lines)
    assert len(lines) <= 3
    assert run.display_id == run.id
    assert last_status(run.folder) == "FINISHED"
    assert DeliveryQueue(run.folder).pending() == 303


def test_a_short_timeout_leaves_the_events_to_sync_without_a_message_about_waiting(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    lines: list[str] = []
    started = time.monotonic()
    with start_run("x", RUNS, lines.append, timeout=0.2) as run:
        run.log_metrics({"a": 1.0}, 1)
    assert time.monotonic() - started < lifecycle._TIMEOUT_UNFINISHED
    assert not any("waiting" in line for line in lines)
    assert DeliveryQueue(run.folder).pending() == 3  # running, the point, finished
    delivery_ended()


@pytest.mark.usefixtures("short_timeouts")
def test_a_failure_is_raised_and_recorded_without_a_server(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", servers.refusing())
    lines: list[str] = []
    with pytest.raises(ValueError, match="broken"), start_run("x", RUNS, lines.append) as run:
        raise ValueError("broken")
    assert last_status(run.folder) == "FAILED"
    assert lines[-1].endswith("deliver them with: fr-ps sync")


def test_rejected_items_are_reported_at_the_end(store):
    lines: list[str] = []
    with start_run("x", RUNS, lines.append) as run:
        run.log_metrics({"bad=name": 1.0, "good": 2.0}, 1)
    (line,) = lines
    assert line.startswith("tracking: MLflow rejected bad=name: ")
    assert store.get_run(run.mlflow_id).data.metrics == {"good": 2.0}


def test_a_killed_and_restarted_server_loses_and_doubles_nothing(server: Server, monkeypatch):
    monkeypatch.setattr(lifecycle, "_TIMEOUT", 60.0)
    lines: list[str] = []
    step = 0

    def log_for(seconds: float) -> None:
        nonlocal step
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            step += 1
            run.log_metrics({"a": step / 7, "b": float(step)}, step)
            time.sleep(0.01)

    with start_run("x", RUNS, lines.append) as run:
        run.log_params({"p": "1"})
        log_for(1.0)
        while not run.mlflow_id:
            time.sleep(0.05)
        server.kill()
        log_for(1.5)
        server.start()
        log_for(0.5)
        server.wait()
        log_for(0.5)
        run.log_dataset("faces", "/somewhere", "digest", {}, "training")
    assert "MLflow unreachable" in lines[0]
    assert lines[1:] == ["tracking: MLflow reconnected"]
    client = MlflowClient(server.uri)
    expected = [(number, number / 7) for number in range(1, step + 1)]
    assert [(one.step, one.value) for one in client.get_metric_history(run.mlflow_id, "a")] == expected
    assert len(client.get_metric_history(run.mlflow_id, "b")) == step
    stored = client.get_run(run.mlflow_id)
    assert (stored.info.status, stored.data.params, len(stored.inputs.dataset_inputs)) == ("FINISHED", {"p": "1"}, 1)


def test_a_closed_terminal_does_not_end_a_run(store, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    closed_pipe = os.fdopen(write, "w")
    monkeypatch.setattr(sys, "stderr", closed_pipe)
    with start_run("x", RUNS) as run:
        run.log_metrics({"bad=name": 1.0}, 1)
    with suppress(BrokenPipeError):
        closed_pipe.close()
    with resume_run(run.folder):  # stderr is closed now
        pass
    assert store.get_run(run.mlflow_id).info.status == "FINISHED"


@pytest.mark.parametrize("how", ["removed", "renamed"])
def test_a_run_without_its_folder_ends_with_one_line_and_as_failed_in_mlflow(store, rejected, how):
    lines: list[str] = []
    with rejected("was removed or replaced"), start_run("x", RUNS, lines.append) as run:
        run.log_metrics({"a": 1.0}, 1)
        while run.mlflow_id is None or DeliveryQueue(run.folder).pending():  # after that, nothing is written into the folder
            time.sleep(0.01)
        if how == "removed":
            shutil.rmtree(run.folder)
        else:
            run.folder.rename("elsewhere")
        run.log_metrics({"a": 2.0}, 2)
    assert store.get_run(run.mlflow_id).info.status == "FAILED"
    logged = [line for line in lines if "waiting for MLflow" not in line]  # printed where the machine is busy
    assert logged == [f"run {run.id}: {run.folder} was removed or replaced; MLflow has the events delivered before that"]
    assert not run.folder.exists()
