"""Synthetic subjects: their traits, their appearance in one session, and the head surface with albedo and landmarks.

Lengths are in units of an average head's half width. Coordinates on the head are `angle`, radians around the vertical axis
with 0 at the nose and positive toward the image's right, and `height`, upward from the middle of the face. Every feature is
a smooth bump in these coordinates, so that a turned head is the same surface from another viewpoint.
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter, map_coordinates

from fr_ps.photometric.photoface import LANDMARKS

# Angle, height, their standard deviations, amplitude.
Blob = tuple[float, float, float, float, float]

FACIAL_HAIR = ("none", "stubble", "both", "moustache", "beard")
EMOTIONS = ("blankstare", "positive", "negative", "emoOther")

# Mean, standard deviation between subjects of one gender, and half the difference between male and female.
TRAITS = {
    "width": (1.0, 0.03, 0.01),
    "forehead": (0.93, 0.03, 0.0),
    "jaw": (0.80, 0.04, 0.055),
    "chin_width": (0.46, 0.045, 0.055),
    "chin_height": (-1.06, 0.05, -0.02),
    "chin_bump": (0.07, 0.03, 0.02),
    "depth": (0.93, 0.035, 0.0),
    "brow_ridge": (0.05, 0.02, 0.035),
    "eye_x": (0.40, 0.028, 0.0),
    "eye_height": (0.27, 0.025, 0.0),
    "eye_socket": (0.085, 0.025, 0.01),
    "eye_width": (0.150, 0.012, -0.008),
    "eye_open": (0.058, 0.007, -0.006),
    "brow_above_eye": (0.215, 0.025, -0.025),
    "brow_thickness": (0.040, 0.008, 0.013),
    "brow_arch": (0.045, 0.022, -0.02),
    "brow_tilt": (0.01, 0.025, 0.0),
    "brow_darkness": (0.95, 0.2, 0.2),
    "nose_tip": (-0.25, 0.035, -0.01),
    "nose_length": (0.32, 0.045, 0.015),
    "nose_width": (0.165, 0.018, 0.012),
    "nose_bridge": (0.105, 0.013, 0.006),
    "nose_hump": (0.0, 0.02, 0.005),
    "nose_bend": (0.0, 0.012, 0.0),
    "wings": (0.065, 0.018, 0.005),
    "mouth_height": (-0.60, 0.03, 0.0),
    "mouth_width": (0.29, 0.025, 0.008),
    "mouth_offset": (0.0, 0.01, 0.0),
    "lip_fullness": (0.055, 0.010, -0.010),
    "lip_darkness": (0.42, 0.10, -0.15),
    "cheek": (0.055, 0.025, -0.015),
    "cheek_x": (0.56, 0.04, 0.0),
    "fold": (0.018, 0.010, 0.004),
    "temple": (0.03, 0.02, 0.0),
    "hairline": (0.88, 0.06, 0.0),
    "sideburn": (1.18, 0.07, 0.05),
    "skin": (-0.65, 0.17, 0.0),
    "hair": (-1.7, 0.3, 0.0),
    "roundness": (3.2, 0.6, 0.0),
}

# Mouth corners up, mouth open, mouth width, brows up, brows drawn together, cheeks raised, folds beside the mouth.
EXPRESSIONS = {
    "blankstare": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "positive": (0.09, 0.09, 0.22, 0.015, 0.0, 0.06, 0.038),
    "negative": (-0.09, 0.055, 0.04, -0.055, 1.0, 0.03, 0.036),
    "emoOther": (-0.01, 0.165, -0.06, 0.085, 0.0, 0.03, 0.024),
}
EXPRESSION_NOISE = (0.012, 0.006, 0.03, 0.01, 0.08, 0.008, 0.004)

# Darkness on the lip, darkness on the jaw, roughness of the surface.
HAIR_GROWTH = {
    "none": (0.0, 0.0, 0.0),
    "stubble": (0.38, 0.42, 0.35),
    "both": (1.0, 1.0, 1.0),
    "moustache": (1.1, 0.08, 0.7),
    "beard": (0.15, 1.1, 1.0),
}


@dataclass(frozen=True)
class Subject:
    """The properties that a subject has in every session.

    `traits` has the names of TRAITS. `texture` (n, 5) and `marks` (m, 5) are blobs of log albedo, `shape` (n, 5) blobs of
    relief: rows of angle, height, their standard deviations, amplitude.
    """

    male: bool
    traits: dict[str, float]
    shape: np.ndarray
    texture: np.ndarray
    marks: np.ndarray
    spectacles_rate: float
    facial_hair_rate: float
    usual_facial_hair: str


@dataclass(frozen=True)
class Appearance:
    """The appearance of a subject in one session.

    `growth` scales the facial hair. `expression` has the columns of EXPRESSIONS. `detail_seed` seeds the single hairs.
    """

    spectacles: bool
    facial_hair: str
    growth: float
    expression: np.ndarray
    detail_seed: int


def sample_subject(male: bool, rng: np.random.Generator) -> Subject:
    """A random subject of the given gender. Two fifths of the subjects never wear spectacles, one fifth always does."""
    side = 1.0 if male else -1.0
    traits = {}
    for name, (mean, spread, shift) in TRAITS.items():
        traits[name] = mean + side * shift + spread * float(np.clip(rng.normal(), -2.2, 2.2))
    shape = np.column_stack(
        [rng.uniform(-1.1, 1.1, 14), rng.uniform(-1.0, 1.0, 14), *rng.uniform(0.14, 0.35, (2, 14)), rng.normal(0, 0.023, 14)]
    )
    texture = np.column_stack(
        [rng.uniform(-1.5, 1.5, 22), rng.uniform(-1.1, 1.0, 22), *rng.uniform(0.15, 0.45, (2, 22)), rng.normal(0, 0.12, 22)]
    )
    freckled = rng.random() < 0.3
    freckles = int(rng.integers(30, 80)) if freckled else 0
    moles = int(rng.integers(0, 5))
    count = freckles + moles
    radius = np.concatenate([rng.uniform(0.010, 0.018, freckles), rng.uniform(0.018, 0.032, moles)])
    marks = np.column_stack(
        [
            rng.normal(0, 0.5, count),
            np.concatenate([rng.normal(-0.02, 0.2, freckles), rng.uniform(-0.95, 0.75, moles)]),
            radius,
            radius,
            np.concatenate([rng.uniform(-0.35, -0.12, freckles), rng.uniform(-1.0, -0.5, moles)]),
        ]
    )
    spectacles_rate = float(rng.choice([0.0, 1.0, 0.5], p=[0.4, 0.2, 0.4]))
    facial_hair_rate = float(rng.choice([0.0, 1.0, 0.6], p=[0.2, 0.35, 0.45] if male else [0.8, 0.0, 0.2]))
    usual = str(rng.choice(FACIAL_HAIR[1:], p=[0.3, 0.3, 0.2, 0.2] if male else [0.8, 0.0, 0.2, 0.0]))
    return Subject(male, traits, shape, texture, marks, spectacles_rate, facial_hair_rate, usual)


def sample_appearance(subject: Subject, emotion: str, rng: np.random.Generator) -> Appearance:
    """A random appearance of `subject` with `emotion`, which the caller chooses so that every subject shows several."""
    spectacles = bool(rng.random() < subject.spectacles_rate)
    hair = subject.usual_facial_hair if rng.random() < subject.facial_hair_rate else "none"
    # The kind of facial hair varies between sessions: a beard was stubble some weeks ago.
    if hair != "none" and rng.random() < 0.25:
        hair = "stubble"
    expression = np.array(EXPRESSIONS[emotion]) * rng.uniform(0.75, 1.2) + rng.normal(0, EXPRESSION_NOISE)
    return Appearance(spectacles, hair, float(rng.uniform(0.8, 1.15)), expression, int(rng.integers(2**31)))


def head_surface(
    subject: Subject, appearance: Appearance, angle: np.ndarray, height: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The head over ascending `angle` (C,) and `height` (R,): x to the right, z toward the viewer, albedo; (R, C) each."""
    u = angle.astype(np.float32)[None, :]
    v = height.astype(np.float32)[:, None]
    half_width, half_depth = _profiles(subject.traits, appearance, height)
    relief, log_albedo = _features(subject, appearance, u, v)
    radius_x = half_width.astype(np.float32)[:, None] + relief
    radius_z = half_depth.astype(np.float32)[:, None] + relief
    return radius_x * np.sin(u), radius_z * np.cos(u), np.exp(log_albedo)


def _profiles(t: dict[str, float], appearance: Appearance, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half width and half depth of the head's cross section at each `height`; (R,) each."""
    chin = t["chin_height"] - 0.6 * max(appearance.expression[1], 0.0)
    knots = [-1.9, chin - 0.3, chin, -0.74, -0.25, 0.25, 0.70, 1.0, 1.6]
    width = [0.40, 0.40, t["chin_width"], t["jaw"], 0.95 * t["width"], t["width"], t["forehead"], 0.93 * t["forehead"], 0.3]
    depth = t["depth"] * np.array([0.40, 0.45, 0.84, 0.90, 0.93, 0.97, 1.0, 0.92, 0.3])
    half_width, half_depth = PchipInterpolator(knots, np.column_stack([width, depth]))(height).T
    # The crown closes above the part that the close framing of view.py shows.
    crown = np.sqrt(np.clip(1 - (np.clip(height - 1.12, 0, None) / 0.48) ** 2, 0, 1))
    return half_width * crown, half_depth * crown


def _blobs(table: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Sum of the Gaussians in the rows of `table` (angle, height, two standard deviations, amplitude); (R, C)."""
    table = np.asarray(table, dtype=np.float32).reshape(-1, 5)
    across = np.exp(-0.5 * ((u - table[:, :1]) / table[:, 2:3]) ** 2)
    upward = np.exp(-0.5 * ((v - table[:, 1]) / table[:, 3]) ** 2)
    return (upward * table[:, 4]) @ across


def _both_sides(*blobs: Blob) -> list[Blob]:
    return [(side * x, y, wide, high, amplitude) for side in (-1, 1) for x, y, wide, high, amplitude in blobs]


def _smooth_step(value: np.ndarray, softness: float) -> np.ndarray:
    """0 far below zero, 1 far above, smooth over `softness`."""
    return (0.5 + 0.5 * np.tanh(value / softness)).astype(np.float32)


def _ridge(distance: np.ndarray, width: np.ndarray | float) -> np.ndarray:
    return np.exp(-0.5 * (distance / width) ** 2)


def _features(subject: Subject, appearance: Appearance, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Relief over the head's cross section and log albedo, over angle u (1, C) and height v (R, 1); (R, C) each."""
    t = subject.traits
    corners, open_, wide, brows_up, frown, cheeks_up, folds = (float(e) for e in appearance.expression)
    open_ = max(open_, 0.0)
    abs_u = np.abs(u)
    eye_x, eye_v = t["eye_x"], t["eye_height"]
    mouth_v, tip_v = t["mouth_height"], t["nose_tip"]
    brow_v = eye_v + t["brow_above_eye"] + brows_up
    mouth_w = t["mouth_width"] * (1 + wide)

    relief = _blobs(
        np.array(
            [
                (0, eye_v + 0.3, 0.22, 0.11, 0.6 * t["brow_ridge"]),
                (0, t["chin_height"] + 0.12 - 0.6 * open_, 0.17, 0.10, t["chin_bump"]),
                (0, mouth_v - 0.17 - 0.6 * open_, 0.16, 0.05, -0.02),
                (0, mouth_v + 0.06, 0.26, 0.17, 0.05),
                (0, mouth_v + 0.16, 0.025, 0.06, -0.012),
                *_both_sides(
                    (eye_x, brow_v - 0.01, 0.17, 0.055, t["brow_ridge"] + 0.25 * brows_up),
                    (0.13, brow_v - 0.02, 0.05, 0.06, 0.018 * frown),
                    (eye_x - 0.02, eye_v, 0.15, 0.10, -t["eye_socket"]),
                    (eye_x, eye_v - 0.005, 0.085, 0.055, 0.05),
                    (t["cheek_x"], -0.08 + 0.5 * cheeks_up, 0.17, 0.14, t["cheek"] + 0.6 * cheeks_up),
                    (0.55, -0.5, 0.16, 0.16, -0.03),
                    (0.85, eye_v + 0.25, 0.15, 0.2, -t["temple"]),
                    (1.50, eye_v - 0.1, 0.09, 0.18, 0.10),
                    (mouth_w + 0.04, mouth_v + corners, 0.045, 0.04, -0.015 - 0.4 * folds),
                    (t["nose_width"] * 0.95, tip_v + 0.02, 0.055, 0.06, t["wings"]),
                ),
            ]
        ),
        u,
        v,
    )
    relief += _blobs(subject.shape, u, v)
    relief += _nose(t, u, v)

    # The groove from the nose's wing past the mouth's corner.
    fold_x = t["nose_width"] + 0.06 + 0.42 * np.clip(tip_v + 0.05 - v, 0, 1) + 0.3 * cheeks_up
    groove = _ridge(abs_u - fold_x, 0.03) * _ridge(v - 0.5 * (tip_v + mouth_v), 0.13)
    relief -= (t["fold"] + folds) * groove

    skin = t["skin"] + _blobs(subject.texture, u, v) + _blobs(subject.marks, u, v) - 9 * folds * groove
    socket, nostril = (eye_x - 0.03, eye_v - 0.01, 0.17, 0.09, -0.22), (0.06, tip_v - 0.055, 0.03, 0.018, -0.8)
    flush = (t["cheek_x"], -0.1, 0.18, 0.13, -6 * folds)
    skin += _blobs(np.array(_both_sides(socket, nostril, flush)), u, v)

    lip_relief, lip_albedo = _mouth(t, u - np.float32(t["mouth_offset"]), v, mouth_v, mouth_w, corners, open_)
    relief += lip_relief
    skin += lip_albedo
    skin += _eyes(t, abs_u, v, eye_x, eye_v, open_)

    along = (abs_u - eye_x) / 0.2
    brow_line = brow_v + t["brow_arch"] * (0.3 - along**2) + (t["brow_tilt"] + 0.06 * frown) * along
    brow = _ridge(v - brow_line, t["brow_thickness"] * (1 - 0.25 * along)) * np.exp(-0.5 * (along / 1.05) ** 4)
    skin -= t["brow_darkness"] * brow
    relief += 0.012 * brow

    hair = np.maximum(
        _smooth_step(v - t["hairline"] + 0.22 * abs_u**2, 0.04),
        _smooth_step(abs_u - t["sideburn"], 0.05) * _smooth_step(v + 0.25, 0.1),
    )
    lip_growth, jaw_growth, rough = HAIR_GROWTH[appearance.facial_hair]
    if rough:
        moustache = _ridge(v - (mouth_v + 0.135 - 0.25 * abs_u**2), 0.05) * np.exp(-0.5 * (abs_u / 0.25) ** 4)
        jaw_line = mouth_v - 0.08 + 0.55 * np.clip(abs_u - 0.25, 0, 1)
        lips = np.exp(-0.5 * ((u / mouth_w) ** 2 + ((v - mouth_v + 0.5 * open_) / (0.10 + 0.5 * open_)) ** 2) ** 2)
        beard = _smooth_step(jaw_line - v, 0.06) * (1 - lips) * _smooth_step(1.35 - abs_u, 0.1)
        growth = appearance.growth * np.maximum(lip_growth * moustache, jaw_growth * beard)
        noise = np.random.default_rng(appearance.detail_seed).standard_normal(np.broadcast(u, v).shape, dtype=np.float32)
        # The size of the hairs is a length on the head, the same at every resolution of the grid.
        sigma = 0.017 / float(v[1, 0] - v[0, 0])
        noise = gaussian_filter(noise, sigma, truncate=3) * (2 * sigma * np.sqrt(np.pi))
        skin += growth * (-0.85 + 0.22 * noise)
        relief += growth * rough * (0.04 + 0.008 * noise)
    skin += hair * (t["hair"] - skin)
    relief += 0.03 * hair
    if appearance.spectacles:
        frame = _spectacles_frame(t, abs_u, v, eye_x, eye_v)
        skin += frame * (np.float32(-2.6) - skin)
        relief += 0.055 * frame
    return relief, skin


def _nose(t: dict[str, float], u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Relief of the nose: narrow at the eyes, wider toward the tip, cut off below it; (R, C)."""
    tip, root = t["nose_tip"], t["eye_height"] + 0.06
    knots = np.array([-2, tip - 0.18, tip - 0.10, tip + 0.01, tip + 0.12, 0.5 * (tip + root), root, root + 0.2, 2])
    rise = t["nose_length"] * np.array([0, 0, 0.20, 1.0, 0.93, 0.60, 0.22, 0, 0])
    rise[5] += t["nose_hump"]
    width = np.interp(v[:, 0], [tip, tip + 0.14, root], [t["nose_width"], 0.72 * t["nose_width"], t["nose_bridge"]])
    centre = t["nose_bend"] * _ridge(v - 0.5 * (tip + root), 0.2)
    profile = PchipInterpolator(knots, rise)(v).astype(np.float32)
    return profile * np.exp(-0.5 * np.abs((u - centre) / (0.85 * width[:, None].astype(np.float32))) ** 2)


def _mouth(
    t: dict[str, float], u: np.ndarray, v: np.ndarray, mouth_v: float, width: float, corners: float, open_: float
) -> tuple[np.ndarray, np.ndarray]:
    """Relief and log albedo of the lips, the line between them, and the teeth or dark inside of an open mouth; (R, C) each."""
    along = (u / width) ** 2
    extent = np.exp(-(along**2))
    middle = v - (mouth_v + corners * (along - 0.35))
    gap = open_ * np.sqrt(np.clip(1 - along, 0, None))
    upper, lower = middle, middle + gap
    full = t["lip_fullness"]
    above = _ridge(upper - 0.75 * full, 0.6 * full)
    below = _ridge(lower + 0.9 * full, 0.75 * full)
    hole = _smooth_step(-upper, 0.012) * _smooth_step(lower, 0.012) * extent * min(open_ / 0.03, 1.0)
    seam = _ridge(upper + 0.5 * gap, 0.016 + 0.35 * gap) * extent
    relief = extent * (0.6 * full * above + 0.75 * full * below) - seam * (0.022 + 0.35 * open_)
    # A smile shows teeth; other open mouths are dark inside.
    inside = np.where((corners > 0.03) & (lower > 0.35 * gap), 0.4, -1.3) if open_ > 0.03 else np.float32(-0.6)
    albedo = -t["lip_darkness"] * extent * np.clip(above + below, 0, 1) - 0.75 * _ridge(upper, 0.014) * extent
    albedo -= 0.5 * _ridge(lower, 0.014) * extent * min(open_ / 0.04, 1.0)
    return relief, albedo + hole * inside


def _eyes(t: dict[str, float], abs_u: np.ndarray, v: np.ndarray, eye_x: float, eye_v: float, open_: float) -> np.ndarray:
    """Log albedo of the eyes relative to skin: lid line, white, iris; (R, C)."""
    x, y = abs_u - eye_x, v - eye_v
    half_height = t["eye_open"] * (1 + 1.5 * open_) * np.clip(1 - (x / t["eye_width"]) ** 2, 0.02, None)
    white = _smooth_step(half_height - np.abs(y), 0.015) * _smooth_step(t["eye_width"] - np.abs(x), 0.02)
    lid = _ridge(y - half_height, 0.015) * np.exp(-0.5 * (x / t["eye_width"]) ** 6)
    iris = _smooth_step(0.058 - np.hypot(x, y), 0.012) * white
    return 0.45 * white - 1.0 * lid - 1.9 * iris


def _spectacles_frame(t: dict[str, float], abs_u: np.ndarray, v: np.ndarray, eye_x: float, eye_v: float) -> np.ndarray:
    """Coverage of the spectacles' frame, 0 to 1: two rims, the bridge, the temples; (R, C)."""
    x, y = abs_u - eye_x - 0.02, v - eye_v + 0.03
    power = t["roundness"]
    reach = (np.abs(x / 0.275) ** power + np.abs(y / 0.215) ** power + 1e-6) ** (1 / power)
    rim = np.exp(-(((reach - 1) * 0.235 / 0.030) ** 2))
    bridge = _ridge(y - 0.07, 0.025) * _smooth_step(eye_x - 0.24 - abs_u, 0.02)
    temple = _ridge(y - 0.07, 0.025) * _smooth_step(abs_u - eye_x - 0.28, 0.03)
    return np.maximum(np.maximum(rim, bridge), temple).astype(np.float32)


def head_landmarks(subject: Subject, appearance: Appearance) -> np.ndarray:
    """(11, 2) angle and height of the landmarks on the head, in the order of `photoface.LANDMARKS`."""
    t = subject.traits
    corners, open_, wide = (float(e) for e in appearance.expression[:3])
    eye_x, eye_v, reach = t["eye_x"], t["eye_height"], t["eye_width"]
    mouth_w, mouth_v = t["mouth_width"] * (1 + wide), t["mouth_height"] + 0.65 * corners
    nose_w, nose_v = 0.95 * t["nose_width"] + 0.03, t["nose_tip"] + 0.02
    positions = {
        "forehead": (0, 0.5 * (eye_v + t["brow_above_eye"] + t["hairline"])),
        "nose_tip": (0, t["nose_tip"] + 0.01),
        "mouth_left": (t["mouth_offset"] - mouth_w, mouth_v),
        "mouth_right": (t["mouth_offset"] + mouth_w, mouth_v),
        "chin": (0, t["chin_height"] + 0.12 - 0.6 * max(open_, 0.0)),
    }
    for side, sign in (("left", -1), ("right", 1)):
        positions[f"{side}_eye_outer"] = (sign * (eye_x + reach), eye_v)
        positions[f"{side}_eye_inner"] = (sign * (eye_x - reach), eye_v)
        positions[f"nose_{side}"] = (sign * nose_w, nose_v)
    return np.array([positions[name] for name in LANDMARKS], dtype=np.float64)


def locate_on_surface(
    points: np.ndarray, angle: np.ndarray, height: np.ndarray, x: np.ndarray, z: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, height and z (n,) of points (n, 2), given as angle and height, on a surface `x`, `z` (R, C) over `height`, `angle`."""
    columns = np.interp(points[:, 0], angle, np.arange(len(angle)))
    rows = np.interp(points[:, 1], height, np.arange(len(height)))
    at_x, at_z = (map_coordinates(plane, [rows, columns], order=1) for plane in (x, z))
    return at_x, points[:, 1], at_z
