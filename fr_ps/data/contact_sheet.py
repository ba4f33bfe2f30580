"""A picture of some sessions' maps, for visual inspection."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fr_ps.data.labels import Labels
from fr_ps.data.layout import map_file, read_map
from fr_ps.outputs import write_output

CONTACT_SHEET = "contact_sheet"
"""The kind of this output for `fr_ps.outputs`."""

TILE_SIZE = 144
"""Side of one map in the sheet, in pixels."""

LIGHT_DIRECTION = np.array([-0.4, 0.4, 0.8]) / np.linalg.norm([-0.4, 0.4, 0.8])
"""Toward the light of the relit tile: from the upper left; x right, y up, z toward the camera."""

_GAP = 4
_LINE_HEIGHT = 18
_STRIPS_PER_ROW = 2
_TEXT_COLOR, _BACKGROUND = (0, 0, 0), (255, 255, 255)


def pick_sessions(labels: Labels, num_subjects: int, seed: int) -> np.ndarray:
    """The rows to show, sorted by name: one random session of each of at most `num_subjects` subjects."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(labels.sorted_rows())
    _, first = np.unique(labels.ids[order], return_index=True)
    rows = order[rng.permutation(first)[:num_subjects]]
    return rows[np.lexsort((labels.sessions[rows], labels.ids[rows]))]


def write_contact_sheet(path: Path, root: Path, labels: Labels, rows: np.ndarray) -> None:
    """Write the `contact_sheet` of some rows to `path` as PNG."""
    sheet = contact_sheet(root, labels, rows)
    content = BytesIO()
    sheet.save(content, "PNG")
    write_output(path, CONTACT_SHEET, content.getvalue())


def contact_sheet(root: Path, labels: Labels, rows: np.ndarray) -> Image.Image:
    """The available maps of each session side by side (albedo, normals, depth, relit), two sessions per line.

    Args:
        root: of the prepared data set.
        labels: its table.
        rows: the sessions to show.

    Raises:
        InputError: a map that `read_map` rejects; names its file.
    """
    strips = [_session_strip(root, labels.ids[row], labels.sessions[row]) for row in rows]
    width = max(strip.width for strip in strips) + 2 * _GAP
    height = strips[0].height + 2 * _GAP
    sheet = Image.new(
        "RGB", (width * min(_STRIPS_PER_ROW, len(strips)), height * -(-len(strips) // _STRIPS_PER_ROW)), _BACKGROUND
    )
    for place, strip in enumerate(strips):
        line, column = divmod(place, _STRIPS_PER_ROW)
        sheet.paste(strip, (column * width + _GAP, line * height + _GAP))
    return sheet


def _session_strip(root: Path, subject: str, session: str) -> Image.Image:
    """One session: its name, and its tiles below their names."""
    paths = {modality: map_file(root, subject, session, modality) for modality in ("albedo", "normal", "depth")}
    pictures = render_tiles({modality: read_map(path, modality) for modality, path in paths.items() if path})
    strip = Image.new("RGB", (max(len(pictures), 1) * (TILE_SIZE + _GAP) - _GAP, TILE_SIZE + 2 * _LINE_HEIGHT), _BACKGROUND)
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(13)
    draw.text((0, 0), f"{subject} / {session}", fill=_TEXT_COLOR, font=font)
    for column, (name, picture) in enumerate(pictures.items()):
        left = column * (TILE_SIZE + _GAP)
        draw.text((left, _LINE_HEIGHT), name, fill=_TEXT_COLOR, font=font)
        strip.paste(Image.fromarray(picture).resize((TILE_SIZE, TILE_SIZE), Image.Resampling.BICUBIC), (left, 2 * _LINE_HEIGHT))
    return strip


def render_tiles(maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The pictures of one session's maps, each (H, W, 3) uint8.

    Normals are (n + 1) / 2 as red, green, blue; depth is gray, brighter when nearer; relit is the albedo times
    max(0, n . l), l toward a light at the upper left. In albedo and relit, the brightest 1 % of the pixels are white.

    Args:
        maps: modality to (C, H, W), of the available modalities.
    """
    pictures = {}
    if "albedo" in maps:
        pictures["albedo"] = _to_gray(maps["albedo"][0], 0)
    if "normal" in maps:
        pictures["normals"] = to_uint8((maps["normal"].transpose(1, 2, 0) + 1) / 2)
    if "depth" in maps:
        pictures["depth"] = _to_gray(maps["depth"][0], float(maps["depth"].min()))
    if "albedo" in maps and "normal" in maps:
        pictures["relit"] = _to_gray(maps["albedo"][0] * np.tensordot(LIGHT_DIRECTION, maps["normal"], axes=1).clip(0), 0)
    return pictures


def _to_gray(plane: np.ndarray, black: float) -> np.ndarray:
    """A plane as gray, from `black` to its 99th percentile."""
    white = max(float(np.percentile(plane, 99)), black + 1e-12)
    return np.repeat(to_uint8((plane - black) / (white - black))[..., None], 3, axis=2)


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as 0 to 255; others are clipped."""
    return np.round(values.clip(0, 1) * 255).astype(np.uint8)
