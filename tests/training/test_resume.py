"""`train --resume` as users run it: real processes, real signals, a real full disk."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import MakeStore
from tests.forked import ForkedCommand

pytestmark = pytest.mark.slow
EPOCHS = 4


class Shell:
    """A folder in which `fr-ps` runs as another process."""

    def __init__(self, folder: Path, prepared: Path, make_store: MakeStore) -> None:
        self.folder, self.started = folder, 0
        make_store(folder)
        settings = {
            "data": {"root": str(prepared), "val_people": 2, "test_people": 1},
            "batch": {"people": 3, "sessions": 2},
            "model": {"backbone": "timm:test_resnet", "channels": 16, "reduction": 8},
            "train": {"epochs": EPOCHS, "checkpoint_steps": 1, "threads": 1},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        names = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_URI")
        self.environment = {name: value for name, value in os.environ.items() if name not in names}

    def start(self, *words: str) -> ForkedCommand:
        self.started += 1
        # Beside the folder, whose disk may be full.
        logs = (self.folder.with_name(f"{self.folder.name}.{self.started}.{name}") for name in ("out", "err"))
        return ForkedCommand(words, self.folder, self.environment, *logs)

    def start_program(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell starts what it runs in the background with SIGINT ignored, and a suite run so would hand that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=240)
        return subprocess.CompletedProcess(words, process.wait(), out, err)

    def killed_in(self, epoch: int, number: signal.Signals) -> tuple[str, int, str]:
        """Our id of a training that got a signal within an epoch, its exit code and output."""
        process = self.start("train", "--config", "config.yaml")
        for line in process.stdout:
            if line.startswith(f"epoch {epoch - 1}/"):
                break
        process.send_signal(number)
        out, errors = process.communicate(timeout=120)
        return self.ids()[-1], process.wait(), out + errors

    def ids(self) -> list[str]:
        return sorted(path.parent.name for path in self.folder.glob("runs/*/run.json"))

    def weights(self, run: str) -> tuple[bytes, ...]:
        return tuple((self.folder / f"runs/{run}/checkpoints/{name}/model.safetensors").read_bytes() for name in ("last", "best"))

    def stored(self, run: str):  # type: ignore[no-untyped-def]
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{self.folder}/mlflow.db")
        card = json.loads((self.folder / f"runs/{run}/run.json").read_text())
        return client, client.get_run(card["mlflow_id"])


@pytest.fixture
def shell(tmp_path, prepared, make_store) -> Shell:
    return Shell(tmp_path, prepared, make_store)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, prepared, make_store) -> tuple[Shell, str]:
    """An uninterrupted training."""
    shell = Shell(tmp_path_factory.mktemp("whole"), prepared, make_store)
    done = shell.run("train", "--config", "config.yaml")
    assert done.returncode == 0, done.stderr
    return shell, shell.ids()[0]


def check_same(shell: Shell, run: str, whole: tuple[Shell, str]) -> None:
    """Weights to the bit, and every curve in MLflow."""
    assert shell.weights(run) == whole[0].weights(whole[1])
    client, stored = shell.stored(run)
    whole_client, whole_stored = whole[0].stored(whole[1])
    assert stored.info.status == stored.data.tags["fr_ps.status"] == "FINISHED"
    assert stored.data.params == whole_stored.data.params
    assert stored.data.metrics.keys() == whole_stored.data.metrics.keys()
    for name in stored.data.metrics:
        mine, theirs = (
            [(point.step, point.value) for point in one.get_metric_history(of.info.run_id, name)]
            for one, of in ((client, stored), (whole_client, whole_stored))
        )
        if name == "train/images_per_second":
            assert [step for step, _ in mine] == [step for step, _ in theirs]
        else:
            assert mine == theirs, name


def test_a_run_stopped_by_sigterm_resumes_without_loss(shell, whole):
    run, code, output = shell.killed_in(3, signal.SIGTERM)
    assert code == 143, output
    assert "finishing the step" in output
    assert f"resume with: fr-ps train --resume {run}" in output
    assert "Traceback" not in output
    _, stored = shell.stored(run)
    assert stored.info.status == stored.data.tags["fr_ps.status"] == "KILLED"
    done = shell.run("train", "--resume")  # alone, it means the last that was interrupted
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == stored.info.run_id
    check_same(shell, run, whole)


def test_after_sigint_a_changed_setting_is_recorded(shell):
    run, code, output = shell.killed_in(3, signal.SIGINT)
    assert code == 130, output
    assert "Traceback" not in output
    assert shell.stored(run)[1].info.status == "KILLED"
    before = yaml.safe_load((shell.folder / f"runs/{run}/config.yaml").read_text())
    done = shell.run("train", "--resume", run, "--optim.lr", "0.0005", "--allow-changed")
    assert done.returncode == 0, done.stderr
    _, stored = shell.stored(run)
    assert stored.data.tags["fr_ps.changed.optim/lr"] == "0.001 -> 0.0005"
    assert stored.data.params["optim/lr"] == "0.001"
    assert stored.info.status == "FINISHED"
    after = yaml.safe_load((shell.folder / f"runs/{run}/config.yaml").read_text())
    assert after == before | {"optim": before["optim"] | {"lr": 0.0005}}


def test_after_kill_9_mlflow_run_resumes_in_the_same_run(shell, whole):
    run, code, _ = shell.killed_in(3, signal.SIGKILL)
    assert code == -9
    # A quick training is killed before its first call to MLflow, which creates the store and takes seconds.
    name = json.loads((shell.folder / f"runs/{run}/run.json").read_text())["mlflow_id"] or run
    (line,) = [line for line in shell.run("runs").stdout.splitlines() if run in line]
    assert "KILLED (interrupted)" in line
    assert name in (run, line.split()[1]) or name.startswith(line.split()[1])
    project = Path(__file__).parents[2]
    shell.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{shell.environment['PATH']}"
    (shell.folder / "fr_ps").symlink_to(project / "fr_ps")
    shutil.copy(project / "MLproject", shell.folder)
    shutil.copy(project / "conda.yaml", shell.folder)
    words = ["run", ".", "-e", "resume", "--env-manager", "local", "-P", f"run={name}"]  # either id names the run
    process = shell.start_program("-m", "mlflow", *words)
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, out + errors
    check_same(shell, run, whole)
    client, stored = shell.stored(run)
    (empty,) = [
        one
        for experiment in client.search_experiments()
        for one in client.search_runs([experiment.experiment_id])
        if one.info.run_id != stored.info.run_id
    ]
    assert empty.data.tags["fr_ps.resumes"] == stored.info.run_id
    assert empty.info.status == "FINISHED"


def test_a_second_sigint_stops_at_once(shell):
    process = shell.start("train", "--config", "config.yaml", "--train.epochs", "1000")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            break
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    _, stored = shell.stored(shell.ids()[0])
    assert stored.info.status == "KILLED"


def test_a_full_disk_ends_a_run_with_the_previous_checkpoint_complete(tmp_path, prepared, make_store, whole):
    """The disk has 40 MB: some checkpoints of the run fit, and then a foreign file fills the rest."""
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(home)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk may not be mounted here: {done.stderr.decode().strip()}")
    try:
        shell = Shell(home, prepared, make_store)
        process = shell.start("train", "--config", "config.yaml")
        for line in process.stdout:
            if line.startswith("epoch 2/"):
                break
        with (home / "foreign file").open("wb", buffering=0) as file:
            while True:
                try:
                    file.write(bytes(1 << 16))
                except OSError:
                    break
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 2, errors
        assert "disk" in errors
        assert "Traceback" not in errors
        (run,) = shell.ids()
        events = [json.loads(line) for line in (home / f"runs/{run}/journal.jsonl").read_text().splitlines()]
        assert events[-1]["data"] == {"status": "FAILED"}
        (home / "foreign file").unlink()
        done = shell.run("train", "--resume", run)
        assert done.returncode == 0, done.stderr
        check_same(shell, run, whole)
    finally:
        subprocess.run(["umount", "--lazy", str(home)], check=True)


def test_under_torchrun_a_terminated_run_has_the_status_killed(shell):
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "1", "-m", "fr_ps")
    process = shell.start_program(*torchrun, "train", "--config", "config.yaml", "--train.epochs", "1000")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            break
    process.terminate()
    process.communicate(timeout=60)
    (run,) = shell.ids()
    deadline = time.monotonic() + 30  # torchrun does not wait for the processes that it terminates
    while shell.stored(run)[1].info.status != "KILLED" and time.monotonic() < deadline:
        time.sleep(0.5)
    _, stored = shell.stored(run)
    assert stored.info.status == stored.data.tags["fr_ps.status"] == "KILLED"
