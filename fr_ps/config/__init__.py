"""The typed settings. A `Config` describes a training; the docstrings are the text of `--help`.

This package imports no torch, so that help and errors come at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fr_ps.config.checks import check_display_name, check_setting
from fr_ps.config.data import AugmentConfig, BatchConfig, DataConfig, SyntheticConfig
from fr_ps.config.loss import GRADIENT_WEIGHTINGS, LossConfig
from fr_ps.config.model import FusionConfig, ModelConfig
from fr_ps.config.names import (
    BACKBONES,
    JOINT,
    PEELING_ORDER,
    SYNTHETIC_ROOT,
    Adversaries,
    AlbedoNormalization,
    Align,
    Attribute,
    BranchName,
    CaptureLayout,
    Fit,
    Fusion,
    Integration,
    LabelForm,
    LightAxes,
    MaskSource,
    Modality,
    NormalConvention,
    Solver,
    SyntheticLayout,
)
from fr_ps.config.prepare import PrepareConfig
from fr_ps.config.search import SearchConfig
from fr_ps.config.training import OptimConfig, ScheduleConfig, TrainConfig
from fr_ps.errors import InputError

__all__ = [
    "BACKBONES",
    "JOINT",
    "PEELING_ORDER",
    "REMOVED",
    "SYNTHETIC_ROOT",
    "Adversaries",
    "AlbedoNormalization",
    "Align",
    "Attribute",
    "AugmentConfig",
    "BatchConfig",
    "BranchName",
    "CaptureLayout",
    "Config",
    "DataConfig",
    "Fit",
    "Fusion",
    "FusionConfig",
    "Integration",
    "LabelForm",
    "LightAxes",
    "LossConfig",
    "MaskSource",
    "Modality",
    "ModelConfig",
    "NormalConvention",
    "OptimConfig",
    "PrepareConfig",
    "ScheduleConfig",
    "SearchConfig",
    "Solver",
    "SyntheticConfig",
    "SyntheticLayout",
    "TrainConfig",
    "flatten",
    "flatten_dict",
    "from_dict",
    "to_dict",
    "with_absolute_paths",
    "with_settings",
    "without_removed",
]

REMOVED: dict[str, Any] = {
    "loss.adaface_h": 0.333,
    "loss.adaface_t_alpha": 0.01,
    "optim.weighting_factor": 50.0,
    "pruner.p": 0.1,
}
"""Removed settings that are constants now, with their values. Files that set them to these values are still read."""
_REMOVED_WITHOUT_EFFECT = ("train.scoring_batch",)
"""Removed settings that changed no result. Files with any value of them are still read."""
_EXPECTED_SETTING = "a setting such as optim.lr (fr-ps train --help lists them)"


@dataclass(frozen=True)
class Config:
    """Settings of a training.

    Args:
        name: name of the run; empty: from data, backbone and modality.
        device: device of the computation; auto takes a GPU if there is one.
    """

    name: str = ""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    data: DataConfig = field(default_factory=DataConfig)
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.name:
            check_display_name("name", self.name)
        if self.loss.weighting in GRADIENT_WEIGHTINGS:
            unavailable = f"because loss.weighting is {self.loss.weighting}, which needs gradients inside the network"
            check_setting(not self.train.compile, "train.compile", self.train.compile, f"false, {unavailable}")
            precision = self.train.precision
            check_setting(precision != "float16", "train.precision", precision, f"bfloat16 or float32, {unavailable}")
        if len(self.data.modalities) == 1:
            only = f"because data.modalities names only one modality, {self.data.modalities[0]}"
            check_setting(not self.fusion.branches, "fusion.branches", self.fusion.branches, f"no branches, {only}")
            check_setting(not self.fusion.dropout, "fusion.dropout", self.fusion.dropout, f"0, {only}")
        for name in self.fusion.branches:
            if name not in self.branch_names:
                raise InputError(
                    f"fusion.branches.{name}: the network has no such branch; with these data.modalities and fusion.joint "
                    f"({self.fusion.joint}) its branches are {', '.join(self.branch_names)}"
                )

    @property
    def joint(self) -> tuple[Modality, ...]:
        """The maps of the joint branch; empty if there is none, as with a single modality."""
        return self.data.modalities if self.fusion.joint != "off" and len(self.data.modalities) > 1 else ()

    @property
    def branch_names(self) -> tuple[BranchName, ...]:
        """The branches of the network, one per modality, and last the joint one."""
        if not self.joint:
            return self.data.modalities
        return (JOINT,) if self.fusion.joint == "only" else (*self.data.modalities, JOINT)

    @property
    def fusion_label(self) -> str:
        """How the modalities are fused, as `concat`, `joint` or `concat+joint`; empty for a single one."""
        if len(self.data.modalities) == 1:
            return ""
        names = [self.fusion.name] if len(self.branch_names) > 1 else []
        return "+".join([*names, JOINT] if self.joint else names)


def to_dict(config: Any) -> Any:
    """A config as nested dicts and lists that YAML and JSON can hold."""
    if is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_dict(getattr(config, f.name)) for f in fields(config)}
    return list(config) if isinstance(config, tuple) else config


def with_absolute_paths(config: Config) -> Config:
    """`config` with absolute paths, which stay valid in other working folders."""
    data, weights = config.data, config.model.weights
    root = data.root if data.root == SYNTHETIC_ROOT else str(Path(data.root).resolve())
    split = str(Path(data.split).resolve()) if data.split else ""
    model = replace(config.model, weights=str(Path(weights).resolve()) if weights else "")
    # A branch is a folder, or a run id, which is valid in any working folder.
    branches = {
        modality: str(Path(run).resolve()) if Path(run).is_dir() else run for modality, run in config.fusion.branches.items()
    }
    fusion = replace(config.fusion, branches=branches)
    return replace(config, data=replace(data, root=root, split=split), model=model, fusion=fusion)


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """`config` with the values of `settings`, whose keys are names such as `optim.lr`.

    A list becomes a tuple if the setting is a tuple in `config`.

    Raises:
        InputError: an unknown setting, an invalid value, or values that contradict each other.
    """
    by_group: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        group, dot, leaf = name.partition(".")
        present = getattr(config, group, None) if dot else None
        known = [one.name for one in fields(present)] if is_dataclass(present) else []
        expected = f"one of {', '.join(f'{group}.{one}' for one in known)}" if known else _EXPECTED_SETTING
        check_setting(leaf in known, "setting", name, expected)
        is_tuple = isinstance(getattr(present, leaf), tuple)
        check_setting(isinstance(value, (list, tuple)) or not is_tuple, name, value, f"a list, as [{value}]")
        by_group.setdefault(group, {})[leaf] = tuple(value) if is_tuple else value
    return replace(config, **{group: replace(getattr(config, group), **leaves) for group, leaves in by_group.items()})


def from_dict(tree: Mapping[str, Any]) -> Config:
    """The inverse of `to_dict`, also for a config of an earlier version.

    Raises:
        InputError: an unknown or invalid setting.
    """
    tree = without_removed(tree)
    settings = {
        f"{group}.{name}": leaf for group, leaves in tree.items() if isinstance(leaves, dict) for name, leaf in leaves.items()
    }
    return replace(with_settings(Config(), settings), **{name: leaf for name, leaf in tree.items() if not isinstance(leaf, dict)})


def without_removed(tree: Mapping[str, Any], where: str = "", any_value: bool = False) -> dict[str, Any]:
    """`tree` without the removed settings; its keys are nested (group, setting) or flat (`optim.lr`).

    Args:
        tree: settings of a training or a search.
        where: beginning of the error message.
        any_value: accept removed settings with any value; for callers that do not train with the settings.

    Raises:
        InputError: a removed setting differs from the constant that replaced it.
    """
    kept = {group: dict(settings) if isinstance(settings, dict) else settings for group, settings in tree.items()}
    for name in _REMOVED_WITHOUT_EFFECT:
        _pop_setting(kept, name)
    for name, constant in REMOVED.items():
        for value in _pop_setting(kept, name):
            if value != constant and not any_value:
                raise InputError(f"{where}{name} is {value!r}, but the setting was removed and is always {constant!r}; remove it")
    return kept


def _pop_setting(tree: dict[str, Any], name: str) -> list[Any]:
    """Remove the setting `name` from `tree`, under its nested and its flat key; returns the values found."""
    group, _, leaf = name.partition(".")
    nested = tree.get(group)
    values = [nested.pop(leaf)] if isinstance(nested, dict) and leaf in nested else []
    return values + ([tree.pop(name)] if name in tree else [])


def flatten_dict(tree: dict[str, Any]) -> dict[str, Any]:
    """The settings of `to_dict` by name, as `optim/lr`."""
    flat = {}
    for group, value in tree.items():
        for name, leaf in value.items() if isinstance(value, dict) else [("", value)]:
            flat[f"{group}/{name}" if name else group] = leaf
    return flat


def flatten(config: Config) -> dict[str, str]:
    """The settings as MLflow params: a mapping from name, such as `optim/lr`, to text."""
    found = flatten_dict(to_dict(config))
    return {name: ",".join(map(str, leaf)) if isinstance(leaf, list) else str(leaf) for name, leaf in found.items()}
