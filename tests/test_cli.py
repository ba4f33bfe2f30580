"""Output and exit codes of the commands."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from fr_ps import __version__
from fr_ps.cli import main
from fr_ps.tracking import lifecycle
from tests.conftest import MakeStore

TINY = [
    "--model.backbone=timm:test_resnet",
    "--model.channels=16",
    "--model.reduction=8",
    "--train.epochs=1",
    "--batch.people=3",
    "--batch.sessions=2",
]
PARTS = ["--data.val_people=2", "--data.test_people=2"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_store: MakeStore, undrawn: None) -> Path:
    """An empty folder to work in, with a store of its own."""
    import mlflow

    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", make_store(tmp_path))
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # of an earlier test, which would take precedence
    return tmp_path


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
    assert printed[-2] == f"run id: {printed[-1]}"
    assert main(["runs"]) == 0
    listed = capsys.readouterr().out.splitlines()
    for name in ("val/identity/auc", "test/identity/auc"):
        assert f" {run.data.metrics[name]:.4f}" in listed[-1]
    assert max(map(len, listed)) <= 100


def test_evaluate_gives_the_test_metrics_of_the_training(here, prepared, capsys):
    assert main(["train", f"--data.root={prepared}", *TINY, *PARTS]) == 0
    run = capsys.readouterr().out.strip().splitlines()[-1]
    assert main(["evaluate", f"--model={run}", f"--data={prepared}", "--out=scored", "--split=test"]) == 0
    scored = json.loads(Path("scored/metrics.json").read_text())["metrics"]
    (report,) = Path("runs").glob("*/report/metrics.json")
    trained = json.loads(report.read_text())["metrics"]
    assert scored == pytest.approx({name: value for name, value in trained.items() if name.startswith("test/")}, abs=1e-6)
    second = MlflowClient().get_run(capsys.readouterr().out.strip().splitlines()[-1])
    assert second.data.metrics["test/identity/auc"] == scored["test/identity/auc"]
    tested = {name: value for name, value in MlflowClient().get_run(run).data.metrics.items() if name.startswith("test/")}
    assert second.data.metrics == pytest.approx(tested, abs=1e-6)
    assert second.info.run_name == f"evaluate {MlflowClient().get_run(run).info.run_name} on {prepared.name} test"
    assert Path("scored/report.html").is_file()
    assert main(["evaluate", f"--model={run}", f"--data={prepared}", "--out=all"]) == 0
    assert "6 subjects, 24 sessions" in Path("all/report.html").read_text()


def test_evaluations_that_cannot_begin_leave_no_run_and_the_others_print_whose_model_is_evaluated(
    here, prepared, capsys, command_error
):
    assert main(["train", f"--data.root={prepared}", *TINY, *PARTS]) == 0
    mlflow_id = capsys.readouterr().out.strip().splitlines()[-1]
    (folder,) = Path("runs").iterdir()
    given = [f"--model={mlflow_id[:8]}", f"--data={prepared}"]
    Path("pairs.csv").write_text("id_a\n")
    for wrong in (["--data=nowhere"], ["--split=tets"], ["--pairs=pairs.csv"], ["--device=mps"]):
        command_error("evaluate", *given, "--out=scored", *wrong)
        command_error("compare", *given, f"--model={folder}", *wrong)
    command_error("promote", "--model=models:/nothing/1")
    assert list(Path("runs").iterdir()) == [folder]
    assert main(["compare", *given, f"--model={folder}", "--split=test"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert f"A = the first model: {mlflow_id[:8]} is the model of run {folder.name} (timm:test_resnet on albedo)" in printed
    assert f"B = the second model: {folder} is the model of run {folder.name} (timm:test_resnet on albedo)" in printed


def test_the_gallery_part_of_a_training_can_be_evaluated(here, prepared, capsys):
    assert (
        main(["train", f"--data.root={prepared}", *TINY, *PARTS, "--data.gallery=2", "--data.only", "{Pose: [1, 2, 3, 4, 5]}"])
        == 0
    )
    printed = capsys.readouterr().out.strip().splitlines()
    assert "test: 4 sessions of 2 subjects" in printed
    assert "gallery: 4 sessions of 2 subjects" in printed
    run = printed[-1]
    (split,) = Path("runs").glob("*/split.csv")
    assert split.read_text().count(",gallery") == 4
    assert main(["evaluate", f"--model={run}", f"--data={prepared}", "--out=scored", "--split=gallery"]) == 0
    assert set(json.loads(Path("scored/metrics.json").read_text())["metrics"]) >= {"gallery/identity/auc"}
    again = ["train", f"--data.root={prepared}", *TINY, f"--data.split={split}", "--data.subsample_sessions=3"]
    assert main(again) == 0
    printed = capsys.readouterr().out.strip().splitlines()
    assert "left out: 6 sessions: beyond 3 of each subject (data.subsample_sessions)" in printed
    settings = yaml.safe_load(
        next(path for path in Path("runs").glob("*/config.yaml") if path.parent != split.parent).read_text()
    )
    assert settings["data"]["split"] == str(split.resolve())


def test_a_training_reports_classes_missing_from_a_part(here, prepared, capsys):
    root = shutil.copytree(prepared, here / "set")
    lines = (root / "labels.csv").read_text().splitlines()
    header = lines[0].split(",")
    rows = [line.split(",") for line in lines[1:]]
    for row in rows:
        row[header.index("Gender")] = "female" if row[0] == "S000" else "male"
    (root / "labels.csv").write_text("\n".join(map(",".join, [header, *rows])) + "\n")
    assert main(["train", "--data.root=set", *TINY, *PARTS]) == 0
    assert re.search(r"not stratified: no session of \w+ and \w+ has gender female", capsys.readouterr().out)


def test_prepare_reports_written_and_skipped_sessions_with_reasons(here, capsys):
    assert main(["data", "synthetic", "--out=raw", "--people=2", "--sessions=2", "--size=32"]) == 0
    (here / "raw/captures/S000/s00/im1.png").unlink()
    capsys.readouterr()
    assert main(["prepare", "--captures=raw/captures", "--labels=raw/labels.csv", "--out=set", "--size=32", "--on-bad=skip"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"written +3", printed)
    assert re.search(r"skipped +1", printed)
    assert "im1.png: no such image" in printed
    assert "S000,s00,skipped" in Path("set/prepare.csv").read_text()


def test_prepare_reports_the_alignment_and_warns_of_another_light_convention(here, capsys):
    assert main(["data", "synthetic", "--out=raw", "--layout=photoface", "--people=2", "--sessions=2", "--size=48"]) == 0
    (here / "raw/S001/s01/metadata.txt").unlink()
    capsys.readouterr()
    assert main(["prepare", "--captures=raw", "--out=set", "--size=32"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"written +4", printed)
    assert re.search(r"aligned by landmarks +3", printed)
    assert re.search(r"whole picture +1", printed)
    assert "warning" not in printed
    assert printed.strip().endswith("prepared data set: set")
    assert main(["prepare", "--captures=raw", "--out=set", "--size=32", "--light-axes=-xy"]) == 0
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert "mirrored in x" in warning
    assert "--light-axes=xy" in warning


def test_photoface_captures_train_a_model_with_default_settings(here, capsys):
    assert main(["data", "synthetic", "--out=raw", "--layout=photoface", "--people=6", "--sessions=3", "--size=48"]) == 0
    assert main(["prepare", "--captures=raw", "--out=set", "--size=32"]) == 0
    assert main(["data", "summary", "--data.root=set"]) == 0
    printed = capsys.readouterr().out
    assert "18 sessions of 6 subjects, raw labels" in printed
    assert "quality_residual" in printed
    assert Path("set/contact_sheet.png").is_file()
    assert main(["data", "check", "--data.root=set"]) == 0
    assert main(["data", "split", "--data.root=set", *PARTS]) == 0
    assert Path("split.csv").read_text().count("\n") == 19
    assert main(["train", "--data.root=set", *TINY, *PARTS]) == 0
    run = capsys.readouterr().out.strip().splitlines()[-1]
    assert MlflowClient().get_run(run).info.status == "FINISHED"


def test_conflicting_settings_of_prepare_are_errors(here, command_error):
    assert main(["data", "synthetic", "--out=raw", "--people=2", "--sessions=1", "--size=32"]) == 0
    asked = ["prepare", "--captures=raw/captures", "--out=set", "--size=32"]
    assert "integrable" in command_error(*asked, "--prior=mean.npy")
    assert "integrable" in command_error(*asked, "--prior=mean.npy", "--solver=least_squares")
    assert "mean.npy: no such mean face" in command_error(*asked, "--prior=mean.npy", "--solver=integrable")
    assert "boxes" in command_error(*asked, "--align=boxes")
    assert "align" in command_error(*asked, "--align=landmarks", "--boxes=boxes.csv")
    assert "boxes.csv: no such file" in command_error(*asked, "--boxes=boxes.csv")
    assert "metadata.txt: no such file" in command_error(*asked, "--align=landmarks")
    assert "least_squares" in command_error(*asked, "--solver=magic")
    assert "frankot_chellappa" in command_error(*asked, "--integration=path")
    assert "-xy" in command_error(*asked, "--light-axes=zx")
    assert "ambient" in command_error(*asked, "--estimate-ambient=true")
    assert not list(Path("set").rglob("*.npy"))


def test_bad_input_prints_only_the_error(here, prepared, command_error):
    assert "nowhere" in command_error("prepare", "--captures=nowhere", "--out=x")
    assert "nowhere" in command_error("train", "--data.root=nowhere")
    assert "convnextv2_atto" in command_error("train", "--model.backbone=resnet")
    assert "data.root" in command_error("train", "--data.rot=x")
    assert "nothing" in command_error("evaluate", "--model=nothing", f"--data={prepared}", "--out=x")
    assert "prepare" in command_error("trane")
    assert "device" in command_error("train", f"--data.root={prepared}", "--device=mps", *PARTS)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--data.root=nowhere"],
        ["--device=mps"],
        ["--data.test_people=1", "--data.val_people=1"],
        ["--model.backbone=timm:test_resnett"],
        ["--model.weights=missing.safetensors"],
        ["--train.select=val/identity/aucc"],
    ],
    ids=str,
)
def test_a_training_that_cannot_begin_leaves_no_run(here, prepared, command_error, wrong):
    command_error("train", f"--data.root={prepared}", *TINY, *PARTS, *wrong)
    assert not Path("runs").exists()
    client = MlflowClient()
    assert not client.search_runs([one.experiment_id for one in client.search_experiments()])


def test_a_training_without_a_server_is_delivered_by_sync(here, prepared, capsys, monkeypatch, command_error):
    store = os.environ["MLFLOW_TRACKING_URI"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        unreachable = f"http://127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", unreachable)
    monkeypatch.setattr(lifecycle, "_TIMEOUT", 1.0)
    assert main(["train", f"--data.root={prepared}", *TINY, *PARTS]) == 0
    printed = capsys.readouterr()
    (folder,) = (here / "runs").glob("*/")
    assert printed.out.strip().splitlines()[-1] == folder.name  # ours, as MLflow gave none yet
    assert "events not delivered to MLflow" in printed.err
    assert printed.err.strip().endswith("deliver them with: fr-ps sync")
    assert main(["runs"]) == 0
    listed = capsys.readouterr().out
    assert "FINISHED" in listed
    assert "deliver them with: fr-ps sync" in listed
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert f"1 run is not delivered; {folder.name} to {unreachable}: " in command_error("sync")  # a run belongs to its store
    assert main(["sync", "--run", folder.name, "--store", store]) == 0
    (run,) = MlflowClient(store).search_runs([MlflowClient(store).get_experiment_by_name("fr-ps").experiment_id])
    assert run.info.run_id in capsys.readouterr().out
    assert run.info.status == "FINISHED"
    assert run.data.metrics["train/skipped_steps"] == 0
    assert main(["sync"]) == 0
    assert "All events of all runs are delivered" in capsys.readouterr().out


def test_runs_delivers_the_status_of_interrupted_runs(here, capsys):
    assert main(["runs"]) == 0
    assert "no runs under" in capsys.readouterr().out
    code = "import os, time; from pathlib import Path; from fr_ps.tracking.lifecycle import start_run\n"
    code += "with start_run('x', Path('runs')) as run:\n    while not run.mlflow_id: time.sleep(0.1)\n    os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert main(["runs"]) == 0
    assert "KILLED (interrupted)" in capsys.readouterr().out
    (run,) = MlflowClient().search_runs([MlflowClient().get_experiment_by_name("fr-ps").experiment_id])
    assert run.info.status == run.data.tags["fr_ps.status"] == "KILLED"


def test_an_unknown_run_is_an_error(here, command_error):
    assert "no such run" in command_error("sync", "--run", "abc")
    assert "no such run" in command_error("train", "--resume", "abc")
    assert "no such run" in command_error("train", "--resume=abc")
    assert "no training under" in command_error("train", "--resume")
    assert "no training under" in command_error("train", "--resume", "--optim.lr", "1")
    assert "--resume is empty" in command_error("train", "--resume=")
    assert "--resume is empty" in command_error("train", "--resume", "")
    assert "unknown flag --resume" in command_error("runs", "--resume")


def test_data_synthetic_does_not_overwrite(here, command_error):
    (here / "raw").mkdir()
    assert "raw" in command_error("data", "synthetic", "--out=raw")


def test_data_synthetic_writes_the_layout_of_photoface(here, capsys, command_error):
    arguments = ["--out=raw", "--layout=photoface", "--people=2", "--sessions=1", "--size=32"]
    assert main(["data", "synthetic", *arguments]) == 0
    assert capsys.readouterr().out.strip().endswith("captures: raw")
    assert sorted(path.name for path in (here / "raw" / "S001" / "s00").iterdir()) == [
        "LightSource.m",
        *(f"im{k}.bmp" for k in range(4)),
        "metadata.txt",
        "metadataII.txt",
    ]
    assert "plain" in command_error("data", "synthetic", "--out=other", "--layout=flat")


def test_models_prints_the_cost_of_every_backbone(here, capsys, monkeypatch):
    backbones = ("miresnet18", "irse50", "convnextv2_atto")  # tests/models/test_models.py builds all of them
    monkeypatch.setattr("fr_ps.commands.models.BACKBONES", backbones)
    assert main(["models", "--size=64", "--channels-in=3", "--smoke=false"]) == 0
    printed = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line.startswith(("mires", "irse", "conv"))}
    assert tuple(rows) == backbones
    assert rows["miresnet18"][-5:] == ["512", "x", "4", "x", "4"]
    assert "3 x 64 x 64" in printed


def test_models_times_a_step_of_a_timm_network(here, capsys, command_error):
    assert main(["models", "--backbone=timm:test_vit", "--size=32", "--device=cpu"]) == 0
    header, _, row, *_ = capsys.readouterr().out.splitlines()
    assert "step (s)" in header
    assert row.startswith("timm:test_vit")
    assert "expected one of" in command_error("models", "--backbone=resnet")
    assert "timm:resnet19" in command_error("models", "--backbone=timm:resnet19")
    assert "size" in command_error("models", "--size=0")


def test_python_m_fr_ps_and_the_script_behave_the_same():
    script = Path(sys.executable).with_name("fr-ps")
    for command in ([str(script)], [sys.executable, "-m", "fr_ps"]):
        assert (
            subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1] == __version__
        )


def test_an_internal_error_is_a_traceback_and_exit_code_1():
    patched = "import fr_ps.photometric.sources as sources\nsources.list_sources = lambda *_: 1 / 0"
    code = f"{patched}\nimport sys; from fr_ps.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "prepare", "--captures=a", "--out=b"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
