"""`train --resume`: whether a run may be gone on with, and with which settings. No torch: a refusal comes at once."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from fr_ps.config import Config, flatten_dict, to_dict, with_absolute_paths
from fr_ps.errors import InputError
from fr_ps.tracking.layout import CONFIG_FILE, MODEL_FOLDER, list_checkpoints
from fr_ps.tracking.listing import last_status
from fr_ps.tracking.run_lock import run_lock

_IMMUTABLE = (
    "name",
    "model/",
    "fusion/",
    "train/select",
    "optim/name",
    "loss/identity_loss",
    "loss/weighting",
    "data/modalities",
)
"""What a training that has begun cannot take otherwise: it would be another one, or nothing would come of it."""


def changed_settings(folder: Path, config: Config, allow_changed: bool) -> dict[str, str]:
    """What of the settings of the training in `folder` is otherwise in `config`: `group/name` to `before -> now`.

    Its settings are those of its newest checkpoint, or where it has none, those in its folder.

    Args:
        folder: of the run.
        config: what it is to go on with.
        allow_changed: whether anything may be changed.

    Raises:
        InputError: it is finished, a living process runs it, or it has changed settings that may not be changed.
    """
    with run_lock(folder):
        if last_status(folder) == "FINISHED":
            raise InputError(
                f"run {folder.name} is finished (fr-ps sync delivers what MLflow may lack of it); to train its model further, "
                f"begin a run with --model.weights {folder}/checkpoints/best/model.safetensors"
            )
    # A setting that an earlier version did not have yet has what is now its default.
    before = flatten_dict(to_dict(Config())) | flatten_dict(_saved_config(folder))
    now = flatten_dict(to_dict(with_absolute_paths(config)))
    changed = {name: f"{before[name]} -> {now[name]}" for name in now if now[name] != before[name]}
    what = "; ".join(f"{name.replace('/', '.')} {change}" for name, change in changed.items())
    if changed and not allow_changed:
        raise InputError(f"run {folder.name} has other settings: {what}; leave them, or go on with --allow-changed")
    if fixed := [name.replace("/", ".") for name in changed if name.startswith(_IMMUTABLE)]:
        raise InputError(f"run {folder.name} cannot take another {fixed[0]} ({what}); leave it, or begin a new run")
    return changed


def _saved_config(folder: Path) -> dict[str, Any]:
    """Those of the newest checkpoint of which they can be read, else those in the run's folder, which have been read already."""
    for checkpoint in list_checkpoints(folder):
        # A damaged one is reported where the training goes on from it.
        with suppress(OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError):
            found = yaml.safe_load((checkpoint / MODEL_FOLDER / CONFIG_FILE).read_text())
            if isinstance(found, dict):
                return found
    return dict(yaml.safe_load((folder / CONFIG_FILE).read_text()))
