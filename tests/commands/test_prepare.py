"""`fr-ps prepare`: printed counts and warnings."""

import re
from pathlib import Path
from typing import get_args

import pytest

from fr_ps.config import Align
from tests.conftest import Command


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_faces(run_command: Command, layout: str) -> Path:
    run_command("data", "synthetic", "--out=faces", f"--layout={layout}", "--people=2", "--sessions=2", "--size=48")
    return Path("faces/captures")


def test_every_alignment_is_counted_in_words(here: Path, run_command: Command) -> None:
    captures = write_faces(run_command, "diligent")
    Path("boxes.csv").write_text("id,session,left,top,right,bottom\n")
    with Path("boxes.csv").open("a") as file:
        file.writelines(f"{folder.parent.name},{folder.name},4,4,40,40\n" for folder in captures.glob("*/*"))
    texts = {"mask": "square around the mask", "none": "whole picture", "boxes": "cropped to a box", "auto": "whole picture"}
    assert set(get_args(Align)) - set(texts) == {"landmarks"}
    for align, text in texts.items():
        boxes = ["--boxes=boxes.csv"] if align == "boxes" else []
        printed = run_command("prepare", f"--captures={captures}", f"--out={align}", "--size=32", f"--align={align}", *boxes)
        assert re.search(rf"^{text} +4$", printed, re.MULTILINE)


def turn_lights(captures: Path, layout: str, swapped: bool) -> None:
    """Negate x, or exchange x and y, of all lights. In lights.csv only negate it."""
    if layout == "plain":
        for file in captures.glob("*/*/lights.csv"):
            header, *rows = (line.split(",") for line in file.read_text().split())
            file.write_text("\n".join(",".join(row) for row in [header, *([name, str(-float(a)), e] for name, a, e in rows)]))
        return
    for file in captures.rglob("light_directions.txt" if layout == "diligent" else "*.lp"):
        first, *lines = file.read_text().splitlines()
        first, lines = ("", [first, *lines]) if layout == "diligent" else (first + "\n", lines)
        parts = [line.split(" ") for line in lines]
        turned = [[*name, y, x, z] if swapped else [*name, str(-float(x)), y, z] for *name, x, y, z in parts]
        file.write_text(first + "\n".join(map(" ".join, turned)))


@pytest.mark.parametrize(
    ("layout", "swapped", "remedy"),
    [
        ("plain", False, "; in lights.csv negate x (of angles: azimuth_deg); then prepare again"),
        ("diligent", False, "; in light_directions.txt negate x; then prepare again"),
        ("lp", False, "; in the .lp file negate x; then prepare again"),
        ("lp", True, "; in the .lp file exchange x and y; then prepare again"),
    ],
)
def test_the_warning_of_another_convention_names_the_file_and_the_components(
    here: Path, run_command: Command, layout: str, swapped: bool, remedy: str
) -> None:
    captures = write_faces(run_command, layout)
    given = ["prepare", f"--captures={captures}", "--out=set", "--size=32"]
    assert "warning" not in run_command(*given)
    turn_lights(captures, layout, swapped)
    (warning,) = [line for line in run_command(*given).splitlines() if line.startswith("warning: ")]
    assert ("with x and y exchanged" if swapped else "mirrored in x") in warning
    assert remedy in warning
    assert "LightSource.m" not in warning
