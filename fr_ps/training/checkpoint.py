"""Checkpoints to go on from: written beside the training, checksummed, and never trusted blindly."""

import hashlib
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from fr_ps.errors import InputError, one_line
from fr_ps.files import atomic_folder, check_free_space, remove_stale_temp, write_json, write_text
from fr_ps.json_files import NewerFormatError, parse_json
from fr_ps.models.folder import WEIGHTS_FILE, write_tensors
from fr_ps.tracking.layout import CHECKPOINTS_FOLDER, MODEL_FOLDER, RESUME_CHECKPOINTS, list_checkpoints
from fr_ps.training.checkpoint_schema import StateFile
from fr_ps.training.train_state import CheckpointData

FORMAT = 1
_TRAINING_FILE = "training.safetensors"
_STATE_FILE = "state.json"
_CHECKSUM_FILE = "SHA256SUMS"
_CORRUPT_SUFFIX = ".damaged"
_KEEP_LAST = 2
_DISK_RESERVE = 1 << 20


class CorruptCheckpoint(InputError):
    """A checkpoint that is not what was written."""


class CheckpointWriter:
    """Writes checkpoints in a thread of its own, one at a time, and keeps the last two.

    Args:
        folder: of the run.
        save_model: writes a model folder from a model's tensors.
    """

    def __init__(self, folder: Path, save_model: Callable[[Path, dict[str, Tensor]], None]) -> None:
        self.run_folder, self.folder, self.save_model = folder, folder / RESUME_CHECKPOINTS, save_model
        self._executor = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def write(self, snapshot: CheckpointData, publish: Callable[[Path], None]) -> None:
        """Begin to write `snapshot`; waits for the one before to be on disk.

        `publish` is called with the new model's folder before the checkpoint counts: what it does is done again by
        whoever goes on from the checkpoint before.

        Raises:
            InputError: the one before could not be written.
        """
        self.wait()
        self._pending = self._executor.submit(self._write, snapshot, publish)

    def wait(self) -> None:
        """Wait until all is on disk.

        Raises:
            InputError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def close(self) -> None:
        """End the thread, after what it is writing."""
        self._executor.shutdown()

    def _write(self, snapshot: CheckpointData, publish: Callable[[Path], None]) -> None:
        tensors = [*snapshot.model.values(), *snapshot.tensors.values()]
        check_free_space(self.folder, sum(tensor.nbytes for tensor in tensors) + _DISK_RESERVE)
        if not all(torch.isfinite(tensor.sum()) for tensor in snapshot.model.values()):
            raise InputError(
                f"weights became NaN or infinite and are not written; the last good checkpoint is "
                f"{latest_name(self.run_folder)}; lower optim.lr (fr-ps train --resume --allow-changed --optim.lr VALUE)"
            )
        number = max((int(path.name[:6]) for path in self.folder.glob("[0-9]*")), default=0) + 1
        with atomic_folder(self.folder / f"{number:06d}") as temporary:
            self.save_model(temporary / MODEL_FOLDER, snapshot.model)
            write_tensors(temporary / _TRAINING_FILE, snapshot.tensors)
            write_json(temporary / _STATE_FILE, {"format": FORMAT, **snapshot.values})
            files = sorted(file for file in temporary.rglob("*") if file.is_file())
            sums = [f"{_sha256(file)}  {file.relative_to(temporary)}\n" for file in files]
            write_text(temporary / _CHECKSUM_FILE, "".join(sums))
            publish(temporary / MODEL_FOLDER)
        for old in list_checkpoints(self.run_folder)[_KEEP_LAST:]:
            shutil.rmtree(old, ignore_errors=True)


def latest_name(folder: Path) -> str:
    """What to call the newest checkpoint of the run in `folder`; `none` where there is none."""
    return str(next(iter(list_checkpoints(folder)), "none"))


def load_latest(folder: Path, echo: Callable[[str], None]) -> tuple[Path, CheckpointData] | None:
    """The newest whole checkpoint of the run in `folder`, and where it is; None if none was ever written.

    A damaged one is put aside under another name, and the one before is taken, saying so.

    Raises:
        InputError: all are damaged, or the newest is of a newer format.
    """
    remove_stale_temp(folder / CHECKPOINTS_FOLDER)
    damaged: list[tuple[Path, str]] = []
    for one in list_checkpoints(folder):
        try:
            snapshot = read_checkpoint(one)
        except CorruptCheckpoint as error:
            damaged.append((one, str(error)))
            continue
        for path, why in damaged:
            path.rename(path.with_name(f"{path.name}{_CORRUPT_SUFFIX}"))
            echo(f"{why}; put aside, going on from the one before, {one.name}")
        return one, snapshot
    if damaged:
        path, why = damaged[0]
        raise InputError(f"{why}; no whole checkpoint is left in {path.parent}; begin a new run")
    return None


def read_checkpoint(folder: Path) -> CheckpointData:
    """The checkpoint in `folder`. Nothing in it is ever run.

    Raises:
        Damaged: it is not whole, or a byte of it is not what was written.
        InputError: it is of a newer format.
    """
    files = _read_verified(folder)
    try:
        model = safetensors.torch.load(files[f"{MODEL_FOLDER}/{WEIGHTS_FILE}"])
        training = safetensors.torch.load(files[_TRAINING_FILE])
    except SafetensorError as error:
        raise CorruptCheckpoint(f"{folder}: not a checkpoint ({one_line(error, 200)})") from None
    return CheckpointData(model, training, _parse_state(files[_STATE_FILE], folder / _STATE_FILE))


def _parse_state(content: bytes, path: Path) -> dict[str, Any]:
    formats = range(FORMAT, FORMAT + 1)
    try:
        values = parse_json(content, dict[str, Any], str(path), "copy the checkpoint again", formats, refine=lambda _: StateFile)
    except NewerFormatError:
        raise
    except InputError as error:
        raise CorruptCheckpoint(str(error)) from None
    return {name: value for name, value in values.items() if name != "format"}


def _read_verified(folder: Path) -> dict[str, bytes]:
    """What the files of a checkpoint hold, of which every one must be what its checksum says."""
    files = {}
    try:
        lines = (folder / _CHECKSUM_FILE).read_text().splitlines()
        sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
        for name in {_STATE_FILE, _TRAINING_FILE, f"{MODEL_FOLDER}/{WEIGHTS_FILE}", *sums}:
            if not (folder / name).resolve().is_relative_to(folder.resolve()):
                raise ValueError(name)
            files[name] = (folder / name).read_bytes()
            if hashlib.sha256(files[name]).hexdigest() != sums[name]:
                raise CorruptCheckpoint(f"{folder / name}: is not what was written (its checksum differs)")
    except (OSError, ValueError, KeyError) as error:
        text = error.strerror if isinstance(error, OSError) else f"{_CHECKSUM_FILE} is no list of checksums"
        raise CorruptCheckpoint(f"{folder}: not a whole checkpoint ({text})") from None
    return files


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
