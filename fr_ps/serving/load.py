"""From a model's name to an object that answers."""

from fr_ps.device import pick_device
from fr_ps.serving.recognizer import Recognizer
from fr_ps.tracking.resolve import resolve_model


def load(model: str, device: str = "auto") -> Recognizer:
    """The recognizer that MODEL names: a run, `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or a model folder.

    Only numbers and settings are read; no code runs from what is loaded.

    Args:
        model: its name.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        InputError: there is no such model, it is damaged or of a newer format, or there is no such device.
    """
    return Recognizer(resolve_model(str(model)), pick_device(device))
