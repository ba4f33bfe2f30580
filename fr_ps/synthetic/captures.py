"""Synthetic sessions as raw captures on disk, in the plain layout or in that of Photoface."""

from pathlib import Path

import numpy as np
from PIL import Image

from fr_ps.config import SyntheticLayout
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
    - `photoface`: `{id}/{session}/im0.bmp` .. with the text files of Photoface; whole heads, not aligned.

    Calls `advance` after each session.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(people * sessions):
        subject, session = divmod(number, sessions)
        scene = render_session(seed, subject, session, size, CLOSE if layout == "plain" else WIDE)
        row_id, row_session = f"S{subject:03d}", f"s{session:02d}"
        if layout == "plain":
            _write_plain(out / "captures" / row_id / row_session, scene)
        else:
            _write_photoface(out / row_id / row_session, scene)
        rows.append([row_id, row_session, *(scene.labels[name] for name in LABELS)])
        advance(1)
    if layout == "plain":
        (out / "labels.csv").write_text(format_csv(["id", "session", *LABELS], rows))


def _write_plain(folder: Path, scene: Scene) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"im{k}.png" for k in range(len(scene.images))]
    for name, image in zip(names, scene.images):
        Image.fromarray(image).save(folder / name, compress_level=1)
    lights = [[name, *angles] for name, angles in zip(names, LIGHT_ANGLES)]
    (folder / LIGHTS_FILE).write_text(format_csv(list(LIGHTS_COLUMNS), lights))


def _write_photoface(folder: Path, scene: Scene) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for k, image in enumerate(scene.images):
        Image.fromarray(image).save(folder / f"im{k}.bmp")
    x, y, z = scene.lights.T
    angles = np.degrees([np.arccos(z), np.arctan2(y, x)]).T
    matrix = "; ".join(f"{zenith:.6f} {azimuth:.6f}" for zenith, azimuth in angles)
    (folder / LIGHT_SOURCE_FILE).write_text(f"LightSource = [{matrix}];\n")
    (folder / LANDMARKS_FILE).write_text("".join(f"{x:.3f} {y:.3f}\n" for x, y in scene.landmarks))
    attributes = scene.labels | {"Quality": "ok", "Occlusion": ""}
    (folder / ATTRIBUTES_FILE).write_text(",".join(attributes[name] for name in ATTRIBUTES) + "\n")
