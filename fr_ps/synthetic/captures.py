"""Synthetic sessions as raw captures on disk, in the layouts that `prepare` reads."""

from pathlib import Path

import numpy as np
from PIL import Image

from fr_ps.config import SyntheticLayout
from fr_ps.photometric.layouts.diligent import DIRECTIONS_FILE, INTENSITIES_FILE, NAMES_FILE
from fr_ps.photometric.lights import LIGHTS_COLUMNS, LIGHTS_FILE
from fr_ps.photometric.photoface import ATTRIBUTES, ATTRIBUTES_FILE, LANDMARKS_FILE, LIGHT_SOURCE_FILE
from fr_ps.progress import OnProgress, no_progress
from fr_ps.synthetic.scene import LABELS, LIGHT_ANGLES, Scene, render_session
from fr_ps.synthetic.view import CLOSE, WIDE
from fr_ps.tables import format_csv

VERSION = 1
"""Increased with every change of the faces, so that a cache of an earlier version is not used."""


def write_synthetic_captures(
    out: Path,
    *,
    people: int,
    sessions: int,
    seed: int,
    size: int = 128,
    layout: SyntheticLayout = "plain",
    advance: OnProgress = no_progress,
) -> None:
    """Write `people` x `sessions` sessions under `out`.

    - `plain`: `captures/{id}/{session}/im0.png` .. with `lights.csv`, and `labels.csv`; closely framed faces.
    - `diligent`: as `plain`, with `mask.png` and the text files of DiLiGenT instead of `lights.csv`.
    - `lp`: as `plain`, with one `captures/dome.lp` for all sessions.
    - `photoface`: `{id}/{session}/im0.bmp` .. with the text files of Photoface; whole heads, not aligned.

    Calls `advance` after each session.
    """
    captures = out if layout == "photoface" else out / "captures"
    captures.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(people * sessions):
        subject, session = divmod(number, sessions)
        scene = render_session(seed, subject, session, size, WIDE if layout == "photoface" else CLOSE)
        row_id, row_session = f"S{subject:03d}", f"s{session:02d}"
        folder = captures / row_id / row_session
        folder.mkdir(parents=True, exist_ok=True)
        _WRITERS[layout](folder, scene)
        rows.append([row_id, row_session, *(scene.labels[name] for name in LABELS)])
        if layout == "lp" and number == 0:
            _write_dome(captures / "dome.lp", scene)
        advance(1)
    if layout != "photoface":
        (out / "labels.csv").write_text(format_csv(["id", "session", *LABELS], rows))


def _write_images(folder: Path, scene: Scene) -> None:
    for k, image in enumerate(scene.images):
        Image.fromarray(image).save(folder / _image_name(k), compress_level=1)


def _image_name(number: int) -> str:
    return f"im{number}.png"


def _write_plain(folder: Path, scene: Scene) -> None:
    _write_images(folder, scene)
    lights = [[_image_name(k), *angles] for k, angles in enumerate(LIGHT_ANGLES)]
    (folder / LIGHTS_FILE).write_text(format_csv(list(LIGHTS_COLUMNS), lights))


def _write_diligent(folder: Path, scene: Scene) -> None:
    _write_images(folder, scene)
    (folder / NAMES_FILE).write_text("".join(f"{_image_name(k)}\n" for k in range(len(scene.images))))
    (folder / DIRECTIONS_FILE).write_text("".join(f"{_numbers(light)}\n" for light in scene.lights))
    (folder / INTENSITIES_FILE).write_text("1 1 1\n" * len(scene.lights))
    Image.fromarray(np.where(scene.mask, 255, 0).astype(np.uint8)).save(folder / "mask.png")


def _write_dome(file: Path, scene: Scene) -> None:
    lines = [f"{_image_name(k)} {_numbers(light)}\n" for k, light in enumerate(scene.lights)]
    file.write_text(f"{len(lines)}\n{''.join(lines)}")


def _numbers(light: np.ndarray) -> str:
    return " ".join(f"{value:.8f}" for value in light)


def _write_photoface(folder: Path, scene: Scene) -> None:
    for k, image in enumerate(scene.images):
        Image.fromarray(image).save(folder / f"im{k}.bmp")
    x, y, z = scene.lights.T
    angles = np.degrees([np.arccos(z), np.arctan2(y, x)]).T
    matrix = "; ".join(f"{zenith:.6f} {azimuth:.6f}" for zenith, azimuth in angles)
    (folder / LIGHT_SOURCE_FILE).write_text(f"LightSource = [{matrix}];\n")
    (folder / LANDMARKS_FILE).write_text("".join(f"{x:.3f} {y:.3f}\n" for x, y in scene.landmarks))
    attributes = scene.labels | {"Quality": "ok", "Occlusion": ""}
    (folder / ATTRIBUTES_FILE).write_text(",".join(attributes[name] for name in ATTRIBUTES) + "\n")


_WRITERS = {"plain": _write_plain, "photoface": _write_photoface, "diligent": _write_diligent, "lp": _write_images}
