"""Runs are listed with their true status, also after a killed process."""

import json
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from fr_ps.cli import main
from fr_ps.tracking import listing
from fr_ps.tracking.journal import JOURNAL_FILE, Event, read_events
from fr_ps.tracking.listing import INTERRUPTED_TAG, RunSummary, find_resumable_run, last_status, list_runs
from fr_ps.tracking.mlflow_sink import STATUS_TAG
from fr_ps.tracking.run import Run
from fr_ps.tracking.run_folder import CONFIG_FILE, RUN_INFO_FILE, ParentRun, new_run_info, read_run_info
from fr_ps.tracking.run_lock import run_lock
from fr_ps.tracking.sync import pending_runs, sync
from tests.tracking import servers

RUNS = Path("runs")
TRAINING = """
import sys
from pathlib import Path
from fr_ps.tracking.run_folder import new_run_info
from fr_ps.tracking.run_lock import run_lock
from fr_ps.tracking.run import Run
folder = Path("runs") / sys.argv[1]
with run_lock(folder):
    new_run_info(folder.name, "a name").write(folder)
    run = Run(folder)
    run.set_status("RUNNING")
    run.set_tags({"fr_ps.kind": "train"})
    for epoch in range(1, 4):
        run.log_metrics({"train/loss/total": 1 / epoch}, epoch)
    print("running", flush=True)
    sys.stdin.read()
"""


def ended_run(name: str, log: Callable[[Run], object], runs: Path = RUNS, **info: object) -> Path:
    """A run without a process; its folder."""
    folder = runs / name
    replace(new_run_info(name, "a name"), **info).write(folder)
    run = Run(folder)
    log(run)
    run.journal.close()
    return folder


def only() -> RunSummary:
    (summary,) = list_runs(RUNS)
    return summary


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_with_a_final_status_is_listed_and_unchanged(status):
    def log(run: Run) -> None:
        run.set_status("RUNNING")
        run.set_tags({"fr_ps.kind": "evaluate"})
        run.log_metrics({"a": 1.0}, 7)
        run.set_status(status)

    folder = ended_run("one", log, mlflow_id="f" * 32)
    before = (folder / JOURNAL_FILE).read_bytes()
    summary = only()
    assert (summary.id, summary.mlflow_id, summary.name, summary.kind) == ("one", "f" * 32, "a name", "evaluate")
    assert (summary.status, summary.note, summary.epoch, summary.pending_events) == (status, "", 7, 4)
    assert (folder / JOURNAL_FILE).read_bytes() == before
    assert last_status(folder) == status


def test_the_auc_on_validation_is_that_of_the_best_epoch():
    def log(run: Run) -> None:
        for epoch, auc in enumerate((0.7, 0.9, 0.8), start=1):
            run.log_metrics({"val/identity/auc": auc}, epoch)

    folder = ended_run("one", log)
    assert (only().validation_auc, only().test_auc) == (0.9, None)
    run = Run(folder)
    run.log_metrics({"test/identity/auc": 0.75}, 3)
    run.set_tags({"fr_ps.best_epoch": "3"})  # chosen by another metric
    run.journal.close()
    assert (only().validation_auc, only().test_auc) == (0.8, 0.75)


def test_a_killed_run_is_interrupted_and_a_living_one_running(start):
    alive, dead = start(TRAINING, "alive"), start(TRAINING, "dead")
    for process in (alive, dead):
        assert process.stdout.readline() == "running\n"
    assert [(one.status, one.note) for one in list_runs(RUNS)] == [("RUNNING", "")] * 2
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    for _ in range(2):
        first, second = list_runs(RUNS)
        assert (first.id, first.status, first.note, first.epoch) == ("alive", "RUNNING", "", 3)
        assert (second.id, second.status, second.note, second.epoch, second.kind) == ("dead", "KILLED", "interrupted", 3, "train")
    assert last_status(RUNS / "alive") == "RUNNING"
    assert last_status(RUNS / "dead") == "KILLED"
    tagged = [event for _, event in read_events(RUNS / "dead" / JOURNAL_FILE) if INTERRUPTED_TAG in event.data]
    assert len(tagged) == 1


def test_sync_delivers_the_status_of_an_interrupted_run(store):
    ended_run("one", lambda run: run.set_status("RUNNING"))
    assert only().status == "KILLED"
    (row,) = sync(pending_runs(RUNS), lambda taken: None)
    stored = store.get_run(row.mlflow_id)
    assert stored.info.status == stored.data.tags[STATUS_TAG] == "KILLED"
    assert "without a final status" in stored.data.tags[INTERRUPTED_TAG]


def test_a_resumed_run_is_no_longer_interrupted():
    folder = ended_run("one", lambda run: run.set_status("RUNNING"))
    assert only().note == "interrupted"
    with run_lock(folder):
        run = Run(folder)
        run.set_status("RUNNING")
        assert (only().status, only().note) == ("RUNNING", "")
        run.set_status("FINISHED")
        run.journal.close()
    assert (only().status, only().note) == ("FINISHED", "")


def test_a_run_without_any_event_is_interrupted():
    new_run_info("one", "a name").write(RUNS / "one")
    assert (only().status, only().note) == ("KILLED", "interrupted")


def test_a_run_of_another_machine_is_not_marked():
    folder = ended_run("one", lambda run: run.set_status("RUNNING"), host=f"not-{socket.gethostname()}")
    before = (folder / JOURNAL_FILE).read_bytes()
    assert (only().status, only().note) == ("RUNNING", f"on not-{socket.gethostname()}, may be running there")
    assert (folder / JOURNAL_FILE).read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == [JOURNAL_FILE, RUN_INFO_FILE]


def test_a_run_of_an_earlier_version_is_listed_and_unchanged():
    folder = RUNS / "one"
    folder.mkdir(parents=True)
    (folder / RUN_INFO_FILE).write_text(json.dumps({"id": "one", "mlflow_id": "f" * 32, "name": "old"}))
    summary = only()
    assert (summary.id, summary.name, summary.status, summary.note) == ("one", "old", "?", "made by an earlier version")
    assert summary.pending_events == 0
    assert [path.name for path in folder.iterdir()] == [RUN_INFO_FILE]


def test_a_run_that_ends_while_it_is_read_is_not_interrupted(monkeypatch):
    folder = RUNS / "one"
    new_run_info("one", "a name").write(folder)
    life = ExitStack()
    life.enter_context(run_lock(folder))
    run = Run(folder)
    run.set_status("RUNNING")

    def read_then_end(path: Path, start: int = 0) -> Iterator[tuple[int, Event]]:
        yield from read_events(path, start)
        if [event.data for _, event in read_events(path)][-1]["status"] == "RUNNING":
            run.set_status("FINISHED")
            run.journal.close()
            life.close()

    monkeypatch.setattr(listing, "read_events", read_then_end)
    assert only().note == ""
    assert last_status(folder) == "FINISHED"


def test_runs_are_sorted_by_id():
    for name in ("20260102-000000-aaaaaa", "20260101-000000-bbbbbb", "20260101-000000-aaaaaa"):
        ended_run(name, lambda run: run.set_status("FINISHED"))
    assert [one.id for one in list_runs(RUNS)] == [
        "20260101-000000-aaaaaa",
        "20260101-000000-bbbbbb",
        "20260102-000000-aaaaaa",
    ]
    assert list_runs(Path("nothing here")) == []


@pytest.mark.parametrize("file", [RUN_INFO_FILE, JOURNAL_FILE])
def test_a_damaged_run_is_listed_with_its_error_and_unchanged(file):
    folder = ended_run("one", lambda run: run.set_status("RUNNING"))
    ended_run("two", lambda run: run.set_status("FINISHED"))
    (folder / file).write_text("damage\n{}\n")
    first, second = list_runs(RUNS)
    assert (first.status, second.status) == ("?", "FINISHED")
    assert str(folder / file) in first.note
    assert (folder / file).read_text() == "damage\n{}\n"


def test_an_interrupted_run_that_cannot_be_marked_is_listed_with_the_reason(small_disk):
    runs = small_disk / "runs"
    folder = ended_run("one", lambda run: run.set_status("RUNNING"), runs)
    ended_run("two", lambda run: run.set_status("FINISHED"), runs)
    before = (folder / JOURNAL_FILE).read_bytes()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    first, second = list_runs(runs)
    assert (first.status, second.status, second.note) == ("KILLED", "FINISHED", "")
    assert first.note.startswith("interrupted; cannot be marked: ")
    assert "cannot be written" in first.note
    assert (folder / JOURNAL_FILE).read_bytes() == before


def test_the_command_lists_the_runs_and_delivers_the_status_of_interrupted_ones(store, capsys):
    assert main(["runs"]) == 0
    assert "no runs under" in capsys.readouterr().out
    name = "20260101-000000-aaaaaa"
    ended_run(name, lambda run: run.set_status("RUNNING"))
    info = read_run_info(RUNS / name)
    replace(info, tracking_uri=servers.refusing()).write(RUNS / name)
    assert main(["runs"]) == 0
    printed = capsys.readouterr().out
    assert re.search(rf"{name} +- +a name +KILLED \(interrupted\)", printed)
    assert "undelivered: 3 events of 1 runs are not in MLflow yet" in printed
    assert "fr-ps sync" in printed
    info.write(RUNS / name)
    assert main(["runs"]) == 0
    printed = capsys.readouterr().out
    assert "fr-ps sync" not in printed
    mlflow_id = read_run_info(RUNS / name).mlflow_id
    assert f"{name}  is now MLflow run {mlflow_id}\n" in printed
    assert store.get_run(mlflow_id).info.status == "KILLED"


def begun(status: str) -> Callable[[Run], object]:
    """Events of a training that had begun."""
    return lambda run: (run.set_tags({"fr_ps.kind": "train"}), run.set_status(status))


def test_resume_without_an_id_finds_the_last_interrupted_training(rejected):
    for name, status in (("1", "KILLED"), ("2", "FAILED"), ("3", "RUNNING"), ("4", "FINISHED")):
        (ended_run(name, begun(status)) / CONFIG_FILE).write_text("")
    ended_run("5", lambda run: run.set_status("KILLED"))  # no training
    part = ended_run("6", begun("KILLED"))  # of a study, which resumes it
    (part / CONFIG_FILE).write_text("")
    (ended_run("8", lambda run: run.set_status("FAILED")) / CONFIG_FILE).write_text("")  # killed before it logged its kind
    new_run_info("6", "trial", ParentRun("abc", "1")).write(part)
    assert find_resumable_run("", RUNS) == RUNS / "3"
    with run_lock(RUNS / "3"):
        assert find_resumable_run("", RUNS) == RUNS / "2"
    assert find_resumable_run("1", RUNS) == RUNS / "1"
    with rejected("5", "not a training"):
        find_resumable_run("5", RUNS)
    with rejected("no such run"):
        find_resumable_run("7", RUNS)
    with rejected("no training under", "was interrupted"):
        find_resumable_run("", Path("elsewhere"))


@pytest.mark.parametrize("damage", ["folder", "text", "not UTF-8"])
@pytest.mark.parametrize("name", [RUN_INFO_FILE, JOURNAL_FILE])
def test_one_unreadable_file_hides_no_other_run(store, capsys, damage, name):
    ended_run("one", lambda run: run.set_status("KILLED"))
    for other in ("one", "two"):
        (ended_run(other, begun("KILLED")) / CONFIG_FILE).write_text("")
    file = RUNS / "two" / name
    file.unlink()
    if damage == "folder":
        file.mkdir()
    else:
        file.write_bytes(b"{\n\n" if damage == "text" else b"\xff\xfe\n\n")
    assert main(["runs"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"one .* KILLED", printed)
    assert re.search(rf"two .*\? \(runs/two/{name}: ", printed)
    assert find_resumable_run("", RUNS) == RUNS / "one"
    assert main(["sync"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"runs/two/{name}" in line
