"""Who is enrolled: a folder with a file of embeddings and a table of whose they are, made by one model."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fr_ps.errors import InputError, one_line
from fr_ps.files import (
    array_bytes,
    check_path_component,
    folder_lock,
    read_array,
    remove_stale_temp,
    write_atomic,
    write_json,
    write_text,
)
from fr_ps.json_files import NonNegativeInt, PositiveInt, read_json
from fr_ps.tables import format_csv, read_session_rows

EMBEDDINGS_FILE = "embeddings.npy"
PEOPLE_FILE = "people.csv"
INFO_FILE = "gallery.json"
FORMAT = 1
UNKNOWN = "unknown"
"""What stands in the place of a person where a session is nobody of the gallery; so nobody bears this name, in any case."""
_READ_ATTEMPTS, _RETRY_SECONDS = 20, 0.05
_RESERVED_ID_MESSAGE = f"the id {UNKNOWN} is reserved for sessions that are nobody of the gallery"
_COLUMNS = ["id", "session", "row", "quality", "enrolled"]
_CHECKSUM = "checksum"
"""Column of the first 16 hexadecimal digits of the SHA-256 of a row's embedding; galleries of version 0.1 lack it.

In the table and not in `gallery.json`, as the table is the one file whose replacement changes who is enrolled: whenever
a process is killed, it names embeddings that are on disk.
"""


@dataclass(frozen=True)
class _GalleryInfo:
    """The content of `gallery.json`.

    Attributes:
        format: of the gallery.
        model: SHA-256 of the weights that made the embeddings.
        width: of an embedding.
    """

    format: NonNegativeInt
    model: str
    width: PositiveInt


@dataclass(frozen=True)
class EnrolledSession:
    """A session of somebody.

    Attributes:
        id, session: of it.
        row: of its embedding in the file.
        quality: norm of the embedding.
        when: it was enrolled, UTC.
    """

    id: str
    session: str
    row: int
    quality: float
    enrolled_at: str


@dataclass(frozen=True)
class Match:
    """Who a session is.

    Attributes:
        person: of the gallery; None: nobody who is enrolled.
        score: of the most alike person.
        candidates: the most alike people with their scores, the first the most.
    """

    subject: str | None
    score: float
    candidates: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Gallery:
    """Those who are enrolled.

    Attributes:
        folder: of it.
        model: SHA-256 of the weights that made the embeddings.
        sessions: of all people.
        embeddings: (n, D) float32 by `Enrolled.row`; a row that no session names is zero and free.
    """

    folder: Path
    model: str
    sessions: tuple[EnrolledSession, ...]
    embeddings: np.ndarray

    @property
    def subjects(self) -> list[str]:
        """Sorted."""
        return sorted({one.id for one in self.sessions})

    def check_model(self, model: str) -> None:
        """Refuse embeddings of another model.

        Raises:
            InputError: the gallery is another model's.
        """
        if self.model != model:
            raise InputError(
                f"{self.folder / INFO_FILE}: was made by another model (weights {self.model[:12]}, not {model[:12]}), "
                "and embeddings of two models cannot be compared; enroll its people anew into another folder"
            )

    def check_searchable(self, model: str) -> None:
        """Refuse a search that means nothing.

        Raises:
            InputError: nobody is enrolled, or by another model.
        """
        self.check_model(model)
        if not self.sessions:
            raise InputError(f"{self.folder / PEOPLE_FILE}: nobody is enrolled; do so by fr-ps enroll")

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """(m, people) float32: the mean cosine of each of m embeddings to a person's sessions, in the order of `people`."""
        place = {person: column for column, person in enumerate(self.subjects)}
        owners = np.array([place[one.id] for one in self.sessions])
        rows = normalize_rows(self.embeddings[[one.row for one in self.sessions]])
        templates = np.zeros((len(place), rows.shape[1]), dtype=np.float64)
        np.add.at(templates, owners, rows)
        templates /= np.bincount(owners)[:, None]
        return normalize_rows(embeddings) @ templates.T.astype(np.float32)

    def search(self, embeddings: np.ndarray, threshold: float, top: int = 1) -> list[Match]:
        """Who each of m embeddings is: the person of the highest score if that is the threshold or more, else nobody."""
        people, found = self.subjects, []
        for scores in self.scores(embeddings):
            order = np.argsort(-scores, kind="stable")[: max(top, 1)]
            candidates = tuple((people[column], float(scores[column])) for column in order)
            best, score = candidates[0]
            found.append(Match(best if score >= threshold else None, score, candidates))
        return found


def normalize_rows(embeddings: np.ndarray) -> np.ndarray:
    """The rows brought to length 1."""
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)


def read_gallery(folder: Path) -> Gallery:
    """The gallery in `folder`.

    Raises:
        InputError: there is none, it is damaged, of a newer format, or has a person called `unknown`.
    """
    remedy = "expected a gallery, which fr-ps enroll makes; restore it from a copy"
    info = read_json(folder / INFO_FILE, _GalleryInfo, remedy, formats=range(FORMAT, FORMAT + 1))
    for _ in range(_READ_ATTEMPTS):
        before = _table_text(folder)
        embeddings = _read_embeddings(folder, info.width)
        damage = None
        try:
            sessions = tuple(_parse_sessions(folder / PEOPLE_FILE, embeddings))
        except InputError as error:
            damage = error
        if _table_text(folder) == before:  # else another process is changing it, and its files do not belong together
            if damage:
                raise damage
            return Gallery(folder, info.model, sessions, embeddings)
        time.sleep(_RETRY_SECONDS)
    raise InputError(f"{folder}: is being changed all the time; try again")


def _table_text(folder: Path) -> str:
    try:
        return (folder / PEOPLE_FILE).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / PEOPLE_FILE}: cannot be read ({one_line(error)}); bring it back from a copy") from None


def _read_embeddings(folder: Path, width: int) -> np.ndarray:
    path = folder / EMBEDDINGS_FILE
    if not path.is_file():
        raise InputError(f"{path}: no such file; bring it back from a copy, or enroll into another folder")
    embeddings = read_array(path)
    if embeddings.ndim != 2 or embeddings.shape[1] != width or embeddings.dtype != np.float32:
        raise InputError(f"{path}: {embeddings.dtype} {embeddings.shape}; expected float32 rows of {width}")
    return embeddings


def enroll(folder: Path, model: str, keys: Sequence[tuple[str, str]], embeddings: np.ndarray) -> Gallery:
    """Add sessions to the gallery in `folder`, which is made where there is none; those that are there already are replaced.

    Either all of them are added or none, whenever it is interrupted: the table says who is there, and is written last.

    Args:
        folder: of the gallery.
        model: SHA-256 of the weights that made the embeddings.
        keys: (id, session) of each.
        embeddings: (len(keys), D) float32.

    Raises:
        InputError: the gallery is another model's, or cannot be written; an embedding with NaN; a person called `unknown`.
    """
    if not np.isfinite(embeddings).all() or not embeddings.any(axis=1).all():
        raise InputError(f"{folder}: an embedding is zero, or has NaN; nothing is enrolled; check the model and its maps")
    for key in keys:
        if key[0].casefold() == UNKNOWN:
            raise InputError(f"{folder}: {'/'.join(key)}: {_RESERVED_ID_MESSAGE}; give the person another id")
        for name in key:
            check_path_component(name, f"{folder}: {'/'.join(key)}")
    if len(set(keys)) < len(keys):
        raise InputError(f"{folder}: a session is to be enrolled twice at once; name each once")
    with folder_lock(folder):
        remove_stale_temp(folder)
        if not (folder / INFO_FILE).exists():
            check_empty(folder)
            write_atomic(folder / EMBEDDINGS_FILE, lambda file: file.write(array_bytes(np.zeros((0, embeddings.shape[1]), "f4"))))
            write_text(folder / PEOPLE_FILE, format_csv([*_COLUMNS, _CHECKSUM], []))
            write_json(folder / INFO_FILE, asdict(_GalleryInfo(FORMAT, model, embeddings.shape[1])))
        old = read_gallery(folder)
        old.check_model(model)
        new = set(keys)
        kept = [one for one in old.sessions if (one.id, one.session) not in new]
        # Rows that the present table names are never written over before it is replaced.
        named = {one.row for one in old.sessions}
        free = (row for row in range(len(old.embeddings) + len(keys)) if row not in named)
        rows = [next(free) for _ in keys]
        stored = np.zeros((max([len(old.embeddings) - 1, *rows]) + 1, embeddings.shape[1]), dtype=np.float32)
        stored[: len(old.embeddings)] = old.embeddings
        stored[rows] = embeddings
        when = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
        norms = np.linalg.norm(embeddings, axis=1)
        added = [EnrolledSession(*key, row, float(norm), when) for key, row, norm in zip(keys, rows, norms)]
        # With the new rows the table on disk still finds its embeddings.
        write_atomic(folder / EMBEDDINGS_FILE, lambda file: file.write(array_bytes(stored)))
        return _write_table(replace(old, sessions=tuple(kept + added), embeddings=stored))


def forget(folder: Path, subject: str, session: str | None = None) -> int:
    """Remove a person, or one session of theirs, and overwrite the embeddings by zeros; returns how many sessions that was.

    Raises:
        InputError: there is no gallery, or no such person or session in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such gallery")
    read_gallery(folder)  # before anything is written where there is none
    with folder_lock(folder):
        remove_stale_temp(folder)
        old = read_gallery(folder)
        kept = [one for one in old.sessions if one.id != subject or (session is not None and one.session != session)]
        gone = len(old.sessions) - len(kept)
        if not gone:
            _write_table(old)  # where an earlier one was interrupted, its embeddings may still be there
            what = subject if session is None else f"{subject}/{session}"
            raise InputError(f"{folder / PEOPLE_FILE}: {what} is not enrolled; its people: {_join_names(old.subjects)}")
        _write_table(replace(old, sessions=tuple(kept)))
        return gone


def check_empty(folder: Path) -> None:
    """Refuse to begin a gallery over one that lost its description, or over something else.

    What a process that was killed while it began a gallery left there is accepted: a header, and embeddings of nobody.

    Raises:
        InputError: names the file.
    """
    people, embeddings = folder / PEOPLE_FILE, folder / EMBEDDINGS_FILE
    if people.exists() and _table_text(folder) not in (format_csv(_COLUMNS, []), format_csv([*_COLUMNS, _CHECKSUM], [])):
        raise InputError(f"{people}: is there already, without {INFO_FILE}; bring that back, or choose another folder")
    if embeddings.exists():
        stored = read_array(embeddings)
        if stored.dtype != np.float32 or stored.ndim != 2 or len(stored):
            raise InputError(f"{embeddings}: is there already, without {INFO_FILE}; bring that back, or choose another folder")


def _write_table(gallery: Gallery) -> Gallery:
    """Write the table, whose embeddings are on disk, then clear the rows that it does not name."""
    folder, table = gallery.folder, gallery.sessions
    rows = [
        [one.id, one.session, one.row, f"{one.quality:.4f}", one.enrolled_at, _checksum(gallery.embeddings[one.row])]
        for one in table
    ]
    write_text(folder / PEOPLE_FILE, format_csv([*_COLUMNS, _CHECKSUM], rows))
    cleared = np.zeros_like(gallery.embeddings[: max((one.row for one in table), default=-1) + 1])
    used = [one.row for one in table]
    cleared[used] = gallery.embeddings[used]
    write_atomic(folder / EMBEDDINGS_FILE, lambda file: file.write(array_bytes(cleared)))
    return replace(gallery, embeddings=cleared)


def _parse_sessions(path: Path, embeddings: np.ndarray) -> Iterator[EnrolledSession]:
    _, rows = read_session_rows(path, _COLUMNS[2:])
    seen: set[int] = set()
    for (person, session), (number, cells) in rows.items():
        try:
            row, quality = int(cells["row"]), float(cells["quality"])
        except ValueError:
            raise InputError(f"{path}: row {number}: row and quality must be numbers; the gallery is damaged") from None
        if person.casefold() == UNKNOWN:
            raise InputError(f"{path}: row {number}: {_RESERVED_ID_MESSAGE}; write another id into this row")
        if not 0 <= row < len(embeddings) or row in seen:
            raise InputError(f"{path}: row {number}: no embedding of its own in {EMBEDDINGS_FILE}; the gallery is damaged")
        if not np.isfinite(embeddings[row]).all() or not embeddings[row].any():
            raise InputError(f"{path}: row {number}: its embedding is empty; remove the row of {person}/{session}")
        if cells.get(_CHECKSUM, "") not in ("", _checksum(embeddings[row])):
            raise InputError(
                f"{path}: row {number}: the embedding of {person}/{session} in {EMBEDDINGS_FILE} is not the enrolled one "
                "(its checksum differs); restore that file from a copy, or remove the row and enroll the session again"
            )
        seen.add(row)
        yield EnrolledSession(person, session, row, quality, cells["enrolled"])


def _checksum(embedding: np.ndarray) -> str:
    return hashlib.sha256(embedding.astype("<f4").tobytes()).hexdigest()[:16]


def _join_names(names: Sequence[str], limit: int = 10) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "") or "nobody"
