"""Warnings about normals in wrong axes, for faces and for a bumpy hill; none for right axes."""

from pathlib import Path

import numpy as np
import pytest

from fr_ps.photometric.orientation import axes_warning, find_axes_mismatch, normal_statistics
from tests.photometric.surfaces import grid, normals

CHANGES = {
    "mirrored in x; negate n_x,": lambda n: n * np.array([-1, 1, 1]),
    "mirrored in y; negate n_y,": lambda n: n * np.array([1, -1, 1]),
    "concave; negate n_x and n_y,": lambda n: n * np.array([-1, -1, 1]),
    "x and y exchanged; exchange n_x and n_y,": lambda n: n[..., [1, 0, 2]],
    "n_z seems to be in the first channel; reverse the order of the channels (OpenCV reads BGR),": lambda n: n[..., ::-1],
    "n_z seems to be in the second channel; reorder the channels,": lambda n: n[..., [0, 2, 1]],
    "n_z is negative in most pixels; negate n_z,": lambda n: n * np.array([1, 1, -1]),
}


def warning_of(maps: list[np.ndarray]) -> str | None:
    return axes_warning([normal_statistics(one.transpose(2, 0, 1)) for one in maps])


def bumpy_hill(size: int = 48) -> np.ndarray:
    """(size, size, 3) normals: like a face, the hill is narrower than high, so they vary more in x than in y."""
    x, y = grid(size, size)

    def height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 0.4 * size * np.exp(-(x**2 + 0.5 * y**2) / (0.09 * size**2)) + 0.5 * np.sin(x / 4) * np.cos(y / 4)

    return normals(height, x, y)


@pytest.fixture(scope="module")
def faces(prepared: Path) -> list[np.ndarray]:
    return [np.load(path) for path in sorted(prepared.glob("data/*/*/normal.npy"))]


@pytest.mark.parametrize("words", CHANGES)
def test_wrong_axes_are_reported_with_the_remedy(words: str, faces: list[np.ndarray]) -> None:
    for maps in (faces, [bumpy_hill()]):
        warning = warning_of([CHANGES[words](one) for one in maps])
        assert warning is not None
        assert words in warning
        assert "\n" not in warning


def test_right_axes_give_no_warning_for_a_set_or_for_one_face_alone(faces: list[np.ndarray]) -> None:
    for maps in (faces, [bumpy_hill()], *([one] for one in faces)):
        assert warning_of(maps) is None
    assert axes_warning([]) is None


def test_the_median_decides_so_that_a_few_bad_maps_raise_no_warning(faces: list[np.ndarray]) -> None:
    some = [one * np.array([-1, 1, 1]) if place % 3 == 0 else one for place, one in enumerate(faces)]
    assert warning_of(some) is None


def test_a_share_of_normals_that_point_away_is_reported_with_the_share(faces: list[np.ndarray]) -> None:
    spoilt = [one.copy() for one in faces]
    for one in spoilt:
        one[:, : one.shape[1] // 5, 2] *= -1
    warning = warning_of(spoilt)
    assert warning is not None
    assert "n_z is negative in 19%" in warning


def test_real_faces_give_no_warning_alone_or_together(yale: Path) -> None:
    from fr_ps.photometric.captures import ReadingSettings, read_capture
    from fr_ps.photometric.solve import least_squares, split_albedo
    from fr_ps.photometric.sources import list_sources

    measured = []
    for source in list_sources(yale / "captures")[::5]:
        capture = read_capture(source.folder, ReadingSettings(max_condition=1000))
        measured.append(normal_statistics(split_albedo(least_squares(capture.images[:, ::2, ::2], capture.lights))[1]))
        assert axes_warning(measured[-1:]) is None
    assert axes_warning(measured) is None


def test_a_flat_surface_has_no_axes_error() -> None:
    assert find_axes_mismatch(np.zeros((2, 2)), 0.0) is None
