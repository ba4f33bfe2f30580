"""The camera of the synthetic faces: framing, pose and scale, and the projection of the head to pixels."""

from dataclasses import dataclass

import numpy as np

_CENTER_HEIGHT = -0.10
_BACKGROUND_Z = -0.1


@dataclass(frozen=True)
class Framing:
    """How a data set frames its faces. Lengths are in head units (see faces.py); variation is normal around zero.

    Attributes:
        half_picture: half the side of the picture.
        half_height: extent of the modelled head above and below the middle.
        roll: standard deviation in radians.
        shift: standard deviation of the middle, in each direction.
        scale: standard deviation of the logarithm of the size.
        limit: largest deviation of these three, in standard deviations.
        rigid: whether roll is a rotation; else two shears, which equal a rotation to second order in the angle.
    """

    half_picture: float
    half_height: float
    roll: float
    shift: float
    scale: float
    limit: float
    rigid: bool


CLOSE = Framing(0.95, 1.2, float(np.radians(2.0)), 0.015, 0.02, np.inf, rigid=False)
"""Cropped faces, with little variation; roll is so small that two shears suffice."""
WIDE = Framing(1.35, 2.0, float(np.radians(6.0)), 0.08, 0.06, 2.0, rigid=True)
"""The whole head, as a rig records it without alignment."""


@dataclass(frozen=True)
class View:
    """The camera of one session, for a picture of `size` x `size` pixels of `pixel` head units each.

    A point of the head is rotated about the vertical axis by `yaw`, then by the roll, then by `pitch` (radians). `roll` is the
    sine and the cosine of the roll: (angle, 1) gives the two shears. Then it is translated by the shifts and scaled by `scale`.
    """

    framing: Framing
    size: int
    yaw: float
    pitch: float
    roll: tuple[float, float]
    shift_x: float
    shift_y: float
    scale: float

    @property
    def pixel(self) -> float:
        """Head units per pixel, before `scale`."""
        return 2 * self.framing.half_picture / self.size

    def surface_grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Ascending angles and heights of a grid on the head, as fine as the pixels of the picture."""
        # Uniform across the picture for a round head.
        across = np.linspace(-0.999, 0.999, int(2.2 / self.pixel))
        height = _CENTER_HEIGHT + np.arange(-self.framing.half_height, self.framing.half_height, self.pixel)
        return np.arcsin(across) - self.yaw, height

    def render_maps(self, x: np.ndarray, z: np.ndarray, albedo: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Depth in head units and albedo in the picture, (size, size) each, row 0 on top.

        Args:
            x: (R, C) of the head's surface over `height` (R,) and ascending angle, like `z` and `albedo`.
        """
        size, (roll_sin, roll_cos) = self.size, self.roll
        grid = (np.arange(size) - (size - 1) / 2) * self.pixel / self.scale
        seen_x, seen_z = self._apply_yaw(x, z)
        # A protruding part occludes the surface behind it, on the side to which the head turns.
        if self.yaw >= 0:
            seen_x = np.maximum.accumulate(seen_x, axis=1)
        else:
            seen_x = np.minimum.accumulate(seen_x[:, ::-1], axis=1)[:, ::-1]
        turned = np.empty((2, len(height), size))
        for row, v in enumerate(height):
            line = roll_cos * seen_x[row] + roll_sin * v
            turned[0, row] = np.interp(grid + self._center_x(), line, seen_z[row], left=_BACKGROUND_Z, right=_BACKGROUND_Z)
            turned[1, row] = np.interp(grid + self._center_x(), line, albedo[row])

        nodded_y = np.maximum.accumulate(self._apply_pitch(height[:, None], turned[0], grid), axis=0)
        nodded_z = turned[0] * np.cos(self.pitch) - height[:, None] * np.sin(self.pitch)
        target_y = grid[::-1] + _CENTER_HEIGHT - self.shift_y
        picture = np.empty((2, size, size))
        for column in range(size):
            picture[0, :, column] = np.interp(target_y, nodded_y[:, column], nodded_z[:, column])
            picture[1, :, column] = np.interp(target_y, nodded_y[:, column], turned[1, :, column])
        return picture[0], picture[1]

    def project(self, x: np.ndarray, height: np.ndarray, z: np.ndarray) -> np.ndarray:
        """(n, 2) positions of points (n,) of the head: x right, y down in pixels from the picture's top left corner."""
        roll_sin, roll_cos = self.roll
        seen_x, seen_z = self._apply_yaw(x, z)
        right = roll_cos * seen_x + roll_sin * height - self._center_x()
        up = self._apply_pitch(height, seen_z, right) - _CENTER_HEIGHT + self.shift_y
        return self.size / 2 + np.stack([right, -up], axis=-1) * (self.scale / self.pixel)

    def _apply_yaw(self, x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sin, cos = np.sin(self.yaw), np.cos(self.yaw)
        return x * cos + z * sin, z * cos - x * sin

    def _center_x(self) -> float:
        """x of the picture's middle: between the features of a turned head and its axis, like the centre of a face crop."""
        return 0.45 * np.sin(self.yaw) - self.shift_x

    def _apply_pitch(self, height: np.ndarray, z: np.ndarray, right: np.ndarray) -> np.ndarray:
        roll_sin, roll_cos = self.roll
        return height * (np.cos(self.pitch) / roll_cos) + z * np.sin(self.pitch) - roll_sin / roll_cos * right


def sample_view(framing: Framing, yaw: float, size: int, rng: np.random.Generator) -> View:
    """A random view of a head that is turned by `yaw`."""

    def sample(spread: float) -> float:
        return float(np.clip(rng.normal(0, spread), -framing.limit * spread, framing.limit * spread))

    pitch = float(rng.normal(0, np.radians(2.5)))
    roll = sample(framing.roll)
    return View(
        framing=framing,
        size=size,
        yaw=yaw,
        pitch=pitch,
        roll=(float(np.sin(roll)), float(np.cos(roll))) if framing.rigid else (roll, 1.0),
        shift_x=sample(framing.shift),
        shift_y=sample(framing.shift),
        scale=float(np.exp(sample(framing.scale))),
    )
