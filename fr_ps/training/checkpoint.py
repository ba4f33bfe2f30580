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
from fr_ps.files import new_folder, remove_remains, require_space, write_json, write_text
from fr_ps.json_files import NewerFormat, parse_json
from fr_ps.models.folder import WEIGHTS_FILE, write_tensors
from fr_ps.tracking.layout import CHECKPOINTS, MODEL, RESUME, checkpoints
from fr_ps.training.learner import Snapshot
from fr_ps.training.state import State

FORMAT = 1
_TRAINING_FILE = "training.safetensors"
_STATE_FILE = "state.json"
_SUMS_FILE = "SHA256SUMS"
_DAMAGED = ".damaged"
_KEPT = 2
_SPARE = 1 << 20


class Damaged(InputError):
    """A checkpoint that is not what was written."""


class CheckpointWriter:
    """Writes checkpoints in a thread of its own, one at a time, and keeps the last two.

    Args:
        folder: of the run.
        save_model: writes a model folder from a model's tensors.
    """

    def __init__(self, folder: Path, save_model: Callable[[Path, dict[str, Tensor]], None]) -> None:
        self.run, self.folder, self.save_model = folder, folder / RESUME, save_model
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def write(self, snapshot: Snapshot, publish: Callable[[Path], None]) -> None:
        """Begin to write `snapshot`; waits for the one before to be on disk.

        `publish` is called with the new model's folder before the checkpoint counts: what it does is done again by
        whoever goes on from the checkpoint before.

        Raises:
            InputError: the one before could not be written.
        """
        self.wait()
        self._pending = self._thread.submit(self._write, snapshot, publish)

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
        self._thread.shutdown()

    def _write(self, snapshot: Snapshot, publish: Callable[[Path], None]) -> None:
        tensors = [*snapshot.model.values(), *snapshot.training.values()]
        require_space(self.folder, sum(tensor.nbytes for tensor in tensors) + _SPARE)
        if not all(torch.isfinite(tensor.sum()) for tensor in snapshot.model.values()):
            raise InputError(
                f"weights became NaN or infinite and are not written; the last good checkpoint is {newest(self.run)}; lower "
                "optim.lr (fr-ps train --resume --allow-changed --optim.lr VALUE)"
            )
        number = max((int(path.name[:6]) for path in self.folder.glob("[0-9]*")), default=0) + 1
        with new_folder(self.folder / f"{number:06d}") as temporary:
            self.save_model(temporary / MODEL, snapshot.model)
            write_tensors(temporary / _TRAINING_FILE, snapshot.training)
            write_json(temporary / _STATE_FILE, {"format": FORMAT, **snapshot.values})
            files = sorted(file for file in temporary.rglob("*") if file.is_file())
            sums = [f"{_digest(file)}  {file.relative_to(temporary)}\n" for file in files]
            write_text(temporary / _SUMS_FILE, "".join(sums))
            publish(temporary / MODEL)
        for old in checkpoints(self.run)[_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)


def newest(folder: Path) -> str:
    """What to call the newest checkpoint of the run in `folder`; `none` where there is none."""
    return str(next(iter(checkpoints(folder)), "none"))


def latest(folder: Path, say: Callable[[str], None]) -> tuple[Path, Snapshot] | None:
    """The newest whole checkpoint of the run in `folder`, and where it is; None if none was ever written.

    A damaged one is put aside under another name, and the one before is taken, saying so.

    Raises:
        InputError: all are damaged, or the newest is of a newer format.
    """
    remove_remains(folder / CHECKPOINTS)
    damaged: list[tuple[Path, str]] = []
    for one in checkpoints(folder):
        try:
            snapshot = read_checkpoint(one)
        except Damaged as error:
            damaged.append((one, str(error)))
            continue
        for path, why in damaged:
            path.rename(path.with_name(f"{path.name}{_DAMAGED}"))
            say(f"{why}; put aside, going on from the one before, {one.name}")
        return one, snapshot
    if damaged:
        path, why = damaged[0]
        raise InputError(f"{why}; no whole checkpoint is left in {path.parent}; begin a new run")
    return None


def read_checkpoint(folder: Path) -> Snapshot:
    """The checkpoint in `folder`. Nothing in it is ever run.

    Raises:
        Damaged: it is not whole, or a byte of it is not what was written.
        InputError: it is of a newer format.
    """
    files = _verified(folder)
    try:
        model = safetensors.torch.load(files[f"{MODEL}/{WEIGHTS_FILE}"])
        training = safetensors.torch.load(files[_TRAINING_FILE])
    except SafetensorError as error:
        raise Damaged(f"{folder}: not a checkpoint ({one_line(error, 200)})") from None
    return Snapshot(model, training, _values(files[_STATE_FILE], folder / _STATE_FILE))


def _values(content: bytes, path: Path) -> dict[str, Any]:
    formats = range(FORMAT, FORMAT + 1)
    try:
        values = parse_json(content, dict[str, Any], str(path), "copy the checkpoint again", formats, also=lambda _: State)
    except NewerFormat:
        raise
    except InputError as error:
        raise Damaged(str(error)) from None
    return {name: value for name, value in values.items() if name != "format"}


def _verified(folder: Path) -> dict[str, bytes]:
    """What the files of a checkpoint hold, of which every one must be what its checksum says."""
    files = {}
    try:
        lines = (folder / _SUMS_FILE).read_text().splitlines()
        sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
        for name in {_STATE_FILE, _TRAINING_FILE, f"{MODEL}/{WEIGHTS_FILE}", *sums}:
            if not (folder / name).resolve().is_relative_to(folder.resolve()):
                raise ValueError(name)
            files[name] = (folder / name).read_bytes()
            if hashlib.sha256(files[name]).hexdigest() != sums[name]:
                raise Damaged(f"{folder / name}: is not what was written (its checksum differs)")
    except (OSError, ValueError, KeyError) as error:
        text = error.strerror if isinstance(error, OSError) else f"{_SUMS_FILE} is no list of checksums"
        raise Damaged(f"{folder}: not a whole checkpoint ({text})") from None
    return files


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
