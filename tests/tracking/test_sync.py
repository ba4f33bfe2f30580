"""Events that an outage held back are delivered later, without a difference in MLflow."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from fr_ps.cli import main
from fr_ps.files import write_json
from fr_ps.progress import no_progress
from fr_ps.tracking import delivery, lifecycle
from fr_ps.tracking.delivery import DELIVERED_FILE
from fr_ps.tracking.journal import read_events
from fr_ps.tracking.lifecycle import start_run
from fr_ps.tracking.mlflow_sink import RUN_ID_TAG, STATUS_TAG
from fr_ps.tracking.run import Run
from fr_ps.tracking.run_folder import PARENT_TAG, new_run_info, read_run_info
from fr_ps.tracking.run_lock import run_lock
from fr_ps.tracking.sync import SyncResult, move_to_store, pending_runs, sync
from tests.tracking import servers

RUNS = Path("runs")


def ended_run(name: str, log: Callable[[Run], object] = lambda run: None, **info: object) -> Path:
    """The folder of a finished run that is not delivered."""
    folder = RUNS / name
    replace(new_run_info(name, "a name"), **info).write(folder)
    run = Run(folder)
    run.set_status("RUNNING")
    log(run)
    run.set_status("FINISHED")
    run.journal.close()
    return folder


def sync_all() -> dict[str, SyncResult]:
    """Deliver all pending runs; returns the results by run id."""
    advanced: list[int] = []
    rows = sync(list(pending_runs(RUNS)), advanced.append)
    assert sum(advanced) == sum(row.sent for row in rows)
    return {row.id: row for row in rows}


@pytest.fixture
def down(monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a server that is down; the end of a run waits half a second for it."""
    monkeypatch.setattr(lifecycle, "_TIMEOUT", 0.5)
    monkeypatch.setattr(lifecycle, "_TIMEOUT_UNFINISHED", 0.5)
    monkeypatch.setattr(delivery, "_CLOSING_BACKOFF", 0.1)
    uri = servers.refusing()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


@pytest.mark.parametrize("end", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_without_a_server_is_delivered_later_without_a_difference(down, either, monkeypatch, end):
    up = either.tracking_uri
    monkeypatch.setenv("MLFLOW_TRACKING_URI", down)
    lines: list[str] = []
    error = {"FAILED": ValueError(), "KILLED": SystemExit(143)}.get(end)
    try:
        with start_run("a name", RUNS, lines.append) as run:
            run.log_params({"p": "1"})
            for step in (1, 2, 3):
                run.log_metrics({"a": step / 7}, step)
                time.sleep(0.02)
            run.log_dataset("faces", "/somewhere", "digest", {}, "training")
            (run.folder / "a.txt").write_text("a")
            run.log_artifact(run.folder / "a.txt")
            if error:
                raise error
    except (ValueError, SystemExit):
        pass
    assert lines[-1].startswith("tracking: 8 events not delivered to MLflow")
    assert run.display_id == run.id
    assert list(pending_runs(RUNS)) == [run.folder]
    logged = [(event.time, event.data) for _, event in read_events(run.journal.path) if event.kind == "metrics"]
    assert len({moment for moment, _ in logged}) == 3

    time.sleep(0.1)  # the sync is later, and nothing in MLflow shows that
    assert move_to_store([run.folder], up) == []
    row = sync_all()[run.id]
    assert (row.sent, row.remaining, row.reason, row.rejected) == (8, 0, "", ())
    assert row.mlflow_id == read_run_info(run.folder).mlflow_id
    stored = either.get_run(row.mlflow_id)
    (ended,) = [event.time for _, event in read_events(run.journal.path) if event.data == {"status": end}]
    assert (stored.info.start_time, stored.info.end_time) == (read_run_info(run.folder).begun, ended)
    assert stored.info.status == stored.data.tags[STATUS_TAG] == end
    assert stored.data.params == {"p": "1"}
    history = either.get_metric_history(row.mlflow_id, "a")
    assert [(one.timestamp, one.step, one.value) for one in history] == [
        (moment, data["step"], data["values"]["a"]) for moment, data in logged
    ]
    assert [file.path for file in either.list_artifacts(row.mlflow_id)] == ["a.txt"]
    assert pending_runs(RUNS) == {}

    before = stored.to_dictionary()
    (run.folder / DELIVERED_FILE).unlink()  # and sent once more, all of it
    assert sync_all()[run.id].sent == 8
    assert either.get_run(row.mlflow_id).to_dictionary() == before
    assert len(either.get_metric_history(row.mlflow_id, "a")) == 3
    experiment = stored.info.experiment_id
    assert len(either.search_runs([experiment], f"tags.`{RUN_ID_TAG}` = '{run.id}'")) == 1


def test_delivered_runs_are_not_pending(store):
    with start_run("x", RUNS):
        pass
    assert pending_runs(RUNS) == {}
    assert pending_runs(Path("nothing here")) == {}
    assert sync([], lambda advanced: None) == []


def test_a_locked_run_is_left_to_its_process(store):
    folder = ended_run("one")
    with run_lock(folder):
        row = sync_all()["one"]
    assert (row.running, row.sent, row.remaining) == (True, 0, 2)
    assert "its process delivers" in row.reason
    assert sync_all()["one"].remaining == 0


def test_an_unreachable_store_is_tried_once(monkeypatch):
    with servers.failing() as (uri, calls):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        for name in ("one", "two", "three"):
            ended_run(name)
        rows = sync_all()
    assert len(calls) == 1
    assert [(row.sent, row.remaining, row.mlflow_id) for row in rows.values()] == [(0, 2, "")] * 3
    assert all("500" in row.reason and "\n" not in row.reason for row in rows.values())


def test_an_unreachable_store_does_not_affect_runs_of_another(store, monkeypatch):
    up = new_run_info("any", "a name").tracking_uri
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    ended_run("one", tracking_uri=servers.refusing())
    ended_run("two", tracking_uri=up)
    rows = sync_all()
    assert (rows["one"].remaining, rows["two"].remaining) == (2, 0)
    assert store.get_run(rows["two"].mlflow_id).info.status == "FINISHED"


def test_a_lost_or_deleted_mlflow_run_does_not_affect_other_runs(either):
    write_json(ended_run("one", mlflow_id="0" * 32) / DELIVERED_FILE, {"bytes": 0, "refused": []})
    deleted = either.create_run("0").info.run_id
    either.delete_run(deleted)
    ended_run("three", mlflow_id=deleted)
    ended_run("two")
    ended_run("zero")
    rows = sync_all()
    assert {name: row.remaining for name, row in rows.items()} == {"one": 2, "three": 2, "two": 0, "zero": 0}
    assert "to which run one was delivered, no longer exists" in rows["one"].reason
    assert "active" in rows["three"].reason
    either.restore_run(deleted)
    assert {name: row.remaining for name, row in sync_all().items()} == {"one": 2, "three": 0}


def test_a_run_with_rejected_items_counts_as_delivered(store):
    ended_run("one", lambda run: run.log_metrics({"bad=name": 1.0, "good": 2.0}, 1))
    row = sync_all()["one"]
    assert (row.remaining, row.reason) == (0, "")
    (rejected,) = row.rejected
    assert rejected.startswith("bad=name: ")
    assert store.get_run(row.mlflow_id).data.metrics == {"good": 2.0}


def test_a_damaged_journal_is_reported_and_the_others_are_delivered(store):
    folder = ended_run("one")
    text = "damage\n" + (folder / "journal.jsonl").read_text()
    (folder / "journal.jsonl").write_text(text)
    two = ended_run("two")
    assert pending_runs(RUNS).keys() == {folder, two}
    first, second = sync([folder, two], no_progress)
    assert "journal.jsonl: the line that ends at byte 7 is damaged" in first.reason
    assert (second.remaining, second.reason) == (0, "")
    assert main(["sync"]) == 2
    assert (folder / "journal.jsonl").read_text() == text


def test_the_command_delivers_and_reports(store, capsys):
    folder = ended_run("20260101-000000-aaaaaa", lambda run: run.log_metrics({"bad=name": 1.0}, 1))
    assert main(["sync"]) == 0
    printed = capsys.readouterr().out
    assert read_run_info(folder).mlflow_id in printed
    assert "20260101-000000-aaaaaa: MLflow rejected bad=name: " in printed
    assert main(["sync"]) == 0
    assert "All events of all runs are delivered" in capsys.readouterr().out


def test_a_delivered_run_missing_from_its_store_is_an_error_with_the_remedy(store, quick_store, capsys):
    folder = ended_run("one")
    assert main(["sync"]) == 0
    assert main(["sync"]) == 0
    before = read_run_info(folder).mlflow_id
    Path("mlflow.db").unlink()
    capsys.readouterr()
    assert main(["sync"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: run one was delivered to the MLflow store sqlite:///")
    assert "/mlflow.db, which no longer has it; " in line
    assert not Path("mlflow.db").exists()
    # Another file, as MLflow keeps its connections to the deleted one in this process.
    assert main(["sync", "--store", "sqlite:///again.db"]) == 0
    assert main(["sync"]) == 0
    assert read_run_info(folder).mlflow_id != before


def test_the_command_delivers_only_the_given_run(store, capsys):
    ended_run("one")
    two = ended_run("two")
    assert main(["sync", "--run", "two"]) == 0
    assert [path.name for path in pending_runs(RUNS)] == ["one"]
    assert main(["sync", "--run", str(read_run_info(two).mlflow_id)]) == 0
    capsys.readouterr()
    assert main(["sync", "--run", "three"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: --run three: no such run under ")


def test_undelivered_events_are_an_error_in_one_line(monkeypatch, capsys):
    uri = servers.refusing()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    ended_run("one")
    assert main(["sync"]) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith(f"error: 1 run is not delivered; one to {uri}: ")
    reason = line.partition(f"{uri}: ")[2].partition("; check")[0]
    assert f"\none: {reason}" in printed.out  # in one line, to be copied
    assert line.endswith("if its address has changed: fr-ps sync --store URI")
    assert main(["runs"]) == 0
    assert "FINISHED" in capsys.readouterr().out


def test_sync_marks_interrupted_runs_first(store):
    """A run whose process died after the delivery of all its events."""
    folder = RUNS / "one"
    new_run_info("one", "a name").write(folder)
    run = Run(folder)
    run.set_status("RUNNING")
    run.journal.close()
    sync([folder], no_progress)
    client = MlflowClient()
    mlflow_id = read_run_info(folder).mlflow_id
    assert client.get_run(mlflow_id).info.status == "RUNNING"
    assert main(["sync"]) == 0
    assert client.get_run(mlflow_id).info.status == "KILLED"


def test_a_read_only_artifact_store_does_not_block_the_metrics(store, capsys):
    def log(run):
        (run.folder / "a.txt").write_text("a")
        run.log_artifact(run.folder / "a.txt")
        run.log_metrics({"a": 1.0}, 1)

    experiment = MlflowClient().create_experiment("elsewhere", artifact_location="file:///proc/nowhere")
    folder = ended_run("one", log, experiment_id=experiment)
    assert main(["sync"]) == 0
    assert "MLflow rejected artifact: a.txt: " in capsys.readouterr().out
    assert MlflowClient().get_run(read_run_info(folder).mlflow_id).data.metrics == {"a": 1.0}


def recorded(run: Run) -> None:
    """A run with all kinds of events; two points at each of three steps."""
    (run.folder / "a.txt").write_text("a")
    run.log_params({"p": "1"})
    for step in (1, 2, 3):
        run.log_metrics({"a": step / 7, "b": float(step)}, step)
    run.log_artifact(run.folder / "a.txt")


def check_delivered(client: MlflowClient, folder: Path) -> None:
    """The run in `folder` is in MLflow once, with every point once."""
    info = read_run_info(folder)
    stored = client.get_run(info.mlflow_id)
    (same,) = client.search_runs([stored.info.experiment_id], f"tags.`{RUN_ID_TAG}` = '{info.id}'")
    assert same.info.run_id == info.mlflow_id
    assert (stored.info.status, stored.info.start_time, stored.data.params) == ("FINISHED", info.begun, {"p": "1"})
    events = [event for _, event in read_events(folder / "journal.jsonl") if event.kind == "metrics"]
    for name in ("a", "b"):
        history = [(one.timestamp, one.step, one.value) for one in client.get_metric_history(info.mlflow_id, name)]
        assert history == [(event.time, event.data["step"], event.data["values"][name]) for event in events]
    assert [file.path for file in client.list_artifacts(info.mlflow_id)] == ["a.txt"]


def test_the_command_of_the_message_delivers_a_run_with_a_lost_store_again(make_store, tmp_path, capsys):
    make_store(tmp_path)
    folder = ended_run("one", recorded)
    assert main(["sync"]) == 0
    lost = read_run_info(folder).mlflow_id
    uri = make_store(tmp_path)  # an empty one in its place
    run = Run(folder)
    run.set_tags({"more": "1"})
    run.journal.close()
    capsys.readouterr()
    assert main(["sync"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    command = "fr-ps sync --run one --store sqlite:///mlflow.db"
    assert line.endswith(
        f"one to sqlite:///mlflow.db: MLflow run {lost} in sqlite:///mlflow.db, to which run one was delivered, "
        f"no longer exists; deliver the run again: {command}"
    )
    for _ in range(2):  # the second time changes nothing
        assert main(command.split()[1:]) == 0
        check_delivered(MlflowClient(uri), folder)
    info = read_run_info(folder)
    assert info.mlflow_id != lost
    assert info.tracking_uri == ""
    assert lost in info.earlier_ids
    assert main(["sync", "--run", lost]) == 0


def test_parents_and_children_move_to_another_store(store, make_store, tmp_path, monkeypatch):
    whole = ended_run("b-whole", recorded)
    assert sync([whole], no_progress)[0].reason == ""
    before = str(read_run_info(whole).mlflow_id)
    part = ended_run("a-part", recorded, tags={PARENT_TAG: before}, experiment_id=store.get_run(before).info.experiment_id)
    assert sync([part], no_progress)[0].reason == ""
    (tmp_path / "other").mkdir()
    uri = make_store(tmp_path / "other")
    MlflowClient(uri).create_experiment("so that the ids of experiments differ")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert main(["sync", "--store", uri]) == 0
    client = MlflowClient(uri)
    for folder in (whole, part):
        check_delivered(client, folder)
        assert client.get_experiment(client.get_run(read_run_info(folder).mlflow_id).info.experiment_id).name == "fr-ps"
    assert client.get_run(read_run_info(part).mlflow_id).data.tags[PARENT_TAG] == read_run_info(whole).mlflow_id != before


def test_moving_to_an_unreachable_store_changes_nothing(store, capsys):
    folder = ended_run("one", recorded)
    assert main(["sync"]) == 0
    before = read_run_info(folder)
    capsys.readouterr()
    assert main(["sync", "--store", servers.refusing()]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert read_run_info(folder) == before
    assert main(["sync"]) == 0
