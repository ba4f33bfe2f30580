"""The typed tree of settings. Every training is described by one `Config`; the docstrings are the text of `--help`.

No torch here: the names that an error lists must be known before anything heavy is imported.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fr_ps.config.batch import AugmentConfig, BatchConfig
from fr_ps.config.checks import check_display_name, check_setting
from fr_ps.config.data import DataConfig, SyntheticConfig
from fr_ps.config.loss import LossConfig
from fr_ps.config.model import FusionConfig, ModelConfig
from fr_ps.config.names import (
    BACKBONES,
    PEELING_ORDER,
    SYNTHETIC_ROOT,
    Adversaries,
    Align,
    Attribute,
    CaptureLayout,
    Fit,
    Fusion,
    Integration,
    LabelForm,
    LightAxes,
    Modality,
    Solver,
)
from fr_ps.config.prepare import PrepareConfig
from fr_ps.config.search import SearchConfig
from fr_ps.config.training import OptimConfig, ScheduleConfig, TrainConfig

__all__ = [
    "BACKBONES",
    "PEELING_ORDER",
    "SYNTHETIC",
    "TIMM",
    "Adversaries",
    "Align",
    "Attribute",
    "AugmentConfig",
    "BatchConfig",
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
    "Modality",
    "ModelConfig",
    "OptimConfig",
    "PrepareConfig",
    "ScheduleConfig",
    "SearchConfig",
    "Solver",
    "SyntheticConfig",
    "TrainConfig",
    "flatten",
    "from_dict",
    "leaves",
    "resolved",
    "to_dict",
    "with_settings",
]

_EXPECTED_SETTING = "a setting as optim.lr (fr-ps train --help lists them)"


@dataclass(frozen=True)
class Config:
    """Settings of a training.

    Args:
        name: of the run; empty: made from data, backbone and modality.
        device: where to compute; auto takes a GPU where there is one.
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
        used = self.data.modalities if len(self.data.modalities) > 1 else ()
        for modality, run in self.fusion.branches.items():
            check_setting(modality in used, f"fusion.branches.{modality}", run, "keys of data.modalities, which has two or more")
        one = not used and self.fusion.dropout > 0
        check_setting(not one, "fusion.dropout", self.fusion.dropout, "0, as data.modalities names one, and one always is left")


def to_dict(config: Any) -> Any:
    """A config as nested dicts and lists that YAML and JSON can hold."""
    if is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_dict(getattr(config, f.name)) for f in fields(config)}
    return list(config) if isinstance(config, tuple) else config


def with_absolute_paths(config: Config) -> Config:
    """`config` with every path made absolute, so that it means the same wherever it is read."""
    data, weights = config.data, config.model.weights
    root = data.root if data.root == SYNTHETIC_ROOT else str(Path(data.root).resolve())
    split = str(Path(data.split).resolve()) if data.split else ""
    model = replace(config.model, weights=str(Path(weights).resolve()) if weights else "")
    # A run is named by its id, which is the same everywhere; a folder by its place.
    branches = {
        modality: str(Path(run).resolve()) if Path(run).is_dir() else run for modality, run in config.fusion.branches.items()
    }
    fusion = replace(config.fusion, branches=branches)
    return replace(config, data=replace(data, root=root, split=split), model=model, fusion=fusion)


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """`config` with settings by name (`optim.lr`) as they are in `settings`; lists become tuples where the setting is one.

    Raises:
        InputError: there is no such setting, or the settings refuse a value, or the values together.
    """
    by_group: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        group, dot, leaf = name.partition(".")
        known = [one.name for one in fields(getattr(config, group))] if dot and is_dataclass(getattr(config, group, None)) else []
        check_setting(
            leaf in known,
            "setting",
            name,
            f"one of {', '.join(f'{group}.{one}' for one in known)}" if known else _EXPECTED_SETTING,
        )
        is_tuple = isinstance(getattr(getattr(config, group), leaf), tuple)
        check_setting(isinstance(value, (list, tuple)) or not is_tuple, name, value, f"a list, as [{value}]")
        by_group.setdefault(group, {})[leaf] = tuple(value) if is_tuple else value
    return replace(config, **{group: replace(getattr(config, group), **its) for group, its in by_group.items()})


def from_dict(tree: Mapping[str, Any]) -> Config:
    """The config of which `tree` is `to_dict`.

    Raises:
        InputError: the settings refuse what it says.
    """
    settings = {f"{group}.{name}": leaf for group, its in tree.items() if isinstance(its, dict) for name, leaf in its.items()}
    return replace(with_settings(Config(), settings), **{name: leaf for name, leaf in tree.items() if not isinstance(leaf, dict)})


def flatten_dict(tree: dict[str, Any]) -> dict[str, Any]:
    """The settings of `to_dict` by `group/name`."""
    flat = {}
    for group, value in tree.items():
        for name, leaf in value.items() if isinstance(value, dict) else [("", value)]:
            flat[f"{group}/{name}" if name else group] = leaf
    return flat


def flatten(config: Config) -> dict[str, str]:
    """The resolved settings as `group/name` to text, as they stand in MLflow's params."""
    found = flatten_dict(to_dict(config))
    return {name: ",".join(map(str, leaf)) if isinstance(leaf, list) else str(leaf) for name, leaf in found.items()}
