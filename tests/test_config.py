"""Settings: ranges, error messages, and the way through YAML and the command line."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import yaml

from fr_ps import config as module
from fr_ps.arguments import training_config
from fr_ps.cli import parse_command_line
from fr_ps.config import (
    REMOVED,
    AugmentConfig,
    BatchConfig,
    Config,
    DataConfig,
    FusionConfig,
    LossConfig,
    Modality,
    ModelConfig,
    OptimConfig,
    PrepareConfig,
    ScheduleConfig,
    SyntheticConfig,
    TrainConfig,
    flatten,
    from_dict,
    to_dict,
    without_removed,
)
from fr_ps.config.names import BranchName, JointBranch
from fr_ps.config.search import AfterConfig, StudyConfig
from fr_ps.errors import InputError
from fr_ps.serving.registry import register
from fr_ps.tracking.run_folder import new_run_info
from tests.conftest import AssertRejected

OUT_OF_RANGE = [
    (DataConfig, "data", {"modalities": ()}, "modalities"),
    (DataConfig, "data", {"modalities": ("albedo", "albedo")}, "modalities"),
    (DataConfig, "data", {"modalities": ("albedo", "infrared")}, "modalities"),
    (FusionConfig, "fusion", {"name": "sum"}, "name"),
    (FusionConfig, "fusion", {"joint": "yes"}, "joint"),
    (FusionConfig, "fusion", {"dropout": 1.0}, "dropout"),
    (FusionConfig, "fusion", {"dropout": -0.1}, "dropout"),
    (FusionConfig, "fusion", {"frozen": True}, "frozen"),
    (DataConfig, "data", {"val_people": -0.1}, "val_people"),
    (DataConfig, "data", {"val_people": 1.5}, "val_people"),
    (DataConfig, "data", {"val_people": math.nan}, "val_people"),
    (DataConfig, "data", {"test_people": -1.0}, "test_people"),
    (DataConfig, "data", {"test_people": 2.25}, "test_people"),
    (DataConfig, "data", {"folds": 1}, "folds"),
    (DataConfig, "data", {"folds": -2}, "folds"),
    (DataConfig, "data", {"fold": 1}, "fold"),
    (DataConfig, "data", {"fold": -1}, "fold"),
    (DataConfig, "data", {"folds": 5, "fold": 5}, "fold"),
    (DataConfig, "data", {"split_seed": -1}, "split_seed"),
    (DataConfig, "data", {"subsample_sessions": -1}, "subsample_sessions"),
    (DataConfig, "data", {"subsample_share": 0.0}, "subsample_share"),
    (DataConfig, "data", {"root": "s3://bucket/faces"}, "root"),
    (DataConfig, "data", {"subsample_share": 1.1}, "subsample_share"),
    (DataConfig, "data", {"gallery": -1}, "gallery"),
    (DataConfig, "data", {"folds": 3, "split": "split.csv"}, "folds"),
    (SyntheticConfig, "synthetic", {"people": 1}, "people"),
    (SyntheticConfig, "synthetic", {"sessions": 0}, "sessions"),
    (SyntheticConfig, "synthetic", {"seed": -1}, "seed"),
    (SyntheticConfig, "synthetic", {"size": 31}, "size"),
    (AugmentConfig, "augment", {"flip": 1.01}, "flip"),
    (AugmentConfig, "augment", {"flip": -0.01}, "flip"),
    (AugmentConfig, "augment", {"crop": 0.05}, "crop"),
    (AugmentConfig, "augment", {"crop": 1.1}, "crop"),
    (AugmentConfig, "augment", {"rotation": -1.0}, "rotation"),
    (AugmentConfig, "augment", {"rotation": 181.0}, "rotation"),
    (AugmentConfig, "augment", {"noise": -0.1}, "noise"),
    (AugmentConfig, "augment", {"scale": -0.1}, "scale"),
    (AugmentConfig, "augment", {"scale": 1.1}, "scale"),
    (AugmentConfig, "augment", {"shift": -0.1}, "shift"),
    (AugmentConfig, "augment", {"shift": 0.6}, "shift"),
    (AugmentConfig, "augment", {"erase": -0.1}, "erase"),
    (AugmentConfig, "augment", {"erase": 1.1}, "erase"),
    (BatchConfig, "batch", {"people": 0}, "people"),
    (BatchConfig, "batch", {"sessions": 0}, "sessions"),
    (BatchConfig, "batch", {"people": 1, "sessions": 1}, "people"),
    (BatchConfig, "batch", {"balance": "classes"}, "balance"),
    (BatchConfig, "batch", {"steps": -1}, "steps"),
    (BatchConfig, "batch", {"steps": 1.5}, "steps"),
    (BatchConfig, "batch", {"attribute": "age"}, "attribute"),
    (ModelConfig, "model", {"channels": 7}, "channels"),
    (ModelConfig, "model", {"reduction": 0}, "reduction"),
    (ModelConfig, "model", {"channels": 64, "reduction": 65}, "reduction"),
    (ModelConfig, "model", {"backbone": "timm:"}, "backbone"),
    (ModelConfig, "model", {"backbone": "resnet18"}, "backbone"),
    (ModelConfig, "model", {"fsm": "no"}, "fsm"),
    (ModelConfig, "model", {"order": ("gender",)}, "order"),
    (ModelConfig, "model", {"order": ("gender", "gender", "pose", "emotion", "spectacles")}, "order"),
    (ModelConfig, "model", {"adversaries": "all"}, "adversaries"),
    (ModelConfig, "model", {"attribute_channels": -1}, "attribute_channels"),
    (ModelConfig, "model", {"channels": 64, "attribute_channels": 65}, "attribute_channels"),
    (ModelConfig, "model", {"embedding": "max"}, "embedding"),
    (ModelConfig, "model", {"input_size": 7}, "input_size"),
    (ModelConfig, "model", {"flip_average": 1}, "flip_average"),
    (ModelConfig, "model", {"albedo": "sqrt"}, "albedo"),
    (ModelConfig, "model", {"identity_channels": 7}, "identity_channels"),
    (ModelConfig, "model", {"identity_channels": -1}, "identity_channels"),
    (ModelConfig, "model", {"dropout": 1.0}, "dropout"),
    (ModelConfig, "model", {"dropout": -0.1}, "dropout"),
    (LossConfig, "loss", {"identity": -1.0}, "identity"),
    (LossConfig, "loss", {"attribute": -1.0}, "attribute"),
    (LossConfig, "loss", {"adversarial": -1.0}, "adversarial"),
    (LossConfig, "loss", {"reversal": -1.0}, "reversal"),
    (LossConfig, "loss", {"focal_gamma": -1.0}, "focal_gamma"),
    (LossConfig, "loss", {"focal_gamma": "count"}, "focal_gamma"),
    (LossConfig, "loss", {"dwa_temperature": 0.0}, "dwa_temperature"),
    (LossConfig, "loss", {"cagrad_c": 1.0}, "cagrad_c"),
    (LossConfig, "loss", {"cagrad_c": -0.1}, "cagrad_c"),
    (LossConfig, "loss", {"weighting": "uniform"}, "weighting"),
    (LossConfig, "loss", {"identity_loss": "softmax"}, "identity_loss"),
    (LossConfig, "loss", {"person_weights": "hard"}, "person_weights"),
    (LossConfig, "loss", {"attribute_loss": "hinge"}, "attribute_loss"),
    (LossConfig, "loss", {"attribute_loss": "cross_entropy", "label_smoothing": 1.0}, "label_smoothing"),
    (LossConfig, "loss", {"attribute_loss": "cross_entropy", "label_smoothing": -0.1}, "label_smoothing"),
    (LossConfig, "loss", {"label_smoothing": 0.1}, "label_smoothing"),
    (LossConfig, "loss", {"arcface_margin": 1.6}, "arcface_margin"),
    (LossConfig, "loss", {"arcface_margin": -0.1}, "arcface_margin"),
    (LossConfig, "loss", {"cosface_margin": -0.1}, "cosface_margin"),
    (LossConfig, "loss", {"adaface_margin": 1.6}, "adaface_margin"),
    (LossConfig, "loss", {"scale": 0.0}, "scale"),
    (LossConfig, "loss", {"contrastive": -0.1}, "contrastive"),
    (LossConfig, "loss", {"contrastive_temperature": 0.0}, "contrastive_temperature"),
    (LossConfig, "loss", {"lower_norm": 0.0}, "lower_norm"),
    (LossConfig, "loss", {"lower_norm": 110.0}, "lower_norm"),
    (LossConfig, "loss", {"lower_margin": -0.1}, "lower_margin"),
    (LossConfig, "loss", {"lower_margin": 0.9}, "lower_margin"),
    (LossConfig, "loss", {"upper_margin": 1.6}, "upper_margin"),
    (LossConfig, "loss", {"lambda_g": 20.0}, "lambda_g"),
    (LossConfig, "loss", {"lambda_g": math.nan}, "lambda_g"),
    (OptimConfig, "optim", {"lr": 0.0}, "lr"),
    (OptimConfig, "optim", {"lr": math.nan}, "lr"),
    (OptimConfig, "optim", {"weight_decay": -0.1}, "weight_decay"),
    (OptimConfig, "optim", {"momentum": 1.0}, "momentum"),
    (OptimConfig, "optim", {"momentum": -0.1}, "momentum"),
    (OptimConfig, "optim", {"clip": -1.0}, "clip"),
    (ScheduleConfig, "schedule", {"warmup_epochs": -1.0}, "warmup_epochs"),
    (ScheduleConfig, "schedule", {"power": 0.0}, "power"),
    (ScheduleConfig, "schedule", {"name": "exponential"}, "name"),
    (ScheduleConfig, "schedule", {"restart_epochs": -1.0}, "restart_epochs"),
    (ScheduleConfig, "schedule", {"restart_factor": 0}, "restart_factor"),
    (ScheduleConfig, "schedule", {"restart_factor": 1.5}, "restart_factor"),
    (ScheduleConfig, "schedule", {"lowest": -1e-6}, "lowest"),
    (TrainConfig, "train", {"epochs": 0}, "epochs"),
    (TrainConfig, "train", {"seed": -1}, "seed"),
    (TrainConfig, "train", {"select": "test/identity/auc"}, "select"),
    (TrainConfig, "train", {"patience": -1}, "patience"),
    (TrainConfig, "train", {"accumulate": 0}, "accumulate"),
    (TrainConfig, "train", {"ema": 1.0}, "ema"),
    (TrainConfig, "train", {"ema": -0.1}, "ema"),
    (TrainConfig, "train", {"threads": -1}, "threads"),
]

UNUSUAL = Config(
    name="a: name, with #marks",
    device="cpu",
    data=DataConfig(
        root="some/where",
        modalities=("normal", "depth"),
        labels="raw",
        classes={"emotion": {"neutral": ["blankstare"], "good": ["positive"], "bad": ["negative", "emoOther"]}},
        protocol="session_disjoint",
        val_people=3,
        test_people=0,
        only={"Quality": ["ok", "blur"], "Pose": ["1", "no"]},
        limits={"quality_residual": 0.15},
        subsample_sessions=4,
        subsample_share=0.5,
        folds=4,
        fold=2,
        split_seed=9,
        gallery=1,
    ),
    synthetic=SyntheticConfig(people=5, sessions=3, seed=1, size=48),
    augment=AugmentConfig(flip=0.25, crop=0.9, rotation=0, noise=0),
    batch=BatchConfig(people=4, sessions=2, balance="none", attribute="pose"),
    model=ModelConfig(
        backbone="timm:resnet18",
        channels=64,
        reduction=8,
        weights="of/others.pth",
        fsm=False,
        order=("gender", "pose", "emotion", "facial_hair", "spectacles"),
        adversaries="identity",
        attribute_channels=32,
    ),
    fusion=FusionConfig(name="gated", branches={"depth": "20260101-000000-abcdef"}, frozen=True, dropout=0.25),
    loss=LossConfig(
        reversal_ramp=True,
        weighting="fixed",
        identity=2,
        adversarial=0.3,
        lambda_g=20,
        allow_unsafe_lambda=True,
        upper_margin=0.7,
        attribute_loss="cross_entropy",
        label_smoothing=0.1,
        class_weights={"gender": [1.5, 0.5], "pose": [1, 2]},
        focal_gamma="counts",
        focal_gammas={"pose": [0, 2.5]},
    ),
    optim=OptimConfig(name="sgd", lr=1e-5, weight_decay=0, momentum=0.5, clip=0),
    schedule=ScheduleConfig(name="cosine", warmup_epochs=0.5, power=2, restart_epochs=1.5, restart_factor=2, lowest=1e-6),
    train=TrainConfig(epochs=2, seed=3, select="val/gender/auc", patience=2, accumulate=4, ema=0.99, threads=1),
)


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every setting of a config, found through the dataclasses themselves."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name), (*path, field.name))
    else:
        yield path, value


@pytest.mark.parametrize(("kind", "group", "values", "key"), OUT_OF_RANGE, ids=lambda value: str(value)[:60])
def test_a_setting_out_of_range_is_rejected_by_its_key_and_value(
    kind: Callable[..., Any], group: str, values: dict[str, Any], key: str
) -> None:
    with pytest.raises(InputError) as caught:
        kind(**values)
    message = str(caught.value)
    shown = list(values[key]) if isinstance(values[key], tuple) else values[key]
    assert message.startswith(f"{group}.{key} is {shown!r}; expected ")
    assert len(message) > len(f"{group}.{key} is {shown!r}; expected ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("values", "start"),
    [
        ({"only": {"Quality": []}}, "data.only.Quality is []; expected "),
        ({"only": {"Spectacles": [False]}}, "data.only.Spectacles is [False]; expected "),
        ({"limits": {"quality_residual": math.nan}}, "data.limits.quality_residual is nan; expected "),
    ],
)
def test_an_invalid_column_filter_is_an_error(values: dict[str, Any], start: str) -> None:
    with pytest.raises(InputError) as caught:
        DataConfig(**values)
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize("key", ["class_weights", "focal_gammas"])
@pytest.mark.parametrize(
    ("values", "start"),
    [
        ({"age": [1, 1]}, " is 'age'; expected attributes among gender, "),
        ({"pose": [1, -1]}, ".pose is [1, -1]; expected one number per class"),
        ({"pose": [1, math.inf]}, ".pose is [1, inf]; expected one number per class"),
        ({"pose": [1, math.nan]}, ".pose is [1, nan]; expected one number per class"),
        ({"pose": []}, ".pose is []; expected one number per class"),
    ],
    ids=str,
)
def test_invalid_numbers_per_class_are_an_error(key: str, values: dict[str, Any], start: str) -> None:
    with pytest.raises(InputError) as caught:
        LossConfig(**{key: values})
    assert str(caught.value).startswith(f"loss.{key}{start}")


@pytest.mark.parametrize("values", [{"size": 7}, {"workers": 0}, {"max_condition": 1.0}], ids=str)
def test_a_setting_of_prepare_out_of_range_is_rejected_by_its_key(values: dict[str, Any]) -> None:
    (key,) = values
    with pytest.raises(InputError, match=f"^{key} is .*; expected"):
        PrepareConfig(captures="a", out="b", **values)


FLOATS = [
    (getattr(module, kind), f"{path[0]}.{path[1]}")
    for path, value in leaves(Config())
    if isinstance(value, float)
    for kind in [type(getattr(Config(), path[0])).__name__]
]


@pytest.mark.parametrize(("kind", "key"), FLOATS, ids=[key for _, key in FLOATS])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_number_that_is_not_finite_is_rejected_by_its_key(kind: Callable[..., Any], key: str, value: float) -> None:
    with pytest.raises(InputError, match=key.split(".")[0]):
        kind(**{key.split(".")[1]: value})


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (DataConfig, {"val_people": 0, "test_people": 0}),
        (DataConfig, {"val_people": 12, "test_people": 0.999}),
        (DataConfig, {"folds": 5, "fold": 4}),
        (AugmentConfig, {"flip": 0, "crop": 1, "rotation": 0, "noise": 0}),
        (AugmentConfig, {"scale": 1, "shift": 0.5, "erase": 1}),
        (BatchConfig, {"people": 1, "sessions": 2}),
        (ModelConfig, {"channels": 8, "reduction": 8}),
        (DataConfig, {"modalities": ("depth", "normal", "albedo")}),
        (FusionConfig, {"dropout": 0, "frozen": False, "branches": {}}),
        (LossConfig, {"lower_margin": 0.5, "upper_margin": 0.5, "lambda_g": 0}),
        (LossConfig, {"arcface_margin": 0, "cosface_margin": 0, "adaface_margin": 0, "focal_gamma": 0}),
        (LossConfig, {"identity_loss": "arcface", "lambda_g": 0}),
        (LossConfig, {"weighting": "cagrad", "cagrad_c": 0}),
        (OptimConfig, {"momentum": 0, "clip": 0, "weight_decay": 0}),
        (ScheduleConfig, {"warmup_epochs": 0, "restart_epochs": 0, "restart_factor": 1, "lowest": 0}),
        (TrainConfig, {"epochs": 1, "accumulate": 1, "ema": 0}),
    ],
    ids=str,
)
def test_the_ends_of_the_ranges_are_accepted(kind: Callable[..., Any], values: dict[str, Any]) -> None:
    made = kind(**values)
    assert {key: getattr(made, key) for key in values} == values


@pytest.mark.parametrize(
    ("modalities", "fusion", "key"),
    [
        (("albedo",), FusionConfig(branches={"albedo": "r1"}), r"fusion\.branches is .*'r1'.*only one modality, albedo"),
        (("albedo", "normal"), FusionConfig(branches={"depth": "r1"}), r"fusion\.branches\.depth.*branches are albedo, normal"),
        (("albedo",), FusionConfig(dropout=0.5), r"fusion\.dropout is 0\.5.*data\.modalities"),
        (
            ("albedo",),
            FusionConfig(joint="also", branches={"joint": "r1"}),
            r"fusion\.branches is .*'r1'.*only one modality, albedo",
        ),
    ],
    ids=["one modality from a run", "a modality that is not read", "dropout of one", "a joint branch of one"],
)
def test_fusion_settings_that_do_not_fit_the_modalities_are_errors(
    modalities: tuple[Modality, ...], fusion: FusionConfig, key: str
) -> None:
    with pytest.raises(InputError, match=key):
        Config(data=DataConfig(modalities=modalities), fusion=fusion)
    assert Config(data=DataConfig(modalities=("albedo", "normal", "depth")), fusion=fusion).fusion == fusion


@pytest.mark.parametrize(
    ("joint", "name"), [("off", "joint"), ("only", "albedo"), ("also", "depth")], ids=["no joint branch", "no others", "not read"]
)
def test_a_run_for_a_branch_that_the_network_lacks_is_an_error(joint: JointBranch, name: BranchName) -> None:
    with pytest.raises(InputError, match=rf"fusion\.branches\.{name}: .*\({joint}\)"):
        Config(data=DataConfig(modalities=("albedo", "normal")), fusion=FusionConfig(joint=joint, branches={name: "r1"}))


@pytest.mark.parametrize(
    ("modalities", "joint", "branches", "label"),
    [
        (("normal",), "off", ("normal",), ""),
        (("normal",), "only", ("normal",), ""),
        (("normal", "albedo"), "off", ("normal", "albedo"), "gated"),
        (("normal", "albedo"), "only", ("joint",), "joint"),
        (("normal", "albedo"), "also", ("normal", "albedo", "joint"), "gated+joint"),
    ],
)
def test_the_branches_follow_from_the_modalities_and_the_joint_branch(
    modalities: tuple[Modality, ...], joint: JointBranch, branches: tuple[BranchName, ...], label: str
) -> None:
    config = Config(data=DataConfig(modalities=modalities), fusion=FusionConfig(name="gated", joint=joint))
    assert config.branch_names == branches
    assert config.fusion_label == label
    assert config.joint == (modalities if "joint" in branches else ())


def smallest_lambda(loss: LossConfig) -> float:
    """The bound of MagFace, found numerically instead of by its closed form.

    Above the bound, the best norm a of an easy sample exceeds l_a. The margin raises the loss by at most s m'(a) per unit of a,
    as |d cos| <= |d angle|. lambda_g times the slope of the regulariser, which is steepest at l_a, must exceed that.
    """
    a = np.linspace(loss.lower_norm, loss.upper_norm, 400_001)
    g = a / loss.upper_norm**2 + 1 / a
    margin = np.interp(a, [loss.lower_norm, loss.upper_norm], [loss.lower_margin, loss.upper_margin])
    rise = loss.scale * np.gradient(margin, a).max()  # |d cos(theta + m)| <= |dm|
    fall = -(g[1] - g[0]) / (a[1] - a[0])
    return float(rise / fall)


def test_the_lambda_bound_is_22_6_at_the_originals_settings() -> None:
    loss = LossConfig(scale=64, lower_norm=10, upper_norm=110, lower_margin=0.45, upper_margin=0.8, lambda_g=35)
    assert loss.min_lambda_g == pytest.approx(22.6, abs=0.05)
    assert loss.min_lambda_g == pytest.approx(smallest_lambda(loss), rel=1e-3)


@pytest.mark.parametrize(
    "values",
    [
        {"upper_margin": 1.2, "lambda_g": 1e4},
        {"scale": 30.0},
        {"lower_norm": 5.0, "upper_norm": 40.0},
        {"lower_norm": 20.0, "lambda_g": 1e4},
    ],
    ids=str,
)
def test_the_lambda_bound_agrees_with_its_numerical_search(values: dict[str, float]) -> None:
    loss = LossConfig(**values)
    assert loss.min_lambda_g == pytest.approx(smallest_lambda(loss), rel=1e-3)


def test_the_originals_lambda_is_an_error_with_the_bound_and_the_remedy() -> None:
    with pytest.raises(InputError, match=r"loss\.lambda_g is 20.*22\.6.*loss\.allow_unsafe_lambda"):
        LossConfig(lambda_g=20.0)
    assert LossConfig(lambda_g=20.0, allow_unsafe_lambda=True).lambda_g == 20
    assert LossConfig(lambda_g=22.7).lambda_g == 22.7


@pytest.mark.parametrize("config", [Config(), UNUSUAL], ids=["default", "unusual"])
def test_flatten_gives_a_param_for_every_setting(config: Config) -> None:
    flat = flatten(config)
    assert set(flat) == {"/".join(path) for path, _ in leaves(config)}
    for path, value in leaves(config):
        expected = ",".join(value) if isinstance(value, tuple) else str(value)
        assert flat["/".join(path)] == expected


def test_a_config_cannot_be_changed() -> None:
    for name in ("name", "device"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(Config(), name, "x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().optim.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    "config",
    [Config(), UNUSUAL, *(Config(name=name) for name in ("1", "null", "yes", "1e3", "[a]", "ünïcode", "a=b"))],
    ids=lambda config: config.name or "default",
)
def test_a_config_survives_yaml_and_the_command_line(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(to_dict(config), sort_keys=False))
    assert training_config(parse_command_line(["train", "--config", str(file)])["train"]) == config


def test_the_unusual_config_changes_something_in_every_group() -> None:
    """Else the round trip above would prove little."""
    default = dict(leaves(Config()))
    changed = {path[0] for path, value in leaves(UNUSUAL) if default[path] != value}
    assert changed == {field.name for field in dataclasses.fields(Config)}


def test_to_dict_holds_only_yaml_and_json_types() -> None:
    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(isinstance(key, str) and plain(item) for key, item in value.items())
        return all(map(plain, value)) if isinstance(value, list) else type(value) in (str, int, float, bool)

    assert plain(to_dict(UNUSUAL))


def numeric_settings() -> Iterator[tuple[type, str]]:
    """The config and the name of every setting of any command that is, or may be, a number."""
    for kind in (getattr(module, name) for name in dir(module)):
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from (
                (kind, name)
                for name, hint in get_type_hints(kind).items()
                if {hint, *get_args(hint)} & {int, float} and get_origin(hint) not in (dict, tuple)
            )
            yield from (
                (inner, name)
                for inner in get_type_hints(kind).values()
                if dataclasses.is_dataclass(inner)
                for name, hint in get_type_hints(inner).items()
                if {hint, *get_args(hint)} & {int, float} and get_origin(hint) not in (dict, tuple)
            )


NUMERIC = sorted(set(numeric_settings()), key=str)
NEEDED = {PrepareConfig: {"captures": "a", "out": "b"}}
HUGE = [1e20, 10**20, 10**400, 10**5000, math.nan, math.inf, -math.inf, -1, -(10**20), True]


def test_the_settings_that_are_numbers_are_found() -> None:
    assert len(NUMERIC) > 60
    assert {"seed", "workers", "heartbeat", "hours", "lambda_g", "focal_gamma", "val_people"} <= {name for _, name in NUMERIC}


@pytest.mark.parametrize(("kind", "name"), NUMERIC, ids=str)
def test_every_number_has_bounds(kind: Callable[..., Any], name: str) -> None:
    for value in HUGE:
        with pytest.raises(InputError) as caught:
            kind(**NEEDED.get(kind, {}), **{name: value})
        assert name in str(caught.value)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["a@b", "a/b", "a:b", "a?b", "a#b", "a\\b", "a\nb", "a\x7fb", "", " a", "a ", ".a", "n" * 251])
def test_an_invalid_registered_model_name_is_an_error(name: str, rejected: AssertRejected) -> None:
    with rejected("--name", "expected a name"):
        register("no-such-run", name)
    if name:
        with rejected("after.register"):
            AfterConfig(register=name)


@pytest.mark.parametrize("name", ["face-recognition", "Mặt người", "a b", "a.b_c%1", "2026-11-28", "n" * 250])
def test_other_registered_model_names_are_valid(name: str) -> None:
    assert AfterConfig(register=name).register == name


@pytest.mark.parametrize("name", ["a\nb", "a\tb", " a", "a\x00", "n" * 251])
def test_names_with_control_characters_or_outer_spaces_are_errors(
    name: str, rejected: AssertRejected, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rejected("name is"):
        Config(name=name)
    with rejected("study.name is"):
        StudyConfig(name=name)
    if "\x00" not in name:  # no environment variable has one
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
        with rejected("MLFLOW_EXPERIMENT_NAME is"):
            new_run_info("id", "name")


@pytest.mark.parametrize("name", REMOVED)
def test_a_file_of_an_earlier_version_with_a_removed_setting_is_read_if_its_value_is_the_constant(
    name: str, tmp_path: Path, rejected: AssertRejected
) -> None:
    group, _, leaf = name.partition(".")
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump({group: {leaf: REMOVED[name]}}))
    command, words = ("search", ["--study.name=s", "--space={optim.lr: [1]}"]) if group == "pruner" else ("train", [])
    read = parse_command_line([command, "--config", str(file), *words])[command]
    assert training_config(read) == from_dict({group: {leaf: REMOVED[name]}}) == Config()
    file.write_text(yaml.safe_dump({group: {leaf: 7}}))
    with rejected(f"{file}: {name} is 7, but the setting was removed and is always {REMOVED[name]}; remove it"):
        parse_command_line([command, "--config", str(file), *words])


def test_a_removed_setting_without_effect_on_results_is_read_with_any_value() -> None:
    assert from_dict({"train": {"scoring_batch": 256}}) == Config()
    assert without_removed({"loss": {"adaface_h": 0.5}}, any_value=True) == {"loss": {}}


def test_the_config_of_a_model_of_version_0_1_is_read() -> None:
    settings = yaml.safe_load((Path(__file__).parent / "old_files" / "model" / "config.yaml").read_text())
    assert settings["train"]["scoring_batch"] == 64
    assert from_dict(settings).train.epochs == settings["train"]["epochs"]


@pytest.mark.parametrize(("setting", "value"), [("compile", True), ("precision", "float16")])
def test_a_weighting_by_gradients_rejects_what_hides_or_rounds_them(
    setting: str, value: object, rejected: AssertRejected
) -> None:
    train = TrainConfig(**{setting: value})  # type: ignore[arg-type]
    with rejected(f"train.{setting} is", "because loss.weighting is upgrad, which needs gradients inside the network"):
        Config(loss=LossConfig(weighting="upgrad"), train=train)
    assert Config(loss=LossConfig(weighting="dwa"), train=train).train == train
