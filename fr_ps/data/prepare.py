"""From raw captures to a prepared data set. Sessions are written atomically; a repeated run prepares the missing ones."""

import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fr_ps.config import PrepareConfig
from fr_ps.data.capture_labels import CaptureLabels, read_capture_labels
from fr_ps.data.layout import DATA_FOLDER, LABELS_FILE, output_folder
from fr_ps.data.mean_face import MeanFace, load_mean_face
from fr_ps.data.preparation import FORMAT, RECORD_FILE, capture_to_maps, is_outdated, preparation_settings, read_record
from fr_ps.data.prepare_report import REPORT_FILE, SessionResult, is_unmodified, labels_text, report_text, write_table
from fr_ps.data.stored_pictures import PICTURES, pictures_to_store
from fr_ps.errors import InputError
from fr_ps.files import atomic_folder, remove_stale_temp
from fr_ps.locks import file_lock
from fr_ps.npy import write_array
from fr_ps.outputs import check_not_input, check_output_file, check_replaceable
from fr_ps.photometric.align import read_boxes
from fr_ps.photometric.frame import Box
from fr_ps.photometric.layouts import shared_files
from fr_ps.photometric.layouts.folders import list_names
from fr_ps.photometric.maps import SurfaceMaps
from fr_ps.photometric.sources import CaptureSource, list_sources
from fr_ps.progress import OnProgress, no_progress, share_progress
from fr_ps.shards import Shard
from fr_ps.tables import SessionKey, suggest_session

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

_KIND = "prepare"
_MAPS = ("albedo", "normal", "depth", "confidence")
_OPTIONAL_MAPS = ("normal_error", PICTURES)
"""Missing with few lights or, the pictures, with many; see `SurfaceMaps.normal_error` and `pictures_to_store`."""
_READING_SHARE = 0.9
"""Of the time of a session with large pictures, whose maps are much smaller."""
_MAP_FILES = [f"{name}.npy" for name in (*_MAPS, *_OPTIONAL_MAPS)]


@dataclass(frozen=True)
class SessionJob:
    """A session to prepare."""

    source: CaptureSource
    box: Box | None

    @property
    def key(self) -> SessionKey:
        """(id, session)."""
        return self.source.id, self.source.session


@dataclass(frozen=True)
class Preparation:
    """The work of one `prepare`, or of one shard of it, whose inputs and outputs are checked.

    Attributes:
        config: the settings.
        sources: all captures.
        order: (id, session) of all sessions, in the order in which they are prepared and dealt to shards.
        labels: of the captures; of a shard without a table of labels, of its sessions only.
        jobs: the sessions to prepare.
        rejected: results of the sessions left out; incomplete for a shard.
        unchanged: the jobs whose output exists already, or whose capture is unreadable.
        boxes: of all sessions.
        mean_face: the prior; None without one.
    """

    config: PrepareConfig
    sources: list[CaptureSource]
    order: list[SessionKey]
    labels: CaptureLabels
    jobs: list[SessionJob]
    rejected: list[SessionResult]
    unchanged: frozenset[SessionKey]
    boxes: dict[SessionKey, Box]
    mean_face: MeanFace | None


def prepare(config: PrepareConfig, advance: OnProgress = no_progress) -> list[SessionResult]:
    """Write the prepared data set of `config.captures` to `config.out`; returns the result of each session, sorted.

    Writes the maps, `prepare.csv` with the results, and last `labels.csv`, when every session of it is on disk. The folder
    of a session appears only when it is complete; an existing one is kept if the same pictures and settings made it.

    Args:
        config: the settings.
        advance: called with the number of sessions done since the previous call; a session counts by the share of its pictures
            that were read.

    Raises:
        InputError: unusable captures, labels, boxes or prior; an output that would replace them or files that `prepare` did
            not write; a full disk; with `on_bad="fail"` also the first bad session.
    """
    plan = plan_preparation(config)
    advance(len(plan.sources) - len(plan.jobs))
    results = list(plan.rejected)
    with file_lock(Path(config.out)):
        remove_stale_temp(Path(config.out) / DATA_FOLDER)
        results += prepare_sessions(plan, advance)
        return write_tables(plan, results)


def plan_preparation(config: PrepareConfig, shard: Shard | None = None) -> Preparation:
    """Find the sessions to prepare, all or those of `shard`, and check that their output replaces nothing.

    Raises:
        InputError: as `prepare`.
    """
    _check_paths_disjoint(config)
    unusable: dict[SessionKey, str] = {}
    sources = list_sources(Path(config.captures), unusable if config.on_bad == "skip" else None)
    by_key = {(source.id, source.session): source for source in sources}
    boxes = _read_boxes(config, by_key)
    if shard and not config.labels:  # reads the labels in the captures of the shard only
        labels = read_capture_labels(config, shard.select(sources))
        order, selected = list(by_key), list(labels.rows)
    else:
        labels = read_capture_labels(config, sources)
        order = list(labels.rows) if config.labels else list(by_key)
        selected = shard.select(order) if shard else list(labels.rows)
    jobs = [SessionJob(by_key[key], boxes.get(key)) for key in selected]
    rejected = [SessionResult(*key, "skipped", reason) for key, reason in (labels.rejected | unusable).items()]
    mean_face = load_mean_face(config)
    unchanged = _check_session_folders(config, jobs, mean_face)
    _check_tables(config, labels)
    return Preparation(config, sources, order, labels, jobs, rejected, unchanged, boxes, mean_face)


def _check_paths_disjoint(config: PrepareConfig) -> None:
    """Reject an output that would replace an input, by their real paths."""
    out, captures = Path(config.out), Path(config.captures)
    root, data = captures.resolve(), out / DATA_FOLDER
    if root.is_relative_to(data.resolve()):
        raise InputError(f"--captures {captures}: inside the output {data}; choose another --out, or move the captures")
    if out.resolve().is_relative_to(root) or data.resolve().is_relative_to(root):
        raise InputError(f"--out {out}: inside the captures {captures}; choose a folder outside of them")
    for name in (LABELS_FILE, REPORT_FILE):
        check_not_input(out / name, _inputs(config))


def _check_tables(config: PrepareConfig, labels: CaptureLabels) -> None:
    """Reject an output with tables that `prepare` did not write."""
    out = Path(config.out)
    for name in (LABELS_FILE, REPORT_FILE):
        check_output_file(out / name, _KIND, _inputs(config), config.overwrite or is_unmodified(out, name, labels))


def _inputs(config: PrepareConfig) -> dict[str, str | None]:
    return {"--labels": config.labels, "--boxes": config.boxes, "--prior": config.prior}


def _check_session_folders(
    config: PrepareConfig, jobs: Sequence[SessionJob], mean_face: MeanFace | None
) -> frozenset[SessionKey]:
    """Reject an output with session folders that `prepare` did not write, or that contain further files.

    Returns the sessions whose folder remains unchanged: it is complete, or the capture is unreadable.
    """
    root = Path(config.captures).resolve()
    unchanged = set()
    for job in jobs:
        target = output_folder(Path(config.out), *job.key)
        if target.resolve().is_relative_to(root):
            raise InputError(f"{target}: a link into the captures {config.captures}; choose another --out")
        if _is_unchanged(job, config, mean_face):
            unchanged.add(job.key)
        check_replaceable(target, RECORD_FILE, None if job.key in unchanged else _MAP_FILES)
    return frozenset(unchanged)


def _is_unchanged(job: SessionJob, config: PrepareConfig, mean_face: MeanFace | None) -> bool:
    try:
        return find_complete(job, config, mean_face) is not None
    except InputError:
        return True


def find_complete(job: SessionJob, config: PrepareConfig, mean_face: MeanFace | None) -> dict[str, Any] | None:
    """The details of a session whose maps are complete and made from this capture with these settings; else None.

    Raises:
        InputError: the folder of the capture is unreadable.
    """
    target = output_folder(Path(config.out), *job.key)
    if not (target / RECORD_FILE).exists():  # spares a first run the states of the files of all captures
        return None
    return _previous_details(target, _preparation_inputs(job, config, mean_face))


def _read_boxes(config: PrepareConfig, captured: Collection[SessionKey]) -> dict[SessionKey, Box]:
    """The box of each (id, session). A row without a capture is probably a typing error; with `on_bad="fail"` it raises."""
    boxes = read_boxes(Path(config.boxes)) if config.boxes else {}
    absent = [key for key in boxes if key not in captured]
    if absent and config.on_bad == "fail":
        remedy = suggest_session(absent[0], captured) or "correct it, or continue without it by --on-bad skip"
        raise InputError(
            f"{config.boxes}: row of {'/'.join(absent[0])} has no capture in {config.captures} ({len(absent)} such "
            f"rows); {remedy}"
        )
    return boxes


def prepare_sessions(plan: Preparation, advance: OnProgress) -> Iterator[SessionResult]:
    """Prepare the sessions of `plan`, and yield the result of each, in order. For `advance` see `prepare`.

    Raises:
        InputError: with `on_bad="fail"` the first bad session; a full disk, or a killed worker.
    """
    unlabelled = set(plan.labels.unlabelled)
    for result in _run_jobs(plan, advance):
        if result.status == "skipped" and plan.config.on_bad == "fail":
            raise InputError(bad_session_message((result.id, result.session), result.reason))
        yield replace(result, labelled=(result.id, result.session) not in unlabelled)


def bad_session_message(key: SessionKey, reason: str) -> str:
    """The message of the error for a bad session with `on_bad="fail"`."""
    return f"{reason} (session {'/'.join(key)}; --on-bad skip continues without it)"


def _run_jobs(plan: Preparation, advance: OnProgress) -> Iterator[SessionResult]:
    config = plan.config
    if config.workers == 1:
        for job in plan.jobs:
            yield _prepare_session(job, config, plan.mean_face, advance)
        return
    with share_progress(advance) as done:
        pool = ProcessPoolExecutor(config.workers, initializer=_start_worker, initargs=(config, plan.mean_face, done))
        try:
            yield from pool.map(_prepare_in_worker, plan.jobs, chunksize=4)
        except BrokenProcessPool:
            raise InputError(
                f"{config.out}: a worker was killed, probably because memory ran out; run again with fewer --workers"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


_worker_arguments: tuple[PrepareConfig, MeanFace | None, OnProgress]
"""Of every session that this worker process prepares."""


def _start_worker(config: PrepareConfig, mean_face: MeanFace | None, done: "Synchronized[float]") -> None:
    global _worker_arguments

    def advance(items: float) -> None:
        with done.get_lock():
            done.value += items

    _worker_arguments = config, mean_face, advance


def _prepare_in_worker(job: SessionJob) -> SessionResult:
    return _prepare_session(job, *_worker_arguments)


def _prepare_session(job: SessionJob, config: PrepareConfig, mean_face: MeanFace | None, advance: OnProgress) -> SessionResult:
    read = 0.0

    def on_read(share: float) -> None:
        nonlocal read
        read += _READING_SHARE * share
        advance(_READING_SHARE * share)

    result = _try_prepare(job, config, mean_face, on_read)
    advance(1 - read)
    return result


def _try_prepare(job: SessionJob, config: PrepareConfig, mean_face: MeanFace | None, on_read: OnProgress) -> SessionResult:
    source = job.source
    target = output_folder(Path(config.out), source.id, source.session)
    try:
        made_from = _preparation_inputs(job, config, mean_face)
        details = _previous_details(target, made_from)
        if details is not None:
            return SessionResult(source.id, source.session, "kept", details=details)
        check_replaceable(target, RECORD_FILE, _MAP_FILES)  # again: hours may have passed
        maps, details = capture_to_maps(source.folder, config, job.box, mean_face, source.root, on_read)
    except InputError as error:
        return SessionResult(source.id, source.session, "skipped", str(error))
    # A data set that mixes maps of different settings must not look finished.
    (Path(config.out) / LABELS_FILE).unlink(missing_ok=True)
    arrays, described = _arrays(maps)
    details |= described
    with atomic_folder(target) as folder:
        for name, array in arrays.items():
            write_array(folder / f"{name}.npy", array)
        # Not synced: a sync takes as long as the solver, and after a power cut the session is prepared again.
        record = {"done": details, "made_from": made_from, "sizes": _map_sizes(folder)}
        (folder / RECORD_FILE).write_text(json.dumps(record))
    return SessionResult(source.id, source.session, "written", details=details)


def _arrays(maps: SurfaceMaps) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Name of each file to its array, and the part of the record that describes the pictures."""
    arrays = {name: getattr(maps, name) for name in _MAPS}
    if maps.normal_error is not None:
        arrays["normal_error"] = maps.normal_error
    stored = pictures_to_store(maps)
    if stored is None:
        return arrays, {}
    pictures, description = stored
    return arrays | {PICTURES: pictures}, {PICTURES: description}


def _preparation_inputs(job: SessionJob, config: PrepareConfig, mean_face: MeanFace | None) -> dict[str, Any]:
    """The inputs of a session's maps: the settings, and the size and modification time of each file of the capture."""
    source = job.source
    states = {name: _stat(source.folder / name) for name in list_names(source.folder)}
    layout = None if config.layout == "auto" else config.layout
    states |= {f"{path.relative_to(source.root)}": _stat(path) for path in shared_files(source.folder, source.root, layout)}
    files = [[name, state.st_size, state.st_mtime_ns] for name, state in states.items() if state and stat.S_ISREG(state.st_mode)]
    settings = preparation_settings(config, mean_face) | {"box": list(job.box) if job.box else None}
    if config.layout != "auto":
        settings["layout"] = config.layout
    return {"format": FORMAT, "settings": settings, "files": files}


def _stat(path: Path) -> os.stat_result | None:
    """None for a broken link or an inaccessible folder: reading the file reports the error."""
    try:
        return path.stat()
    except OSError:
        return None


def _previous_details(target: Path, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """The details of a session that an earlier run prepared from the same `inputs` and that is complete; else None."""
    try:
        record = read_record(target)
        valid = record["made_from"] == inputs and record["sizes"] == _map_sizes(target)
        return record["done"] if valid and not is_outdated(record["done"]) else None
    except (InputError, OSError):  # a map is missing
        return None


def _map_sizes(folder: Path) -> list[int]:
    """Bytes of each map's file, to detect truncated and removed maps. Optional ones are last, where they exist."""
    optional = [path for name in _OPTIONAL_MAPS if (path := folder / f"{name}.npy").exists()]
    return [path.stat().st_size for path in (*(folder / f"{name}.npy" for name in _MAPS), *optional)]


def write_tables(plan: Preparation, results: Iterable[SessionResult]) -> list[SessionResult]:
    """Write the two tables of a data set from the results of all its sessions; returns them sorted.

    Raises:
        InputError: no session could be prepared, or the folder cannot be written.
    """
    out = Path(plan.config.out)
    results = sorted(results, key=lambda result: (result.id, result.session))
    write_table(out, REPORT_FILE, report_text(results))
    quality = {(result.id, result.session): result.details["quality"] for result in results if result.details}
    if not quality:
        raise InputError(
            f"{out}: no session could be prepared, so there is no data set; {REPORT_FILE} lists the reasons, the first is: "
            f"{results[0].reason}"
        )
    write_table(out, LABELS_FILE, labels_text(plan.labels, quality))
    return results
