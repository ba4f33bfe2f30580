"""One session read for display: maps, mask, recorded pictures, residual; and the notes where they are missing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fr_ps.config import PrepareConfig
from fr_ps.data.labels import Labels, read_labels
from fr_ps.data.prepare import prepare
from fr_ps.data.session_view import SessionView, find_session, view_session
from tests.conftest import AssertRejected, WriteCapture
from tests.photometric.surfaces import SEVEN, directions, grid, hill, normals, render, sphere

PATCH = (slice(10, 16), slice(20, 26))


def pictures_of_a_sphere(size: int = 40) -> np.ndarray:
    """(7, size, size) uint16 of a matte sphere that every light reaches, so that rounding is below 1e-4."""
    return np.rint(60_000 * render(sphere(size)[0], SEVEN)).astype(np.uint16)


@pytest.fixture
def view(tmp_path: Path, write_capture: WriteCapture):
    """Prepares pictures as the session a/s and reads it."""

    def run(pictures: np.ndarray, **settings: object) -> SessionView:
        captures, out = tmp_path / "captures", tmp_path / "set"
        write_capture(captures / "a/s", pictures, SEVEN)
        prepare(PrepareConfig(captures=str(captures), out=str(out), size=40, **settings))  # type: ignore[arg-type]
        return view_session(out, read_labels(out / "labels.csv"), 0, captures)

    return run


def test_a_matte_session_has_no_residual(view) -> None:
    seen = view(pictures_of_a_sphere())
    assert seen.recorded.residual.max() < 1e-3
    assert seen.mask.all()
    np.testing.assert_allclose(seen.recorded.pictures, pictures_of_a_sphere() / 65535, atol=1e-6)
    np.testing.assert_allclose(seen.normal, sphere(40)[0], atol=1e-2)
    assert seen.name == "a/s"
    assert [measure for measure, *_ in seen.quality] == ["residual", "imbalance", "shadowed", "integrability", "saturated"]
    assert seen.facts["maps"].startswith("40 x 40 pixels, solver robust")


def test_the_residual_is_high_where_a_picture_was_altered(view) -> None:
    pictures = pictures_of_a_sphere()
    pictures[3][PATCH] //= 2
    residual = view(pictures).recorded.residual
    assert residual[PATCH].min() > 0.05
    residual[PATCH] = 0
    assert residual.max() < 1e-3


def test_a_stretched_session_has_no_residual(view) -> None:
    x, y = grid(60, 40)
    pictures = np.rint(40_000 * render(normals(hill, x, y), SEVEN)).astype(np.uint16)
    assert view(pictures, fit="stretch", solver="least_squares").recorded.residual.max() < 1e-3


def test_pixels_outside_the_picture_are_outside_the_mask(view) -> None:
    x, y = grid(60, 40)
    pictures = np.rint(40_000 * render(normals(hill, x, y), SEVEN)).astype(np.uint16)
    mask = view(pictures, fit="pad").mask
    assert mask[:, 8:-8].all()
    assert not mask[:, :6].any()
    assert not mask[:, -6:].any()


def test_lights_come_from_the_layout_with_which_the_maps_were_made(tmp_path: Path, write_capture: WriteCapture) -> None:
    captures, out = tmp_path / "captures", tmp_path / "set"
    turned = [SEVEN[-1], *SEVEN[:-1]]
    write_capture(captures / "a/s", pictures_of_a_sphere(), turned)
    lights = "".join(f"im{k}.png {x:.6f} {y:.6f} {z:.6f}\n" for k, (x, y, z) in enumerate(directions(SEVEN)))
    (captures / "a/s/dome.lp").write_text(f"7\n{lights}")
    prepare(PrepareConfig(captures=str(captures), out=str(out), size=40, layout="lp"))
    labels = read_labels(out / "labels.csv")
    assert view_session(out, labels, 0, captures).recorded.residual.max() < 1e-3

    (captures / "a/s/lights.csv").unlink()
    path = out / "data/a/s/prepared.json"
    record = json.loads(path.read_text())
    del record["done"]["layout"]  # as in version 0.1
    path.write_text(json.dumps(record))
    assert view_session(out, labels, 0, captures).recorded.residual.max() < 1e-3


def test_without_captures_the_reason_is_stated(prepared: Path) -> None:
    labels = read_labels(prepared / "labels.csv")
    seen = view_session(prepared, labels, 0)
    assert seen.recorded is None
    assert "--captures" in seen.no_recorded
    assert seen.facts["labels"].startswith("gender ")


def test_maps_of_another_version_are_shown_without_residual(prepared: Path, tmp_path: Path) -> None:
    root = shutil.copytree(prepared, tmp_path / "set")
    record = root / "data/S000/s00/prepared.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"made_from": {"format": 1, "settings": {}}}))
    seen = view_session(root, read_labels(root / "labels.csv"), 0, prepared.parent / "captures")
    assert seen.recorded is None
    assert "prepare it again" in seen.no_recorded


def test_a_data_set_without_confidence_is_shown_whole(prepared: Path, tmp_path: Path) -> None:
    root = shutil.copytree(prepared, tmp_path / "set")
    (root / "data/S000/s00/confidence.npy").unlink()
    assert view_session(root, read_labels(root / "labels.csv"), 0).mask.all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda root: (root / "depth.npy").unlink(), ("S000/s00", "no depth map"), id="no depth"),
        pytest.param(lambda root: np.save(root / "depth.npy", np.zeros((4, 4))), ("depth is 4 x 4", "48 x 48"), id="other size"),
        pytest.param(lambda root: np.save(root / "confidence.npy", np.zeros((48, 48))), ("0 everywhere",), id="no evidence"),
    ],
)
def test_unusable_maps_are_rejected(change, words, prepared: Path, tmp_path: Path, rejected: AssertRejected) -> None:
    root = shutil.copytree(prepared, tmp_path / "set")
    change(root / "data/S000/s00")
    with rejected(*words):
        view_session(root, read_labels(root / "labels.csv"), 0)


def test_captures_of_something_else_are_rejected(
    prepared: Path, tmp_path: Path, write_capture: WriteCapture, rejected: AssertRejected
) -> None:
    labels = read_labels(prepared / "labels.csv")
    write_capture(tmp_path / "other/s000/s00", pictures_of_a_sphere(), SEVEN)
    with rejected("no capture of S000/s00", "write s000"):
        view_session(prepared, labels, 0, tmp_path / "other")
    write_capture(tmp_path / "seven/S000/s00", pictures_of_a_sphere(), SEVEN)
    with rejected("7 lights", "made with 4"):
        view_session(prepared, labels, 0, tmp_path / "seven")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("S001/s02", None),
        ("s001/s02", ("no session s001/s02", "S001/s02 exists", "write S001")),
        ("S01/s02", ("did you mean", "S001/s02")),
        ("S001", ("expected ID/SESSION", "as S000/s00")),
        ("S001/s02/normal.npy", ("expected ID/SESSION",)),
        ("none/at-all", ("no session none/at-all", "S000/s00")),
    ],
)
def test_a_session_is_found_or_another_one_suggested(name, words, prepared: Path, rejected: AssertRejected) -> None:
    labels: Labels = read_labels(prepared / "labels.csv")
    if words is None:
        assert labels.session_names()[find_session(labels, name, "set")] == name
        return
    with rejected(*words):
        find_session(labels, name, "set")
