"""Which folders are sessions: `{id}/{session}`, a subject with images of its own, or the captures themselves."""

from pathlib import Path

import pytest

from fr_ps.photometric.layouts import shared_files
from fr_ps.photometric.sources import SINGLE_SESSION, list_sources


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def keys(root: Path) -> list[tuple[str, str]]:
    return [(source.id, source.session) for source in list_sources(root)]


def test_a_folder_of_a_subject_with_images_is_a_session(tmp_path: Path) -> None:
    """As the objects of DiLiGenT, beside subjects with sessions."""
    touch(tmp_path, "ballPNG/001.png", "ballPNG/filenames.txt", "p/s1/im0.png", "p/s2/im0.png")
    assert keys(tmp_path) == [("ballPNG", SINGLE_SESSION), ("p", "s1"), ("p", "s2")]


def test_a_preview_beside_the_sessions_makes_no_session(tmp_path: Path) -> None:
    touch(tmp_path, "p/preview.jpg", "p/s1/im0.png", "lights.csv", "lights.png")
    assert keys(tmp_path) == [("p", "s1")]


def test_a_folder_with_images_is_a_session_by_itself(tmp_path: Path) -> None:
    touch(tmp_path, "ball/001.png", "ball/notes/readme.txt")
    (source,) = list_sources(tmp_path / "ball")
    assert (source.id, source.session, source.folder) == ("ball", SINGLE_SESSION, tmp_path / "ball")


def test_thumbnails_below_a_session_make_no_sessions(tmp_path: Path) -> None:
    touch(tmp_path, "dome/a.png", "dome/b.png", "dome/c.png", "dome/thumbs/a.png", "dome/thumbs/b.png", "dome/thumbs/c.png")
    (tmp_path / "dome" / "lights.csv").write_text("image,x,y,z\na.png,0,0,1\nb.png,1,0,1\nc.png,0,1,1\n")
    assert keys(tmp_path) == [("dome", SINGLE_SESSION)]
    assert keys(tmp_path / "dome") == [("dome", SINGLE_SESSION)]


@pytest.mark.parametrize(
    ("above", "expected"),
    [
        (["dome.lp", "readme.lp.txt"], ["dome.lp"]),
        (["p/light_directions.txt", "p/filenames.txt", "dome.lp"], ["p/filenames.txt", "p/light_directions.txt"]),
        (["lights.csv", "labels.csv"], ["lights.csv"]),
        (["p/s/lights.csv", "lights.csv"], []),
        ([], []),
    ],
)
def test_the_nearest_files_of_lights_above_a_session_are_shared(above: list[str], expected: list[str], tmp_path: Path) -> None:
    touch(tmp_path, "p/s/im0.png", *above)
    found = shared_files(tmp_path / "p" / "s", tmp_path)
    assert sorted(f"{path.relative_to(tmp_path)}" for path in found) == expected


def test_only_files_of_the_given_layout_are_shared(tmp_path: Path) -> None:
    touch(tmp_path, "p/s/im0.png", "p/s/lights.csv", "dome.lp")
    assert shared_files(tmp_path / "p" / "s", tmp_path) == []
    assert shared_files(tmp_path / "p" / "s", tmp_path, "lp") == [tmp_path / "dome.lp"]
