"""The command line as a user meets it: what it prints, and its exit codes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from fr_ps import __version__
from fr_ps.cli import main

TINY = ["--model.channels=16", "--model.reduction=8", "--train.epochs=1", "--batch.people=3", "--batch.sessions=2"]
PARTS = ["--data.val_people=2", "--data.test_people=2"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a store of its own."""
    import mlflow

    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which the command line refuses `arguments`."""
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


def test_train_prints_a_table_and_last_the_id_of_a_finished_run(here, prepared, capsys):
    assert main(["train", f"--data.root={prepared}", *TINY, *PARTS]) == 0
    printed = capsys.readouterr().out.strip().splitlines()
    assert re.fullmatch("[0-9a-f]{32}", printed[-1])
    run = MlflowClient().get_run(printed[-1])
    assert run.info.status == "FINISHED"
    assert run.data.params["model/channels"] == "16"
    assert run.data.tags["fr_ps.modality"] == "albedo"
    assert 0 <= run.data.metrics["test/identity/auc"] <= 1
    assert {file.path for file in MlflowClient().list_artifacts(printed[-1], "checkpoints/best")} > {
        "checkpoints/best/model.safetensors"
    }
    assert any(line.startswith("identity/auc") for line in printed)


def test_evaluate_scores_the_test_part_as_the_training_did(here, prepared, capsys):
    assert main(["train", f"--data.root={prepared}", *TINY, *PARTS]) == 0
    run = capsys.readouterr().out.strip().splitlines()[-1]
    assert main(["evaluate", f"--model={run}", f"--data={prepared}", "--out=scored", "--split=test"]) == 0
    scored = json.loads(Path("scored/metrics.json").read_text())["metrics"]
    trained = MlflowClient().get_run(run).data.metrics
    assert {name: value for name, value in scored.items() if value is not None} == pytest.approx(
        {name: value for name, value in trained.items() if name.startswith("test/")}, abs=1e-6
    )
    second = capsys.readouterr().out.strip().splitlines()[-1]
    assert MlflowClient().get_run(second).data.metrics["test/identity/auc"] == scored["test/identity/auc"]
    assert Path("scored/report.html").is_file()
    assert main(["evaluate", f"--model={run}", f"--data={prepared}", "--out=all"]) == 0
    assert "6 people, 24 sessions" in Path("all/report.html").read_text()


def test_prepare_says_what_it_read_and_what_it_skipped_and_why(here, capsys):
    assert main(["data", "synthetic", "--out=raw", "--people=2", "--sessions=2", "--size=32"]) == 0
    (here / "raw/captures/S000/s00/im1.png").unlink()
    capsys.readouterr()
    assert main(["prepare", "--captures=raw/captures", "--labels=raw/labels.csv", "--out=set", "--size=32", "--on-bad=skip"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"written +3", printed)
    assert re.search(r"skipped +1", printed)
    assert "im1.png: no such image" in printed
    assert "S000,s00,skipped" in Path("set/prepare.csv").read_text()


def test_nothing_but_the_error_is_printed_for_bad_input(here, prepared, capsys):
    assert "nowhere" in refused(capsys, "prepare", "--captures=nowhere", "--out=x")
    assert "nowhere" in refused(capsys, "train", "--data.root=nowhere")
    assert "convnextv2_atto" in refused(capsys, "train", "--model.backbone=resnet")
    assert "data.root" in refused(capsys, "train", "--data.rot=x")
    assert "nothing" in refused(capsys, "evaluate", "--model=nothing", f"--data={prepared}", "--out=x")
    assert "prepare" in refused(capsys, "trane")
    assert "device" in refused(capsys, "train", f"--data.root={prepared}", "--device=mps", *PARTS)


def test_a_refused_training_is_a_failed_run(here, prepared, capsys):
    refused(capsys, "train", f"--data.root={prepared}", "--data.test_people=1", "--data.val_people=1", *TINY)
    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("fr-ps").experiment_id])
    assert run.info.status == "FAILED"


def test_data_synthetic_keeps_what_is_there(here, capsys):
    (here / "raw").mkdir()
    assert "raw" in refused(capsys, "data", "synthetic", "--out=raw")


def test_module_and_script_are_the_same():
    script = Path(sys.executable).with_name("fr-ps")
    for command in ([str(script)], [sys.executable, "-m", "fr_ps"]):
        assert (
            subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1] == __version__
        )


def test_a_fault_of_ours_is_a_traceback_and_exit_code_1():
    code = "import fr_ps.cli as c\nc.COMMANDS['prepare'] = lambda a: 1 / 0\nimport sys; sys.exit(c.main())"
    command = [sys.executable, "-c", code, "prepare", "--captures=a", "--out=b"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
