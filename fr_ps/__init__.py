"""Multi-task face recognition on photometric-stereo maps (albedo, surface normals, depth)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fr_ps.serving.gallery import Gallery
    from fr_ps.serving.recognizer import Recognizer

__version__ = "0.1.0"


def load(model: str, device: str = "auto") -> "Recognizer":
    """The model that MODEL names, ready to answer: `embed`, `verify`, `identify`, `attributes`.

    MODEL is a run's id, `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or a model folder. No code runs from what is loaded.

    Args:
        model: its name.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        InputError: there is no such model, it is damaged or of a newer format, or there is no such device.
    """
    from fr_ps.serving.load import load as load_recognizer  # torch is needed from here on

    return load_recognizer(model, device)


def read_gallery(folder: str) -> "Gallery":
    """The gallery in `folder`, as `fr-ps enroll` made it, for `identify`.

    Raises:
        InputError: there is none, it is damaged, or of a newer format.
    """
    from pathlib import Path

    from fr_ps.serving.gallery import read_gallery as read

    return read(Path(folder))
