"""Synthetic sessions: face-like surfaces under four lights, rendered with attached shadows and noise.

Everything is a function of (seed, subject, session), independent of the number of subjects and sessions.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from fr_ps.photometric.lights import light_directions
from fr_ps.synthetic.faces import (
    EMOTIONS,
    Subject,
    head_landmarks,
    head_surface,
    locate_on_surface,
    sample_appearance,
    sample_subject,
)
from fr_ps.synthetic.view import CLOSE, Framing, sample_view

LIGHT_ANGLES = ((35, 40), (-35, 40), (35, -20), (-35, -20))
LABELS = ("Gender", "Spectacles", "Facial_Hair", "Pose", "Emotion")

# The first number of each random stream's seed. Without it streams could coincide: numpy pads a seed with zeros, so that
# [seed, subject] and [seed, subject, 0] are the same.
_PAIR_STREAM, _SUBJECT_STREAM, _PLAN_STREAM, _SESSION_STREAM = 1, 2, 3, 4
_DEGREES_PER_POSE = 8.0
_BACKGROUND_DEPTH = 0.2
_MIN_NORMAL_Z = 0.06


@dataclass(frozen=True)
class Scene:
    """One session: the pictures and the ground truth.

    Directions are x right, y up, z toward the camera; row 0 is the top of the picture.
    """

    images: np.ndarray
    """(k, H, W) uint8: round(exposure * albedo * max(0, normal . light) + noise), with an unrecorded exposure."""
    lights: np.ndarray
    """(k, 3) float64: unit vectors toward the light."""
    albedo: np.ndarray
    """(H, W) float32, >= 0."""
    normal: np.ndarray
    """(H, W, 3) float32 unit vectors."""
    depth: np.ndarray
    """(H, W) float32, pixels, zero mean, growing toward the camera."""
    landmarks: np.ndarray
    """(11, 2) float64 in the order of `photoface.LANDMARKS`: x right and y down in pixels from the picture's top left corner."""
    mask: np.ndarray
    """(H, W) bool: the head, not the wall behind it."""
    labels: dict[str, str]
    """Gender, Spectacles, Facial_Hair, Pose, Emotion in Photoface's raw strings."""


def render_session(seed: int, subject: int, session: int, size: int = 128, framing: Framing = CLOSE) -> Scene:
    """The pictures of one session of one subject, `size` x `size` pixels, and the ground truth."""
    # Of each pair of subjects one is male, so that a small set has both genders.
    first_is_male = np.random.default_rng([_PAIR_STREAM, seed, subject // 2]).random() < 0.5
    face = sample_subject(bool(first_is_male) == (subject % 2 == 0), np.random.default_rng([_SUBJECT_STREAM, seed, subject]))
    return _render(face, seed, subject, session, size, framing)


def _render(face: Subject, seed: int, subject: int, session: int, size: int, framing: Framing) -> Scene:
    turned, emotional = _plan_session(seed, subject, session)
    rng = np.random.default_rng([_SESSION_STREAM, seed, subject, session])
    pose = int(rng.choice([3, 4, 5], p=[0.4, 0.35, 0.25]) if turned else rng.choice([1, 2], p=[0.65, 0.35]))
    emotion = str(rng.choice(EMOTIONS[1:], p=[0.45, 0.3, 0.25])) if emotional else EMOTIONS[0]
    yaw = float(rng.choice([-1, 1]) * np.radians(_DEGREES_PER_POSE) * (pose - 1) + rng.normal(0, np.radians(2)))
    view = sample_view(framing, yaw, size, rng)
    look = sample_appearance(face, emotion, rng)

    angle, height = view.surface_grid()
    x, z, albedo = head_surface(face, look, angle, height)
    landmarks = view.project(*locate_on_surface(head_landmarks(face, look), angle, height, x, z))
    z, albedo = view.render_maps(x, z, albedo, height)

    sharpness = 12.0
    nearness = 1 / (1 + np.exp(-sharpness * 2 * (z - _BACKGROUND_DEPTH)))
    z = np.logaddexp(sharpness * z, sharpness * _BACKGROUND_DEPTH) / sharpness
    wall = np.exp(rng.normal(-1.7, 0.3))
    albedo = wall + nearness * (albedo - wall)
    # Depth jumps where the nose occludes the cheek. A camera's blur, proportional to the picture, keeps slopes finite.
    blur = max(0.6, 0.8 * size / 128)
    albedo = gaussian_filter(albedo, 0.6 * blur)
    depth = gaussian_filter(z * (view.scale / view.pixel), blur)
    normal = _normals(depth)
    while normal[..., 2].min() < _MIN_NORMAL_Z:
        depth = gaussian_filter(depth, blur)
        normal = _normals(depth)

    lights = light_directions(LIGHT_ANGLES)
    shading = albedo * np.maximum(0, np.einsum("hwc,kc->khw", normal, lights))
    exposure = rng.uniform(0.6, 1.0) * 250 / np.quantile(shading, 0.998)
    noise = rng.normal(0, rng.uniform(0.8, 2.0), shading.shape)
    images = np.clip(np.rint(exposure * shading + noise), 0, 255).astype(np.uint8)
    labels = dict(
        zip(LABELS, ("male" if face.male else "female", "yes" if look.spectacles else "no", look.facial_hair, str(pose), emotion))
    )
    depth -= depth.mean()
    truth = (albedo.astype(np.float32), normal.astype(np.float32), depth.astype(np.float32))
    return Scene(images, lights, *truth, landmarks, nearness > 0.5, labels)


def _plan_session(seed: int, subject: int, session: int) -> tuple[bool, bool]:
    """Whether this session is turned (pose 3 and above) and whether it shows an emotion.

    Of every four sessions the first two differ in both, so that a subject with two sessions has every class. No session
    depends on the number of sessions.
    """
    rng = np.random.default_rng([_PLAN_STREAM, seed, subject, session // 4])
    positive = []
    for share in (0.45, 0.6):
        first = bool(rng.random() < 0.5)
        more = bool(rng.random() < share)
        positive.append([first, not first, more, False][session % 4])
    return positive[0], positive[1]


def _normals(depth: np.ndarray) -> np.ndarray:
    """(H, W, 3) unit normals of a depth (H, W) in pixels: proportional to (-dd/dx, -dd/dy, 1), y being up."""
    down, right = np.gradient(depth)
    normal = np.stack([-right, down, np.ones_like(depth)], axis=-1)
    return normal / np.linalg.norm(normal, axis=-1, keepdims=True)
