"""Several processes train like one: equal gradients, a killed process, and a resume with another number of processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.layers import BatchNormAct2d
from torch import nn

from fr_ps import distributed
from fr_ps.cli import main
from fr_ps.config import AugmentConfig, BatchConfig
from fr_ps.data.dataset import open_dataset
from fr_ps.device import process_device
from fr_ps.models.sync_norm import synchronise_batch_norms
from fr_ps.tracking.journal import JOURNAL_FILE, read_events
from fr_ps.training import batch_loader
from fr_ps.training.batch_loader import BatchLoader
from fr_ps.training.checkpoint_manager import list_checkpoints
from fr_ps.training.setup import write_config
from tests.conftest import AssertRejected
from tests.training.distributed_step import gradients
from tests.training.runs import small_config

ROOT = Path(__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def test_one_process_exchanges_nothing() -> None:
    rows = torch.arange(6.0)
    assert distributed.is_main_process()
    assert distributed.own_rows(6) == slice(0, 6)
    assert distributed.gather_rows(rows) is rows
    assert distributed.gather_objects("a") == ["a"]
    assert distributed.from_main_process(lambda: 3) == 3
    assert distributed.any_process(15) == 15


def test_processes_that_cannot_share_a_batch_equally_are_an_error(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, rejected: AssertRejected
) -> None:
    dataset, cpu = open_dataset(prepared, ["albedo"]), torch.device("cpu")
    rows = torch.arange(len(dataset.labels)).numpy()
    monkeypatch.setattr(batch_loader, "world_size", lambda: 2)
    BatchLoader(dataset, rows, BatchConfig(people=4, sessions=3), AugmentConfig(), 0, cpu)
    with rejected("3 subjects (2 sessions each), which 2 processes cannot share equally", "batch.people to a multiple of 2"):
        BatchLoader(dataset, rows, BatchConfig(people=3, sessions=2), AugmentConfig(), 0, cpu)


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, rejected: AssertRejected) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert process_device("auto") == torch.device("cuda", 1)
    assert chosen == [1]
    assert process_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with rejected("process 3 of this machine has no GPU: it has 2; start at most 2"):
        process_device("cuda")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT are not set"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "a"}, "WORLD_SIZE is 2, but MASTER_PORT is not set"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'; expected a number"),
    ],
)
def test_an_incomplete_rendezvous_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], environment: dict[str, str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["train"]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("backbone", ["resnet18", "densenet121", "test_efficientnet", "resnetv2_50"])
def test_synchronised_norms_keep_the_activations_and_the_weights(backbone: str) -> None:
    """timm has norms that contain an activation."""
    network = timm.create_model(backbone, num_classes=0, in_chans=1).eval()
    maps = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(maps)
        weights = {name: value.clone() for name, value in network.state_dict().items()}
        synchronise_batch_norms(network, torch.device("cpu"))
        assert torch.equal(network.eval()(maps), expected)
    assert not any(type(module) in (nn.BatchNorm2d, BatchNormAct2d) for module in network.modules())
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_a_norm_of_an_unknown_kind_is_an_error(rejected: AssertRejected) -> None:
    for norm in (nn.BatchNorm3d(4), nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, track_running_stats=False)):
        with rejected(f"a batch norm of the kind {type(norm).__name__}", "set train.sync_batch_norm to false"):
            synchronise_batch_norms(nn.Sequential(norm), torch.device("cpu"))


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(prepared: Path, tmp_path: Path) -> None:
    weightings = ["uncertainty", "upgrad", "pcgrad", "sampled uncertainty", "sampled upgrad"]
    command = [*TORCHRUN, "-m", "tests.training.distributed_step", str(prepared), str(tmp_path), *weightings]
    subprocess.run(command, check=True, cwd=ROOT, env=ENVIRONMENT, timeout=240)
    for weighting in weightings:
        first, second = (load_file(tmp_path / f"{weighting}-{rank}.safetensors") for rank in (0, 1))
        assert all(torch.equal(first[name], second[name]) for name in first)
        if weighting == "pcgrad":  # its order is random
            continue
        expected = gradients(prepared, weighting)
        assert first.keys() == expected.keys()
        for name, value in expected.items():
            if "sampled" in weighting and "separate" in name:  # of four sessions, some units are at the kink of their ReLU
                continue
            scale = float(value.abs().max())
            # The bias of a layer before a batch norm has the gradient 0, in float32 up to some 1e-6.
            torch.testing.assert_close(
                first[name], value, atol=5e-6 + 1e-4 * scale, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
            )


def processes_of(parent: int) -> dict[int, int]:
    """Rank to process id of the children of torchrun."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            variables = dict(part.split("=", 1) for part in (folder / "environ").read_text().split("\0") if "=" in part)
        except OSError:
            continue
        if int(status[1]) == parent and "RANK" in variables:
            found[int(variables["RANK"])] = int(folder.name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("share", "message", "resumed_processes", "by_torchrun"),
    [("1", "is of epoch", "1", False), ("0.5", "its part of the subjects' centres is lost; the last checkpoint is", "2", True)],
    ids=["all centres", "sharded centres"],
)
def test_a_training_survives_the_kill_of_one_process(
    prepared: Path, tmp_path: Path, share: str, message: str, resumed_processes: str, by_torchrun: bool
) -> None:
    config = small_config(prepared, epochs=8, checkpoint_minutes=0)
    write_config(tmp_path, config)
    settings = ["--batch.people", "4", "--device", "cpu", "--loss.sampled_subject_share", share]
    train = ["-m", "fr_ps", "train", "--config", "config.yaml", *settings]
    environment = ENVIRONMENT | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    log = tmp_path / "log.txt"
    with log.open("w") as output:
        command = [*TORCHRUN, *train] if by_torchrun else [sys.executable, *train, "--processes", "2"]
        launcher = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output)
        deadline = time.monotonic() + 240
        while not list((tmp_path / "runs").glob("*/checkpoints/resume/000002")):
            assert launcher.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(processes_of(launcher.pid)[1], signal.SIGKILL)
        assert launcher.wait(timeout=120) == (1 if by_torchrun else 128 + signal.SIGKILL)
    (folder,) = (tmp_path / "runs").iterdir()
    printed = log.read_text()
    (line,) = [line for line in printed.splitlines() if line.startswith("error: another process of this training ended")]
    assert str(list_checkpoints(folder)[0].relative_to(tmp_path)) in line
    assert message in line
    assert f"fr-ps train --resume {folder.name}" in line
    assert ("error: process 1 of 2 was ended by SIGKILL; see the lines above" in printed) == (not by_torchrun)
    own = printed.split("fr_ps FAILED")[0].split("ChildFailedError")[0].split("torch/distributed")[0] if by_torchrun else printed
    assert "Traceback" not in own

    resume = [sys.executable, "-m", "fr_ps", "train", "--resume", folder.name, "--processes", resumed_processes]
    subprocess.run(resume, check=True, cwd=tmp_path, env=environment, timeout=240)
    events = [event for _, event in read_events(folder / JOURNAL_FILE)]
    assert [event.data["status"] for event in events if event.kind == "status"][-1] == "FINISHED"
    steps = [event.data["step"] for event in events if event.kind == "metrics" and "train/loss/total" in event.data["values"]]
    assert steps == list(range(1, 9))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "words", "begins"),
    [
        (
            ["--batch.people", "3", "--data.test_people", "0"],
            "3 subjects (2 sessions each), which 2 processes cannot share equally",
            False,
        ),
        (
            ["--batch.people", "4", "--optim.name", "sgd", "--optim.lr", "1000", "--optim.clip", "0", "--train.bad_steps", "1"],
            "lower optim.lr (now 1000); continue with another learning rate: fr-ps train --resume",
            True,
        ),
    ],
    ids=["a batch that does not divide", "a diverged training"],
)
def test_an_error_of_all_processes_is_printed_once_by_the_main_one(
    prepared: Path, tmp_path: Path, flags: list[str], words: str, begins: bool
) -> None:
    """A setting that cannot be used leaves no run; a training that fails is FAILED."""
    write_config(tmp_path, small_config(prepared))
    environment = ENVIRONMENT | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    command = [sys.executable, "-m", "fr_ps", "train", "--config", "config.yaml", "--device", "cpu", "--processes", "2", *flags]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert not any(word in done.stderr for word in ("Traceback", "torch/distributed", "ChildFailedError"))
    assert words in line
    if not begins:
        assert not (tmp_path / "runs").exists()
        return
    (folder,) = (tmp_path / "runs").iterdir()
    statuses = [event.data["status"] for _, event in read_events(folder / JOURNAL_FILE) if event.kind == "status"]
    assert statuses[-1] == "FAILED"
