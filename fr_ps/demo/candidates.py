"""The most similar enrolled subjects, and pictures of them. A gallery stores embeddings only; pictures come from elsewhere."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from fr_ps.data.layout import map_file, read_map
from fr_ps.data.preparation import capture_to_maps
from fr_ps.data.session_picture import display_white, png_bytes, to_gray
from fr_ps.errors import InputError
from fr_ps.serving.gallery import Gallery, normalize_rows
from fr_ps.serving.predict import CaptureSession
from fr_ps.tables import SessionKey

_CACHED_PICTURES = 256
_MAX_SIDE = 512


def data_uri(picture: np.ndarray) -> str:
    """A (H, W, 3) uint8 picture as a PNG for the attribute `src`."""
    return f"data:image/png;base64,{base64.b64encode(png_bytes(picture, _MAX_SIDE)).decode()}"


@dataclass(frozen=True)
class Picture:
    """A picture of a session.

    Attributes:
        pixels: (H, W, 3) uint8: the albedo; None without one.
        note: where it comes from, or why there is none.
    """

    pixels: np.ndarray | None
    note: str

    @cached_property
    def uri(self) -> str:
        """`data_uri` of the pixels, encoded once; empty without them."""
        return "" if self.pixels is None else data_uri(self.pixels)


@dataclass(frozen=True)
class Candidate:
    """An enrolled subject.

    Attributes:
        subject: id.
        score: mean cosine of the probe to the subject's sessions.
        sessions: number of its sessions.
        shown_session: among its sessions with a picture (without any: among all) that with the highest cosine.
        picture: of that session.
    """

    subject: str
    score: float
    sessions: int
    shown_session: str
    picture: Picture


class EnrolledPictures:
    """Finds pictures of enrolled sessions by their id and session.

    Attributes:
        data: prepared data set that is searched first; None: none.
        captures: captures that are searched then; their maps are computed.
    """

    def __init__(self, data: Path | None, captures: Mapping[SessionKey, CaptureSession]) -> None:
        self.data = data
        self.captures = captures
        self.find = lru_cache(_CACHED_PICTURES)(self._find)

    def _find(self, subject: str, session: str) -> Picture:
        """The picture of one session."""
        if self.data is None and not self.captures:
            return Picture(None, "no picture: a gallery stores none, and neither --data nor --captures was given")
        try:
            if self.data and (file := map_file(self.data, subject, session, "albedo")):
                return Picture(_albedo_picture(read_map(file, "albedo")[0]), f"albedo from {self.data}")
            if source := self.captures.get((subject, session)):
                maps, _ = capture_to_maps(source.folder, source.config, None, source.mean_face, source.root)
                return Picture(_albedo_picture(maps.albedo), f"albedo of the capture in {source.root}")
        except InputError as error:
            return Picture(None, f"no picture: {error}")
        searched = " or ".join(map(str, filter(None, [self.data, next((one.root for one in self.captures.values()), None)])))
        return Picture(None, f"no picture: {subject}/{session} is not in {searched}")


def find_candidates(gallery: Gallery, embedding: np.ndarray, top: int, pictures: EnrolledPictures) -> list[Candidate]:
    """The `top` enrolled subjects with the highest scores for one (1, D) embedding, in falling order."""
    (match,) = gallery.search(embedding, threshold=1, top=top)
    probe = normalize_rows(embedding)[0]
    found = []
    for subject, score in match.candidates:
        rows = gallery.table[gallery.table["id"] == subject]
        cosines = normalize_rows(gallery.embeddings[rows["row"].to_numpy()]) @ probe
        names = rows["session"].to_numpy()[np.argsort(-cosines, kind="stable")].tolist()
        found.append(Candidate(subject, score, len(names), *_first_with_picture(subject, names, pictures)))
    return found


def _first_with_picture(subject: str, sessions: Sequence[str], pictures: EnrolledPictures) -> tuple[str, Picture]:
    for session in sessions:
        picture = pictures.find(subject, session)
        if picture.pixels is not None:
            return session, picture
    return sessions[0], pictures.find(subject, sessions[0])


def _albedo_picture(albedo: np.ndarray) -> np.ndarray:
    shown = albedo[albedo > 0]
    return to_gray(albedo, 0, display_white(shown) if len(shown) else 1)
