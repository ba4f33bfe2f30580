"""The commands that use a trained run: predict, gallery commands, evaluate, export and the model registry."""

import re
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient

from fr_ps.data.dataset import open_dataset
from fr_ps.data.split_files import SPLIT_FILE, read_part
from fr_ps.models.folder import load_model
from fr_ps.models.inference import predict
from tests.conftest import Command, MakeStore

SETTINGS = ["--model.backbone=timm:test_resnet", "--model.channels=16", "--model.fsm=false", "--train.epochs=2"]
PARTS = ["--data.val_people=2", "--data.test_people=2", "--batch.people=2", "--batch.sessions=2"]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, make_store: MakeStore) -> Path:
    folder = tmp_path_factory.mktemp("serving")
    make_store(folder)
    return folder


@pytest.fixture(autouse=True)
def inside(here: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> None:
    monkeypatch.chdir(here)
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/mlflow.db")
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # of an earlier test, which would take precedence


@pytest.fixture
def run(here: Path, prepared: Path, run_command: Command) -> str:
    """The MLflow id of a run that is trained once, registered and the champion."""
    known = here / "run.txt"
    if not known.exists():
        known.write_text(run_command("train", f"--data.root={prepared}", *SETTINGS, *PARTS).split()[-1])
        assert run_command("register", "--model", known.read_text(), "--name", "fr-ps").split()[-1] == "models:/fr-ps/1"
        output = run_command("promote", "--model", "models:/fr-ps/1")
        assert "models:/fr-ps/1 is now the champion" in output
    return known.read_text()


def test_predict_equals_the_test_evaluation_of_the_training_to_the_bit(
    run: str, here: Path, prepared: Path, run_command: Command
) -> None:
    output = run_command("predict", "--model", run, "--data", prepared, "--split", "test", "--out", "test.parquet")
    assert "8 sessions: test.parquet" in output
    table = pd.read_parquet("test.parquet")
    (folder,) = [path for path in here.glob("runs/*") if (path / "report/scores.parquet").exists()]
    scores = pd.read_parquet(folder / "report/scores.parquet")
    keys = {(row.id_a, row.session_a, row.id_b, row.session_b): row.score for row in scores.itertuples()}
    assert len(keys) == 28
    place = {key: index for index, key in enumerate(zip(table["id"], table["session"]))}
    unit = np.stack(table["embedding"]) / np.linalg.norm(np.stack(table["embedding"]), axis=1, keepdims=True)
    for (a, b, c, d), score in keys.items():
        assert score == pytest.approx(float(unit[place[a, b]] @ unit[place[c, d]]), abs=2e-6)
    # The computation of `evaluate`, on the test part of the training.
    best = folder / "checkpoints/best"
    dataset = open_dataset(prepared, ["albedo"])
    rows = read_part(best / SPLIT_FILE, "test", dataset.labels)
    answers = predict(load_model(best, torch.device("cpu"))[0], dataset.store, rows, 64)
    assert np.array_equal(np.stack(table["embedding"]), answers.embeddings)


def test_the_champion_predicts_from_prepared_maps_and_from_captures(
    run: str, prepared: Path, captures: Path, run_command: Command
) -> None:
    run_command("predict", "--model", "models:/fr-ps@champion", "--data", prepared, "--out", "maps.csv")
    run_command("predict", "--model", run, "--captures", captures, "--out", "light.csv")
    maps, light = (pd.read_csv(name).set_index(["id", "session"]).sort_index() for name in ("maps.csv", "light.csv"))
    assert list(maps.index) == list(light.index)
    assert np.allclose(maps["quality"], light["quality"], rtol=1e-4)
    assert maps["gender"].tolist() == light["gender"].tolist()


@pytest.fixture(scope="session")
def captures(prepared: Path) -> Path:
    return prepared.parent / "captures"


def test_gallery_commands_enroll_identify_verify_and_forget_subjects(
    run: str, prepared: Path, run_command: Command, command_error: Command, tmp_path: Path
) -> None:
    labels = pd.read_csv(prepared / "labels.csv", dtype=str)
    people = sorted(labels["id"].unique())
    enrolled = labels[labels["id"].isin(people[:4])].groupby("id").head(2)
    enrolled.to_csv(tmp_path / "enrolled.csv", index=False)
    probes = labels.drop(enrolled.index)
    probes.to_csv(tmp_path / "probes.csv", index=False)
    gallery = ["--gallery", tmp_path / "gallery"]
    model = ["--model", run, "--data", prepared]
    output = run_command("enroll", *model, *gallery, "--labels", tmp_path / "enrolled.csv")
    assert "enrolled 8 sessions of 4 subjects" in output
    output = run_command(
        "identify", *model, *gallery, "--labels", tmp_path / "probes.csv", "--out", tmp_path / "identified.csv", "--fmr", "0.1"
    )
    assert "for a false match rate of 0.1" in output
    found = pd.read_csv(tmp_path / "identified.csv", dtype=str)
    assert len(found) == len(probes)
    assert set(found["identified"]) <= {*people[:4], "unknown"}
    first = sum(row["most alike"].split()[0] == row["id"] for _, row in found.iterrows() if row["id"] in people[:4])
    assert f"rank 1 correct: {first}" in output
    everything = run_command("identify", *model, *gallery, "--labels", tmp_path / "probes.csv", "--threshold", "-1")
    assert "8 sessions of subjects that are not enrolled: 0 unknown" in everything
    none = run_command("identify", *model, *gallery, "--labels", tmp_path / "probes.csv", "--threshold", "1")
    assert "8 sessions of subjects that are not enrolled: 8 unknown" in none
    output = run_command(
        "verify", *model, *gallery, "--labels", tmp_path / "probes.csv", "--person", people[0], "--threshold", "-1"
    )
    assert "16 of 16 claims accepted" in output
    assert "not enrolled in" in command_error("verify", *model, *gallery, "--person", "unenrolled")
    output = run_command("verify", *model, *gallery, "--out", tmp_path / "claims.csv", "--threshold", "-1")
    assert "16 of 24 claims accepted" in output
    assert (tmp_path / "claims.csv").read_text().count("not enrolled") == 8
    sessions = ", ".join(enrolled["session"][enrolled["id"] == people[0]])
    removed = run_command("forget", *gallery, "--person", people[0])
    assert re.search(rf"removed 2 sessions of {people[0]} from .*: {sessions}\n", removed)
    assert "is not enrolled" in command_error("forget", *gallery, "--person", people[0])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["predict", "--labels", "LABELS", "--out", "LABELS"], "probes.csv: would replace the input --labels"),
        (["predict", "--labels", "probes.failed.csv", "--out", "probes.parquet"], "probes.failed.csv: would replace the input"),
        (["predict", "--out", "DATA/labels.csv"], "labels.csv: would replace a file of the input --data"),
        (["predict", "--out", "MODEL/split.csv"], "split.csv: would replace a file of the input --model"),
        (["identify", "--gallery", "GALLERY", "--out", "GALLERY/people.csv"], "would replace a file of the input --gallery"),
        (["identify", "--gallery", "GALLERY", "--labels", "LABELS", "--out", "LABELS"], "probes.csv: would replace the input"),
        (["verify", "--gallery", "GALLERY", "--labels", "LABELS", "--out", "LABELS"], "probes.csv: would replace the input"),
        (["enroll", "--gallery", "DATA"], "would replace the input --data"),
        (["enroll", "--gallery", "GALLERY", "--labels", "GALLERY/people.csv"], "would replace the input --labels"),
        (["evaluate", "--out", "DATA"], "is the input --data"),
        (["evaluate", "--out", "MODEL"], "is inside runs"),
        (["evaluate", "--out", "."], "is or contains runs"),
        (["evaluate", "--out", "runs/RUN/report"], "is inside runs"),
        (["evaluate", "--pairs", "report/tables/pairs.csv", "--out", "report"], "report: contains the input --pairs"),
        (["compare", "--model", "RUN", "--out", "DATA"], "is the input --data"),
        (["export", "--out", "MODEL"], "is the input --model"),
        (["export", "--out", "DATA"], "is the input --data"),
    ],
)
def test_an_output_that_is_an_input_is_rejected_and_untouched(
    run: str, here: Path, prepared: Path, run_command: Command, command_error: Command, arguments: list[str], line: str
) -> None:
    labels = pd.read_csv(prepared / "labels.csv", dtype=str)[["id", "session"]].head(4)
    (here / "report/tables").mkdir(parents=True, exist_ok=True)
    for name in ("probes.csv", "probes.failed.csv", "report/tables/pairs.csv"):
        labels.to_csv(here / name, index=False)
    if not (here / "gallery").exists():
        run_command("enroll", "--model", run, "--data", prepared, "--gallery", "gallery")
    (best,) = here.glob("runs/*/checkpoints/best")
    names = {"LABELS": "probes.csv", "DATA": prepared, "MODEL": best, "GALLERY": "gallery", "RUN": run}
    filled = [re.sub("[A-Z]{3,}", lambda found: str(names[found[0]]), word) for word in arguments]
    files = [path for folder in (prepared, best, here / "gallery") for path in folder.rglob("*") if path.is_file()]
    files += [here / "probes.csv", here / "probes.failed.csv", here / "report/tables/pairs.csv"]
    before = {path: path.read_bytes() for path in files}
    flags = [] if arguments[0] in ("enroll", "export") else ["--overwrite"]
    assert line in command_error(arguments[0], "--model", run, "--data", prepared, *filled[1:], *flags)
    assert {path: path.read_bytes() for path in files} == before


def test_predict_replaces_its_own_output_but_not_a_foreign_file(
    run: str, here: Path, prepared: Path, run_command: Command, command_error: Command
) -> None:
    command = ["predict", "--model", run, "--data", prepared, "--split", "test", "--out", "again.csv"]
    run_command(*command)
    run_command(*command)
    for name in ("again.csv", "again.failed.csv"):
        (here / name).write_text("theirs")
        assert f"{name}: already exists, and fr-ps did not write it" in command_error(*command)
        assert (here / name).read_text() == "theirs"
        run_command(*command, "--overwrite", "true")
    run_command("enroll", "--model", run, "--data", prepared, "--gallery", "of_all")
    identify = ["identify", "--model", run, "--data", prepared, "--gallery", "of_all", "--out", "again.csv"]
    assert "again.csv: already exists, and another command of fr-ps wrote it" in command_error(*identify)
    assert not (here / "again.failed.csv").exists()


def test_a_version_with_the_same_weights_is_not_promoted_and_a_roll_back_is_reported(
    run: str, run_command: Command, command_error: Command
) -> None:
    assert run_command("register", "--model", run, "--name", "fr-ps", "--tags", "{site: lab}").split()[-1] == "models:/fr-ps/2"
    output = run_command("promote", "--model", "models:/fr-ps/2", "--dry-run")
    assert "models:/fr-ps/2 does not become the champion; the champion remains models:/fr-ps/1" in output
    assert "\nchampion: models:/fr-ps/1; challenger: models:/fr-ps/2\n" in output
    assert "not measurably better" in output
    promotion = MlflowClient().get_run(output.split()[-1])
    assert promotion.data.tags["fr_ps.decision"] == "refused"
    assert "has had no other champion" in command_error("promote", "--model", "models:/fr-ps", "--rollback")
    assert "models:/fr-ps/1 is no longer the champion" in run_command("promote", "--model", "models:/fr-ps", "--demote")
    assert "models:/fr-ps/1 is the champion again" in run_command("promote", "--model", "models:/fr-ps", "--rollback")


BAD: list[tuple[list[str], str]] = [
    (["predict", "--model", "RUN", "--data", "DATA", "--out", "x.pkl"], "--out x.pkl: expected a name that ends in"),
    (["predict", "--model", "RUN", "--out", "x.csv"], "expected either --data"),
    (["predict", "--model", "RUN", "--data", "DATA", "--captures", "DATA", "--out", "x.csv"], "expected either --data"),
    (["predict", "--model", "RUN", "--data", "nowhere", "--out", "x.csv"], "nowhere: no such folder"),
    (["predict", "--model", "models:/fr-ps@missing", "--data", "DATA", "--out", "x.csv"], "models:/fr-ps@missing"),
    (["predict", "--model", "models:/none/1", "--data", "DATA", "--out", "x.csv"], "models:/none/1"),
    (["predict", "--model", "x.pkl", "--data", "DATA", "--out", "x.csv"], "x.pkl: no model folder"),
    (["identify", "--model", "RUN", "--data", "DATA", "--gallery", "none"], "none/gallery.json: no such file"),
    (["promote", "--model", "models:/fr-ps/9"], "models:/fr-ps/9"),
    (["promote", "--model", "fr-ps/1"], "expected models:/NAME/VERSION"),
    (["promote", "--model", "models:/fr-ps/1", "--rollback"], "expected models:/NAME"),
    (["promote", "--model", "models:/fr-ps", "--rollback", "--demote"], "expected one of them"),
    (["register", "--model", "nothing", "--name", "fr-ps"], "nothing: no model folder"),
    (["forget", "--gallery", "none", "--person", "anna"], "none: no such gallery"),
]


@pytest.mark.parametrize(("arguments", "expected"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_bad_input_is_one_line(run: str, prepared: Path, command_error: Command, arguments: list[str], expected: str) -> None:
    Path("x.pkl").write_bytes(b"\x80\x04N.")
    real = {"RUN": run, "DATA": str(prepared)}
    assert expected in command_error(*(real.get(word, word) for word in arguments))


def test_unreadable_sessions_are_listed_beside_the_predictions(
    run: str, prepared: Path, run_command: Command, tmp_path: Path
) -> None:
    shutil.copytree(prepared, tmp_path / "data")
    file = next((tmp_path / "data").rglob("albedo.npy"))
    file.write_bytes(b"nothing")
    output = run_command("predict", "--model", run, "--data", tmp_path / "data", "--out", tmp_path / "x.npz")
    assert "1 sessions failed" in output
    assert "23 sessions" in output
    listed = (tmp_path / "x.failed.csv").read_text()
    assert re.search(rf"{file.parent.parent.name},{file.parent.name},.*albedo.npy: not a readable", listed)
    run_command("predict", "--model", run, "--data", prepared, "--out", tmp_path / "x.npz")
    assert not (tmp_path / "x.failed.csv").exists()


def test_shards_merge_into_the_files_of_one_run(
    run: str, prepared: Path, run_command: Command, command_error: Command, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(prepared, data)
    next(data.rglob("albedo.npy")).write_bytes(b"nothing")
    command = ["predict", "--model", run, "--data", data, "--batch", "5", "--out"]
    for suffix in ("parquet", "npz"):
        whole, out = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
        run_command(*command, whole)
        for shard in ("3/3", "1/3"):
            assert f"shard {shard}, " in run_command(*command, out, "--shard", shard)
        assert f"out.{suffix}.shards: shard 2 of 3 missing" in command_error(*command, out, "--merge")
        assert not out.exists()
        run_command(*command, out, "--shard", "2/3")
        output = run_command(*command, out, "--merge")
        assert "1 sessions failed" in output
        assert f"23 sessions: {out}" in output
        assert out.read_bytes() == whole.read_bytes()
        assert (tmp_path / "out.failed.csv").read_bytes() == (tmp_path / "whole.failed.csv").read_bytes()
    assert {path.name for path in tmp_path.iterdir() if "shards" in path.name} == set()
    for bad in ("0/4", "5/4", "a/b", "1/0"):
        assert f"--shard {bad}: expected I/N" in command_error(*command, "x.csv", "--shard", bad)
