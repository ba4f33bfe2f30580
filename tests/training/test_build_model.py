"""Networks whose branches come from trained runs of one modality: accepted runs, their training subjects, further training."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from fr_ps.arguments import training_config
from fr_ps.cli import parse_command_line
from fr_ps.config import Config, Fusion, FusionConfig, Modality, ModelConfig
from fr_ps.data.dataset import open_dataset
from fr_ps.data.labels import ATTRIBUTES, DEFAULT_CLASSES, Labels
from fr_ps.data.split_files import SPLIT_FILE, Split, write_split
from fr_ps.errors import InputError
from fr_ps.models.folder import INFO_FILE, WEIGHTS_FILE, ModelInfo, load_model, read_info
from fr_ps.models.fusion import FUSIONS
from fr_ps.models.inference import Predictions, predict
from fr_ps.training.build_model import branch_configs, build_model, check_leakage, resolve_branch_folders
from tests.conftest import AssertRejected
from tests.training.runs import RecordingRun, read_split, run_training, small_config

CPU = torch.device("cpu")
BOTH: tuple[Modality, ...] = ("albedo", "normal")
MODELS = {
    "albedo": ModelConfig(channels=16, reduction=8),
    "normal": ModelConfig(channels=24, reduction=8, backbone="timm:resnet10t"),
}
Runs = Mapping[str, Path]


@pytest.fixture(scope="module")
def runs(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Modality to the folder of a run of it alone, with a backbone of its own; both of the same split."""
    folders = {}
    for modality, model in MODELS.items():
        config = small_config(prepared, epochs=1)
        config = replace(config, data=replace(config.data, modalities=(modality,)), model=model)
        folders[modality] = tmp_path_factory.mktemp("runs") / f"20260101-000000-{modality}"
        run_training(config, folders[modality])
    return folders


def best(folder: Path) -> Path:
    return folder / "checkpoints" / "best"


def fused(root: Path, runs: Runs, fusion: Fusion = "concat", frozen: bool = False, **settings: Any) -> Config:
    config = small_config(root, epochs=1)
    branches = {modality: str(folder) for modality, folder in runs.items()}
    wanted = FusionConfig(name=fusion, branches=branches, frozen=frozen, **settings)  # type: ignore[arg-type]
    return replace(config, data=replace(config.data, modalities=BOTH), fusion=wanted)


def info_of(config: Config, size: int = 48) -> ModelInfo:
    models = branch_configs(config, resolve_branch_folders(config), DEFAULT_CLASSES, size)
    return ModelInfo(models, config.fusion.name, size, DEFAULT_CLASSES, ATTRIBUTES, {}, joint=config.joint)


# What the network is before any training.


def answers_to(root: Path, folder: Path) -> Predictions:
    network, info = load_model(best(folder), CPU)
    store = open_dataset(root, info.modalities).store
    return predict(network, store, np.arange(24), 24)


def cosines(embeddings: np.ndarray) -> np.ndarray:
    unit = embeddings.astype(float)
    unit /= np.sqrt((unit**2).sum(axis=1, keepdims=True))
    return unit @ unit.T


@pytest.mark.parametrize("frozen", [False, True])
def test_an_untrained_score_fusion_of_two_runs_predicts_the_means_of_their_predictions(
    runs: Runs, prepared: Path, frozen: bool
) -> None:
    config = fused(prepared, runs, "score", frozen)
    network = build_model(config, info_of(config), resolve_branch_folders(config), echo=lambda _: None)
    got = predict(network, open_dataset(prepared, BOTH).store, np.arange(24), 24)
    singles = [answers_to(prepared, runs[modality]) for modality in BOTH]
    means = np.mean([cosines(single.embeddings) for single in singles], axis=0)
    np.testing.assert_allclose(cosines(got.embeddings), means, atol=1e-5)
    assert np.ptp(means) > 0.1
    for task in ATTRIBUTES:
        expected = np.mean([single.probabilities[task] for single in singles], axis=0)
        np.testing.assert_allclose(got.probabilities[task], expected, atol=1e-5)


def test_a_branch_from_a_run_has_the_settings_of_the_run_and_a_new_branch_those_of_the_config(runs: Runs, prepared: Path) -> None:
    config = replace(fused(prepared, {"normal": runs["normal"]}), model=ModelConfig(channels=32, reduction=8, order=ORDER))
    assert info_of(config).branches == {"albedo": config.model, "normal": MODELS["normal"]}
    assert list(info_of(config).branches) == list(BOTH)


ORDER = ModelConfig().order[::-1]


@pytest.mark.parametrize(("frozen", "words"), [(True, "frozen"), (False, "trained further")])
def test_build_model_prints_the_source_of_each_branch(runs: Runs, prepared: Path, frozen: bool, words: str) -> None:
    config, lines = fused(prepared, {"normal": runs["normal"]}, frozen=frozen), list[str]()
    build_model(config, info_of(config), resolve_branch_folders(config), lines.append)
    (line,) = lines
    assert line.startswith("normal: ")
    assert str(runs["normal"]) in line
    assert words in line


def test_flip_average_and_linear_are_settings_of_the_fused_network(runs: Runs, prepared: Path) -> None:
    plain = fused(prepared, {"albedo": runs["albedo"]})
    whole = {"flip_average": True, "linear": 0.7, "linear_attributes": 0.6, "registration": True}
    averaging = replace(plain, model=replace(plain.model, **whole))
    assert info_of(averaging).branches == {
        modality: replace(model, **whole) for modality, model in info_of(plain).branches.items()
    }
    folders = resolve_branch_folders(plain)
    networks = [build_model(one, info_of(one), folders, lambda _: None) for one in (plain, averaging)]
    shares = [(network.flip_average, network.linear_share, network.attribute_share) for network in networks]
    assert shares == [(False, 0, 0), (True, 0.7, 0.6)]


def test_a_weights_file_is_loaded_into_the_branches_without_a_run(runs: Runs, prepared: Path) -> None:
    file = best(runs["albedo"]) / WEIGHTS_FILE
    config = fused(prepared, {"normal": runs["normal"]})
    config, lines = replace(config, model=replace(MODELS["albedo"], weights=str(file))), list[str]()
    network = build_model(config, info_of(config), resolve_branch_folders(config), lines.append)
    assert [line.split(":")[0] for line in lines] == ["weights", "normal"]
    for modality in BOTH:
        theirs = load_model(best(runs[modality]), CPU)[0].branches[modality].state_dict()
        ours = network.branches[modality].state_dict()
        assert all(torch.equal(theirs[name], ours[name]) for name in theirs if not name.endswith("num_batches_tracked"))


def test_maps_too_small_for_the_backbone_of_any_branch_are_rejected(prepared: Path, rejected: AssertRejected) -> None:
    config = replace(fused(prepared, {}), model=MODELS["albedo"])
    with rejected("model.backbone", "24 px"):
        build_model(config, info_of(config, size=24), {}, echo=lambda _: None)


# Rejected runs, and rejected splits.


def changed(folder: Path, target: Path, **values: Any) -> Path:
    """A copy of the run in `folder` with other values in its model description."""
    shutil.copytree(folder, target)
    file = best(target) / INFO_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return target


def test_a_missing_run_is_rejected_by_its_setting(prepared: Path, rejected: AssertRejected) -> None:
    with rejected("fusion.branches.normal: no_such/run"):
        resolve_branch_folders(fused(prepared, {"normal": Path("no_such/run")}))


def test_a_run_without_a_checkpoint_is_rejected_by_its_setting(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/r1").mkdir(parents=True)
    (tmp_path / "runs/r1/run.json").write_text(json.dumps({"id": "r1", "mlflow_id": "f" * 32, "name": "x"}))
    with pytest.raises(InputError, match=r"fusion\.branches\.albedo: .*before its first checkpoint"):
        resolve_branch_folders(fused(prepared, {"albedo": Path("r1")}))


@pytest.mark.parametrize(
    ("modality", "values", "words"),
    [
        ("normal", {}, ("reads albedo", "expected a model of normal alone")),
        ("albedo", {"size": 64}, ("64 px", "have 48", "prepare with --size 64")),
        (
            "albedo",
            {"classes": DEFAULT_CLASSES | {"gender": {"f": ["female"], "m": ["male"]}}},
            ("gender", "f, m", "data.classes"),
        ),
        ("albedo", {"format": 1}, ("format 1", "create the file again")),
    ],
    ids=["other modality", "other size", "other classes", "old format"],
)
def test_an_incompatible_run_is_rejected_by_its_setting_with_the_remedy(
    runs: Runs,
    prepared: Path,
    tmp_path: Path,
    rejected: AssertRejected,
    modality: Modality,
    values: dict[str, Any],
    words: tuple[str, ...],
) -> None:
    config = fused(prepared, {modality: changed(runs["albedo"], tmp_path / "run", **values)})
    with rejected(f"fusion.branches.{modality}: {best(tmp_path / 'run')}", *words):
        info_of(config)


def test_broken_weights_of_a_run_are_rejected_by_its_setting(runs: Runs, prepared: Path, tmp_path: Path) -> None:
    config = fused(prepared, {"albedo": changed(runs["albedo"], tmp_path / "run")})
    (best(tmp_path / "run") / WEIGHTS_FILE).write_bytes(b"")
    with pytest.raises(InputError, match=r"^fusion\.branches\.albedo: .*was changed after it was saved"):
        build_model(config, info_of(config), resolve_branch_folders(config), echo=lambda _: None)


@pytest.fixture(scope="module")
def joint_run(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose only branch reads albedo and normals, of the split of `runs`."""
    folder = tmp_path_factory.mktemp("runs") / "20260101-000000-joint"
    config = replace(fused(prepared, {}, joint="only"), model=MODELS["normal"])
    run_training(config, folder)
    return folder


def test_a_joint_branch_and_the_others_start_from_runs_of_each(runs: Runs, joint_run: Path, prepared: Path) -> None:
    config = fused(prepared, {**runs, "joint": joint_run}, "score", joint="also")
    info = info_of(config)
    assert info.branches == MODELS | {"joint": MODELS["normal"]}
    assert info.modalities == BOTH
    network = build_model(config, info, resolve_branch_folders(config), lambda _: None)
    got = predict(network, open_dataset(prepared, BOTH).store, np.arange(24), 24)
    singles = [answers_to(prepared, folder) for folder in (*runs.values(), joint_run)]
    np.testing.assert_allclose(cosines(got.embeddings), np.mean([cosines(one.embeddings) for one in singles], axis=0), atol=1e-5)
    for task in ATTRIBUTES:
        expected = np.mean([one.probabilities[task] for one in singles], axis=0)
        np.testing.assert_allclose(got.probabilities[task], expected, atol=1e-5)


def test_a_run_of_other_branches_is_rejected(runs: Runs, joint_run: Path, prepared: Path, rejected: AssertRejected) -> None:
    with rejected("fusion.branches.joint", "reads albedo", "albedo, normal in one branch"):
        info_of(fused(prepared, {"joint": runs["albedo"]}, joint="only"))
    with rejected("fusion.branches.albedo", "reads albedo, normal", "albedo alone"):
        info_of(fused(prepared, {"albedo": joint_run}, joint="also"))


PEOPLE, SESSIONS = 6, 4
LABELS = Labels(
    np.repeat([f"p{person}" for person in range(PEOPLE)], SESSIONS),
    np.array([f"s{row % SESSIONS}" for row in range(PEOPLE * SESSIONS)]),
    np.zeros((PEOPLE * SESSIONS, len(ATTRIBUTES)), dtype=np.int8),
    DEFAULT_CLASSES,
    "raw",
    {},
)


def of_people(train: set[int], val: set[int], test: set[int]) -> Split:
    """Whole people in each part."""
    person = np.repeat(np.arange(PEOPLE), SESSIONS)
    return Split(*(np.flatnonzero(np.isin(person, sorted(people))) for people in (train, val, test)))


def of_sessions(train: set[int], val: set[int], test: set[int]) -> Split:
    """These sessions of everybody in each part."""
    session = np.arange(PEOPLE * SESSIONS) % SESSIONS
    return Split(*(np.flatnonzero(np.isin(session, sorted(sessions))) for sessions in (train, val, test)))


def check(folder: Path, trained: Split, now: Split, protocol: str) -> None:
    """Of a branch that was trained with one split, in a fusion that is trained with another."""
    write_split(folder / SPLIT_FILE, LABELS, trained)
    check_leakage({"albedo": folder}, LABELS, now, protocol)


@pytest.mark.parametrize(
    ("trained", "now", "words"),
    [
        (({0, 1}, {2}, {3}), ({4}, {5}, {0, 3}), ("1 of the test subjects", "p0")),
        (({0, 1}, {2}, {3}), ({4}, {5}, {2, 3}), ("1 of the test subjects", "p2")),
        (({0, 1}, {2}, {3}), ({4}, {0, 1}, {3}), ("2 of the validation subjects", "p0")),
        (({0, 1}, {2}, set()), ({4}, {5}, {0, 1, 2}), ("3 of the test subjects", "p0")),
    ],
    ids=["trained on the tested", "chosen on the tested", "trained on the validated", "several of them"],
)
def test_training_subjects_of_a_branch_are_rejected_in_validation_and_test(
    tmp_path: Path, rejected: AssertRejected, trained: tuple[set[int], ...], now: tuple[set[int], ...], words: tuple[str, ...]
) -> None:
    with rejected(f"fusion.branches.albedo: {tmp_path}", *words, f"--data.split {tmp_path / SPLIT_FILE}"):
        check(tmp_path, of_people(*trained), of_people(*now), "subject_disjoint")


@pytest.mark.parametrize(
    ("trained", "now"),
    [
        (({0, 1}, {2}, {3}), ({0, 1}, {2}, {3})),
        (({0, 1}, {2}, {3}), ({2, 4}, {5}, {3})),
        (({0}, {1}, {2, 3}), ({0, 1}, {2}, {3})),
        (({0, 1}, {2}, {3}), ({0, 1, 2, 3}, {2}, set())),
    ],
    ids=[
        "the same split",
        "trains on validation subjects of the branch",
        "validates on test subjects of the branch",
        "no test subjects",
    ],
)
def test_other_subjects_and_the_validation_subjects_of_the_branch_are_accepted(
    tmp_path: Path, trained: tuple[set[int], ...], now: tuple[set[int], ...]
) -> None:
    check(tmp_path, of_people(*trained), of_people(*now), "subject_disjoint")


def test_with_session_disjoint_splits_training_sessions_of_a_branch_are_rejected(
    tmp_path: Path, rejected: AssertRejected
) -> None:
    check(tmp_path, of_sessions({0, 1}, {2}, {3}), of_sessions({0, 1}, {2}, {3}), "session_disjoint")
    for now, words in (
        (({2}, set(), {0}), ("6 of the test sessions", "p0/s0")),
        (({0}, set(), {2}), ("6 of the test sessions", "p0/s2")),
        (({0}, {1}, {3}), ("6 of the validation sessions", "p0/s1")),
    ):
        with rejected("fusion.branches.albedo", *words, "--data.split"):
            check(tmp_path, of_sessions({0, 1}, {2}, {3}), of_sessions(*now), "session_disjoint")
    # With subject_disjoint, one training session of a subject suffices.
    with rejected("fusion.branches.albedo", "1 of the test subjects", "p2"):
        check(tmp_path, of_sessions({0, 1}, {2}, {3}), of_people({0}, set(), {2}), "subject_disjoint")


def test_a_gallery_of_training_subjects_of_a_branch_is_rejected(tmp_path: Path, rejected: AssertRejected) -> None:
    trained = of_sessions({0, 1}, set(), {3})
    known, unknown = (replace(of_sessions({0}, set(), {3}), gallery=of_sessions({s}, set(), set()).train) for s in (1, 2))
    check(tmp_path, trained, unknown, "session_disjoint")
    with rejected("fusion.branches.albedo", "6 of the test sessions", "p0/s1"):
        check(tmp_path, trained, known, "session_disjoint")


def test_a_model_without_a_list_of_its_training_subjects_is_rejected(tmp_path: Path, rejected: AssertRejected) -> None:
    with rejected(f"fusion.branches.albedo: {tmp_path}", SPLIT_FILE):
        check_leakage({"albedo": tmp_path}, LABELS, of_people({0}, {1}, {2}), "subject_disjoint")


def test_testing_on_training_subjects_of_a_run_is_rejected_unless_its_split_is_used(
    runs: Runs, prepared: Path, tmp_path: Path, rejected: AssertRejected
) -> None:
    config = fused(prepared, runs, frozen=True)
    other = replace(config, data=replace(config.data, split_seed=1))
    with rejected("fusion.branches.albedo", f"--data.split {best(runs['albedo']) / SPLIT_FILE}"):
        run_training(other, tmp_path / "rejected")
    assert not (tmp_path / "rejected" / "checkpoints").exists()
    taken = replace(other, data=replace(other.data, split=str(best(runs["albedo"]) / SPLIT_FILE)))
    _, run, _ = run_training(taken, tmp_path / "run")
    assert read_split(run.folder) == read_split(runs["albedo"])


# Training from runs, end to end.


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(best(folder), CPU)[0].state_dict()


def kept(run: Path, source: Path, modality: str) -> set[bool]:
    """Whether tensors of the branch are those of the run that it started from."""
    ours, theirs = state_of(run), state_of(source)
    names = [name for name in theirs if name.startswith(f"branches.{modality}.")]
    return {torch.equal(ours[name], theirs[name]) for name in names}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_frozen_runs_of_different_backbones_fuse_and_stay_unchanged(
    runs: Runs, prepared: Path, tmp_path: Path, fusion: Fusion
) -> None:
    result, run, lines = run_training(fused(prepared, runs, fusion, frozen=True, dropout=0.5), tmp_path / "run")
    assert result.metrics.values["test/identity/auc"] is not None
    info = read_info(best(run.folder))
    assert info.branches == MODELS
    assert info.backbones == "convnextv2_atto, timm:resnet10t"
    assert all(kept(run.folder, runs[modality], modality) == {True} for modality in BOTH)
    assert not [name for name, _, _ in run.points if name.startswith("train/loss/adversarial")]
    assert {line.split(":")[0] for line in lines if line.endswith(", frozen")} == set(BOTH)


@pytest.mark.parametrize("settings", [{"weighting": "upgrad"}, {"weighting": "dwa"}], ids=str)
def test_frozen_runs_train_with_gradient_and_loss_weightings(
    runs: Runs, prepared: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Where there is no gradient at any shared map, and no loss of an adversary."""
    config = fused(prepared, runs, "score", frozen=True)
    _, run, _ = run_training(replace(config, loss=replace(config.loss, **settings)), tmp_path / "run")
    assert kept(run.folder, runs["albedo"], "albedo") == {True}


def test_a_frozen_branch_stays_unchanged_while_a_new_branch_trains(runs: Runs, prepared: Path, tmp_path: Path) -> None:
    config = fused(prepared, {"normal": runs["normal"]}, "gated", frozen=True)
    config = replace(config, loss=replace(config.loss, weighting="mgda"))
    _, run, _ = run_training(config, tmp_path / "run")
    assert kept(run.folder, runs["normal"], "normal") == {True}
    # Only the new branch has adversaries.
    assert [name for name, _, _ in run.points if name.startswith("train/loss/adversarial")]
    assert read_info(best(run.folder)).branches == {"albedo": config.model, "normal": MODELS["normal"]}


def test_branches_that_are_not_frozen_continue_to_train(runs: Runs, prepared: Path, tmp_path: Path) -> None:
    _, run, _ = run_training(fused(prepared, runs), tmp_path / "run")
    assert all(False in kept(run.folder, runs[modality], modality) for modality in BOTH)
    assert [name for name, _, _ in run.points if name.startswith("train/loss/adversarial")]


def settings_of(folder: Path) -> Config:
    """As the command line reads them."""
    return training_config(parse_command_line(["train", "--config", str(folder / "config.yaml")])["train"])


def test_runs_are_found_by_id_or_folder_and_the_resolved_settings_reproduce_the_training(
    runs: Runs, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id is kept, as it is the same everywhere; a folder is resolved, as it was given from where the user stood."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for place in (home, elsewhere):
        (place / "runs").mkdir(parents=True)
        shutil.copytree(runs["albedo"], place / "runs" / runs["albedo"].name)
        record = {"id": runs["albedo"].name, "mlflow_id": "f" * 32, "name": "x"}
        (place / "runs" / runs["albedo"].name / "run.json").write_text(json.dumps(record))
    shutil.copytree(best(runs["normal"]), home / "kept")
    monkeypatch.chdir(home)
    named = {"albedo": Path("f" * 32), "normal": Path("kept")}
    _, first, _ = run_training(fused(prepared, named, frozen=True), tmp_path / "first")
    written = yaml.safe_load((first.folder / "config.yaml").read_text())["fusion"]
    assert written["branches"] == {"albedo": "f" * 32, "normal": str(home / "kept")}
    monkeypatch.chdir(elsewhere)
    _, second, _ = run_training(settings_of(first.folder), tmp_path / "second")
    assert (best(second.folder) / WEIGHTS_FILE).read_bytes() == (best(first.folder) / WEIGHTS_FILE).read_bytes()


def test_a_run_records_the_runs_that_it_started_from(runs: Runs, prepared: Path, tmp_path: Path) -> None:
    _, run, _ = run_training(fused(prepared, runs, "score", frozen=True), tmp_path / "run")
    assert isinstance(run, RecordingRun)
    assert all(str(folder) in run.settings["fusion/branches"] for folder in runs.values())
    assert (run.settings["fusion/name"], run.settings["fusion/frozen"]) == ("score", "True")
