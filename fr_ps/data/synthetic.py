"""Synthetic sessions: face-like surfaces under four lights, rendered with attached shadows and noise, as raw captures.

Everything is a function of (seed, person, session): a person's face is the same however many people and sessions are written.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from fr_ps.data.faces import EMOTIONS, Person, draw_look, draw_person, head_surface
from fr_ps.progress import Advance, silent

VERSION = 1
"""Raised with every change of what is drawn, so that faces of an earlier version in a cache are not taken for these."""
LIGHT_ANGLES = ((35, 40), (-35, 40), (35, -20), (-35, -20))
LABELS = ("Gender", "Spectacles", "Facial_Hair", "Pose", "Emotion")

# First word of each random stream. It comes first because numpy pads a seed with zeros: [s, p] and [s, p, 0] are one stream.
_PAIR, _PERSON, _PLAN, _SESSION = 1, 2, 3, 4
_DEGREES_A_POSE = 8.0
_HALF_PICTURE = 0.95
_MIDDLE_HEIGHT = -0.10
_BACKGROUND_DEPTH = 0.2
_BEHIND = -0.1
_LEAST_NORMAL_Z = 0.06


@dataclass(frozen=True)
class Scene:
    """One session, with the exact truth beside the pictures.

    Directions are x right, y up, z toward the camera; row 0 is the top of the picture.
    """

    images: np.ndarray
    """(k, H, W) uint8: round(exposure * albedo * max(0, normal . light) + noise), of an exposure that nobody is told."""
    lights: np.ndarray
    """(k, 3) float64: unit vectors toward the light."""
    albedo: np.ndarray
    """(H, W) float32, >= 0."""
    normal: np.ndarray
    """(H, W, 3) float32 unit vectors."""
    depth: np.ndarray
    """(H, W) float32, pixels, zero mean, growing toward the camera."""
    labels: dict[str, str]
    """Gender, Spectacles, Facial_Hair, Pose, Emotion in Photoface's raw strings."""


@dataclass(frozen=True)
class _View:
    """Where the camera is: angles in radians, shifts in head units, scale as a factor."""

    yaw: float
    pitch: float
    roll: float
    shift_x: float
    shift_y: float
    scale: float


def light_directions(angles: tuple[tuple[float, float], ...] = LIGHT_ANGLES) -> np.ndarray:
    """(k, 3) float64 unit vectors for (azimuth, elevation) in degrees; a positive azimuth lights the image's left half."""
    azimuth, elevation = np.radians(np.array(angles, dtype=np.float64)).T
    return np.column_stack([-np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])


def render_session(seed: int, person: int, session: int, size: int = 128) -> Scene:
    """The pictures of one session of one person, `size` x `size` pixels, and the truth behind them."""
    # Of each pair of people one is male, so that a small set has both genders too.
    first_is_male = np.random.default_rng([_PAIR, seed, person // 2]).random() < 0.5
    face = draw_person(bool(first_is_male) == (person % 2 == 0), np.random.default_rng([_PERSON, seed, person]))
    return _render(face, seed, person, session, size)


def write_captures(out: Path, *, people: int, sessions: int, seed: int, size: int = 128, advance: Advance = silent) -> None:
    """Write `people` x `sessions` sessions under `out`: `captures/{id}/{session}/im0.png` .. with `lights.csv`, and `labels.csv`.

    `advance` is called after each session.
    """
    names = [f"im{k}.png" for k in range(len(LIGHT_ANGLES))]
    lights = [[name, *angles] for name, angles in zip(names, LIGHT_ANGLES)]
    rows = []
    for number in range(people * sessions):
        person, session = divmod(number, sessions)
        scene = render_session(seed, person, session, size)
        row_id, row_session = f"S{person:03d}", f"s{session:02d}"
        folder = out / "captures" / row_id / row_session
        folder.mkdir(parents=True, exist_ok=True)
        for name, image in zip(names, scene.images):
            Image.fromarray(image).save(folder / name, compress_level=1)
        _write_csv(folder / "lights.csv", ["image", "azimuth_deg", "elevation_deg"], lights)
        rows.append([row_id, row_session, *(scene.labels[name] for name in LABELS)])
        advance(1)
    out.mkdir(parents=True, exist_ok=True)
    _write_csv(out / "labels.csv", ["id", "session", *LABELS], rows)


def _write_csv(path: Path, header: list[str], rows: list[list]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _render(face: Person, seed: int, person: int, session: int, size: int) -> Scene:
    turned, emotional = _plan(seed, person, session)
    rng = np.random.default_rng([_SESSION, seed, person, session])
    pose = int(rng.choice([3, 4, 5], p=[0.4, 0.35, 0.25]) if turned else rng.choice([1, 2], p=[0.65, 0.35]))
    emotion = str(rng.choice(EMOTIONS[1:], p=[0.45, 0.3, 0.25])) if emotional else EMOTIONS[0]
    view = _View(
        yaw=float(rng.choice([-1, 1]) * np.radians(_DEGREES_A_POSE) * (pose - 1) + rng.normal(0, np.radians(2))),
        pitch=float(rng.normal(0, np.radians(2.5))),
        roll=float(rng.normal(0, np.radians(2.0))),
        shift_x=float(rng.normal(0, 0.015)),
        shift_y=float(rng.normal(0, 0.015)),
        scale=float(np.exp(rng.normal(0, 0.02))),
    )
    look = draw_look(face, emotion, rng)

    # The grid is uniform across the picture for a round head, so that it is as fine as the pixels everywhere that is seen.
    pixel = 2 * _HALF_PICTURE / size
    across = np.linspace(-0.999, 0.999, int(2.2 / pixel))
    height = _MIDDLE_HEIGHT + np.arange(-1.2, 1.2, pixel)
    x, z, albedo = head_surface(face, look, np.arcsin(across) - view.yaw, height)
    z, albedo = _look_at(x, z, albedo, height, view, size)

    sharpness = 12.0
    nearness = 1 / (1 + np.exp(-sharpness * 2 * (z - _BACKGROUND_DEPTH)))
    z = np.logaddexp(sharpness * z, sharpness * _BACKGROUND_DEPTH) / sharpness
    wall = np.exp(rng.normal(-1.7, 0.3))
    albedo = wall + nearness * (albedo - wall)
    # Where the nose hides the cheek the depth jumps: a camera's blur, growing with the picture, keeps slopes finite.
    blur = max(0.6, 0.8 * size / 128)
    albedo = gaussian_filter(albedo, 0.6 * blur)
    depth = gaussian_filter(z * (view.scale / pixel), blur)
    normal = _normals(depth)
    while normal[..., 2].min() < _LEAST_NORMAL_Z:
        depth = gaussian_filter(depth, blur)
        normal = _normals(depth)

    lights = light_directions()
    shading = albedo * np.maximum(0, np.einsum("hwc,kc->khw", normal, lights))
    exposure = rng.uniform(0.6, 1.0) * 250 / np.quantile(shading, 0.998)
    noise = rng.normal(0, rng.uniform(0.8, 2.0), shading.shape)
    images = np.clip(np.rint(exposure * shading + noise), 0, 255).astype(np.uint8)
    labels = dict(
        zip(LABELS, ("male" if face.male else "female", "yes" if look.spectacles else "no", look.facial_hair, str(pose), emotion))
    )
    depth -= depth.mean()
    return Scene(images, lights, albedo.astype(np.float32), normal.astype(np.float32), depth.astype(np.float32), labels)


def _plan(seed: int, person: int, session: int) -> tuple[bool, bool]:
    """Whether this session is turned (pose 3 and above) and whether it shows an emotion.

    In each four sessions the first two differ in both: every class reaches everybody who has two sessions, and no session depends
    on how many there are.
    """
    rng = np.random.default_rng([_PLAN, seed, person, session // 4])
    positive = []
    for share in (0.45, 0.6):
        first = bool(rng.random() < 0.5)
        more = bool(rng.random() < share)
        positive.append([first, not first, more, False][session % 4])
    return positive[0], positive[1]


def _look_at(
    x: np.ndarray, z: np.ndarray, albedo: np.ndarray, height: np.ndarray, view: _View, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Depth in head units and albedo of the surface as the camera sees it; (size, size) each, row 0 on top.

    The head turns about the vertical axis, then nods; the small roll is two shears, which a rotation is to the second order.
    """
    grid = (np.arange(size) - (size - 1) / 2) * (2 * _HALF_PICTURE / size) / view.scale
    # A crop of a turned head is centred between the features and the head, not on its axis.
    target_x = grid + 0.45 * np.sin(view.yaw) - view.shift_x
    sin, cos = np.sin(view.yaw), np.cos(view.yaw)
    seen_x = x * cos + z * sin
    seen_z = z * cos - x * sin
    # What sticks out hides what is behind it on the side it leans to.
    if sin >= 0:
        seen_x = np.maximum.accumulate(seen_x, axis=1)
    else:
        seen_x = np.minimum.accumulate(seen_x[:, ::-1], axis=1)[:, ::-1]
    turned = np.empty((2, len(height), size))
    for row, v in enumerate(height):
        line = seen_x[row] + view.roll * v
        turned[0, row] = np.interp(target_x, line, seen_z[row], left=_BEHIND, right=_BEHIND)
        turned[1, row] = np.interp(target_x, line, albedo[row])

    sin, cos = np.sin(view.pitch), np.cos(view.pitch)
    target_y = grid[::-1] + _MIDDLE_HEIGHT - view.shift_y
    nodded_y = np.maximum.accumulate(height[:, None] * cos + turned[0] * sin - view.roll * grid, axis=0)
    nodded_z = turned[0] * cos - height[:, None] * sin
    picture = np.empty((2, size, size))
    for column in range(size):
        picture[0, :, column] = np.interp(target_y, nodded_y[:, column], nodded_z[:, column])
        picture[1, :, column] = np.interp(target_y, nodded_y[:, column], turned[1, :, column])
    return picture[0], picture[1]


def _normals(depth: np.ndarray) -> np.ndarray:
    """(H, W, 3) unit normals of a depth (H, W) in pixels: proportional to (-dd/dx, -dd/dy, 1), y being up."""
    down, right = np.gradient(depth)
    normal = np.stack([-right, down, np.ones_like(depth)], axis=-1)
    return normal / np.linalg.norm(normal, axis=-1, keepdims=True)
