"""From the decoded values of a picture to light: black level, response curve, ambient light, intensity by colour channel."""

import math
from dataclasses import dataclass

import numpy as np

from fr_ps.errors import InputError
from fr_ps.photometric.images import DecodedImage, weigh_channels


@dataclass(frozen=True)
class CameraResponse:
    """How stored values grow with the light.

    Attributes:
        black_level: stored value without light.
        curve: `linear`, `srgb`, or the gamma g as text: the light is the stored share of the white level to the power g.
    """

    black_level: int = 0
    curve: str = "linear"

    @property
    def is_identity(self) -> bool:
        """Whether stored values are proportional to the light."""
        return self.black_level == 0 and self.curve == "linear"

    def to_light(self, picture: DecodedImage) -> np.ndarray:
        """The light in each channel, (H, W) or (H, W, 3) float32 of at least 0, 1 being the white level, which clips.

        sRGB: IEC 61966-2-1. Files of floats without a white level are not clipped.

        Raises:
            InputError: the black level is not below the white level.
        """
        black = self.black_level * picture.scale
        if black >= picture.white:
            white = picture.stored(picture.white)
            raise InputError(f"black_level is {self.black_level}; expected less than the white level, {white}")
        light = picture.values.astype(np.float32)
        light -= np.float32(black)
        if math.isfinite(picture.white):
            light /= np.float32(picture.white - black)
        np.clip(light, 0, picture.white / picture.unit, out=light)
        if self.curve == "srgb":
            return np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4).astype(np.float32)
        return light if self.curve == "linear" else np.power(light, np.float32(float(self.curve)), out=light)


def linear_luminance(
    picture: DecodedImage, response: CameraResponse, ambient: np.ndarray | None, intensity: np.ndarray | None
) -> np.ndarray:
    """(H, W) float32: the luminance of the light of one picture.

    Args:
        picture: as decoded.
        response: of the camera.
        ambient: the light of a picture without the lights, from `to_light`, which is subtracted; None: no ambient light.
        intensity: (3,) of the light in red, green and blue, or (1,) for a grey picture, by which each channel is divided;
            None: 1.
    """
    if response.is_identity and ambient is None and intensity is None:
        return picture.luminance
    light = response.to_light(picture)
    if ambient is not None:
        light = np.maximum(light - _match_channels(ambient, light.ndim), 0)
    if intensity is not None:
        light = light / intensity.astype(np.float32)
    return light if light.ndim == 2 else weigh_channels(light)


def _match_channels(ambient: np.ndarray, dimensions: int) -> np.ndarray:
    """`ambient` with or without an axis of channels."""
    if ambient.ndim == dimensions:
        return ambient
    return ambient[..., None] if dimensions == 3 else weigh_channels(ambient)
