"""The sessions that a model is asked about: of a prepared data set or of raw captures, each read only when it is needed."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from fr_ps.config import PrepareConfig
from fr_ps.data.layout import DATA_FOLDER, LABELS_FILE, is_directory, map_file, read_map, session_folder, session_keys
from fr_ps.data.mean_face import MeanFace
from fr_ps.data.preparation import capture_to_maps, reproduce_preparation
from fr_ps.data.split_files import SPLIT_FILE, read_parts
from fr_ps.errors import InputError
from fr_ps.files import check_path_component
from fr_ps.models.inference import Predictions, concatenate
from fr_ps.photometric.captures import list_sources
from fr_ps.photometric.orientation import NormalStatistics, axes_warning, normal_statistics
from fr_ps.progress import OnProgress, no_progress
from fr_ps.serving.recognizer import Recognizer
from fr_ps.tables import read_session_rows, suggest_session

ModalityMaps = dict[str, np.ndarray]
"""Modality to (C, H, W) float32."""
READER_THREADS = 2
_ORIENTATION_SAMPLE = 200
"""Sessions whose normals' axes are judged: enough for a median."""


@dataclass(frozen=True)
class SessionInput:
    """One session that a model is asked about.

    Attributes:
        id, session: of it.
        read: its maps, checked.
    """

    id: str
    session: str
    read: Callable[[], ModalityMaps]

    @property
    def key(self) -> tuple[str, str]:
        """Who and which."""
        return self.id, self.session


@dataclass(frozen=True)
class FailedSession:
    """A session that could not be answered, and why."""

    id: str
    session: str
    reason: str


@dataclass(frozen=True)
class PredictionResult:
    """What a model says of some sessions.

    Attributes:
        keys: (id, session) of the n that it could answer, in their order.
        answers: about these.
        failures: the others.
        warning: about normals whose axes are probably wrong; None where they look right.
    """

    keys: list[tuple[str, str]]
    predictions: Predictions
    failures: list[FailedSession]
    warning: str | None = None


def list_prepared_sessions(
    recognizer: Recognizer, root: Path, table: Path | None = None, part: str | None = None
) -> list[SessionInput]:
    """Those of the prepared data set at `root`.

    Args:
        recognizer: says which maps are read.
        root: folder with `labels.csv` and maps; without the former, every session that has a folder.
        table: CSV of id and session: only these; None: all.
        part: of the model's own split: only these; None: all.

    Raises:
        InputError: the folder or the table is missing or bad, names nobody, or the model has no such part.
    """
    keys = _session_keys(root, table)
    absent = [key for key in keys if not is_directory(session_folder(root, *key))]
    if absent and (cause := suggest_session(absent[0], session_keys(root))):
        raise InputError(f"{table or root / LABELS_FILE}: {'/'.join(absent[0])} has no maps in {root}; {cause}")
    if part is not None:
        parts = read_parts(recognizer.folder / SPLIT_FILE)
        keys = [key for key in keys if parts.get(key) == part]
        if not keys:
            raise InputError(f"--split {part}: {root} has nobody of that part of the model's split")
    return [SessionInput(*key, partial(_load_prepared, recognizer, root, *key)) for key in keys]


def list_capture_sessions(
    recognizer: Recognizer, root: Path, table: Path | None = None, prior: str | None = None
) -> list[SessionInput]:
    """Those of the raw captures below `root`, to be made into maps as the model's own were.

    Args:
        recognizer: says how.
        root: folder of `{id}/{session}/`.
        table: CSV of id and session: only these; None: all.
        prior: file of the mean face, if the model's maps were made with one.

    Raises:
        InputError: no captures there, or a table that names others; a mean face that is missing or another one.
    """
    config, mean_face = reproduce_preparation(recognizer.info.preparation, prior)
    unusable: dict[tuple[str, str], str] = {}
    solve = partial(_load_capture, recognizer, config, mean_face)
    sessions = {
        (source.id, source.session): SessionInput(source.id, source.session, partial(solve, source.folder))
        for source in list_sources(root, unusable)
    }
    sessions |= {key: SessionInput(*key, partial(_raise_input_error, reason)) for key, reason in unusable.items()}
    keys = list(read_session_rows(table, ())[1]) if table else sorted(sessions)
    for key in keys:
        if key not in sessions:
            raise InputError(
                f"{table}: row of {'/'.join(key)} has no capture in {root}; {suggest_session(key, sessions) or 'correct it'}"
            )
    return [sessions[key] for key in keys]


def predict_sessions(
    recognizer: Recognizer, sessions: Sequence[SessionInput], batch: int, advance: OnProgress = no_progress
) -> PredictionResult:
    """What the model says of all sessions that can be read; the others are listed with the reason.

    Maps are read while the network is at work. Sessions that were read fill the batches in their order, so that without failures
    these are the batches of an evaluation.

    Raises:
        InputError: no session could be read at all, or an answer has NaN or infinity.
    """
    keys: list[tuple[str, str]] = []
    found: list[Predictions] = []
    failures: list[FailedSession] = []
    waiting: list[tuple[SessionInput, ModalityMaps]] = []
    normals: list[NormalStatistics] = []

    def answer() -> None:
        maps = {modality: np.stack([its[modality] for _, its in waiting]) for modality in recognizer.info.modalities}
        found.append(recognizer.predict_checked(maps, batch, ["/".join(session.key) for session, _ in waiting]))
        keys.extend(session.key for session, _ in waiting)
        advance(len(waiting))
        waiting.clear()

    for session, maps in _prefetch(sessions, 2 * batch):
        if isinstance(maps, FailedSession):
            failures.append(maps)
            advance(1)
            continue
        if "normal" in maps and len(normals) < _ORIENTATION_SAMPLE:
            normals.append(normal_statistics(maps["normal"]))
        waiting.append((session, maps))
        if len(waiting) == batch:
            answer()
    if waiting:
        answer()
    if not found:
        first = failures[0].reason if failures else "no session was named"
        raise InputError(f"none of {len(sessions)} sessions could be read; see the first: {first}")
    return PredictionResult(keys, concatenate(found), failures, axes_warning(normals))


def _prefetch(sessions: Sequence[SessionInput], limit: int) -> Iterator[tuple[SessionInput, ModalityMaps | FailedSession]]:
    """Each session with its maps, or why there are none, in their order; at most so many are read before they are asked for."""
    rest = iter(sessions)
    with ThreadPoolExecutor(READER_THREADS, thread_name_prefix="maps") as pool:
        queue = [(session, pool.submit(_read_or_failure, session)) for session in islice(rest, limit)]
        try:
            while queue:
                session, future = queue.pop(0)
                queue += [(after, pool.submit(_read_or_failure, after)) for after in islice(rest, 1)]
                yield session, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _read_or_failure(session: SessionInput) -> ModalityMaps | FailedSession:
    try:
        return session.read()
    except InputError as error:
        return FailedSession(session.id, session.session, str(error))


def _load_prepared(recognizer: Recognizer, root: Path, person: str, session: str) -> ModalityMaps:
    maps = {}
    for modality in recognizer.info.modalities:
        file = map_file(root, person, session, modality)
        if file is None:
            raise InputError(f"{session_folder(root, person, session) / modality}.npy: no such file; prepare it")
        array = read_map(file, modality)
        recognizer.check_size(array, str(file))
        maps[modality] = array
    return maps


def _load_capture(recognizer: Recognizer, config: PrepareConfig, mean_face: MeanFace | None, folder: Path) -> ModalityMaps:
    maps, _ = capture_to_maps(folder, config, None, mean_face)
    return {name: recognizer.check_map(name, getattr(maps, name), f"{folder}: {name}") for name in recognizer.info.modalities}


def _raise_input_error(reason: str) -> ModalityMaps:
    raise InputError(reason)


def _session_keys(root: Path, table: Path | None) -> list[tuple[str, str]]:
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; name a prepared data set")
    if table is None and not (root / LABELS_FILE).is_file():
        keys = session_keys(root)
        if not keys:
            raise InputError(f"{root}: has neither {LABELS_FILE} nor {DATA_FOLDER}/ID/SESSION; name a prepared data set")
        for name in (name for key in keys for name in key):
            check_path_component(name, str(root))
        return keys
    listing = table or root / LABELS_FILE
    keys = list(read_session_rows(listing, ())[1])
    if not keys:
        raise InputError(f"{listing}: has no rows")
    return keys
