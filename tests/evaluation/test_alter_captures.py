"""benchmarks/alter_captures.py: the sessions that it adds, and what is refused."""

from pathlib import Path

import alter_captures
import numpy as np
import pytest
from PIL import Image

from fr_ps.photometric.lights import read_lights
from fr_ps.tables import read_csv_rows
from tests.photometric.test_images import png_16

LIGHTS = "image,azimuth_deg,elevation_deg\na.png,30,0\nb.png,-30,0\nc.png,0,40\nd.png,0,-40\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two captures of four pictures, 200, 201, 202 and 203 everywhere, and their labels."""
    for session in ("s1", "s2"):
        folder = tmp_path / "captures" / "A" / session
        folder.mkdir(parents=True)
        (folder / "lights.csv").write_text(LIGHTS)
        for number, name in enumerate("abcd"):
            Image.fromarray(np.full((4, 4), 200 + number, np.uint8)).save(folder / f"{name}.png")
    (tmp_path / "labels.csv").write_text("id,session,Gender\nA,s1,male\nA,s2,male\n")
    return tmp_path


def run(source: Path, how: str) -> None:
    given = {"captures": source / "captures", "labels": source / "labels.csv", "how": how, "out": source / "out"}
    alter_captures.main([word for name, value in given.items() for word in (f"--{name}", str(value))])


@pytest.mark.parametrize("how", ["missing", "failed"])
def test_each_light_gives_a_further_session(source: Path, how: str) -> None:
    run(source, how)
    rows = [tuple(row.values()) for _, row in read_csv_rows(source / "out" / "captures.csv")[1]]
    assert rows == [
        ("A", name, "male", "0" if name == session else "1")
        for session in ("s1", "s2")
        for name in (session, *(f"{session}-{how}{number}" for number in range(4)))
    ]
    for _, session, _, altered in rows:
        folder = source / "out" / "captures" / "A" / session
        names, lights, _ = read_lights(folder / "lights.csv")
        values = [np.unique(np.asarray(Image.open(folder / name))).tolist() for name in names]
        light = int(session[-1]) if altered == "1" else None
        expected = {index: ["abcd"[index] + ".png", [200 + index]] for index in range(4)}
        if light is not None and how == "missing":
            del expected[light]
        elif light is not None:
            expected[light][1] = [6]  # 3 % of 200 to 203
        assert [list(pair) for pair in zip(names, values, strict=True)] == list(expected.values())
        assert len(lights) == len(list(folder.glob("*.png"))) == len(expected)


def test_a_folder_that_exists_and_three_lights_are_refused(source: Path) -> None:
    (source / "out").mkdir()
    with pytest.raises(SystemExit, match="already exists; choose another --out"):
        run(source, "failed")
    (source / "out").rmdir()
    (source / "captures" / "A" / "s1" / "lights.csv").write_text("".join(LIGHTS.splitlines(keepends=True)[:4]))
    with pytest.raises(SystemExit, match="s1: 3 lights, of which none can be left out; choose --how failed"):
        run(source, "missing")


@pytest.mark.parametrize("kind", ["transparent", "key", "orientation", "16 bits", "broken"])
def test_only_plain_grey_and_rgb_pictures_are_darkened(source: Path, kind: str) -> None:
    path = source / "captures" / "A" / "s2" / "d.png"
    if kind == "transparent":
        Image.new("RGBA", (4, 4), (9, 9, 9, 255)).save(path)
    elif kind == "key":
        Image.new("RGB", (4, 4)).save(path, transparency=(0, 0, 0))
    elif kind == "orientation":
        exif = Image.Exif()
        exif[274] = 3
        Image.new("L", (4, 4)).save(path, exif=exif)
    elif kind == "16 bits":
        path.write_bytes(png_16(np.full((4, 4, 3), 40000, np.uint16)))
    else:
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(SystemExit, match=r"s2/d\.png: (expected 8-bit grey or RGB|not readable)"):
        run(source, "failed")
    assert not (source / "out").exists()


@pytest.mark.parametrize(
    ("lights", "labels", "message"),
    [
        (LIGHTS.replace("a.png", "../a.png"), "", "row 2: '../a.png' is not a plain name"),
        (LIGHTS.replace("a.png", "e.png"), "", "no image e.png in that folder; restore it, or remove the row"),
        (LIGHTS, "id,session,altered\nA,s1,0\n", "has a column altered; name captures that were not altered"),
        (LIGHTS, "id,session\nA,s1\nA,s1-missing0\n", "A/s1-missing0 is a session already; rename it"),
    ],
)
def test_captures_that_cannot_be_altered_are_refused_and_stay_as_they_are(
    source: Path, lights: str, labels: str, message: str
) -> None:
    (source / "captures" / "A" / "s1" / "lights.csv").write_text(lights)
    if labels:
        (source / "labels.csv").write_text(labels)
    with pytest.raises(SystemExit, match=message):
        run(source, "missing")
    assert sorted(file.name for file in (source / "captures" / "A" / "s1").glob("*.png")) == ["a.png", "b.png", "c.png", "d.png"]
