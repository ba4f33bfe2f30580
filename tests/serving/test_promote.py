"""Promotion: a challenger must be measurably better, and not worse for any group."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from fr_ps.data.split_files import SPLIT_FILE
from fr_ps.errors import InputError
from fr_ps.evaluation.differences import Difference
from fr_ps.serving.promote import PromotionDecision, decide, promote
from fr_ps.serving.registry import ModelVersion, get_champion, register
from fr_ps.tracking.lifecycle import start_run
from fr_ps.tracking.run_folder import BEST_CHECKPOINT
from tests.serving.conftest import CPU, in_store, make_model

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
    """24 subjects, each with its own albedo pattern; depth is noise."""
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


@pytest.fixture(autouse=True, scope="module")
def small_reports(undrawn: None) -> Iterator[None]:
    """Reports draw no figures, and the bootstrap has few replicates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fr_ps.evaluation.bootstrap.REPLICATES", 100)
        yield


@pytest.fixture(scope="module")
def registered(models: dict[str, Path], store_folder: Path) -> Callable[[str, str], ModelVersion]:
    """Registers the run of a model as the next version of a name; the runs are made once."""
    with in_store(store_folder):
        runs = {kind: _run_of(folder) for kind, folder in models.items()}
    return lambda kind, name: register(runs[kind], name)


def _run_of(model: Path) -> str:
    """The id of a run with `model` as its best checkpoint."""
    with start_run("r", Path("runs")) as run:
        shutil.copytree(model, run.folder / BEST_CHECKPOINT)
        run.log_model(run.folder / BEST_CHECKPOINT, 1)
    return run.id


def promoted(version: ModelVersion, **settings) -> tuple[PromotionDecision, str]:  # type: ignore[no-untyped-def]
    """The decision, and MLflow's id of the run that holds it."""
    given = {"data": None, "limit": 1.0, "dry_run": False, "device": CPU, "batch": 64} | settings
    with start_run("promote", Path("runs")) as run:
        decision = promote(version.uri, run, Path("promotion"), **given)
    return decision, str(run.mlflow_id)


def test_only_a_better_challenger_becomes_champion(registered, store: MlflowClient, name: str) -> None:
    worse, better, equal = (registered(kind, name) for kind in ("depth", "albedo", "albedo"))
    decision, _ = promoted(worse)
    assert decision.promoted
    assert decision.reasons == (f"{name} had no champion",)
    assert get_champion(name) == worse

    decision, run = promoted(better)
    assert decision.promoted, decision.reasons
    assert get_champion(name) == better
    stored = store.get_run(run)
    assert stored.data.tags["fr_ps.decision"] == "promoted"
    assert stored.data.params["challenger"] == better.uri
    assert stored.data.metrics["difference/identity/auc"] < 0  # the previous champion minus the challenger
    reported = json.loads(Path("promotion/metrics.json").read_text())["metrics"]
    assert any(metric.startswith("difference/groups/") for metric in reported)
    assert "report/report.html" in [file.path for file in store.list_artifacts(run, "report")]
    assert f"run {run}" in store.get_model_version(name, better.number).tags["fr_ps.promotion"]

    for other, reason in ((equal, "not measurably better"), (worse, "measurably worse")):
        decision, run = promoted(other, limit=0.05)
        assert not decision.promoted
        assert decision.reasons[0].startswith(reason)
        assert get_champion(name) == better
        assert store.get_run(run).data.tags["fr_ps.decision"] == "refused"

    decision, _ = promoted(better)
    assert decision.reasons == ("it is the champion already",)


def test_a_challenger_trained_on_the_test_set_is_rejected(
    models: dict[str, Path], registered, store: MlflowClient, name: str, tmp_path: Path
) -> None:
    promoted(registered("depth", name))
    split = (models["albedo"] / SPLIT_FILE).read_text()
    for number, (changed, reason) in enumerate(
        (
            (split.replace(",test\n", ",train\n"), "it was trained or selected on 42 of the 42 test sessions"),
            # Other sessions of the test subjects count too.
            (split.replace(",s0,test\n", ",other,train\n"), "it was trained or selected on 14 of the test subjects"),
            (None, "its training subjects are unknown: it has no split.csv"),
        )
    ):
        model = tmp_path / str(number)
        shutil.copytree(models["albedo"], model)
        (model / SPLIT_FILE).unlink()
        if changed is not None:
            (model / SPLIT_FILE).write_text(changed)
        decision, _ = promoted(register(_run_of(model), name))
        assert not decision.promoted
        assert reason in decision.reasons[0]


def test_a_champion_without_a_test_set_is_never_replaced(
    models: dict[str, Path], registered, store: MlflowClient, name: str, tmp_path: Path
) -> None:
    shutil.copytree(models["depth"], tmp_path / "untested")
    split = tmp_path / "untested" / SPLIT_FILE
    split.write_text("\n".join(line for line in split.read_text().splitlines() if not line.endswith(",test")) + "\n")
    decision, _ = promoted(register(_run_of(tmp_path / "untested"), name))
    assert decision.promoted
    assert decision.reasons[1].startswith("warning: it has no test set, so that no later version can be compared with it")
    decision, _ = promoted(registered("albedo", name))
    assert decision.reasons == (
        "the champion has no test set, so that nothing can be compared; --demote it to promote another version",
    )


def test_the_data_set_must_be_that_of_the_champion(
    registered, faces: Path, prepared: Path, store: MlflowClient, name: str, tmp_path: Path
) -> None:
    promoted(registered("depth", name))
    challenger = registered("albedo", name)
    with pytest.raises(InputError, match=f"not the data that models:/{name}/1 was tested on"):
        promoted(challenger, data=str(prepared))
    with pytest.raises(InputError, match=f"nowhere: no such folder, and models:/{name}/1 .*; give their folder with --data"):
        promoted(challenger, data="nowhere")
    moved = tmp_path / "moved"
    shutil.copytree(faces, moved)
    decision, run = promoted(challenger, data=str(moved), dry_run=True)
    assert decision.promoted
    assert get_champion(name) != challenger
    assert store.get_run(run).data.tags["fr_ps.dry_run"] == "true"
    assert "fr_ps.promotion" not in store.get_model_version(name, challenger.number).tags
    file = next(moved.rglob("depth.npy"))
    np.save(file, np.load(file) + 1)
    with pytest.raises(InputError, match="not the data"):
        promoted(challenger, data=str(moved))
