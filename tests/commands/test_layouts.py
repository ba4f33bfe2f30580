"""Captures in each layout, as they are, through the commands: prepare, train, predict."""

from pathlib import Path

import mlflow
import pandas as pd
import pytest

from fr_ps.photometric.lights import light_directions
from tests.conftest import Command, MakeStore

pytestmark = pytest.mark.slow
TINY = ["--model.backbone=timm:test_resnet", "--model.channels=16", "--model.fsm=false", "--train.epochs=1"]
PARTS = ["--data.val_people=2", "--data.test_people=1", "--batch.people=2", "--batch.sessions=2"]


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_store: MakeStore, undrawn: None) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", make_store(tmp_path))
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # of an earlier test, which would take precedence


def replace_angles_by_vectors(captures: Path) -> None:
    for file in captures.rglob("lights.csv"):
        rows = [line.split(",") for line in file.read_text().splitlines()[1:]]
        directions = light_directions([[float(angle) for angle in angles] for _, *angles in rows])
        lines = [",".join([name, *map(str, light)]) for (name, *_), light in zip(rows, directions.tolist())]
        file.write_text("\n".join(["image,x,y,z", *lines]))


@pytest.mark.parametrize("layout", ["plain", "diligent", "lp"])
def test_a_layout_goes_from_the_folder_to_predictions(layout: str, run_command: Command) -> None:
    """`lp` has one file of lights above all sessions; `plain` has vectors; `diligent` has masks, and intensities by colour."""
    run_command("data", "synthetic", "--out", "faces", "--layout", layout, "--people", 6, "--sessions", 3, "--size", 48)
    captures = Path("faces/captures")
    replace_angles_by_vectors(captures)
    output = run_command("prepare", "--captures", captures, "--labels", "faces/labels.csv", "--out", "data", "--size", 48)
    assert f"layout: {layout} (18 sessions)" in output
    model = run_command("train", "--data.root=data", *TINY, *PARTS).split()[-1]
    output = run_command("predict", "--model", model, "--captures", captures, "--out", "captures.csv")
    assert "warning" not in output
    run_command("predict", "--model", model, "--data", "data", "--out", "maps.csv")
    found, expected = (pd.read_csv(name).sort_values(["id", "session"]) for name in ("captures.csv", "maps.csv"))
    assert found[["id", "session"]].values.tolist() == expected[["id", "session"]].values.tolist()
    assert found["quality"].to_numpy() == pytest.approx(expected["quality"].to_numpy(), rel=1e-4)
    some = [line.split(",") for line in Path("faces/labels.csv").read_text().splitlines()[1:4]]
    Path("some.csv").write_text("id,session\n" + "".join(f"{subject},{session}\n" for subject, session, *_ in some))
    model_and_captures = ["--model", model, "--captures", captures, "--labels", "some.csv", "--gallery", "gallery"]
    assert "enrolled 3 sessions of 1 subjects" in run_command("enroll", *model_and_captures)
    assert "rank 1 correct: 3" in run_command("identify", *model_and_captures, "--threshold", "0.5")
    assert "3 of 3 claims accepted" in run_command("verify", *model_and_captures, "--threshold", "0.5")


def test_captures_of_another_rig_get_one_warning_in_each_command(run_command: Command) -> None:
    run_command("data", "synthetic", "--out", "faces", "--people", 6, "--sessions", 3, "--size", 48)
    run_command("prepare", "--captures", "faces/captures", "--labels", "faces/labels.csv", "--out", "data", "--size", 48)
    model = run_command("train", "--data.root=data", *TINY, *PARTS).split()[-1]
    for file in Path("faces/captures").rglob("lights.csv"):
        first, *rows = [line.split(",") for line in file.read_text().splitlines()]
        raised = [[name, azimuth, str(float(elevation) + 25)] for name, azimuth, elevation in rows]
        file.write_text("\n".join(map(",".join, [first, *raised])))
    common = ["--model", model, "--captures", "faces/captures"]
    gallery = ["--gallery", "gallery"]
    for command in (
        ["predict", *common, "--out", "out.csv"],
        ["enroll", *common, *gallery],
        ["identify", *common, *gallery, "--threshold", "0.5"],
        ["verify", *common, *gallery, "--threshold", "0.5"],
    ):
        (line,) = [line for line in run_command(*command).splitlines() if line.startswith("warning:")]
        assert "18 of 18 captures are unlike those of the training data, e.g. S000/s00: mean light direction 28 degrees" in line
