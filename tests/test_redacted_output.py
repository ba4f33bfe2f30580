"""Secrets in the URLs that a run reads appear neither in its files nor in its output."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fr_ps.cli import main
from fr_ps.search.worker_pool import WorkerProcess
from tests.tracking import servers

SECRET = "PLANTED"
TINY = (
    "--data.val_people=2",
    "--data.test_people=2",
    "--model.backbone=timm:test_resnet",
    "--model.channels=32",
    "--model.fsm=false",
    "--batch.people=4",
    "--batch.sessions=2",
    "--train.epochs=1",
    "--train.threads=1",
)


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with a short wait for MLflow."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fr_ps.tracking.lifecycle._TIMEOUT", 0.1)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return tmp_path


def files_with(secret: str, folder: Path) -> list[str]:
    """The files under `folder` whose bytes contain `secret`."""
    return [str(file) for file in folder.rglob("*") if file.is_file() and secret.encode() in file.read_bytes()]


@pytest.mark.usefixtures("undrawn")
def test_a_training_leaves_no_secret_anywhere(
    planted: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    address = f"http://{SECRET}:{SECRET}@x{SECRET}@"
    words = ["train", f"--data.root={prepared}", *TINY, f"--name=see {address}host/?api_key={SECRET}"]
    monkeypatch.setattr("sys.argv", ["fr-ps", *words])
    with servers.failing() as (server, calls):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{address}{server.removeprefix('http://')}/?api_key={SECRET}")
        assert main(words) == 0
        assert calls
        assert main(["sync"]) == 2
        assert main(["runs"]) == 0
    printed = "".join(capfd.readouterr())
    assert "MLflow unreachable" in printed
    assert "see http://host/" in printed
    assert SECRET not in printed
    (run,) = (planted / "runs").iterdir()
    for name in ("run.json", "config.yaml", "environment.txt", "journal.jsonl"):
        assert "http://" in (run / name).read_text()
    assert files_with(SECRET, planted) == []


def test_a_search_without_mlflow_names_the_server_but_no_secret(
    planted: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    refusing = servers.refusing().removeprefix("http://")
    (planted / "study.yaml").write_text("study: {name: one}\nspace: {optim.lr: [0.001, 0.002]}\npruner: {name: none}\n")
    search = ["search", "--config", "study.yaml", f"--data.root={prepared}", *TINY]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@{refusing}/?password={SECRET}")
    assert main([*search, "--study.storage=sqlite:///studies.db?timeout=7654321"]) == 2
    for storage in (
        f"postgresql+psycopg2://me:{SECRET}@x{SECRET}@127.0.0.1:1/db?user={SECRET}",
        f"postgresql+psycopg2://me:{SECRET}@127.0.0.1:1/db?password={SECRET}",
        f"postgresql:me:{SECRET}@127.0.0.1:1/db",
        f"postgresql://me:12/{SECRET}@127.0.0.1:1/db",
        f"postgresql://me:/{SECRET}@127.0.0.1:1/db",
    ):
        assert main([*search, f"--study.storage={storage}"]) == 2
    printed = "".join(capfd.readouterr())
    assert f"MLflow (http://{refusing}/) cannot create" in printed
    assert printed.count("error: study.storage") == 5
    assert SECRET not in printed
    assert files_with(SECRET, planted) == files_with("7654321", planted) == []


def test_the_job_of_a_worker_is_not_on_its_command_line(tmp_path: Path) -> None:
    worker = WorkerProcess(tmp_path / "worker.log", {"search": {"study": {"storage": f"postgresql://me:{SECRET}@host/db"}}})
    try:
        deadline = time.monotonic() + 10
        words = b""
        while b"fr_ps.search.worker" not in words and time.monotonic() < deadline:
            words = Path(f"/proc/{worker.process.pid}/cmdline").read_bytes()
        assert b"fr_ps.search.worker" in words
        assert SECRET.encode() not in words
    finally:
        worker.process.kill()
        worker.process.communicate()


def test_an_internal_error_and_what_libraries_log_are_redacted() -> None:
    program = f"""
import logging, sys, threading, warnings
handler = logging.StreamHandler()  # as optuna makes it when it is imported
logging.getLogger("library").addHandler(handler)
from fr_ps.process import run_main

def fail():
    raise RuntimeError("no answer from http://me:{SECRET}@host/?key={SECRET}")

def run():
    logging.getLogger("library").warning("trying postgresql://me:{SECRET}@host/db")
    warnings.warn("http://me:{SECRET}@host is slow")
    sys.stdout.write("View run at http://me:{SECRET}@host/#/runs/1\\n")
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    fail()

sys.exit(run_main(run))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 2
    assert "trying postgresql://host/db" in done.stderr
    assert done.stderr.rstrip().endswith("RuntimeError: no answer from http://host/")
    assert done.stdout == "View run at http://host/#/runs/1\n"
    # The warning shows the line of source that gives it only where that is a file.
    assert SECRET not in done.stderr


def test_mlflow_prints_no_urls_of_runs() -> None:
    from mlflow.environment_variables import MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT

    import fr_ps.tracking.mlflow_sink  # noqa: F401

    assert MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.get() is True
