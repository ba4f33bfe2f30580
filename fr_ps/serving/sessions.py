"""The sessions that a model is asked about: of a prepared data set or of raw captures, each read only when it is needed."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from fr_ps.config import PrepareConfig
from fr_ps.data.layout import DATA_FOLDER, LABELS_FILE, is_folder, map_file, read_map, session_folder, session_keys
from fr_ps.data.maps_of import Prior, maps_of_capture, same_preparation
from fr_ps.data.split_files import SPLIT_FILE, read_parts
from fr_ps.errors import InputError
from fr_ps.evaluation.score import Answers, joined
from fr_ps.files import check_name
from fr_ps.photometric.captures import list_sources
from fr_ps.photometric.orientation import NormalStatistics, axes_warning, measure_normals
from fr_ps.progress import Advance, silent
from fr_ps.serving.recognizer import Recognizer
from fr_ps.tables import likely_cause, read_session_rows

Maps = dict[str, np.ndarray]
"""Modality to (C, H, W) float32."""
READERS = 2
_SAMPLE = 200
"""Sessions whose normals' axes are judged: enough for a median."""


@dataclass(frozen=True)
class Session:
    """One session that a model is asked about.

    Attributes:
        id, session: of it.
        read: its maps, checked.
    """

    id: str
    session: str
    read: Callable[[], Maps]

    @property
    def key(self) -> tuple[str, str]:
        """Who and which."""
        return self.id, self.session


@dataclass(frozen=True)
class Failure:
    """A session that could not be answered, and why."""

    id: str
    session: str
    reason: str


@dataclass(frozen=True)
class Answered:
    """What a model says of some sessions.

    Attributes:
        keys: (id, session) of the n that it could answer, in their order.
        answers: about these.
        failures: the others.
        warning: about normals whose axes are probably wrong; None where they look right.
    """

    keys: list[tuple[str, str]]
    answers: Answers
    failures: list[Failure]
    warning: str | None = None


def prepared_sessions(recognizer: Recognizer, root: Path, table: Path | None = None, part: str | None = None) -> list[Session]:
    """Those of the prepared data set at `root`.

    Args:
        recognizer: says which maps are read.
        root: folder with `labels.csv` and maps; without the former, every session that has a folder.
        table: CSV of id and session: only these; None: all.
        part: of the model's own split: only these; None: all.

    Raises:
        InputError: the folder or the table is missing or bad, names nobody, or the model has no such part.
    """
    keys = _listed(root, table)
    absent = [key for key in keys if not is_folder(session_folder(root, *key))]
    if absent and (cause := likely_cause(absent[0], session_keys(root))):
        raise InputError(f"{table or root / LABELS_FILE}: {'/'.join(absent[0])} has no maps in {root}; {cause}")
    if part is not None:
        parts = read_parts(recognizer.folder / SPLIT_FILE)
        keys = [key for key in keys if parts.get(key) == part]
        if not keys:
            raise InputError(f"--split {part}: {root} has nobody of that part of the model's split")
    return [Session(*key, partial(_read, recognizer, root, *key)) for key in keys]


def captured_sessions(recognizer: Recognizer, root: Path, table: Path | None = None, prior: str | None = None) -> list[Session]:
    """Those of the raw captures below `root`, to be made into maps as the model's own were.

    Args:
        recognizer: says how.
        root: folder of `{id}/{session}/`.
        table: CSV of id and session: only these; None: all.
        prior: file of the mean face, if the model's maps were made with one.

    Raises:
        InputError: no captures there, or a table that names others; a mean face that is missing or another one.
    """
    config, mean_face = same_preparation(recognizer.info.preparation, prior)
    unusable: dict[tuple[str, str], str] = {}
    solve = partial(_solve, recognizer, config, mean_face)
    sessions = {
        (source.id, source.session): Session(source.id, source.session, partial(solve, source.folder))
        for source in list_sources(root, unusable)
    }
    sessions |= {key: Session(*key, partial(_refuse, reason)) for key, reason in unusable.items()}
    keys = list(read_session_rows(table, ())[1]) if table else sorted(sessions)
    for key in keys:
        if key not in sessions:
            raise InputError(
                f"{table}: row of {'/'.join(key)} has no capture in {root}; {likely_cause(key, sessions) or 'correct it'}"
            )
    return [sessions[key] for key in keys]


def ask(recognizer: Recognizer, sessions: Sequence[Session], batch: int, advance: Advance = silent) -> Answered:
    """What the model says of all sessions that can be read; the others are listed with the reason.

    Maps are read while the network is at work. Sessions that were read fill the batches in their order, so that without failures
    these are the batches of an evaluation.

    Raises:
        InputError: no session could be read at all, or an answer has NaN or infinity.
    """
    keys: list[tuple[str, str]] = []
    found: list[Answers] = []
    failures: list[Failure] = []
    waiting: list[tuple[Session, Maps]] = []
    normals: list[NormalStatistics] = []

    def answer() -> None:
        maps = {modality: np.stack([its[modality] for _, its in waiting]) for modality in recognizer.info.modalities}
        found.append(recognizer.answer_checked(maps, batch, ["/".join(session.key) for session, _ in waiting]))
        keys.extend(session.key for session, _ in waiting)
        advance(len(waiting))
        waiting.clear()

    for session, maps in _read_ahead(sessions, 2 * batch):
        if isinstance(maps, Failure):
            failures.append(maps)
            advance(1)
            continue
        if "normal" in maps and len(normals) < _SAMPLE:
            normals.append(measure_normals(maps["normal"]))
        waiting.append((session, maps))
        if len(waiting) == batch:
            answer()
    if waiting:
        answer()
    if not found:
        first = failures[0].reason if failures else "no session was named"
        raise InputError(f"none of {len(sessions)} sessions could be read; see the first: {first}")
    return Answered(keys, joined(found), failures, axes_warning(normals))


def _read_ahead(sessions: Sequence[Session], most: int) -> Iterator[tuple[Session, Maps | Failure]]:
    """Each session with its maps, or why there are none, in their order; at most so many are read before they are asked for."""
    rest = iter(sessions)
    with ThreadPoolExecutor(READERS, thread_name_prefix="maps") as pool:
        queue = [(session, pool.submit(_try, session)) for session in islice(rest, most)]
        try:
            while queue:
                session, future = queue.pop(0)
                queue += [(after, pool.submit(_try, after)) for after in islice(rest, 1)]
                yield session, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _try(session: Session) -> Maps | Failure:
    try:
        return session.read()
    except InputError as error:
        return Failure(session.id, session.session, str(error))


def _read(recognizer: Recognizer, root: Path, person: str, session: str) -> Maps:
    maps = {}
    for modality in recognizer.info.modalities:
        file = map_file(root, person, session, modality)
        if file is None:
            raise InputError(f"{session_folder(root, person, session) / modality}.npy: no such file; prepare it")
        array = read_map(file, modality)
        recognizer.require_size(array, str(file))
        maps[modality] = array
    return maps


def _solve(recognizer: Recognizer, config: PrepareConfig, prior: Prior | None, folder: Path) -> Maps:
    maps, _ = maps_of_capture(folder, config, None, prior)
    return {name: recognizer.check(name, getattr(maps, name), f"{folder}: {name}") for name in recognizer.info.modalities}


def _refuse(reason: str) -> Maps:
    raise InputError(reason)


def _listed(root: Path, table: Path | None) -> list[tuple[str, str]]:
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; name a prepared data set")
    if table is None and not (root / LABELS_FILE).is_file():
        keys = session_keys(root)
        if not keys:
            raise InputError(f"{root}: has neither {LABELS_FILE} nor {DATA_FOLDER}/ID/SESSION; name a prepared data set")
        for name in (name for key in keys for name in key):
            check_name(name, str(root))
        return keys
    listing = table or root / LABELS_FILE
    keys = list(read_session_rows(listing, ())[1])
    if not keys:
        raise InputError(f"{listing}: has no rows")
    return keys
