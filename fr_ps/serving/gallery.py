"""A gallery of enrolled subjects: a folder with the embeddings of one model, and a table that names the session of each row."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fr_ps.errors import InputError, one_line
from fr_ps.files import check_path_component, remove_stale_temp, write_atomic, write_json, write_text
from fr_ps.json_files import NonNegativeInt, PositiveInt, read_json
from fr_ps.locks import file_lock
from fr_ps.npy import array_bytes, read_array
from fr_ps.tables import format_csv, read_session_rows

EMBEDDINGS_FILE = "embeddings.npy"
PEOPLE_FILE = "people.csv"
INFO_FILE = "gallery.json"
FORMAT = 1
UNKNOWN = "unknown"
"""Result of an identification below the threshold. As a subject's id it is reserved, in upper or lower case."""
_READ_ATTEMPTS, _RETRY_SECONDS = 20, 0.05
_RESERVED_ID_MESSAGE = f"the id {UNKNOWN} is reserved for sessions that match no subject of the gallery"
_COLUMNS = ["id", "session", "row", "quality", "enrolled"]
_CHECKSUM = "checksum"
"""Column with the first 16 hexadecimal digits of the SHA-256 of a row's embedding. Galleries of version 0.1 lack it.

They are in the table because replacing the table commits a change: at every moment, also after a process was killed, the table
matches embeddings that are on disk.
"""


@dataclass(frozen=True)
class _GalleryInfo:
    """The content of `gallery.json`.

    Attributes:
        format: version of the gallery's format.
        model: SHA-256 of the weights that made the embeddings.
        width: length of an embedding.
    """

    format: NonNegativeInt
    model: str
    width: PositiveInt


@dataclass(frozen=True)
class EnrolledSession:
    """One enrolled session.

    Attributes:
        id: subject.
        session: name of the session.
        row: row of its embedding in the file.
        quality: norm of the embedding.
        enrolled_at: time of the enrolment, UTC.
    """

    id: str
    session: str
    row: int
    quality: float
    enrolled_at: str


@dataclass(frozen=True)
class Match:
    """The identification of one session.

    Attributes:
        subject: identified subject; None: no enrolled subject reaches the threshold.
        score: score of the first candidate.
        candidates: subjects with the highest scores, in falling order.
    """

    subject: str | None
    score: float
    candidates: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Gallery:
    """The enrolled sessions.

    Attributes:
        folder: folder of the gallery.
        model: SHA-256 of the weights that made the embeddings.
        sessions: sessions of all subjects.
        embeddings: (n, D) float32, indexed by `EnrolledSession.row`. A row without a session is zero and free.
    """

    folder: Path
    model: str
    sessions: tuple[EnrolledSession, ...]
    embeddings: np.ndarray

    @property
    def subjects(self) -> list[str]:
        """The enrolled subjects, sorted."""
        return sorted({session.id for session in self.sessions})

    def check_model(self, model: str) -> None:
        """Check that the weights with SHA-256 `model` made this gallery.

        Raises:
            InputError: another model made it.
        """
        if self.model != model:
            raise InputError(
                f"{self.folder / INFO_FILE}: another model made this gallery (weights {self.model[:12]}, not {model[:12]}), and "
                "embeddings of two models cannot be compared; enroll the subjects into another folder"
            )

    def check_searchable(self, model: str) -> None:
        """Check that embeddings of `model` can be searched in this gallery.

        Raises:
            InputError: the gallery is empty, or another model made it.
        """
        self.check_model(model)
        if not self.sessions:
            raise InputError(f"{self.folder / PEOPLE_FILE}: the gallery is empty; enroll subjects with fr-ps enroll")

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """(m, subjects) float32: the mean cosine of each of m embeddings to a subject's sessions, in the order of `subjects`."""
        columns = {subject: column for column, subject in enumerate(self.subjects)}
        owners = np.array([columns[session.id] for session in self.sessions])
        rows = normalize_rows(self.embeddings[[session.row for session in self.sessions]])
        templates = np.zeros((len(columns), rows.shape[1]), dtype=np.float64)
        np.add.at(templates, owners, rows)
        templates /= np.bincount(owners)[:, None]
        return normalize_rows(embeddings) @ templates.T.astype(np.float32)

    def search(self, embeddings: np.ndarray, threshold: float, top: int = 1) -> list[Match]:
        """Identify m embeddings: each as the subject with the highest score, if that score reaches the threshold.

        Args:
            embeddings: (m, D).
            threshold: cosine.
            top: number of candidates per session.
        """
        subjects, matches = self.subjects, []
        for scores in self.scores(embeddings):
            order = np.argsort(-scores, kind="stable")[: max(top, 1)]
            candidates = tuple((subjects[column], float(scores[column])) for column in order)
            best, score = candidates[0]
            matches.append(Match(best if score >= threshold else None, score, candidates))
        return matches


def normalize_rows(embeddings: np.ndarray) -> np.ndarray:
    """The rows, each divided by its norm."""
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)


def read_gallery(folder: Path) -> Gallery:
    """Read the gallery in `folder`.

    Raises:
        InputError: it is missing, damaged or of a newer format, or the id of a subject is `unknown`.
    """
    remedy = "expected a gallery written by fr-ps enroll; restore it from a copy"
    info = read_json(folder / INFO_FILE, _GalleryInfo, remedy, formats=range(FORMAT, FORMAT + 1))
    for _ in range(_READ_ATTEMPTS):
        before = _table_text(folder)
        embeddings = _read_embeddings(folder, info.width)
        damage = None
        try:
            sessions = tuple(_parse_sessions(folder / PEOPLE_FILE, embeddings))
        except InputError as error:
            damage = error
        if _table_text(folder) == before:  # else another process wrote in between, and the two files may not match
            if damage:
                raise damage
            return Gallery(folder, info.model, sessions, embeddings)
        time.sleep(_RETRY_SECONDS)
    raise InputError(f"{folder}: other processes keep changing this gallery; try again")


def _table_text(folder: Path) -> str:
    try:
        return (folder / PEOPLE_FILE).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / PEOPLE_FILE}: cannot be read ({one_line(error)}); restore it from a copy") from None


def _read_embeddings(folder: Path, width: int) -> np.ndarray:
    path = folder / EMBEDDINGS_FILE
    if not path.is_file():
        raise InputError(f"{path}: no such file; restore it from a copy, or enroll into another folder")
    embeddings = read_array(path)
    if embeddings.ndim != 2 or embeddings.shape[1] != width or embeddings.dtype != np.float32:
        raise InputError(f"{path}: {embeddings.dtype} {embeddings.shape}; expected float32 rows of {width}")
    return embeddings


def enroll(folder: Path, model: str, keys: Sequence[tuple[str, str]], embeddings: np.ndarray) -> Gallery:
    """Add sessions to the gallery in `folder`; create it if it is missing. Sessions that are already enrolled are replaced.

    The change is atomic: the table, which is written last, commits it.

    Args:
        folder: folder of the gallery.
        model: SHA-256 of the weights that made the embeddings.
        keys: (id, session) of each embedding.
        embeddings: (len(keys), D) float32.

    Raises:
        InputError: another model made the gallery; it cannot be written; an embedding is zero or has NaN; a subject's id is
            `unknown`.
    """
    if not np.isfinite(embeddings).all() or not embeddings.any(axis=1).all():
        raise InputError(f"{folder}: an embedding is zero or has NaN; no session was enrolled; check the model and its maps")
    for key in keys:
        if key[0].casefold() == UNKNOWN:
            raise InputError(f"{folder}: {'/'.join(key)}: {_RESERVED_ID_MESSAGE}; give the subject another id")
        for name in key:
            check_path_component(name, f"{folder}: {'/'.join(key)}")
    if len(set(keys)) < len(keys):
        raise InputError(f"{folder}: a session is listed twice; list each session once")
    with file_lock(folder):
        remove_stale_temp(folder)
        if not (folder / INFO_FILE).exists():
            check_empty(folder)
            write_atomic(folder / EMBEDDINGS_FILE, lambda file: file.write(array_bytes(np.zeros((0, embeddings.shape[1]), "f4"))))
            write_text(folder / PEOPLE_FILE, format_csv([*_COLUMNS, _CHECKSUM], []))
            write_json(folder / INFO_FILE, asdict(_GalleryInfo(FORMAT, model, embeddings.shape[1])))
        old = read_gallery(folder)
        old.check_model(model)
        new = set(keys)
        kept = [entry for entry in old.sessions if (entry.id, entry.session) not in new]
        # A row that the old table refers to is never overwritten before that table is replaced.
        used = {entry.row for entry in old.sessions}
        free = (row for row in range(len(old.embeddings) + len(keys)) if row not in used)
        rows = [next(free) for _ in keys]
        stored = np.zeros((max([len(old.embeddings) - 1, *rows]) + 1, embeddings.shape[1]), dtype=np.float32)
        stored[: len(old.embeddings)] = old.embeddings
        stored[rows] = embeddings
        when = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
        norms = np.linalg.norm(embeddings, axis=1)
        added = [EnrolledSession(*key, row, float(norm), when) for key, row, norm in zip(keys, rows, norms)]
        # The old table stays valid for these embeddings: its rows are unchanged.
        write_atomic(folder / EMBEDDINGS_FILE, lambda file: file.write(array_bytes(stored)))
        return _write_table(replace(old, sessions=tuple(kept + added), embeddings=stored))


def forget(folder: Path, subject: str, session: str | None = None) -> int:
    """Remove a subject, or one of its sessions, and overwrite the embeddings with zeros. Return the number of removed sessions.

    Raises:
        InputError: there is no gallery, or the subject or session is not enrolled.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such gallery; check --gallery")
    read_gallery(folder)  # fails before the lock file is written into a folder that is no gallery
    with file_lock(folder):
        remove_stale_temp(folder)
        old = read_gallery(folder)
        kept = [entry for entry in old.sessions if entry.id != subject or (session is not None and entry.session != session)]
        removed = len(old.sessions) - len(kept)
        if not removed:
            _write_table(old)  # clears embeddings that an interrupted removal left behind
            what = subject if session is None else f"{subject}/{session}"
            raise InputError(f"{folder / PEOPLE_FILE}: {what} is not enrolled; enrolled subjects: {_join_names(old.subjects)}")
        _write_table(replace(old, sessions=tuple(kept)))
        return removed


def check_empty(folder: Path) -> None:
    """Check that creating a gallery in `folder` overwrites no sessions: a gallery that lost its `gallery.json` still has some.

    An empty table and an empty array are accepted: a process that was killed while it created the gallery leaves them.

    Raises:
        InputError: names the file.
    """
    people, embeddings = folder / PEOPLE_FILE, folder / EMBEDDINGS_FILE
    remedy = f"already exists, without {INFO_FILE}; restore that file, or choose another folder"
    if people.exists() and _table_text(folder) not in (format_csv(_COLUMNS, []), format_csv([*_COLUMNS, _CHECKSUM], [])):
        raise InputError(f"{people}: {remedy}")
    if embeddings.exists():
        stored = read_array(embeddings)
        if stored.dtype != np.float32 or stored.ndim != 2 or len(stored):
            raise InputError(f"{embeddings}: {remedy}")


def _write_table(gallery: Gallery) -> Gallery:
    """Write the table, whose embeddings are already on disk, then zero the rows that no session uses."""
    folder, sessions, embeddings = gallery.folder, gallery.sessions, gallery.embeddings
    table = [[s.id, s.session, s.row, f"{s.quality:.4f}", s.enrolled_at, _checksum(embeddings[s.row])] for s in sessions]
    write_text(folder / PEOPLE_FILE, format_csv([*_COLUMNS, _CHECKSUM], table))
    used = [session.row for session in sessions]
    cleared = np.zeros_like(embeddings[: max(used, default=-1) + 1])
    cleared[used] = embeddings[used]
    write_atomic(folder / EMBEDDINGS_FILE, lambda file: file.write(array_bytes(cleared)))
    return replace(gallery, embeddings=cleared)


def _parse_sessions(path: Path, embeddings: np.ndarray) -> Iterator[EnrolledSession]:
    _, rows = read_session_rows(path, _COLUMNS[2:])
    seen: set[int] = set()
    for (subject, session), (number, cells) in rows.items():
        try:
            row, quality = int(cells["row"]), float(cells["quality"])
        except ValueError:
            raise InputError(f"{path}: row {number}: row and quality must be numbers; restore the gallery from a copy") from None
        if subject.casefold() == UNKNOWN:
            raise InputError(f"{path}: row {number}: {_RESERVED_ID_MESSAGE}; change the id in this row")
        if not 0 <= row < len(embeddings) or row in seen:
            raise InputError(
                f"{path}: row {number}: its number is used twice or not in {EMBEDDINGS_FILE}; restore the gallery from a copy"
            )
        if not np.isfinite(embeddings[row]).all() or not embeddings[row].any():
            raise InputError(f"{path}: row {number}: its embedding is zero or has NaN; remove the row of {subject}/{session}")
        if cells.get(_CHECKSUM, "") not in ("", _checksum(embeddings[row])):
            raise InputError(
                f"{path}: row {number}: the embedding of {subject}/{session} in {EMBEDDINGS_FILE} was changed "
                "after its enrolment (its checksum differs); restore that file from a copy, or remove the row and enroll it again"
            )
        seen.add(row)
        yield EnrolledSession(subject, session, row, quality, cells["enrolled"])


def _checksum(embedding: np.ndarray) -> str:
    return hashlib.sha256(embedding.astype("<f4").tobytes()).hexdigest()[:16]


def _join_names(names: Sequence[str], limit: int = 10) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "") or "none"
