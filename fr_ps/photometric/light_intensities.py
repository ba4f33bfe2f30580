"""Relative intensities of lights of known direction, from pictures of a white target or from captures of faces."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fr_ps.errors import InputError
from fr_ps.photometric.calibrate import estimate_intensities
from fr_ps.photometric.images import read_image
from fr_ps.photometric.sources import CaptureSource, list_sources
from fr_ps.photometric.sphere import list_pictures, read_pictures
from fr_ps.progress import OnProgress, no_progress

MAX_SESSIONS = 100
"""Sessions that `intensities_from_faces` reads; more change the median little."""
_TARGET_LEVEL = 0.5
_MAX_SATURATED = 0.01
_MIN_LUMINANCE = 0.01
_MAX_FACE_PIXELS = 250_000


@dataclass(frozen=True)
class FaceIntensities:
    """Intensities estimated from faces.

    Attributes:
        intensities: (k,) of mean 1: the median over the sessions.
        spread: (k,) standard deviation over the sessions; 0 for one session.
        sessions: number of sessions used.
        skipped: number of sessions that were read but not usable.
    """

    intensities: np.ndarray
    spread: np.ndarray
    sessions: int
    skipped: int


def intensities_from_target(folder: Path, names: list[str], lights: np.ndarray, advance: OnProgress = no_progress) -> np.ndarray:
    """(k,) relative intensities, of mean 1, from one picture of a white matte target under each light.

    The target faces the camera, so that the cosine of its light is the z component of the direction. The target is the part of
    the picture that is at least half as bright as the brightest part, in the mean over the pictures.

    Args:
        folder: of the pictures.
        names: of the pictures, one of each light.
        lights: (k, 3) unit vectors toward the lights.
        advance: called after each decoded picture; each is decoded twice.

    Raises:
        InputError: the folder or a picture is missing, a picture is unreadable or of another size, or the target is overexposed
            or dark in it.
    """
    check_names(folder, names)
    mean: np.ndarray | float = 0.0
    for luminance in read_pictures(folder, names, advance):
        mean = mean + luminance / len(names)
    target = mean >= _TARGET_LEVEL * np.percentile(mean, 95)
    received = []
    for name in names:
        picture = read_image(folder / name)
        where = folder / name
        if picture.saturated[target].mean() > _MAX_SATURATED:
            raise InputError(
                f"{where}: {picture.saturated[target].mean():.0%} of the white target is overexposed; expose shorter"
            )
        received.append(float(picture.luminance[target].mean()))
        if received[-1] < _MIN_LUMINANCE:
            raise InputError(f"{where}: the white target is dark ({received[-1]:.1%} of the white level); expose longer")
        advance(1)
    intensities = np.array(received) / lights[:, 2]
    return intensities / intensities.mean()


def intensities_from_faces(
    captures: Path, names: list[str], lights: np.ndarray, advance: OnProgress = no_progress
) -> FaceIntensities:
    """Relative intensities from captures of faces under the same lights: `estimate_intensities` in each session, then the median.

    Args:
        captures: folder of `{id}/{session}/`, whose pictures have the names of the calibration's; see `check_faces`.
        names: of the pictures, one of each light.
        lights: (k, 3) unit vectors toward the lights.
        advance: called after each session, of which `select_sessions` returns the number.

    Raises:
        InputError: no usable session.
    """
    estimates, reasons = [], []
    for source in select_sessions(captures):
        try:
            estimates.append(estimate_intensities(*_read_session(source.folder, names), lights, with_ambient=False))
        except InputError as error:
            reasons.append(f"{source.id}/{source.session}: {error}")
        advance(1)
    if not estimates:
        raise InputError(f"{captures}: no session from which intensities can be estimated; the first: {reasons[0]}")
    median = np.median(estimates, axis=0)
    return FaceIntensities(median / median.mean(), np.std(estimates, axis=0), len(estimates), len(reasons))


def check_faces(captures: Path, names: list[str]) -> None:
    """Check that a folder has sessions, of which one has the pictures `names`, at least four. An unreadable session is skipped.

    Raises:
        InputError: it does not.
    """
    if len(names) < 4:
        raise InputError(
            f"{captures}: intensities cannot be estimated from faces under {len(names)} lights; use four lights or more"
        )
    sources = select_sessions(captures)
    if not any(_has_pictures(source.folder, names) for source in sources):
        check_names(sources[0].folder, names)


def _has_pictures(folder: Path, names: list[str]) -> bool:
    try:
        return set(names) <= set(list_pictures(folder))
    except InputError:
        return False


def select_sessions(captures: Path) -> list[CaptureSource]:
    """The sessions to read: all, or `MAX_SESSIONS` at equal distances in their order.

    Raises:
        InputError: the folder contains no session.
    """
    sources = list_sources(captures, {})
    places = np.linspace(0, len(sources) - 1, min(len(sources), MAX_SESSIONS)).astype(int)
    return [sources[place] for place in places]


def _read_session(folder: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Luminance and saturation (k, h, w) of the named pictures, of which every n-th row and column of large ones."""
    check_names(folder, names)
    images, saturated = [], []
    for name in names:
        picture = read_image(folder / name)
        step = max(int(np.sqrt(picture.luminance.size / _MAX_FACE_PIXELS)), 1)
        images.append(picture.luminance[::step, ::step])
        saturated.append(picture.saturated[::step, ::step])
        if images[-1].shape != images[0].shape:
            raise InputError(f"{folder / name}: its size is not that of {names[0]}; all pictures of a session must have one size")
    return np.stack(images), np.stack(saturated)


def check_names(folder: Path, names: list[str]) -> None:
    """Check that a folder has the pictures `names`.

    Raises:
        InputError: the folder or a picture is missing.
    """
    if missing := sorted(set(names) - set(list_pictures(folder))):
        raise InputError(f"{folder}: no {missing[0]}; expected the names of the calibration's pictures")
