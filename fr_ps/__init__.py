"""Multi-task face recognition on photometric-stereo maps (albedo, surface normals, depth)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fr_ps.serving.gallery import Gallery
    from fr_ps.serving.recognizer import Recognizer

__version__ = "0.1.0"


def load(model: str, device: str = "auto", engine: str | None = None) -> "Recognizer":
    """Load a model as a recognizer with `embed`, `verify`, `identify` and `attributes`.

    Loading reads weights and settings; it executes no code from the model.

    Args:
        model: run id, `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or model folder.
        device: `auto`, `cpu`, `cuda` or `mps`; `auto` is the CPU with ONNX.
        engine: `torch`, or `onnx` for ONNX Runtime, which is faster on a CPU; None: the environment variable
            `FR_PS_ENGINE`, else `torch`.

    Raises:
        InputError: there is no such model, device or engine, or the model is damaged or of a newer format; with `onnx` also
            if its packages are not installed, or its outputs differ from those of torch.
    """
    from fr_ps.serving.recognizer import load_recognizer  # imports torch

    return load_recognizer(model, device, engine)


def read_gallery(folder: str) -> "Gallery":
    """Read the gallery in `folder`, written by `fr-ps enroll`, for `identify`.

    Raises:
        InputError: it is missing, damaged, or of a newer format.
    """
    from pathlib import Path

    from fr_ps.serving.gallery import read_gallery as read

    return read(Path(folder))
