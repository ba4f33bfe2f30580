"""`train --resume`: whether a run may be gone on with, and with which settings. No torch: a refusal comes at once."""

from pathlib import Path
from typing import Any

import yaml

from fr_ps.config import Config, leaves, resolved, to_dict
from fr_ps.errors import InputError, one_line
from fr_ps.tracking.card import CHECKPOINTS, CONFIG_FILE
from fr_ps.tracking.listing import last_status
from fr_ps.tracking.owner import owned

RESUME = CHECKPOINTS / "resume"
"""Folder, in a run's, of the checkpoints to go on from, numbered as they were written."""
MODEL = "model"
"""Folder, in such a checkpoint's, of the model."""
_FIXED = ("name", "model/", "fusion/", "train/select", "optim/name", "loss/identity_loss", "loss/weighting", "data/modalities")
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
    with owned(folder):
        if last_status(folder) == "FINISHED":
            raise InputError(
                f"run {folder.name} is finished (fr-ps sync delivers what MLflow may lack of it); to train its model further, "
                f"begin a run with --model.weights {folder}/checkpoints/best/model.safetensors"
            )
    # A setting that an earlier version did not have yet has what is now its default.
    before = leaves(to_dict(Config())) | leaves(_settings(folder))
    now = leaves(to_dict(resolved(config)))
    changed = {name: f"{before[name]} -> {now[name]}" for name in now if now[name] != before[name]}
    what = "; ".join(f"{name.replace('/', '.')} {change}" for name, change in changed.items())
    if changed and not allow_changed:
        raise InputError(f"run {folder.name} has other settings: {what}; leave them, or go on with --allow-changed")
    if fixed := [name.replace("/", ".") for name in changed if name.startswith(_FIXED)]:
        raise InputError(f"run {folder.name} cannot take another {fixed[0]} ({what}); leave it, or begin a new run")
    return changed


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of the run in `folder` to go on from, as far as their names tell, the newest first."""
    return sorted((path for path in (folder / RESUME).glob("*") if path.name.isdigit()), reverse=True)


def _settings(folder: Path) -> dict[str, Any]:
    for file in (*(one / MODEL / CONFIG_FILE for one in checkpoints(folder)), folder / CONFIG_FILE):
        try:
            found = yaml.safe_load(file.read_text())
            if isinstance(found, dict):
                return found
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            trouble = one_line(error)
    raise InputError(f"{folder / CONFIG_FILE}: not readable as settings ({trouble}); begin a new run")
