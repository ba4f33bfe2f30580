"""Intensities from pictures of a target and of faces, compared with those that the pictures were rendered with."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rendering import render

from fr_ps.errors import InputError
from fr_ps.photometric import light_intensities
from fr_ps.photometric.light_intensities import (
    MAX_SESSIONS,
    check_faces,
    intensities_from_faces,
    intensities_from_target,
    select_sessions,
)
from fr_ps.photometric.lights import light_directions
from fr_ps.photometric.sphere import list_pictures
from fr_ps.synthetic.scene import render_session

LIGHTS = light_directions([(0, 0), (40, 10), (-35, 20), (10, -35), (-20, 45)])
TRUTH = np.array([0.7, 1.2, 1.0, 0.8, 1.3])
NAMES = [f"im{k}.png" for k in range(len(LIGHTS))]


def write_pictures(folder: Path, images: np.ndarray) -> Path:
    """Write (k, H, W) luminance."""
    folder.mkdir(parents=True)
    for name, image in zip(NAMES, images):
        Image.fromarray(np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)).save(folder / name)
    return folder


def target(exposure: float = 0.6) -> np.ndarray:
    """(k, 60, 80): a white sheet that faces the camera, on a dark wall."""
    albedo = np.full((60, 80), 0.05)
    albedo[15:45, 20:60] = 0.9
    return exposure * (TRUTH * LIGHTS[:, 2])[:, None, None] * albedo


def write_faces(captures: Path, sessions: int) -> Path:
    for number in range(sessions):
        scene = render_session(0, number, 0, 64)
        shaded = render(scene.albedo / scene.albedo.max(), scene.normal, scene.depth, LIGHTS, cast_shadows=False)
        write_pictures(captures / f"S{number:03d}" / "s00", 0.55 * TRUTH[:, None, None] * shaded)
    return captures


def test_a_white_target_gives_the_true_intensities(tmp_path):
    found = intensities_from_target(write_pictures(tmp_path / "white", target()), NAMES, LIGHTS)
    assert found == pytest.approx(TRUTH / TRUTH.mean(), rel=0.01)


def test_a_target_that_is_overexposed_dark_or_missing_is_rejected(tmp_path, rejected):
    with rejected("im1.png: 100% of the white target is overexposed"):
        intensities_from_target(write_pictures(tmp_path / "over", target(1.5)), NAMES, LIGHTS)
    dark = target()
    dark[2] = 0
    with rejected("im2.png: the white target is dark"):
        intensities_from_target(write_pictures(tmp_path / "dark", dark), NAMES, LIGHTS)
    (tmp_path / "dark/im3.png").unlink()
    with rejected("no im3.png", "expected the names of the calibration's pictures"):
        intensities_from_target(tmp_path / "dark", NAMES, LIGHTS)


def test_faces_give_the_intensities_within_3_percent_as_the_median_over_sessions(tmp_path):
    captures = write_faces(tmp_path / "captures", 3)
    write_pictures(captures / "S003" / "s00", np.zeros((5, 40, 40)))  # no face
    (captures / "S004" / "s00").mkdir(parents=True)  # no pictures of these names
    found = intensities_from_faces(captures, NAMES, LIGHTS)
    assert (found.sessions, found.skipped) == (3, 2)
    assert found.intensities == pytest.approx(TRUTH / TRUTH.mean(), rel=0.03)
    assert found.intensities.mean() == pytest.approx(1)
    assert found.spread.max() < 0.03


def test_captures_without_a_usable_session_are_rejected_with_the_first_reason(tmp_path, rejected):
    write_pictures(tmp_path / "captures/S000/s00", np.zeros((5, 40, 40)))
    with rejected(
        "captures: no session from which intensities can be estimated", "S000/s00", "every light reaches only 0 pixels"
    ):
        intensities_from_faces(tmp_path / "captures", NAMES, LIGHTS)
    with rejected("3 lights", "use four lights or more"):
        check_faces(tmp_path / "captures", NAMES[:3])


def test_an_unreadable_session_is_skipped(tmp_path, monkeypatch):
    captures = write_faces(tmp_path / "captures", 2)
    first = select_sessions(captures)[0].folder

    def list_others(folder: Path) -> list[str]:
        if folder == first:  # root may read everything
            raise InputError(f"{folder}: unreadable folder (Permission denied)")
        return list_pictures(folder)

    monkeypatch.setattr(light_intensities, "list_pictures", list_others)
    check_faces(captures, NAMES)
    found = intensities_from_faces(captures, NAMES, LIGHTS)
    assert (found.sessions, found.skipped) == (1, 1)


def test_of_many_sessions_some_at_equal_distances_are_read(tmp_path):
    for number in range(2 * MAX_SESSIONS + 1):
        (tmp_path / f"S{number:03d}" / "s00").mkdir(parents=True)
    chosen = select_sessions(tmp_path)
    assert len(chosen) == MAX_SESSIONS
    assert (chosen[0].id, chosen[-1].id) == ("S000", "S200")
    assert len({source.id for source in chosen}) == MAX_SESSIONS
