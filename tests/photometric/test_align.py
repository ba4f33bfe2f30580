"""Alignment: the part of a picture that shows the face."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import affine_transform
from scipy.optimize import minimize

from fr_ps.config import Fit
from fr_ps.photometric.align import CANONICAL_LANDMARKS, align_capture, landmark_error, landmark_frame, read_boxes
from fr_ps.photometric.captures import Capture
from fr_ps.photometric.frame import Frame, fit_frame
from fr_ps.photometric.maps import SurfaceMaps, compute_maps
from fr_ps.synthetic.scene import Scene, render_session
from fr_ps.synthetic.view import WIDE
from tests.conftest import AssertRejected
from tests.photometric.surfaces import FOUR, degrees, directions

FOLDER = Path("captures/a/s")


def rolled(points: np.ndarray, angle: float) -> np.ndarray:
    """Points (n, 2), right and down, rotated counter-clockwise (as displayed) about the top left corner."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.column_stack([points[:, 0] * cos + points[:, 1] * sin, points[:, 1] * cos - points[:, 0] * sin])


similarities = st.tuples(st.floats(-3.14, 3.14), st.floats(5, 500), st.floats(-300, 300), st.floats(-300, 300))


@given(similarity=similarities, size=st.integers(8, 200))
def test_a_known_similarity_of_the_canonical_face_is_found(similarity: tuple[float, ...], size: int) -> None:
    angle, side, x, y = similarity
    landmarks = side * rolled(CANONICAL_LANDMARKS, angle) + (x, y)
    frame = landmark_frame(landmarks, size)
    middle = side * rolled(np.array([[0.5, 0.5]]), angle)[0] + (x, y)
    np.testing.assert_allclose((frame.x, frame.y, frame.width, frame.height), (*middle, side, side), rtol=1e-9, atol=1e-6)
    # The face was rotated by `angle`; the frame rotates it back.
    assert math.remainder(frame.angle + angle, 2 * math.pi) == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(frame.to_source(CANONICAL_LANDMARKS * size), landmarks, atol=1e-6)
    assert landmark_error(landmarks, frame) < 1e-6 * size


@given(similarity=similarities, seed=st.integers(0, 2**32 - 1), noise=st.floats(0.001, 0.15))
def test_no_other_similarity_fits_noisy_landmarks_better(similarity: tuple[float, ...], seed: int, noise: float) -> None:
    angle, side, x, y = similarity
    moved = CANONICAL_LANDMARKS + np.random.default_rng(seed).normal(0, noise, CANONICAL_LANDMARKS.shape)
    landmarks = side * rolled(moved, angle) + (x, y)
    centred = (landmarks - landmarks.mean(axis=0)) / side

    def into_the_square(p: np.ndarray) -> np.ndarray:
        return np.column_stack([p[0] * centred[:, 0] - p[1] * centred[:, 1], p[1] * centred[:, 0] + p[0] * centred[:, 1]]) + p[2:]

    def distance(p: np.ndarray) -> float:
        return float(np.sum((into_the_square(p) - CANONICAL_LANDMARKS) ** 2))

    best = minimize(distance, np.array([1.0, 0.0, 0.5, 0.5]), method="BFGS", options={"gtol": 1e-10})
    frame = landmark_frame(landmarks, 100)
    assert landmark_error(landmarks, frame) == pytest.approx(100 * math.sqrt(best.fun / len(CANONICAL_LANDMARKS)), rel=1e-6)
    assert (frame.width, frame.height) == pytest.approx((side / math.hypot(*best.x[:2]),) * 2, rel=1e-4)
    # The optimum maps the landmarks to the square, and the frame maps them back to the same points of the picture.
    np.testing.assert_allclose(frame.to_source(into_the_square(best.x) * 100), landmarks, atol=1e-4 * side)


def test_landmark_error_is_the_root_mean_square_in_pixels_of_the_square() -> None:
    frame = Frame(50, 60, 80, 80, 0.3, 40)
    landmarks = frame.to_source(CANONICAL_LANDMARKS * 40)
    landmarks[3] += (6, 8)  # 10 pixels of the picture are 5 of the square
    assert landmark_error(landmarks, frame) == pytest.approx(math.sqrt(25 / 11))


def test_the_canonical_landmarks_are_the_mean_of_frontal_faces_made_symmetric() -> None:
    scenes = [render_session(0, subject, session, 32) for subject in range(40) for session in range(2)]
    frontal = np.array([scene.landmarks / 32 for scene in scenes if scene.labels["Pose"] == "1"])
    assert len(frontal) > 20
    mirror = [4, 3, 2, 1, 0, 7, 6, 5, 9, 8, 10]
    mean = frontal.mean(axis=0)
    np.testing.assert_allclose(CANONICAL_LANDMARKS, (mean + mean[mirror] * (-1, 1) + (1, 0)) / 2, atol=0.015)
    np.testing.assert_allclose(CANONICAL_LANDMARKS, CANONICAL_LANDMARKS[mirror] * (-1, 1) + (1, 0), atol=1e-12)
    frame = landmark_frame(mean * 32, 32)
    assert (frame.x, frame.y, frame.width) == pytest.approx((16, 16, 32), rel=0.03)
    assert abs(frame.angle) < 0.03


def test_landmarks_that_are_one_point_are_rejected(rejected: AssertRejected) -> None:
    with pytest.raises(ValueError, match="one point"):
        landmark_frame(np.full((11, 2), 7.0), 32)
    with rejected("metadata.txt", "one point"):
        align_capture(blank(np.full((11, 2), 7.0)), FOLDER, "auto", None, size=32, fit="crop")


def blank(landmarks: np.ndarray | None = None) -> Capture:
    return Capture(np.zeros((4, 60, 80), dtype=np.float32), directions(FOUR), landmarks=landmarks)


SOME = 50 * CANONICAL_LANDMARKS + (10, 5)
BOX = (10.0, 5.0, 50.0, 35.0)


@pytest.mark.parametrize(
    ("align", "landmarks", "box", "found"),
    [
        ("auto", None, None, "none"),
        ("auto", SOME, None, "landmarks"),
        ("auto", None, BOX, "boxes"),
        ("auto", SOME, BOX, "boxes"),
        ("landmarks", SOME, BOX, "landmarks"),
        ("landmarks", SOME, None, "landmarks"),
        ("boxes", SOME, BOX, "boxes"),
        ("none", SOME, BOX, "none"),
        ("none", None, None, "none"),
    ],
)
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_auto_alignment_prefers_boxes_then_landmarks(align, landmarks, box, found, fit) -> None:
    frame, by = align_capture(blank(landmarks), FOLDER, align, box, size=32, fit=fit)
    assert by == found
    expected = {
        "none": fit_frame((0, 0, 80, 60), 32, fit),
        "boxes": fit_frame(BOX, 32, fit),
        "landmarks": landmark_frame(SOME, 32),
    }
    assert frame == expected[found]


def test_an_alignment_without_its_landmarks_or_box_is_rejected(rejected: AssertRejected) -> None:
    with rejected(FOLDER / "metadata.txt", "no such file", "--align auto"):
        align_capture(blank(), FOLDER, "landmarks", BOX, size=32, fit="crop")
    with rejected(FOLDER, "no row in the table of boxes"):
        align_capture(blank(SOME), FOLDER, "boxes", None, size=32, fit="crop")


@pytest.mark.parametrize("box", [(-1, 0, 20, 20), (0, -0.5, 20, 20), (0, 0, 80.5, 20), (70, 50, 80, 61)])
def test_a_box_beyond_the_picture_is_rejected(box, rejected: AssertRejected) -> None:
    with rejected(FOLDER, ", ".join(f"{edge:g}" for edge in box), "80 x 60"):
        align_capture(blank(), FOLDER, "auto", box, size=32, fit="crop")


def test_a_box_of_a_reduced_picture_is_checked_in_stored_pixels(rejected: AssertRejected) -> None:
    """Pictures of 81 x 61 pixels, of which the last row and column are in no square of 2 x 2."""
    capture = Capture(np.zeros((4, 30, 40), dtype=np.float32), directions(FOUR), reduction=2, stored_size=(61, 81))
    for box, expected in (
        ((0, 0, 81, 61), (0, 0, 40, 30)),
        ((20, 10, 81, 40), (10, 5, 40, 20)),
        ((80, 60, 81, 61), (39, 29, 40, 30)),
    ):
        assert align_capture(capture, FOLDER, "boxes", box, size=32, fit="stretch")[0] == fit_frame(expected, 32, "stretch")
    with rejected(FOLDER, "the box 0, 0, 82, 61", "81 x 61"):
        align_capture(capture, FOLDER, "boxes", (0, 0, 82, 61), size=32, fit="crop")


def test_a_box_may_reach_the_border() -> None:
    frame, _ = align_capture(blank(), FOLDER, "boxes", (0, 0, 80, 60), size=32, fit="stretch")
    assert frame == fit_frame((0, 0, 80, 60), 32, "stretch")


def test_boxes_are_read_by_column_name(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text("session,id,bottom,right,top,left,by\n s1 , a,40.5,30,2,1,me\n\ns2,a,41,31,-2,1e1,\n")
    assert read_boxes(path) == {("a", "s1"): (1, 2, 30, 40.5), ("a", "s2"): (10, -2, 31, 41)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,session,left,top,right\n", ["no column bottom"]),
        ("session,left,top,right,bottom\n", ["no column id"]),
        ("id,session,left,top,right,bottom\na,s,0,0,9,9\na,s,1,1,9,9\n", ["row 3", "a/s"]),
        ("id,session,left,top,right,bottom\na,s,0,0,9,9\na,t,0,0,nine,9\n", ["row 3: right", "nine"]),
        ("id,session,left,top,right,bottom\na,s,0,,9,9\n", ["row 2: top", "pixels"]),
        ("id,session,left,top,right,bottom\na,s,0,0,nan,9\n", ["row 2: right", "nan"]),
        ("id,session,left,top,right,bottom\na,s,9,0,9,9\n", ["row 2", "0 x 9", "right and bottom must be larger"]),
        ("id,session,left,top,right,bottom\na,s,0,9,9,2\n", ["row 2", "9 x -7"]),
        ("id,session,left,top,right,bottom\na,..,0,0,9,9\n", ["row 2: session", "'..'"]),
        ("id,session,left,top,right,bottom\n,s,0,0,9,9\n", ["row 2: id"]),
    ],
)
def test_a_bad_table_of_boxes_is_rejected(tmp_path: Path, text: str, words: list[str], rejected: AssertRejected) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text(text)
    with rejected(path, *words):
        read_boxes(path)


def moved(scene: Scene, angle: float, scale: float, shift: tuple[float, float]) -> Capture:
    """The capture of a face after a roll by `angle` about the picture's middle, a scale and a translation."""
    size = scene.images.shape[1]
    middle = np.full(2, size / 2)
    # From rows and columns of the result to those of the original.
    back = rolled(np.eye(2), -angle).T / scale
    swapped = back[::-1, ::-1]
    offset = (middle - back @ (middle + shift))[::-1] + swapped @ (0.5, 0.5) - 0.5
    images = [affine_transform(image.astype(np.float64), swapped, offset, order=3, mode="nearest") for image in scene.images]
    landmarks = middle + shift + scale * rolled(scene.landmarks - middle, angle)
    cos, sin = math.cos(angle), math.sin(angle)
    lights = scene.lights @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    return Capture(np.clip(np.array(images, dtype=np.float32) / 255, 0, 1), lights, landmarks=landmarks)


@pytest.mark.parametrize("subject", [1, 4])
@pytest.mark.parametrize(
    "motion", [(0.25, 1.0, (0.0, 0.0)), (-0.5, 1.1, (9.0, -4.0)), (0.1, 0.8, (-12.0, 3.0)), (0.45, 1.0, (2.0, 2.0))]
)
def test_alignment_undoes_roll_translation_and_scale(subject: int, motion: tuple) -> None:
    scene = render_session(0, subject, 0, 160, WIDE)

    def maps(capture: Capture) -> SurfaceMaps:
        frame, _ = align_capture(capture, FOLDER, "landmarks", None, size=48, fit="crop")
        return compute_maps(capture, frame, solver="least_squares")

    one, other = maps(moved(scene, 0, 1, (0, 0))), maps(moved(scene, *motion))
    seen = (one.confidence > 0) & (other.confidence > 0)
    assert seen.mean() > 0.9
    assert degrees(one.normal, other.normal)[seen].mean() < 1.5
    assert np.abs(one.albedo - other.albedo)[seen].mean() < 0.02 * one.albedo.mean()
    assert np.abs(one.depth - other.depth)[seen].mean() < 0.02 * np.ptp(one.depth)
    unaligned = compute_maps(moved(scene, *motion), fit_frame((0, 0, 160, 160), 48, "crop"), solver="least_squares")
    plain = compute_maps(moved(scene, 0, 1, (0, 0)), fit_frame((0, 0, 160, 160), 48, "crop"), solver="least_squares")
    assert degrees(plain.normal, unaligned.normal).mean() > 5, "without alignment, the maps differ"


def test_landmarks_with_x_and_y_exchanged_are_rejected(tmp_path, rejected):
    landmarks = render_session(0, 0, 0, 64).landmarks[:, ::-1]
    capture = Capture(np.zeros((4, 64, 64), dtype=np.float32), np.eye(4, 3), landmarks=landmarks)
    with rejected("metadata.txt", "exchanged"):
        align_capture(capture, tmp_path, "auto", None, size=32, fit="crop")


@pytest.mark.parametrize(("fit", "expected"), [("crop", (12, 12)), ("pad", (12, 12)), ("stretch", (12, 8))])
def test_the_frame_of_a_mask_is_the_square_around_it(fit: Fit, expected: tuple[float, float]) -> None:
    mask = np.zeros((64, 64), dtype=bool)
    mask[20:28, 30:42] = True
    mask[20, 30] = False
    capture = Capture(np.zeros((4, 64, 64), dtype=np.float32), np.eye(4, 3), mask=mask)
    frame, source = align_capture(capture, FOLDER, "mask", None, size=32, fit=fit)
    assert source == "mask"
    assert (frame.x, frame.y, frame.width, frame.height) == (36, 24, *expected)


def test_alignment_by_a_mask_requires_one(rejected: AssertRejected) -> None:
    capture = Capture(np.zeros((4, 64, 64), dtype=np.float32), np.eye(4, 3))
    with rejected("no mask", "--mask auto"):
        align_capture(capture, FOLDER, "mask", None, size=32, fit="crop")
