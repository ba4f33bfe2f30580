"""Predictions for many sessions of a prepared data set or of raw captures. Sessions are read lazily, shortly before use."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from fr_ps.config import CaptureLayout, PrepareConfig
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.data.layout import DATA_FOLDER, LABELS_FILE, is_directory, map_file, read_map, session_folder, session_keys
from fr_ps.data.mean_face import MeanFace
from fr_ps.data.preparation import capture_to_maps, reproduce_preparation
from fr_ps.data.split_files import SPLIT_FILE, read_parts
from fr_ps.errors import InputError
from fr_ps.files import check_path_component
from fr_ps.models.inference import Predictions, concatenate_predictions
from fr_ps.photometric.acquisition import Acquisition, acquisition_warning
from fr_ps.photometric.orientation import ORIENTATION_SAMPLE, NormalStatistics, axes_warning, normal_statistics
from fr_ps.photometric.sources import list_sources
from fr_ps.progress import OnProgress, no_progress
from fr_ps.serving.recognizer import Recognizer
from fr_ps.tables import SessionKey, read_session_rows, suggest_session

ModalityMaps = dict[str, np.ndarray]
"""Modality to (C, H, W) float32."""
READER_THREADS = 2


class SessionMaps(NamedTuple):
    """The maps of one session, and how its capture was taken; None for prepared maps."""

    maps: ModalityMaps
    acquisition: Acquisition | None = None


class SessionInput(Protocol):
    """One session to predict."""

    @property
    def key(self) -> SessionKey:
        """(id, session)."""

    def read(self) -> SessionMaps:
        """Its maps, checked.

        Raises:
            InputError: they cannot be read.
        """


@dataclass(frozen=True)
class PreparedSession:
    """A session of the prepared data set at `root`."""

    recognizer: Recognizer
    root: Path
    key: SessionKey

    def read(self) -> SessionMaps:
        """The maps that the model reads; see `SessionInput`."""
        maps = {}
        for modality in self.recognizer.info.modalities:
            file = map_file(self.root, *self.key, modality)
            if file is None:
                raise InputError(f"{session_folder(self.root, *self.key) / modality}.npy: no such file; prepare it")
            maps[modality] = read_map(file, modality)
            self.recognizer.check_size(maps[modality], str(file))
        return SessionMaps(maps)


@dataclass(frozen=True)
class CaptureSession:
    """A raw capture in `folder`, below the `root` of all captures, with the settings that compute its maps.

    `error`: why the folder is unusable, else empty.
    """

    recognizer: Recognizer
    config: PrepareConfig
    mean_face: MeanFace | None
    key: SessionKey
    folder: Path
    root: Path
    error: str = ""

    def read(self) -> SessionMaps:
        """The maps that the model reads; see `SessionInput`."""
        if self.error:
            raise InputError(self.error)
        maps, details = capture_to_maps(self.folder, self.config, None, self.mean_face, self.root)
        modalities = self.recognizer.info.modalities
        checked = {name: self.recognizer.check_map(name, getattr(maps, name), f"{self.folder}: {name}") for name in modalities}
        return SessionMaps(checked, Acquisition(**details["acquisition"]))


@dataclass(frozen=True)
class FailedSession:
    """A session that could not be read, and the reason."""

    id: str
    session: str
    reason: str


@dataclass(frozen=True)
class PredictionResult:
    """Predictions for many sessions.

    Attributes:
        keys: (id, session) of the n predicted sessions, in the order of the input.
        predictions: of these n sessions.
        failures: sessions that could not be read.
        warning: a line each, if the axes of the normals are probably wrong, and if captures differ from those of the training
            data; None without one.
    """

    keys: list[SessionKey]
    predictions: Predictions
    failures: list[FailedSession]
    warning: str | None = None


def list_prepared_sessions(
    recognizer: Recognizer, root: Path, table: Path | None = None, part: str | None = None
) -> list[SessionInput]:
    """The sessions of the prepared data set at `root`.

    Args:
        recognizer: recognizer of the model that will predict.
        root: folder with `labels.csv` and maps; without `labels.csv`, every session folder counts.
        table: CSV of id and session: only these sessions; None: all.
        part: only sessions of this part of the model's own split; None: all.

    Raises:
        InputError: the folder or table is missing, invalid or empty, or the split has no session of that part.
    """
    keys = _session_keys(root, table)
    missing = [key for key in keys if not is_directory(session_folder(root, *key))]
    if missing and (cause := suggest_session(missing[0], session_keys(root))):
        raise InputError(f"{table or root / LABELS_FILE}: {'/'.join(missing[0])} has no maps in {root}; {cause}")
    if part is not None:
        parts = read_parts(recognizer.folder / SPLIT_FILE)
        keys = [key for key in keys if parts.get(key) == part]
        if not keys:
            raise InputError(f"--split {part}: no session of {root} is in that part of the model's split; choose another part")
    return [PreparedSession(recognizer, root, key) for key in keys]


def list_capture_sessions(
    recognizer: Recognizer,
    root: Path,
    table: Path | None = None,
    prior: str | None = None,
    layout: CaptureLayout | Literal["auto"] = "auto",
) -> list[SessionInput]:
    """The sessions of the raw captures below `root`. Their maps are computed with the settings of the model's training maps.

    Args:
        recognizer: recognizer of the model that will predict.
        root: folder of `{id}/{session}/`.
        table: CSV of id and session: only these sessions; None: all.
        prior: file of the mean face, if the training maps were prepared with one.
        layout: of the captures.

    Raises:
        InputError: there are no captures, the table lists a session without one, or the mean face is missing or different.
    """
    config, mean_face = reproduce_preparation(recognizer.info.preparation, prior)
    config = replace(config, layout=layout)
    unusable: dict[SessionKey, str] = {}
    folders = {(source.id, source.session): source.folder for source in list_sources(root, unusable)}
    sessions: dict[SessionKey, SessionInput] = {
        key: CaptureSession(recognizer, config, mean_face, key, folder, root) for key, folder in folders.items()
    }
    sessions |= {key: CaptureSession(recognizer, config, mean_face, key, root, root, reason) for key, reason in unusable.items()}
    keys = list(read_session_rows(table, ())[1]) if table else sorted(sessions)
    for key in keys:
        if key not in sessions:
            remedy = suggest_session(key, sessions) or "correct the row"
            raise InputError(f"{table}: row of {'/'.join(key)} has no capture in {root}; {remedy}")
    return [sessions[key] for key in keys]


def predict_sessions(
    recognizer: Recognizer, sessions: Sequence[SessionInput], batch: int, advance: OnProgress = no_progress
) -> PredictionResult:
    """`predict_readable`, where at least one session must be readable.

    Raises:
        InputError: no session can be read, or a prediction has NaN or infinity.
    """
    return check_not_empty(predict_readable(recognizer, sessions, batch, advance))


def predict_readable(
    recognizer: Recognizer, sessions: Sequence[SessionInput], batch: int, advance: OnProgress = no_progress
) -> PredictionResult:
    """Predict all sessions that can be read; list the others with the reason.

    Threads read maps while the network computes. Each batch is of the next `batch` sessions of the list, as in an evaluation; it
    is smaller if a session cannot be read. So the last bits of an embedding depend on the sessions of its batch only.

    Args:
        recognizer: recognizer of the model.
        sessions: sessions to predict.
        batch: sessions per batch.
        advance: called once per session, when it was read.

    Raises:
        InputError: a prediction has NaN or infinity.
    """
    keys: list[SessionKey] = []
    parts: list[Predictions] = []
    failures: list[FailedSession] = []
    normals: list[NormalStatistics] = []
    acquisitions: list[tuple[str, Acquisition]] = []
    outcomes = _read_sessions(sessions, 2 * batch, advance)
    while chunk := list(islice(outcomes, batch)):
        failures += [outcome for _, outcome in chunk if isinstance(outcome, FailedSession)]
        readable = [(key, outcome) for key, outcome in chunk if not isinstance(outcome, FailedSession)]
        if readable:
            names = ["/".join(key) for key, _ in readable]
            modalities = recognizer.info.modalities
            maps = {modality: np.stack([session.maps[modality] for _, session in readable]) for modality in modalities}
            parts.append(recognizer.predict_checked(maps, batch, names))
            acquisitions += [(name, one.acquisition) for name, (_, one) in zip(names, readable) if one.acquisition]
            if "normal" in maps:
                normals += [normal_statistics(normal) for normal in maps["normal"][: ORIENTATION_SAMPLE - len(normals)]]
        keys += [key for key, _ in readable]
    warnings = filter(None, (axes_warning(normals), acquisition_warning(recognizer.info.acquisition, acquisitions)))
    return PredictionResult(keys, concatenate_predictions(parts or [_EMPTY]), failures, "\n".join(warnings) or None)


def check_not_empty(result: PredictionResult) -> PredictionResult:
    """Return `result` if it has a prediction.

    Raises:
        InputError: no session could be read.
    """
    if not result.keys:
        first = result.failures[0].reason if result.failures else "the list of sessions is empty"
        raise InputError(f"none of {len(result.failures)} sessions could be read; first error: {first}")
    return result


_EMPTY = Predictions(np.empty((0, 0), np.float32), {task: np.empty((0, 0), np.float32) for task in ATTRIBUTES})
"""Predictions of no session."""


def _read_sessions(
    sessions: Sequence[SessionInput], limit: int, advance: OnProgress
) -> Iterator[tuple[SessionKey, SessionMaps | FailedSession]]:
    """Yield the maps of each session, in order, or why it cannot be read. At most `limit` are read ahead."""
    rest = iter(sessions)
    with ThreadPoolExecutor(READER_THREADS, thread_name_prefix="maps") as pool:
        queue = [(session.key, pool.submit(session.read)) for session in islice(rest, limit)]
        try:
            while queue:
                key, future = queue.pop(0)
                queue += [(following.key, pool.submit(following.read)) for following in islice(rest, 1)]
                outcome: SessionMaps | FailedSession
                try:
                    outcome = future.result()
                except InputError as error:
                    outcome = FailedSession(*key, str(error))
                advance(1)
                yield key, outcome
        finally:
            pool.shutdown(cancel_futures=True)


def _session_keys(root: Path, table: Path | None) -> list[SessionKey]:
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give a prepared data set")
    if table is None and not (root / LABELS_FILE).is_file():
        keys = session_keys(root)
        if not keys:
            raise InputError(f"{root}: has neither {LABELS_FILE} nor {DATA_FOLDER}/ID/SESSION; give a prepared data set")
        for name in (name for key in keys for name in key):
            check_path_component(name, str(root))
        return keys
    listing = table or root / LABELS_FILE
    keys = list(read_session_rows(listing, ())[1])
    if not keys:
        raise InputError(f"{listing}: has no rows; list the sessions to predict")
    return keys
