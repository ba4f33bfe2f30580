"""What the page shows of one capture: its pictures, its maps, and the predictions of the model."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fr_ps.config import PrepareConfig
from fr_ps.data.mean_face import MeanFace
from fr_ps.data.preparation import format_warning, read_prepared_capture, recorded_acquisition, solve_capture
from fr_ps.data.session_picture import albedo_white, to_gray
from fr_ps.data.session_view import SessionView, compare_with_capture
from fr_ps.demo.candidates import Picture
from fr_ps.errors import InputError
from fr_ps.photometric.acquisition import acquisition_warning
from fr_ps.photometric.captures import Capture
from fr_ps.photometric.images import is_image_name
from fr_ps.photometric.orientation import axes_warning, normal_statistics
from fr_ps.serving.predict import CaptureSession
from fr_ps.serving.recognizer import Recognizer
from fr_ps.tables import SessionKey

UPLOAD: SessionKey = ("upload", "")
"""The key of a capture that was uploaded."""


@dataclass(frozen=True)
class AttributePrediction:
    """The prediction of one attribute.

    Attributes:
        attribute: name.
        predicted: name of the predicted class.
        probabilities: class to its probability.
        threshold: probability of the last class from which it is predicted; None: the most probable class is.
    """

    attribute: str
    predicted: str
    probabilities: dict[str, float]
    threshold: float | None


@dataclass(frozen=True)
class Analysis:
    """One capture.

    Attributes:
        key: (id, session), or `UPLOAD`.
        view: its pictures and maps.
        quality: the measures of `session_quality`.
        embedding: (1, D).
        attributes: the predictions of the trained attributes.
        warnings: a line each.
    """

    key: SessionKey
    view: SessionView
    quality: dict[str, float]
    embedding: np.ndarray
    attributes: list[AttributePrediction]
    warnings: list[str]

    @cached_property
    def picture(self) -> Picture:
        """Its albedo."""
        return Picture(to_gray(self.view.albedo * self.view.mask, 0, albedo_white(self.view)), "")


def analyse_capture(session: CaptureSession) -> Analysis:
    """Compute maps and predictions of one capture, with the settings of the model's training maps.

    Raises:
        InputError: the capture or its maps cannot be used.
    """
    if session.error:
        raise InputError(session.error)
    recognizer, name = session.recognizer, "/".join(filter(None, session.key))
    capture = read_prepared_capture(session.folder, session.config, session.root)
    maps, details = solve_capture(capture, session.folder, session.config, None, session.mean_face)
    if not (maps.confidence > 0).any():
        raise InputError(f"{session.folder}: no pixel of the face is inside the pictures; check the mask and the alignment")
    checked = {
        modality: recognizer.check_map(modality, getattr(maps, modality), f"{session.folder}: {modality}")
        for modality in recognizer.info.modalities
    }
    predictions = recognizer.predict_checked({modality: plane[None] for modality, plane in checked.items()}, names=[name])
    view = SessionView(
        name,
        maps.albedo,
        maps.normal,
        maps.depth,
        maps.confidence,
        maps.confidence > 0,
        compare_with_capture(capture, details, maps.albedo, maps.normal),
        "",
        _describe_capture(capture, session.config, details["aligned_by"]),
        [],
    )
    acquisition = recorded_acquisition(details)
    warnings = [
        format_warning(recognizer.info.preparation),
        acquisition_warning(recognizer.info.acquisition, [(name, acquisition)] if acquisition else []),
        axes_warning([normal_statistics(checked["normal"])]) if "normal" in checked else None,
    ]
    attributes = [_predict_attribute(recognizer, one, predictions.probabilities[one]) for one in recognizer.info.trained]
    return Analysis(session.key, view, maps.quality, predictions.embeddings, attributes, [line for line in warnings if line])


def analyse_upload(files: Sequence[str], recognizer: Recognizer, config: PrepareConfig, mean_face: MeanFace | None) -> Analysis:
    """`analyse_capture` of uploaded files: the images of one capture, and the files that belong to it.

    Raises:
        InputError: no files, two of one name, or as `analyse_capture`; names the files without their temporary folder.
    """
    paths = [Path(file) for file in files]
    if not any(is_image_name(path.name) for path in paths):
        raise InputError("upload: no images; choose the pictures of one capture together with its file of lights")
    with tempfile.TemporaryDirectory(prefix="fr_ps_demo_") as name:
        folder = Path(name)
        for path in paths:
            if (folder / path.name).exists():
                raise InputError(f"upload: two files are named {path.name}; choose the files of one capture")
            shutil.copyfile(path, folder / path.name)
        try:
            return analyse_capture(CaptureSession(recognizer, config, mean_face, UPLOAD, folder, folder))
        except InputError as error:
            raise InputError(str(error).replace(f"{folder}/", "").replace(str(folder), "upload")) from None


def _predict_attribute(recognizer: Recognizer, attribute: str, probabilities: np.ndarray) -> AttributePrediction:
    names = list(recognizer.info.classes[attribute])  # type: ignore[index]
    threshold = recognizer.thresholds.attributes.get(attribute) if recognizer.thresholds and len(names) == 2 else None
    predicted = recognizer.predicted_classes(attribute, probabilities)[0]
    return AttributePrediction(attribute, predicted, dict(zip(names, probabilities[0].tolist())), threshold)


def _describe_capture(capture: Capture, config: PrepareConfig, aligned_by: str) -> dict[str, str]:
    height, width = capture.stored_size
    bits = f", white level {capture.white_level:,}" if capture.white_level else ""
    frame = f"none: the whole picture, fit {config.fit}" if aligned_by == "none" else f"by {aligned_by}"
    return {
        "pictures": f"{len(capture.images)} of {width} x {height} px{bits}; layout {capture.layout}",
        "alignment": frame,
        "maps": f"{config.size} x {config.size} px, solver {config.solver}, as for the training of the model",
    }
