"""The pictures of one session: tiles with a title each, and all of them on one sheet."""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fr_ps.data.contact_sheet import to_uint8
from fr_ps.data.session_view import SessionView
from fr_ps.photometric.lights import light_directions
from fr_ps.photometric.relight import render_lambertian
from fr_ps.photometric.surface_files import encode_normals

TILE_SIZE = 224
"""Side of one tile on the sheet, in pixels."""
MAX_PICTURES = 12
"""Most recorded pictures that are shown."""
RESIDUAL_WHITE = 0.2
"""Share of the bright parts of the recorded pictures at which the residual is white."""
RELIT_ANGLES = {"left": (60, 0), "right": (-60, 0), "above": (0, 60), "below": (0, -60)}
"""Azimuth and elevation in degrees of the relit views' lights, as in lights.csv."""

_BRIGHT = 99
"""Percentile of the pixels in the mask that is shown white."""
_GAP = 8
_LINE_HEIGHT = 20
_TILES_PER_ROW = 6
_TEXT_COLOR, _BACKGROUND, _BORDER = (0, 0, 0), (255, 255, 255), (160, 160, 160)


@dataclass(frozen=True)
class Tile:
    """A title and a picture (H, W, 3) uint8."""

    title: str
    picture: np.ndarray


def session_tiles(view: SessionView) -> dict[str, list[Tile]]:
    """The pictures of one session in three groups, by the titles of the groups.

    Albedo and relit views are shown with one brightness, and the recorded pictures with another one, so that the pictures of
    a group compare. The title of a group without pictures gives the reason.
    """
    return {
        _recorded_title(view): _recorded_tiles(view),
        "maps": _map_tiles(view),
        "relit from the maps (matte, attached shadows)": _relit_tiles(view),
    }


def albedo_white(view: SessionView) -> float:
    """The albedo that is shown white."""
    return display_white(view.albedo[view.mask])


def display_white(values: np.ndarray) -> float:
    """The value that is shown white: most values are below it."""
    return max(float(np.percentile(values, _BRIGHT)), 1e-6)


def to_gray(plane: np.ndarray, black: float, white: float) -> np.ndarray:
    """(H, W, 3) uint8 of a plane (H, W), from black to white."""
    return np.repeat(to_uint8((plane - black) / (white - black))[..., None], 3, axis=2)


def residual_share(view: SessionView) -> float:
    """Root mean square residual over that of the recorded pictures, in the mask."""
    assert view.recorded
    power = np.mean(view.recorded.pictures[:, view.mask] ** 2)
    return float(np.sqrt(np.mean(view.recorded.residual[view.mask] ** 2) / max(power, 1e-12)))


def png_bytes(picture: np.ndarray, max_side: int) -> bytes:
    """A picture (H, W, 3) uint8 as PNG, made smaller where a side is longer than `max_side`."""
    image = Image.fromarray(picture)
    image.thumbnail((max_side, max_side))
    return _to_png(image)


def session_sheet(view: SessionView, tiles: dict[str, list[Tile]]) -> bytes:
    """All tiles on one sheet, as PNG. Every group begins a line below its title."""
    step = TILE_SIZE + _GAP
    columns = min(max(map(len, tiles.values())), _TILES_PER_ROW)
    lines = sum(-(-len(group) // _TILES_PER_ROW) for group in tiles.values())
    height = _LINE_HEIGHT * (len(tiles) + 1) + lines * (step + _LINE_HEIGHT) + 2 * _GAP
    sheet = Image.new("RGB", (columns * step + _GAP, height), _BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    draw.text((_GAP, _GAP), view.name, fill=_TEXT_COLOR, font=ImageFont.load_default(16))
    top = _GAP + _LINE_HEIGHT
    for title, group in tiles.items():
        draw.text((_GAP, top), title, fill=_TEXT_COLOR, font=font)
        top += _LINE_HEIGHT
        for place, tile in enumerate(group):
            line, column = divmod(place, columns)
            left, upper = _GAP + column * step, top + line * (step + _LINE_HEIGHT)
            draw.text((left, upper), tile.title, fill=_TEXT_COLOR, font=ImageFont.load_default(13))
            picture = _fit(tile.picture)
            sheet.paste(picture, (left, upper + _LINE_HEIGHT))
            corners = (left - 1, upper + _LINE_HEIGHT - 1, left + picture.width, upper + _LINE_HEIGHT + picture.height)
            draw.rectangle(corners, outline=_BORDER)
        top += -(-len(group) // _TILES_PER_ROW) * (step + _LINE_HEIGHT)
    return _to_png(sheet)


def _recorded_title(view: SessionView) -> str:
    if view.recorded is None:
        return f"no recorded pictures and no residual: {view.no_recorded}"
    count = len(view.recorded.pictures)
    return "recorded pictures" if count <= MAX_PICTURES else f"{MAX_PICTURES} of {count} recorded pictures"


def _recorded_tiles(view: SessionView) -> list[Tile]:
    if view.recorded is None:
        return []
    pictures, lights = view.recorded.pictures, view.recorded.lights
    white = display_white(pictures[:, view.mask])
    chosen = np.unique(np.linspace(0, len(pictures) - 1, min(len(pictures), MAX_PICTURES)).round().astype(int))
    return [
        Tile(f"light {number + 1}: {_describe_light(lights[number])}", to_gray(pictures[number], 0, white)) for number in chosen
    ]


def _map_tiles(view: SessionView) -> list[Tile]:
    near, far = float(view.depth[view.mask].max()), float(view.depth[view.mask].min())
    tiles = [
        Tile(f"mask: {view.mask.mean():.0%} of the square", to_gray(view.mask.astype(float), 0, 1)),
        Tile("albedo", to_gray(view.albedo, 0, albedo_white(view))),
        Tile("normals (OpenGL colours)", encode_normals(view.normal)),
        Tile(f"depth: range {near - far:.0f} pixels; near is bright", to_gray(view.depth, far, max(near, far + 1e-6))),
        Tile("confidence: white is 1", to_gray(view.confidence, 0, 1)),
    ]
    if view.recorded:
        white = RESIDUAL_WHITE * display_white(view.recorded.pictures[:, view.mask])
        residual = to_gray(view.recorded.residual * view.mask, 0, white)
        tiles.append(Tile(f"residual: {100 * residual_share(view):.1f} %; white is {100 * RESIDUAL_WHITE:.0f} %", residual))
    return tiles


def _relit_tiles(view: SessionView) -> list[Tile]:
    relit = render_lambertian(view.albedo * view.mask, view.normal, light_directions(list(RELIT_ANGLES.values())))
    white = albedo_white(view)
    return [
        Tile(f"light from {side if side in ('above', 'below') else f'the {side}'}", to_gray(picture, 0, white))
        for side, picture in zip(RELIT_ANGLES, relit)
    ]


def _describe_light(light: np.ndarray) -> str:
    """Azimuth and elevation of a unit vector in degrees, with the signs of lights.csv."""
    azimuth, elevation = np.degrees([np.arctan2(-light[0], light[2]), np.arcsin(np.clip(light[1], -1, 1))])
    return f"azimuth {round(azimuth)}°, elevation {round(elevation)}°"  # an int has no "-0"


def _fit(picture: np.ndarray) -> Image.Image:
    """The picture with its longer side of `TILE_SIZE`."""
    height, width = picture.shape[:2]
    scale = TILE_SIZE / max(height, width)
    side = (max(round(scale * width), 1), max(round(scale * height), 1))
    return Image.fromarray(picture).resize(side, Image.Resampling.BICUBIC)


def _to_png(image: Image.Image) -> bytes:
    content = BytesIO()
    image.save(content, "PNG")
    return content.getvalue()
