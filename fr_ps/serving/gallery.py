"""A gallery of enrolled subjects: a folder with the embeddings of one model, and a table that names the session of each row."""

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from fr_ps.errors import InputError, one_line
from fr_ps.json_files import NonNegativeInt, PositiveInt, read_json
from fr_ps.npy import map_array
from fr_ps.progress import OnProgress, no_progress
from fr_ps.serving.gallery_table import CHECKSUM, PEOPLE_FILE, parse_table

EMBEDDINGS_FILE = "embeddings.npy"
INFO_FILE = "gallery.json"
FORMAT = 1
_READ_ATTEMPTS, _RETRY_SECONDS = 20, 0.05
BLOCK_ROWS = 4096
"""Embeddings that are read at once: 8 MB of 512 channels."""
_PROBE_BLOCK = 16
"""Probes that are searched at once: their cosines with a million sessions take 64 MB."""
_THREADS = 2


@dataclass(frozen=True)
class GalleryInfo:
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
        table: the n sessions, one row each: see `parse_table`.
        embeddings: (rows, D) float32, mapped from the file; the column `row` of the table indexes it. A row without a session is
            zero and free.
    """

    folder: Path
    model: str
    table: pd.DataFrame
    embeddings: np.ndarray

    @cached_property
    def sessions(self) -> tuple[EnrolledSession, ...]:
        """The enrolled sessions of all subjects."""
        columns = (self.table[name].tolist() for name in ("id", "session", "row", "quality", "enrolled"))
        return tuple(EnrolledSession(*cells) for cells in zip(*columns))

    @property
    def subjects(self) -> list[str]:
        """The enrolled subjects, sorted."""
        return self._owners[1]

    @cached_property
    def norms(self) -> np.ndarray:
        """(n,) float64 norms of the sessions' embeddings."""
        blocks = [np.linalg.norm(block.astype(np.float64), axis=1) for block in self.read_blocks()]
        return np.concatenate(blocks) if blocks else np.zeros(0)

    @cached_property
    def _owners(self) -> tuple[np.ndarray, list[str]]:
        """(n,) positions of the sessions' subjects in the list of subjects, and that list."""
        codes, subjects = pd.factorize(self.table["id"], sort=True)
        return codes, subjects.tolist()

    def read_blocks(self) -> Iterator[np.ndarray]:
        """The embeddings of the sessions, in their order, as copies of up to `BLOCK_ROWS` rows."""
        rows = self.table["row"].to_numpy()
        for start in range(0, len(rows), BLOCK_ROWS):
            yield self.embeddings[rows[start : start + BLOCK_ROWS]]

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
        if not len(self.table):
            raise InputError(f"{self.folder / PEOPLE_FILE}: the gallery is empty; enroll subjects with fr-ps enroll")

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """(m, subjects) float32: the mean cosine of each of m embeddings to a subject's sessions, in the order of `subjects`."""
        found = np.empty((len(embeddings), len(self.subjects)), dtype=np.float32)
        for row, scores in zip(found, self._score_rows(embeddings, no_progress)):
            row[:] = scores
        return found

    def claim_score(self, embedding: np.ndarray, subject: str) -> float:
        """The mean cosine of one (D,) embedding to the sessions of an enrolled subject."""
        sessions = np.flatnonzero(self.table["id"].to_numpy() == subject)
        rows = normalize_rows(self.embeddings[self.table["row"].to_numpy()[sessions]])
        return float(np.mean(rows @ normalize_rows(embedding[None])[0], dtype=np.float64))

    def search(self, embeddings: np.ndarray, threshold: float, top: int = 1, advance: OnProgress = no_progress) -> list[Match]:
        """Identify m embeddings: each as the subject with the highest score, if that score reaches the threshold.

        Args:
            embeddings: (m, D).
            threshold: cosine.
            top: number of candidates per session.
            advance: called with the number of embeddings done since the previous call.
        """
        subjects, matches = self.subjects, []
        for scores in self._score_rows(embeddings, advance):
            candidates = tuple((subjects[column], float(scores[column])) for column in _highest(scores, max(top, 1)))
            best, score = candidates[0]
            matches.append(Match(best if score >= threshold else None, score, candidates))
        return matches

    def _score_rows(self, embeddings: np.ndarray, advance: OnProgress) -> Iterator[np.ndarray]:
        """The rows of `scores`, one after the other. The product reads the mapped file: no copy of the gallery is made."""
        owners, subjects = self._owners
        rows, norms, counts = self.table["row"].to_numpy(), np.maximum(self.norms, 1e-12), np.bincount(owners)
        probes = normalize_rows(embeddings).astype(np.float32, copy=False)
        for start in range(0, len(probes), _PROBE_BLOCK):
            block = probes[start : start + _PROBE_BLOCK]
            products = self._products(block[0])[None] if len(block) == 1 else block @ self.embeddings.T
            for product in products:
                sums = np.bincount(owners, weights=product[rows] / norms, minlength=len(subjects))
                yield (sums / counts).astype(np.float32)
                advance(1)

    def _products(self, probe: np.ndarray) -> np.ndarray:
        """(rows,) float32: the product of each embedding with one probe, at the speed of the memory.

        einsum has no threads of its own. Those of BLAS share the rows evenly beforehand: on a busy machine all wait for one.
        """
        products = np.empty(len(self.embeddings), dtype=np.float32)

        def compute(start: int) -> None:
            rows = slice(start, start + BLOCK_ROWS)
            np.einsum("ij,j->i", self.embeddings[rows], probe, out=products[rows])

        with ThreadPoolExecutor(_THREADS, thread_name_prefix="gallery") as pool:
            list(pool.map(compute, range(0, len(products), BLOCK_ROWS)))
        return products


def _highest(scores: np.ndarray, top: int) -> np.ndarray:
    """The positions of the `top` highest scores, in falling order; of equal ones the first."""
    top = min(top, len(scores))
    kept = np.flatnonzero(scores >= np.partition(scores, len(scores) - top)[len(scores) - top])
    return kept[np.argsort(-scores[kept], kind="stable")[:top]]


def normalize_rows(embeddings: np.ndarray) -> np.ndarray:
    """The rows, each divided by its norm."""
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)


def read_gallery(folder: Path) -> Gallery:
    """Read the gallery in `folder`.

    Raises:
        InputError: it is missing, damaged or of a newer format, or the id of a subject is `unknown`.
    """
    remedy = "expected a gallery written by fr-ps enroll; restore it from a copy"
    info = read_json(folder / INFO_FILE, GalleryInfo, remedy, formats=range(FORMAT, FORMAT + 1))
    for _ in range(_READ_ATTEMPTS):
        before = table_text(folder)
        embeddings = _read_embeddings(folder, info.width)
        damage = None
        try:
            gallery = Gallery(folder, info.model, parse_table(folder / PEOPLE_FILE, before), embeddings)
            _check_rows(gallery)
        except InputError as error:
            damage = error
        if table_text(folder) == before:  # else another process wrote in between, and the two files may not match
            if damage:
                raise damage
            return gallery
        time.sleep(_RETRY_SECONDS)
    raise InputError(f"{folder}: other processes keep changing this gallery; try again")


def table_text(folder: Path) -> str:
    """The text of the table.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return (folder / PEOPLE_FILE).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / PEOPLE_FILE}: cannot be read ({one_line(error)}); restore it from a copy") from None


def _read_embeddings(folder: Path, width: int) -> np.ndarray:
    path = folder / EMBEDDINGS_FILE
    if not path.is_file():
        raise InputError(f"{path}: no such file; restore it from a copy, or enroll into another folder")
    embeddings = map_array(path)
    if embeddings.ndim != 2 or embeddings.shape[1] != width or embeddings.dtype != np.float32:
        raise InputError(f"{path}: {embeddings.dtype} {embeddings.shape}; expected float32 rows of {width}")
    return embeddings


def _check_rows(gallery: Gallery) -> None:
    """Check that each session has an embedding of its own, which is as it was enrolled.

    Raises:
        InputError: names the row of the table.
    """
    path, table = gallery.folder / PEOPLE_FILE, gallery.table
    outside = ~table["row"].between(0, len(gallery.embeddings) - 1) | table["row"].duplicated()
    if outside.any():
        raise InputError(
            f"{path}: row {_first_number(table, outside)}: its number is used twice or not in {EMBEDDINGS_FILE}; "
            "restore the gallery from a copy"
        )
    invalid = ~np.isfinite(gallery.norms) | (gallery.norms == 0)
    if invalid.any():
        bad = table[invalid].iloc[0]
        raise InputError(f"{path}: row {bad.number}: its embedding is zero or has NaN; remove the row of {bad.id}/{bad.session}")
    expected = table[CHECKSUM].to_numpy()
    found = np.array([text for block in gallery.read_blocks() for text in checksums(block)], dtype=object)
    changed = (expected != "") & (expected != found)
    if changed.any():
        bad = table[changed].iloc[0]
        raise InputError(
            f"{path}: row {bad.number}: the embedding of {bad.id}/{bad.session} in {EMBEDDINGS_FILE} was changed "
            "after its enrolment (its checksum differs); restore that file from a copy, or remove the row and enroll it again"
        )


def _first_number(table: pd.DataFrame, where: pd.Series) -> int:
    return int(table["number"][where].iloc[0])


def checksums(embeddings: np.ndarray) -> list[str]:
    """The checksum of each of (n, D) float32 embeddings, for the table."""
    return [hashlib.sha256(embedding).hexdigest()[:16] for embedding in embeddings.astype("<f4", order="C", copy=False)]
