"""`train --resume`: whether a run can be resumed, and with which settings. Imports no torch, so an error comes at once."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from fr_ps.config import Config, flatten_dict, to_dict, with_absolute_paths
from fr_ps.errors import InputError
from fr_ps.tracking.listing import last_status
from fr_ps.tracking.run_folder import CONFIG_FILE, MODEL_FOLDER, list_checkpoints
from fr_ps.tracking.run_lock import run_lock

_IMMUTABLE = (
    "name",
    "model/",
    "fusion/",
    "train/select",
    "optim/name",
    "loss/identity_loss",
    "loss/branches",
    "loss/weighting",
    "data/modalities",
)
"""Settings that a resumed training cannot change, by prefix."""


def changed_settings(folder: Path, config: Config, allow_changed: bool) -> dict[str, str]:
    """The settings of `config` that differ from those of the run in `folder`: `group/name` to `before -> now`.

    The settings of a run are those of its newest checkpoint, or without a checkpoint those of its `config.yaml`. The checkpoint
    comes first because `config.yaml` can have settings with which no checkpoint was trained: it was edited, or an earlier resume
    changed settings and ended before its first checkpoint.

    Args:
        folder: folder of the run.
        config: the settings to resume with.
        allow_changed: whether settings may differ.

    Raises:
        InputError: the run is finished, another process runs it, or a changed setting is not allowed.
    """
    with run_lock(folder):
        if last_status(folder) == "FINISHED":
            raise InputError(
                f"run {folder.name} is finished (fr-ps sync uploads what MLflow may lack); to train its model further, "
                f"begin a new run with --model.weights {folder}/checkpoints/best/model.safetensors"
            )
    # Settings that are missing in the saved file (written by an earlier version) get today's defaults.
    before = flatten_dict(to_dict(Config())) | flatten_dict(_saved_config(folder))
    now = flatten_dict(to_dict(with_absolute_paths(config)))
    changed = {name: f"{before[name]} -> {now[name]}" for name in now if now[name] != before[name]}
    changes = "; ".join(f"{name.replace('/', '.')} {change}" for name, change in changed.items())
    if changed and not allow_changed:
        raise InputError(
            f"run {folder.name} was trained with other settings: {changes}; give --allow-changed to resume with them, or restore "
            "the former ones"
        )
    if immutable := [name.replace("/", ".") for name in changed if name.startswith(_IMMUTABLE)]:
        raise InputError(f"run {folder.name} cannot change {immutable[0]} ({changes}); leave it out, or begin a new run")
    return changed


def _saved_config(folder: Path) -> dict[str, Any]:
    """The settings of the newest checkpoint with a readable file, else those of the run's `config.yaml`."""
    for checkpoint in list_checkpoints(folder):
        # `load_latest` reports a corrupt one.
        with suppress(OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError):
            found = yaml.safe_load((checkpoint / MODEL_FOLDER / CONFIG_FILE).read_text())
            if isinstance(found, dict):
                return found
    return dict(yaml.safe_load((folder / CONFIG_FILE).read_text()))
