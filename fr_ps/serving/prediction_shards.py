"""`predict` on several machines: each shard predicts a part of the sessions, and a merge joins the predictions of all.

A shard is made of whole batches, because the last bits of an embedding depend on its batch: the merge gives the table of a run
without shards to the byte, if the machines have the same processors or GPUs, versions and number of threads.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from fr_ps.data.labels import ATTRIBUTES
from fr_ps.errors import InputError, one_line
from fr_ps.files import check_regular_file, write_atomic
from fr_ps.json_files import parse_json
from fr_ps.models.inference import Predictions, concatenate_predictions
from fr_ps.progress import OnProgress, no_progress
from fr_ps.serving.predict import FailedSession, PredictionResult, SessionInput, check_not_empty, predict_readable
from fr_ps.serving.recognizer import Recognizer
from fr_ps.shards import (
    Job,
    Setting,
    Shard,
    check_all_done,
    check_same_job,
    check_startable,
    digest,
    find_shard_files,
    remove_shard_files,
    shard_file,
)
from fr_ps.tables import SessionKey

_SUFFIX = ".safetensors"
_RECORD = "fr_ps"
"""Key of the record in the metadata of the file."""
_EMBEDDINGS = "embeddings"
_REMEDY = "remove it, and run that shard again"


@dataclass(frozen=True)
class _ShardRecord:
    """The metadata of a shard's file; its tensors are the predictions of the sessions that did not fail."""

    job: dict[str, Setting]
    failed: list[tuple[str, str, str]]
    warning: str | None


def shards_folder(out: Path) -> Path:
    """The folder with the files of the shards of the output `out`."""
    return out.with_name(f"{out.name}.shards")


def select_batches(sessions: Sequence[SessionInput], batch: int, shard: Shard) -> list[SessionInput]:
    """The sessions of the batches of `shard`; the numbers of batches of two shards differ by one at most."""
    starts = shard.select(range(0, len(sessions), batch))
    return [session for start in starts for session in sessions[start : start + batch]]


def predict_shard(
    recognizer: Recognizer,
    sessions: Sequence[SessionInput],
    shard: Shard,
    *,
    out: Path,
    source: Path,
    batch: int,
    advance: OnProgress = no_progress,
) -> tuple[Path, PredictionResult]:
    """Predict the sessions of `shard`, and write the result beside `out`; returns its file and the result.

    Args:
        recognizer: recognizer of the model.
        sessions: the sessions of all shards.
        shard: which part of them.
        out: the output of the merge.
        source: folder of the maps or captures.
        batch: sessions per batch.
        advance: called with the number of sessions done since the previous call.

    Raises:
        InputError: another shard beside `out` is of another number, model, input or batch size; a prediction has NaN or
            infinity; the folder cannot be written.
    """
    folder, job = shards_folder(out), _job(recognizer, sessions, source, batch)
    files = find_shard_files(folder, _SUFFIX)
    check_startable(files, shard, job, lambda file: _read_record(file).job)
    file = shard_file(folder, shard, _SUFFIX)
    file.unlink(missing_ok=True)  # the merge must not take the result of an earlier attempt, of other maps perhaps
    result = predict_readable(recognizer, select_batches(sessions, batch, shard), batch, advance)
    _write_shard(file, job, result)
    return file, result


def merge_shards(
    recognizer: Recognizer, sessions: Sequence[SessionInput], *, out: Path, source: Path, batch: int
) -> PredictionResult:
    """The predictions of all `sessions`, in their order, from the files of the shards beside `out`.

    Args:
        recognizer: as in the shards, like all further arguments.
        sessions: the sessions of all shards.
        out: the output of the merge.
        source: folder of the maps or captures.
        batch: sessions per batch.

    Raises:
        InputError: a shard is missing, damaged, or of another number, model, input or batch size; or no session could be read.
    """
    folder, job = shards_folder(out), _job(recognizer, sessions, source, batch)
    files = find_shard_files(folder, _SUFFIX)
    records = {shard: _read_record(file) for shard, file in files.items()}
    for shard, record in records.items():
        check_same_job(files[shard], record.job, job)
    check_all_done(folder, files, files)
    reasons = {(subject, session): reason for record in records.values() for subject, session, reason in record.failed}
    keys: list[SessionKey] = []
    parts = []
    for shard, file in files.items():
        of_shard = [one.key for one in select_batches(sessions, batch, shard) if one.key not in reasons]
        keys += of_shard
        parts.append(_read_predictions(file, len(of_shard)))
    joined = concatenate_predictions([part for part in parts if len(part.embeddings)] or parts[:1])
    row_of = {key: row for row, key in enumerate(keys)}
    predicted = [one.key for one in sessions if one.key in row_of]
    rows = [row_of[key] for key in predicted]
    predictions = Predictions(joined.embeddings[rows], {name: array[rows] for name, array in joined.probabilities.items()})
    failures = [FailedSession(*one.key, reasons[one.key]) for one in sessions if one.key in reasons]
    warning = next((record.warning for record in records.values() if record.warning), None)
    return check_not_empty(PredictionResult(predicted, predictions, failures, warning))


def remove_shards(out: Path) -> None:
    """Remove the files of the shards of `out`, after the merge has written it."""
    remove_shard_files(shards_folder(out))


def _job(recognizer: Recognizer, sessions: Sequence[SessionInput], source: Path, batch: int) -> Job:
    """What must be equal in all shards."""
    return {
        "model": digest(recognizer.digest),
        "device": next(recognizer.network.parameters()).device.type,
        "engine": "onnx" if recognizer.onnx else "torch",
        "batch": batch,
        "input": str(source.absolute()),
        "sessions": digest([session.key for session in sessions]),
    }


def _write_shard(file: Path, job: Job, result: PredictionResult) -> None:
    failed = [(one.id, one.session, one.reason) for one in result.failures]
    record = {"job": job, "failed": failed, "warning": result.warning}
    tensors = {_EMBEDDINGS: result.predictions.embeddings} | result.predictions.probabilities
    content = safetensors.numpy.save(
        {name: np.ascontiguousarray(array) for name, array in tensors.items()}, metadata={_RECORD: json.dumps(record)}
    )
    write_atomic(file, lambda opened: opened.write(content))


def _read_record(file: Path) -> _ShardRecord:
    with _open(file) as opened:
        content = (opened.metadata() or {}).get(_RECORD)
    if content is None:
        raise InputError(f"{file}: not the file of a shard; {_REMEDY}")
    return parse_json(content, _ShardRecord, str(file), _REMEDY)


def _read_predictions(file: Path, count: int) -> Predictions:
    with _open(file) as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # not a mapping
    if set(tensors) != {_EMBEDDINGS, *ATTRIBUTES} or any(len(array) != count for array in tensors.values()):
        raise InputError(f"{file}: expected the predictions of {count} sessions; {_REMEDY}")
    return Predictions(tensors.pop(_EMBEDDINGS), {task: tensors[task] for task in ATTRIBUTES})


@contextmanager
def _open(file: Path) -> Iterator[Any]:
    """The open file of a shard.

    Raises:
        InputError: it is missing, unreadable or damaged.
    """
    try:
        check_regular_file(file)
        with safe_open(file, framework="np") as opened:
            yield opened
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: cannot be read ({one_line(error)}); {_REMEDY}") from None
