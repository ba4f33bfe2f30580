"""One session as a self-contained HTML page, on which a slider moves the light. It loads nothing from the network."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fr_ps.report.html_page import escape_text, table_html
from fr_ps.report.style import TABLE_STYLE
from fr_ps.report.table import Table

MAX_SIDE = 512
"""Longest side of the relit picture in pixels; larger maps are averaged, because JavaScript renders every pixel again."""
_PAGE_STYLE = (
    "body{max-width:80rem;margin:2rem auto;padding:0 1rem}h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2.5rem}"
    "figure{display:inline-block;margin:0 .6rem .8rem 0;vertical-align:top;max-width:100%}"
    "figure img{width:12.4rem;max-width:100%;display:block;border:1px solid #8888}"
    "figcaption{max-width:12.4rem;font-size:.85rem;padding-top:.2rem}"
    ".relight{display:flex;flex-wrap:wrap;gap:1.5rem;align-items:flex-start}"
    "canvas{width:28rem;max-width:100%;touch-action:none;cursor:crosshair;background:#000}"
    ".controls{flex:1;min-width:16rem;max-width:30rem}label{display:block;margin:.2rem 0 .9rem}"
    "input{accent-color:#888}input[type=range]{width:100%}"
    ".ends{display:flex;justify-content:space-between}.ends,figcaption{color:var(--soft)}"
)
_POLICY = "default-src 'none';img-src data:;style-src 'unsafe-inline';script-src 'unsafe-inline'"
_CONTROLS = """
<div class=controls>
<label>Azimuth <output id=azimuth_value></output>
<input type=range id=azimuth min=-90 max=90 value=45 dir=rtl>
<span class=ends><span>light from the left</span><span>right</span></span></label>
<label>Elevation <output id=elevation_value></output>
<input type=range id=elevation min=-90 max=90 value=20>
<span class=ends><span>light from below</span><span>above</span></span></label>
<label><input type=checkbox id=shape> shape only, without the albedo</label>
<p id=light></p>
<p class=why>Move the sliders, or drag over the picture: the light comes from there. The surface is matte, with attached shadows;
it casts none. Angles have the signs of lights.csv: positive azimuth is light from the left, positive elevation from above.</p>
</div>"""


def render_session_page(
    title: str,
    facts: Mapping[str, str],
    quality: Table | None,
    pictures: Mapping[str, Sequence[tuple[str, bytes]]],
    *,
    albedo: np.ndarray,
    normal: np.ndarray,
    white: float,
) -> str:
    """The whole page.

    Args:
        title: page title.
        facts: first table.
        quality: the quality measures; None without any.
        pictures: section title to its pictures, each a caption and PNG.
        albedo: (H, W), at least 0, of the relit picture.
        normal: (H, W, 3) unit vectors, x right, y up, z toward the camera.
        white: albedo that is shown white under a frontal light.
    """
    about = "".join(f"<tr><td>{escape_text(name)}</td><td>{escape_text(text)}</td></tr>" for name, text in facts.items())
    sections = "".join(
        f"<h2>{escape_text(name)}</h2>" + "".join(_figure(caption, png) for caption, png in figures)
        for name, figures in pictures.items()
    )
    controls, script = _relight_parts(albedo, normal, white)
    return (
        f"{_head(title)}<h1>{escape_text(title)}</h1><table>{about}</table><h2>Relight</h2>{controls}"
        f"{f'<h2>Quality</h2>{table_html(quality)}' if quality else ''}{sections}{script}</html>\n"
    )


def render_relight_page(title: str, albedo: np.ndarray, normal: np.ndarray, white: float) -> str:
    """A page of the relit picture and its sliders alone, for a frame in another page. Arguments as `render_session_page`."""
    controls, script = _relight_parts(albedo, normal, white)
    return f"{_head(title)}<style>body{{margin:0;padding:0;background:none!important}}</style>{controls}{script}</html>\n"


def _head(title: str) -> str:
    return (
        f'<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=Content-Security-Policy content="{_POLICY}">'
        f'<meta name=viewport content="width=device-width"><title>{escape_text(title)}</title>'
        f"<style>{TABLE_STYLE}{_PAGE_STYLE}</style>"
    )


def _relight_parts(albedo: np.ndarray, normal: np.ndarray, white: float) -> tuple[str, str]:
    """The picture with its sliders, and the script that must follow them."""
    surface = _surface(albedo, normal, white)
    canvas = f"<canvas id=relit width={surface['width']} height={surface['height']}></canvas>"
    script = Path(__file__).with_name("relight.js").read_text(encoding="utf-8")
    return (
        f"<div class=relight>{canvas}{_CONTROLS}</div>",
        f"<script type=application/json id=surface>{json.dumps(surface)}</script><script>{script}</script>",
    )


def _surface(albedo: np.ndarray, normal: np.ndarray, white: float) -> dict[str, str | int | float]:
    """What the script reads: albedo as uint16 and normals as int16, little endian in base64."""
    shrink = -(-max(albedo.shape) // MAX_SIDE)
    albedo = _reduce(albedo, shrink)
    normal = np.stack([_reduce(normal[..., axis], shrink) for axis in range(3)], axis=-1)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
    largest = max(float(albedo.max()), 1e-6)
    return {
        "width": albedo.shape[1],
        "height": albedo.shape[0],
        "white": white / largest,
        "albedo": _base64(np.rint(albedo / largest * 65535).astype("<u2").tobytes()),
        "normals": _base64(np.rint(normal * 32767).astype("<i2").tobytes()),
    }


def _reduce(plane: np.ndarray, shrink: int) -> np.ndarray:
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32)).reduce(shrink)).copy()


def _figure(caption: str, png: bytes) -> str:
    source = f"data:image/png;base64,{_base64(png)}"
    return f'<figure><img alt="{escape_text(caption)}" src="{source}"><figcaption>{escape_text(caption)}</figcaption></figure>'


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
