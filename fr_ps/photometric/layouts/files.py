"""What every layout of captures states about a session: its images, their lights, and where else to look."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from fr_ps.config import LightAxes
from fr_ps.tables import to_nfc


@dataclass(frozen=True)
class StatedLights:
    """The content of a file of lights.

    Attributes:
        images: names of the k images, in the order of the lights.
        lights: (k, 3) float64 unit vectors toward the lights, x right, y up, z toward the camera.
        intensities: (k,), or (k, 3) by colour channel; float64 > 0, relative to each other.
        paired_by_order: whether the file lists other names, with which the images were paired by their order.
    """

    images: list[str]
    lights: np.ndarray
    intensities: np.ndarray
    paired_by_order: bool = False


class Layout(Protocol):
    """One way in which captures are stored; a module of this package, listed in `LAYOUTS`.

    Attributes:
        COMPANIONS: names of the files that belong to the file of lights, in the same folder.
    """

    COMPANIONS: tuple[str, ...]

    def find_lights_file(self, names: Sequence[str]) -> str | None:
        """The file of lights among the names in a folder; None if the folder has none of this layout."""

    def read_lights_file(self, path: Path, names: Sequence[str], light_axes: LightAxes) -> StatedLights:
        """Read the file of lights at `path`, of a session whose folder contains `names`.

        Raises:
            InputError: the file is invalid, or does not fit the images.
        """


def match_names(stated: Sequence[str], names: Sequence[str]) -> list[str]:
    """The names on disk of the stated files: the same name, else one in another Unicode form or case; else as stated."""
    exact = set(names)
    composed = {to_nfc(name): name for name in names}
    folded = {to_nfc(name).casefold(): name for name in names}
    return [name if name in exact else composed.get(to_nfc(name)) or folded.get(to_nfc(name).casefold(), name) for name in stated]
