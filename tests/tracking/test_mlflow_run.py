"""Runs in a real store: SQLite in process, a real server process, real signals."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from mlflow import MlflowClient

from fr_ps.tracking.contract import LocalRun
from fr_ps.tracking.mlflow_run import RUN_ID_TAG, STATUS_TAG, MlflowRun, mlflow_run


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    import mlflow

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    mlflow.set_tracking_uri(uri)
    return MlflowClient()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail((folder / "log").read_text())
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def record(run, folder: Path) -> None:
    run.params({"model/backbone": "miresnet18", "data/classes": "x" * 7000})
    run.tags({"fr_ps.protocol": "subject_disjoint"})
    for step in (1, 2, 3):
        run.metrics({"train/loss/total": 1 / step, "val/identity/auc": 0.5 + step / 10}, step)
    run.dataset("faces", "/somewhere", "0123456789abcdef0123456789abcdef", {"sessions": 4}, "training")
    (folder / "sub").mkdir()
    (folder / "a.txt").write_text("a")
    (folder / "sub" / "b.txt").write_text("b")
    run.artifact(folder / "a.txt")
    run.artifact(folder / "sub", "kept/sub")


def check(client: MlflowClient, run) -> None:
    stored = client.get_run(run.mlflow_id)
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "a name"
    assert stored.data.tags[RUN_ID_TAG] == run.id
    assert stored.data.tags[STATUS_TAG] == "FINISHED"
    assert stored.data.params["model/backbone"] == "miresnet18"
    assert len(stored.data.params["data/classes"]) == 6000
    history = client.get_metric_history(run.mlflow_id, "train/loss/total")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    (data,) = stored.inputs.dataset_inputs
    assert data.dataset.digest == "0123456789abcdef0123456789abcdef"
    assert json.loads(data.dataset.profile) == {"sessions": 4}
    assert {file.path for file in client.list_artifacts(run.mlflow_id)} == {"a.txt", "kept"}
    assert {file.path for file in client.list_artifacts(run.mlflow_id, "kept/sub")} == {"kept/sub/b.txt"}


def test_a_run_goes_through_sqlite_and_comes_back(store, tmp_path):
    with mlflow_run("a name", tmp_path / "runs") as run:
        record(run, run.folder)
    check(store, run)
    assert store.get_experiment_by_name("fr-ps").experiment_id == store.get_run(run.mlflow_id).info.experiment_id
    assert json.loads((run.folder / "run.json").read_text()) == {"id": run.id, "mlflow_id": run.mlflow_id, "name": "a name"}


def test_a_run_goes_through_a_real_server_and_comes_back(server, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    mlflow.set_tracking_uri(server)
    with mlflow_run("a name", tmp_path / "runs") as run:
        record(run, run.folder)
    check(MlflowClient(server), run)


def test_the_null_run_accepts_all_that_the_mlflow_run_accepts(tmp_path):
    run = LocalRun(tmp_path)
    record(run, tmp_path)
    assert {name for name in vars(MlflowRun) if not name.startswith("_")} == {
        name for name in vars(LocalRun) if not name.startswith("_")
    }


def test_an_exception_ends_failed_and_goes_on(store, tmp_path):
    with pytest.raises(ValueError, match="broken"), mlflow_run("x", tmp_path / "runs") as run:
        raise ValueError("broken")
    assert store.get_run(run.mlflow_id).info.status == "FAILED"
    assert store.get_run(run.mlflow_id).data.tags[STATUS_TAG] == "FAILED"


def test_ctrl_c_ends_killed(store, tmp_path):
    with pytest.raises(KeyboardInterrupt), mlflow_run("x", tmp_path / "runs") as run:
        raise KeyboardInterrupt
    assert store.get_run(run.mlflow_id).info.status == "KILLED"


def test_it_attaches_to_the_run_that_mlflow_run_began_in_whatever_experiment(store, tmp_path, monkeypatch):
    experiment = store.create_experiment("someone else's")
    begun = store.create_run(experiment, run_name="polite-ant-7").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", begun)
    with mlflow_run("a name", tmp_path / "runs") as run:
        pass
    assert run.mlflow_id == begun
    assert store.get_run(begun).info.run_name == "a name"
    assert store.get_run(begun).info.status == "FINISHED"
    with mlflow_run("the next", tmp_path / "runs") as second:
        pass
    assert second.mlflow_id != begun


@pytest.mark.parametrize("by", ["MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"])
def test_the_environment_chooses_the_experiment(store, tmp_path, monkeypatch, by):
    experiment = store.create_experiment("mine")
    monkeypatch.setenv(by, "mine" if by.endswith("NAME") else experiment)
    with mlflow_run("x", tmp_path / "runs") as run:
        pass
    assert store.get_run(run.mlflow_id).info.experiment_id == experiment


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_a_real_training_ends_killed_with_its_exit_code(store, prepared, tmp_path, sent, code):
    command = [
        sys.executable,
        "-m",
        "fr_ps",
        "train",
        "--data.root",
        str(prepared),
        "--data.test_people",
        "0",
        "--data.val_people",
        "0",
    ]
    command += ["--train.epochs", "1000", "--model.channels", "16", "--model.reduction", "8"]
    # A shell starts what it runs in the background with SIGINT ignored, and a suite run so would hand that on.
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 2"):
            break
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    (run,) = store.search_runs([store.get_experiment_by_name("fr-ps").experiment_id])
    assert run.info.status == "KILLED"
    assert run.data.tags[STATUS_TAG] == "KILLED"
    assert (tmp_path / "runs" / run.data.tags[RUN_ID_TAG] / "checkpoints/last/model.safetensors").is_file()
