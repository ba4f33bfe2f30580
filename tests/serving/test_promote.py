"""Promotion: a challenger must be measurably better, and not worse for any group."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from fr_ps.data.split_files import SPLIT_FILE
from fr_ps.errors import InputError
from fr_ps.evaluation.differences import Difference
from fr_ps.serving.promote import PromotionDecision, decide, promote
from fr_ps.serving.registry import ModelVersion, get_champion, register
from fr_ps.tracking.layout import BEST_CHECKPOINT
from fr_ps.tracking.lifecycle import start_run
from tests.serving.conftest import CPU, make_model

NAN = float("nan")


def auc(first: float, second: float, half: float, name: str = "identity/auc") -> Difference:
    value = first - second
    return Difference(name, first, second, value - half, value + half, 0.01)


def test_promotion_needs_an_interval_that_excludes_zero() -> None:
    assert decide([auc(0.80, 0.90, 0.05)], [], 0.05)[0]
    for half in (0.1, 0.2, NAN):
        promoted, reasons = decide([auc(0.80, 0.90, half)], [], 0.05)
        assert not promoted
        assert reasons[0].startswith("not measurably better: identity/auc 0.9000 against the champion's 0.8000, +0.1000")
    promoted, reasons = decide([auc(0.90, 0.80, 0.05)], [], 0.05)
    assert not promoted
    assert reasons[0].startswith("measurably worse")
    assert decide([auc(0.9, 0.8, 0.05, "identity/eer")], [], 0.05) == (False, ("identity/auc cannot be compared on these data",))


def test_a_group_that_loses_more_than_the_limit_prevents_promotion() -> None:
    better = [auc(0.80, 0.90, 0.05)]
    women = auc(0.85, 0.79, 0.2, "groups/gender/female/identity/auc")
    men = auc(0.75, 0.95, 0.2, "groups/gender/male/identity/auc")
    promoted, reasons = decide(better, [women, men], 0.05)
    assert not promoted
    assert [
        line for line in reasons if "worse by more than 0.05: groups/gender/female/identity/auc 0.7900 against 0.8500" in line
    ]
    promoted, reasons = decide(better, [women, men], 0.07)
    assert promoted
    assert "the largest loss is 0.0600 (groups/gender/female/identity/auc)" in reasons[1]
    assert decide(better, [men], 0.07) == (True, (reasons[0], "no group is worse"))


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 subjects, each with an own albedo pattern; depth is noise."""
    root = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    rows = ["id,session,Gender,Spectacles,Facial_Hair,Pose,Emotion"]
    for subject in range(24):
        pattern = rng.normal(size=(4, 4)).repeat(8, axis=0).repeat(8, axis=1)
        for session in range(3):
            folder = root / "data" / f"p{subject:02d}" / f"s{session}"
            folder.mkdir(parents=True)
            np.save(folder / "albedo.npy", (pattern + 0.3 * rng.normal(size=(32, 32))).astype(np.float32))
            np.save(folder / "depth.npy", rng.normal(size=(32, 32)).astype(np.float32))
            gender, glasses = ("male", "female")[subject % 2], ("yes", "no")[subject % 3 == 0]
            rows.append(f"p{subject:02d},s{session},{gender},{glasses},none,1,blankstare")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def models(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained models: random features of albedo separate the subjects, those of depth do not."""
    folder = tmp_path_factory.mktemp("models")
    return {name: make_model(folder / name, faces, name, val=4, test=14) for name in ("albedo", "depth")}


def registered(model: Path, name: str = "faces") -> ModelVersion:
    with start_run("r", Path("runs")) as run:
        shutil.copytree(model, run.folder / BEST_CHECKPOINT)
        run.log_model(run.folder / BEST_CHECKPOINT, 1)
    return register(run.id, name)


def promoted(version: ModelVersion, **settings) -> tuple[PromotionDecision, str]:  # type: ignore[no-untyped-def]
    """The decision, and MLflow's id of the run that holds it."""
    given = {"data": None, "limit": 0.05, "dry_run": False, "device": CPU, "batch": 64} | settings
    with start_run("promote", Path("runs")) as run:
        decision = promote(version.uri, run, Path("promotion"), **given)
    return decision, str(run.mlflow_id)


def test_only_a_better_challenger_becomes_champion(models: dict[str, Path], store: MlflowClient) -> None:
    worse, better, equal = (registered(models[name]) for name in ("depth", "albedo", "albedo"))
    decision, _ = promoted(worse)
    assert decision.promoted
    assert get_champion("faces") == worse

    decision, run = promoted(better, dry_run=True, limit=1.0)
    assert decision.promoted
    assert get_champion("faces") == worse
    assert store.get_run(run).data.tags["fr_ps.dry_run"] == "true"
    assert "fr_ps.promotion" not in store.get_model_version("faces", better.number).tags

    decision, run = promoted(better, limit=1.0)
    assert decision.promoted, decision.reasons
    assert get_champion("faces") == better
    stored = store.get_run(run)
    assert stored.data.tags["fr_ps.decision"] == "promoted"
    assert stored.data.params["challenger"] == better.uri
    assert stored.data.metrics["difference/identity/auc"] < 0  # the champion until now minus the challenger
    assert any(name.startswith("difference/groups/") for name in stored.data.metrics)
    assert "report/report.html" in [file.path for file in store.list_artifacts(run, "report")]
    assert f"run {run}" in store.get_model_version("faces", better.number).tags["fr_ps.promotion"]

    for other, reason in ((equal, "not measurably better"), (worse, "measurably worse")):
        decision, run = promoted(other)
        assert not decision.promoted
        assert decision.reasons[0].startswith(reason)
        assert get_champion("faces") == better
        assert store.get_run(run).data.tags["fr_ps.decision"] == "refused"

    decision, _ = promoted(better)
    assert decision.reasons == ("it is the champion already",)


def test_a_challenger_trained_on_the_test_set_is_rejected(models: dict[str, Path], store: MlflowClient, tmp_path: Path) -> None:
    promoted(registered(models["depth"]))
    seen = tmp_path / "seen"
    shutil.copytree(models["albedo"], seen)
    text = (seen / SPLIT_FILE).read_text()
    (seen / SPLIT_FILE).write_text(text.replace(",test\n", ",train\n"))
    decision, _ = promoted(registered(seen))
    assert not decision.promoted
    assert "it was trained or selected on 42 of the 42 test sessions" in decision.reasons[0]
    # Other sessions of the test subjects count too.
    (seen / SPLIT_FILE).write_text(text.replace(",s0,test\n", ",other,train\n"))
    decision, _ = promoted(registered(seen))
    assert "it was trained or selected on 14 of the test subjects" in decision.reasons[0]
    unknown = tmp_path / "unknown"
    shutil.copytree(models["albedo"], unknown)
    (unknown / SPLIT_FILE).unlink()
    decision, _ = promoted(registered(unknown))
    assert "its training subjects are unknown" in decision.reasons[0]


def test_the_data_set_must_be_that_of_the_champion(
    models: dict[str, Path], faces: Path, prepared: Path, store: MlflowClient, tmp_path: Path
) -> None:
    promoted(registered(models["depth"]))
    challenger = registered(models["albedo"])
    with pytest.raises(InputError, match="not the data that models:/faces/1 was tested on"):
        promoted(challenger, data=str(prepared))
    with pytest.raises(InputError, match=r"nowhere: no such folder, and models:/faces/1 .*; give their folder with --data"):
        promoted(challenger, data="nowhere")
    moved = tmp_path / "moved"
    shutil.copytree(faces, moved)
    decision, _ = promoted(challenger, data=str(moved), dry_run=True, limit=1.0)
    assert decision.promoted
    file = next(moved.rglob("depth.npy"))
    np.save(file, np.load(file) + 1)
    with pytest.raises(InputError, match="not the data"):
        promoted(challenger, data=str(moved))
