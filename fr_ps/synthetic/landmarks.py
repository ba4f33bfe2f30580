"""Where Photoface's eleven landmarks are on a synthetic head."""

import numpy as np
from scipy.ndimage import map_coordinates

from fr_ps.photometric.photoface import LANDMARKS
from fr_ps.synthetic.faces import Appearance, Person


def head_landmarks(person: Person, appearance: Appearance) -> np.ndarray:
    """(11, 2) angle and height on the head, in the order of `photoface.LANDMARKS`; the places are those that faces.py draws."""
    t = person.traits
    corners, open_, wide = (float(e) for e in appearance.expression[:3])
    eye_x, eye_v, reach = t["eye_x"], t["eye_height"], t["eye_width"]
    mouth_w, mouth_v = t["mouth_width"] * (1 + wide), t["mouth_height"] + 0.65 * corners
    nose_w, nose_v = 0.95 * t["nose_width"] + 0.03, t["nose_tip"] + 0.02
    places = {
        "forehead": (0, 0.5 * (eye_v + t["brow_above_eye"] + t["hairline"])),
        "nose_tip": (0, t["nose_tip"] + 0.01),
        "mouth_left": (t["mouth_offset"] - mouth_w, mouth_v),
        "mouth_right": (t["mouth_offset"] + mouth_w, mouth_v),
        "chin": (0, t["chin_height"] + 0.12 - 0.6 * max(open_, 0.0)),
    }
    for side, sign in (("left", -1), ("right", 1)):
        places[f"{side}_eye_outer"] = (sign * (eye_x + reach), eye_v)
        places[f"{side}_eye_inner"] = (sign * (eye_x - reach), eye_v)
        places[f"nose_{side}"] = (sign * nose_w, nose_v)
    return np.array([places[name] for name in LANDMARKS], dtype=np.float64)


def locate_on_surface(
    points: np.ndarray, angle: np.ndarray, height: np.ndarray, x: np.ndarray, z: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, height and z (n,) of points (n, 2) of angle and height on a surface `x`, `z` (R, C) over `height` and `angle`."""
    columns = np.interp(points[:, 0], angle, np.arange(len(angle)))
    rows = np.interp(points[:, 1], height, np.arange(len(height)))
    at_x, at_z = (map_coordinates(plane, [rows, columns], order=1) for plane in (x, z))
    return at_x, points[:, 1], at_z
