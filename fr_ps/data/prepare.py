"""From raw captures to a prepared data set: whole sessions or nothing, and running again does only what is left."""

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fr_ps.config import PrepareConfig
from fr_ps.data.capture_labels import CaptureLabels, read_capture_labels
from fr_ps.data.layout import DATA_FOLDER, LABELS_FILE, output_folder
from fr_ps.data.preparation import (
    FORMAT,
    RECORD_FILE,
    MeanFace,
    capture_to_maps,
    load_mean_face,
    preparation_settings,
    read_record,
)
from fr_ps.data.prepare_report import REPORT_COLUMNS, REPORT_FILE, is_unmodified, labels_text, write_table
from fr_ps.errors import InputError
from fr_ps.files import atomic_folder, folder_lock, remove_stale_temp, write_array
from fr_ps.outputs import check_not_input, check_output_file, check_replaceable
from fr_ps.photometric.align import read_boxes
from fr_ps.photometric.captures import CaptureSource, list_names, list_sources
from fr_ps.photometric.frame import Box
from fr_ps.photometric.orientation import find_axes_mismatch
from fr_ps.photometric.photoface import ATTRIBUTES_FILE
from fr_ps.progress import OnProgress, no_progress
from fr_ps.tables import format_csv, suggest_session

_KIND = "prepare"
_MAPS = ("albedo", "normal", "depth", "confidence")
_MAP_FILES = [f"{name}.npy" for name in _MAPS]


@dataclass(frozen=True)
class SessionResult:
    """What became of one session.

    Attributes:
        id, session: of it.
        status: `written`, `kept` from an earlier run, or `skipped`.
        reason: why it was skipped.
        done: what was done to it: alignment, intensities, quality and so on, as it stands in its `prepared.json`.
        labelled: False where others have a `metadataII.txt` and it has none.
    """

    id: str
    session: str
    status: str
    reason: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    labelled: bool = True


@dataclass(frozen=True)
class _SessionJob:
    source: CaptureSource
    box: Box | None


def prepare(config: PrepareConfig, advance: OnProgress = no_progress) -> list[SessionResult]:
    """Write the prepared data set of `config.captures` to `config.out`; returns what became of each session, sorted.

    Beside `labels.csv` and the maps, `prepare.csv` holds the outcomes. `labels.csv` is written last, when every session
    of it is on disk. A session's folder appears only when it is whole; one that stands already is kept if it was made
    from the same pictures with the same settings.

    Args:
        config: the settings.
        advance: called once a session.

    Raises:
        InputError: captures, labels, boxes or a prior that cannot be used, an output that would destroy them or files
            that `prepare` did not write, or a full disk; with `on_bad="fail"` also the first bad session.
    """
    out = Path(config.out)
    _check_paths_disjoint(config)
    unusable: dict[tuple[str, str], str] = {}
    sources = list_sources(Path(config.captures), unusable if config.on_bad == "skip" else None)
    labels = read_capture_labels(config, sources)
    unlabelled = set(labels.unlabelled)
    by_key = {(source.id, source.session): source for source in sources}
    boxes = _read_boxes(config, by_key)
    jobs = [_SessionJob(by_key[key], boxes.get(key)) for key in labels.rows]
    outcomes = [SessionResult(*key, "skipped", reason) for key, reason in (labels.rejected | unusable).items()]
    advance(len(sources) - len(jobs))
    prior = load_mean_face(config)
    _check_targets(config, jobs, prior)
    _check_tables(config, labels)
    with folder_lock(out):
        remove_stale_temp(out / DATA_FOLDER)
        for outcome in _prepare_sessions(jobs, config, prior):
            if outcome.status == "skipped" and config.on_bad == "fail":
                raise InputError(f"{outcome.reason} (session {outcome.id}/{outcome.session}; --on-bad skip goes on without it)")
            outcomes.append(replace(outcome, labelled=(outcome.id, outcome.session) not in unlabelled))
            advance(1)
        outcomes.sort(key=lambda outcome: (outcome.id, outcome.session))
        _write_tables(out, labels, outcomes)
    return outcomes


def _check_paths_disjoint(config: PrepareConfig) -> None:
    """Refuse an output that would replace an input, by their real paths."""
    out, captures = Path(config.out), Path(config.captures)
    root, data = captures.resolve(), out / DATA_FOLDER
    if root.is_relative_to(data.resolve()):
        raise InputError(f"--captures {captures}: lie in {data}, which is written; choose another --out, or move the captures")
    if out.resolve().is_relative_to(root) or data.resolve().is_relative_to(root):
        raise InputError(f"--out {out}: lies in the captures {captures}; choose a folder outside of them")
    for name in (LABELS_FILE, REPORT_FILE):
        check_not_input(out / name, _inputs(config))


def _check_tables(config: PrepareConfig, labels: CaptureLabels) -> None:
    """Refuse to replace tables that `prepare` did not write."""
    out = Path(config.out)
    for name in (LABELS_FILE, REPORT_FILE):
        check_output_file(out / name, _KIND, _inputs(config), config.overwrite or is_unmodified(out, name, labels))


def _inputs(config: PrepareConfig) -> dict[str, str | None]:
    return {"--labels": config.labels, "--boxes": config.boxes, "--prior": config.prior}


def _check_targets(config: PrepareConfig, jobs: Sequence[_SessionJob], mean_face: MeanFace | None) -> None:
    """Refuse to replace session folders that `prepare` did not write, or that hold a further file."""
    root = Path(config.captures).resolve()
    for job in jobs:
        target = output_folder(Path(config.out), job.source.id, job.source.session)
        if target.resolve().is_relative_to(root):
            raise InputError(f"{target}: lies in the captures {config.captures} by a link; choose another --out")
        check_replaceable(target, RECORD_FILE, None if _is_up_to_date(job, config, mean_face) else _MAP_FILES)


def _is_up_to_date(job: _SessionJob, config: PrepareConfig, mean_face: MeanFace | None) -> bool:
    """Whether the folder of a session stays as it is: it is finished, or its capture cannot be read."""
    try:
        made_from = _preparation_inputs(job, config, mean_face)
    except InputError:
        return True
    return _previous_details(output_folder(Path(config.out), job.source.id, job.source.session), made_from) is not None


def _read_boxes(config: PrepareConfig, captured: Collection[tuple[str, str]]) -> dict[tuple[str, str], Box]:
    """The box of each (id, session); a row that belongs to no capture is a slip of the pen that would go unseen."""
    boxes = read_boxes(Path(config.boxes)) if config.boxes else {}
    strange = [key for key in boxes if key not in captured]
    if strange and config.on_bad == "fail":
        remedy = suggest_session(strange[0], captured) or "correct it, or go on without it by --on-bad skip"
        raise InputError(
            f"{config.boxes}: row of {'/'.join(strange[0])} has no capture in {config.captures} ({len(strange)} such rows); "
            f"{remedy}"
        )
    return boxes


def _prepare_sessions(jobs: Sequence[_SessionJob], config: PrepareConfig, mean_face: MeanFace | None) -> Iterator[SessionResult]:
    one = partial(_prepare_session, config=config, mean_face=mean_face)
    if config.workers == 1:
        yield from map(one, jobs)
        return
    pool = ProcessPoolExecutor(config.workers)
    try:
        yield from pool.map(one, jobs, chunksize=4)
    except BrokenProcessPool:
        raise InputError(
            f"{config.out}: a worker was killed, probably for want of memory; run again with fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare_session(job: _SessionJob, config: PrepareConfig, mean_face: MeanFace | None) -> SessionResult:
    source = job.source
    target = output_folder(Path(config.out), source.id, source.session)
    try:
        made_from = _preparation_inputs(job, config, mean_face)
        done = _previous_details(target, made_from)
        if done is not None:
            return SessionResult(source.id, source.session, "kept", details=done)
        check_replaceable(target, RECORD_FILE, _MAP_FILES)  # again, as this may be hours later
        maps, done = capture_to_maps(source.folder, config, job.box, mean_face)
    except InputError as error:
        return SessionResult(source.id, source.session, "skipped", str(error))
    # While maps of other settings stand beside each other, this is no finished data set.
    (Path(config.out) / LABELS_FILE).unlink(missing_ok=True)
    with atomic_folder(target) as folder:
        for name in _MAPS:
            write_array(folder / f"{name}.npy", getattr(maps, name))
        # Not synced: where a power cut takes it, the session is made again, and every sync costs as much as the solver.
        record = {"done": done, "made_from": made_from, "sizes": _map_sizes(folder)}
        (folder / RECORD_FILE).write_text(json.dumps(record))
    return SessionResult(source.id, source.session, "written", details=done)


def _preparation_inputs(job: _SessionJob, config: PrepareConfig, mean_face: MeanFace | None) -> dict[str, Any]:
    """What decides the maps of a session: the settings, and the size and time of each of its files."""
    states = {name: _stat(job.source.folder / name) for name in list_names(job.source.folder)}
    seen = [[name, state.st_size, state.st_mtime_ns] for name, state in states.items() if state and stat.S_ISREG(state.st_mode)]
    settings = preparation_settings(config, mean_face) | {"box": list(job.box) if job.box else None}
    return {"format": FORMAT, "settings": settings, "files": seen}


def _stat(path: Path) -> os.stat_result | None:
    """None for a link to nothing, or in a folder that may be listed but not entered: whoever reads the file says so."""
    try:
        return path.stat()
    except OSError:
        return None


def _previous_details(target: Path, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """What an earlier run did to the session, if it would be done again; else None."""
    try:
        record = read_record(target)
        whole = record["made_from"] == inputs and record["sizes"] == _map_sizes(target)
        return record["done"] if whole else None
    except (InputError, OSError):  # a map is missing
        return None


def _map_sizes(folder: Path) -> list[int]:
    """Bytes of each map's file: a map that was cut off or removed is made again."""
    return [(folder / f"{name}.npy").stat().st_size for name in _MAPS]


def _write_tables(out: Path, labels: CaptureLabels, results: list[SessionResult]) -> None:
    report = [
        [outcome.id, outcome.session, outcome.status, outcome.details.get("aligned_by", ""), outcome.reason]
        for outcome in results
    ]
    write_table(out, REPORT_FILE, format_csv(REPORT_COLUMNS, report))
    quality = {(outcome.id, outcome.session): outcome.details["quality"] for outcome in results if outcome.details}
    if not quality:
        first = next(outcome.reason for outcome in results)
        raise InputError(
            f"{out}: no session could be prepared, so there is no data set; {REPORT_FILE} lists why, see the first: {first}"
        )
    write_table(out, LABELS_FILE, labels_text(labels, quality))


def summary_rows(results: list[SessionResult], limit: int = 10) -> tuple[list[list[str | int]], list[list[str]], int]:
    """For people: what was counted, the first `most` skipped sessions with their reasons, and how many more.

    Counted are the statuses, the alignments, and the sessions without labels of their own, where others have some.
    """
    counts = Counter(outcome.status for outcome in results)
    aligned = Counter(outcome.details["aligned_by"] for outcome in results if outcome.details)
    shown: list[list[str | int]] = [[status, counts[status]] for status in ("written", "kept", "skipped")]
    shown += [[_ALIGNMENT_TEXT[way], number] for way, number in sorted(aligned.items())]
    unlabelled = [f"{outcome.id}/{outcome.session}" for outcome in results if outcome.details and not outcome.labelled]
    if unlabelled:
        shown.append([f"without labels, as {unlabelled[0]} (no {ATTRIBUTES_FILE})", len(unlabelled)])
    skipped = [[outcome.id, outcome.session, outcome.reason] for outcome in results if outcome.status == "skipped"]
    return shown, skipped[:limit], max(len(skipped) - limit, 0)


_ALIGNMENT_TEXT = {"landmarks": "aligned by landmarks", "boxes": "cropped to a box", "none": "whole picture"}


def orientation_warning(results: list[SessionResult], light_axes: str) -> str | None:
    """What is wrong with the faces' orientation, where most sessions come out concave or mirrored; else None.

    `light_axes` is the setting that they were made with.
    """
    done = [outcome.details for outcome in results if outcome.details]
    if not done:
        return None
    convex = np.median([facts["convexity"] for facts in done], axis=0)
    error = find_axes_mismatch(convex, float(np.median([facts["twist_agreement"] for facts in done])))
    if error is None:
        return None
    if error.swapped:
        axes = light_axes.translate(str.maketrans("xy", "yx"))
    else:
        signed = re.findall("(-?)([xy])", light_axes)
        axes = "".join(("-" if (sign == "-") != (axis in error.negated) else "") + axis for sign, axis in signed)
    return (
        f"warning: the faces come out {error.shape}: the light directions were probably written in another convention; for "
        f"LightSource.m try --light-axes={axes} (and heed this line again), in lights.csv change the angles"
    )


def white_level_warning(results: list[SessionResult]) -> str | None:
    """The warning about sessions whose values pile up below the largest that their files can store; None if there are none.

    The level is the stored value, as `--white-level` takes it.
    """
    levels = Counter(outcome.details["pile_up"] for outcome in results if "pile_up" in outcome.details)
    if not levels:
        return None
    level, _ = levels.most_common(1)[0]
    return (
        f"warning: in {levels.total()} sessions many values are exactly the largest, as {level}: they are taken as saturated; "
        f"if the camera saturates there, set --white-level {level}, so that albedo is relative to it"
    )
