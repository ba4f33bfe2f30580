"""Multi-task face recognition on photometric-stereo maps (albedo, surface normals, depth)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fr_ps.serving.gallery import Gallery
    from fr_ps.serving.recognizer import Recognizer

__version__ = "0.1.0"


def load(model: str, device: str = "auto") -> "Recognizer":
    """Load MODEL as a recognizer with `embed`, `verify`, `identify` and `attributes`.

    MODEL is a run id, `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or a model folder. No code of the model runs.

    Args:
        model: MODEL.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        InputError: there is no such model or device, or the model is damaged or of a newer format.
    """
    from fr_ps.serving.recognizer import load_recognizer  # imports torch

    return load_recognizer(model, device)


def read_gallery(folder: str) -> "Gallery":
    """Read the gallery in `folder`, written by `fr-ps enroll`, for `identify`.

    Raises:
        InputError: it is missing, damaged, or of a newer format.
    """
    from pathlib import Path

    from fr_ps.serving.gallery import read_gallery as read

    return read(Path(folder))
