"""A checkpoint on disk: a model folder, `training.safetensors`, `state.json` and the SHA-256 of every file."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors.torch
from annotated_types import Interval, Len
from safetensors import SafetensorError
from torch import Tensor

from fr_ps.errors import InputError, one_line
from fr_ps.files import remove_stale_temp, write_json, write_text
from fr_ps.json_files import NewerFormatError, NonNegativeInt, parse_json
from fr_ps.models.folder import WEIGHTS_FILE, write_model, write_tensors
from fr_ps.tracking.run_folder import CHECKPOINTS_FOLDER, MODEL_FOLDER, list_checkpoints
from fr_ps.training.setup import TrainingSetup, write_config_and_split

FORMAT = 1
_TRAINING_FILE = "training.safetensors"
_STATE_FILE = "state.json"
_CHECKSUM_FILE = "SHA256SUMS"
_CORRUPT_SUFFIX = ".damaged"
_TENSOR_SECTIONS = ("network", "losses", "means", "rng", "optimizer")
"""Sections of a state whose tensors are stored in `training.safetensors`, as SECTION.NAME; `state.json` has all other values."""

_UInt32 = Annotated[int, Interval(ge=0, lt=1 << 32)]


class CorruptCheckpoint(InputError):
    """A checkpoint with missing or changed files."""


@dataclass(frozen=True)
class _TrackerState:
    best: float | None
    best_epoch: NonNegativeInt
    epoch: NonNegativeInt


@dataclass(frozen=True)
class _OptimizerState:
    rates: list[float]
    plain: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class _RngState:
    """The states of the Mersenne Twisters of numpy and Python: 624 words each. In Python's, the position follows the words."""

    numpy: tuple[
        Literal["MT19937"],
        Annotated[list[_UInt32], Len(624, 624)],
        Annotated[int, Interval(ge=0, le=624)],
        Annotated[int, Interval(ge=0, le=1)],
        float,
    ]
    python: tuple[Literal[3], Annotated[list[_UInt32], Len(625, 625)], float | None]


@dataclass(frozen=True)
class _Environment:
    data: str
    split: str
    batches: NonNegativeInt


@dataclass(frozen=True)
class StateFile:
    """The content of `state.json`: `TrainState.state_dict` without its tensors, and what `CheckpointManager.save` adds."""

    format: NonNegativeInt
    epoch: NonNegativeInt
    batch: NonNegativeInt
    images: NonNegativeInt
    seconds: float
    counts: dict[str, NonNegativeInt]
    bad: tuple[NonNegativeInt, NonNegativeInt]
    selections: dict[str, _TrackerState]
    validation: tuple[dict[str, float | None], dict[str, str]]
    optimizer: _OptimizerState
    rng: _RngState
    surroundings: _Environment
    journal: NonNegativeInt


def write_checkpoint(folder: Path, state: Mapping[str, Any], setup: TrainingSetup) -> None:
    """Write `state` into the empty `folder`, synced."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {"format": FORMAT}
    for name, value in state.items():
        if name in _TENSOR_SECTIONS:
            tensors |= {f"{name}.{key}": part for key, part in value.items() if isinstance(part, Tensor)}
            value = {key: part for key, part in value.items() if not isinstance(part, Tensor)}
            if not value:
                continue
        if name != "model":
            values[name] = value
    model = folder / MODEL_FOLDER
    model.mkdir()
    write_model(model, state["model"], setup.info)
    write_config_and_split(model, setup)
    write_tensors(folder / _TRAINING_FILE, tensors)
    write_json(folder / _STATE_FILE, values)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    write_text(folder / _CHECKSUM_FILE, "".join(f"{_sha256(file)}  {file.relative_to(folder)}\n" for file in files))


def latest_checkpoint(run_folder: Path) -> str:
    """The path of the newest checkpoint of a run, for messages; `none` if there is none."""
    return str(next(iter(list_checkpoints(run_folder)), "none"))


def load_latest(run_folder: Path, echo: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """The newest intact checkpoint of a run and its state; None if the run has none.

    A corrupt checkpoint is renamed and reported, and the one before it is used.

    Raises:
        InputError: all are corrupt, or the newest has a newer format.
    """
    remove_stale_temp(run_folder / CHECKPOINTS_FOLDER)
    corrupt: list[tuple[Path, str]] = []
    for folder in list_checkpoints(run_folder):
        try:
            state = read_checkpoint(folder)
        except CorruptCheckpoint as error:
            corrupt.append((folder, str(error)))
            continue
        for path, reason in corrupt:
            path.rename(path.with_name(f"{path.name}{_CORRUPT_SUFFIX}"))
            echo(f"{reason}; renamed to {path.name}{_CORRUPT_SUFFIX}, resuming from the checkpoint before, {folder.name}")
        return folder, state
    if corrupt:
        path, reason = corrupt[0]
        raise InputError(f"{reason}; {path.parent} has no intact checkpoint left; begin a new run")
    return None


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The state that `write_checkpoint` wrote into `folder`. No code from the files runs.

    Raises:
        CorruptCheckpoint: a file is missing or differs from its checksum.
        InputError: the format is newer.
    """
    files = _read_verified(folder)
    try:
        model = safetensors.torch.load(files[f"{MODEL_FOLDER}/{WEIGHTS_FILE}"])
        tensors = safetensors.torch.load(files[_TRAINING_FILE])
    except SafetensorError as error:
        raise CorruptCheckpoint(f"{folder}: not a checkpoint ({one_line(error, 200)})") from None
    state = _parse_values(files[_STATE_FILE], folder / _STATE_FILE)
    for path, tensor in tensors.items():
        section, _, name = path.partition(".")
        state.setdefault(section, {})[name] = tensor
    return {"model": model, **state}


def _parse_values(content: bytes, path: Path) -> dict[str, Any]:
    formats = range(FORMAT, FORMAT + 1)
    try:
        values = parse_json(content, dict[str, Any], str(path), "copy the checkpoint again", formats, refine=lambda _: StateFile)
    except NewerFormatError:
        raise
    except InputError as error:
        raise CorruptCheckpoint(str(error)) from None
    return {name: value for name, value in values.items() if name != "format"}


def _read_verified(folder: Path) -> dict[str, bytes]:
    """File name to content, each verified against its checksum."""
    files = {}
    try:
        # Not splitlines, which also splits at characters that a flipped bit makes of a newline.
        lines = (folder / _CHECKSUM_FILE).read_text().removesuffix("\n").split("\n")
        digests = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
        for name in {_STATE_FILE, _TRAINING_FILE, f"{MODEL_FOLDER}/{WEIGHTS_FILE}", *digests}:
            if not (folder / name).resolve().is_relative_to(folder.resolve()):
                raise ValueError(name)
            files[name] = (folder / name).read_bytes()
            if hashlib.sha256(files[name]).hexdigest() != digests[name]:
                raise CorruptCheckpoint(f"{folder / name}: its checksum differs from the one in {_CHECKSUM_FILE}")
    except (OSError, ValueError, KeyError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{_CHECKSUM_FILE} is not a list of checksums"
        raise CorruptCheckpoint(f"{folder}: incomplete checkpoint ({reason})") from None
    return files


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
