"""Everything that the page needs from the command line: model, settings of its maps, captures to pick from, and the gallery."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fr_ps.config import PrepareConfig
from fr_ps.data.dataset import open_table
from fr_ps.data.layout import DATA_FOLDER, LABELS_FILE
from fr_ps.data.mean_face import MeanFace
from fr_ps.data.preparation import reproduce_preparation
from fr_ps.data.session_view import quality_spread
from fr_ps.demo.analysis import Analysis, analyse_capture, analyse_upload
from fr_ps.demo.candidates import Candidate, EnrolledPictures, find_candidates
from fr_ps.errors import InputError
from fr_ps.models.thresholds import ValidationThreshold
from fr_ps.serving.gallery import Gallery
from fr_ps.serving.predict import CaptureSession, list_capture_sessions
from fr_ps.serving.recognizer import Recognizer

TOP = 5
"""Candidates that are shown."""


@dataclass(frozen=True)
class Demonstrator:
    """The answers behind the page.

    Attributes:
        recognizer: of the model.
        config: settings that compute the maps of a capture.
        mean_face: the prior of the maps; None without one.
        sessions: `id/session` to the capture, of those to pick from.
        gallery: enrolled subjects; None without one.
        pictures: of enrolled sessions.
        spread: quality measure to its median and 95th percentile in the data set; empty without one.
    """

    recognizer: Recognizer
    config: PrepareConfig
    mean_face: MeanFace | None
    sessions: dict[str, CaptureSession]
    gallery: Gallery | None
    pictures: EnrolledPictures
    spread: dict[str, tuple[float, float]]

    @property
    def thresholds(self) -> tuple[ValidationThreshold, ...]:
        """The thresholds of the model, the largest false match rate first; empty without validation."""
        return self.recognizer.thresholds.identity if self.recognizer.thresholds else ()

    def threshold(self, fmr: float | None) -> ValidationThreshold | None:
        """The threshold at a false match rate, as `Recognizer.validation_threshold`; None if the model has none."""
        return self.recognizer.validation_threshold(fmr) if self.thresholds else None

    def analyse(self, name: str) -> Analysis:
        """`analyse_capture` of one of `sessions`."""
        if name not in self.sessions:
            raise InputError(f"{name}: not among the captures; pick one of the list")
        return analyse_capture(self.sessions[name])

    def analyse_files(self, files: Sequence[str]) -> Analysis:
        """`analyse_upload` of the files of one capture."""
        return analyse_upload(files, self.recognizer, self.config, self.mean_face)

    def candidates(self, analysis: Analysis) -> list[Candidate]:
        """The most similar enrolled subjects; empty without a gallery."""
        return find_candidates(self.gallery, analysis.embedding, TOP, self.pictures) if self.gallery else []


def open_demonstrator(
    recognizer: Recognizer, gallery: Gallery | None, captures: Path | None, data: Path | None, prior: str | None
) -> Demonstrator:
    """Check all inputs, and list the captures.

    Args:
        recognizer: of the model.
        gallery: enrolled subjects; None: no identification.
        captures: folder to pick captures from; None: uploads only.
        data: prepared data set with maps of enrolled subjects; None: none.
        prior: file of the mean face, if the training maps were prepared with one.

    Raises:
        InputError: captures cannot be prepared as the model's maps were; there are no captures; `data` is no prepared data set;
            another model made the gallery, or it is empty.
    """
    config, mean_face = reproduce_preparation(recognizer.info.preparation, prior)
    if gallery:
        gallery.check_searchable(recognizer.digest)
    listed = list_capture_sessions(recognizer, captures, None, prior) if captures else []
    sessions = [session for session in listed if isinstance(session, CaptureSession)]
    spread = {}
    if data is not None:
        if not (data / LABELS_FILE).is_file() or not (data / DATA_FOLDER).is_dir():
            raise InputError(f"--data {data}: has no {LABELS_FILE} with {DATA_FOLDER}/ beside it; give a prepared data set")
        spread = quality_spread(open_table(data).labels)
    pictures = EnrolledPictures(data, {session.key: session for session in sessions if not session.error})
    by_name = {"/".join(filter(None, session.key)): session for session in sessions}
    return Demonstrator(recognizer, config, mean_face, by_name, gallery, pictures, spread)
