"""The device of the computation."""

import torch

from fr_ps.errors import InputError


def pick_device(name: str) -> torch.device:
    """The torch device `name`; `auto` takes a GPU if there is one.

    Raises:
        InputError: this machine has no such device.
    """
    have = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if have[kind]))
    if not have.get(name):
        raise InputError(
            f"device is {name!r}, not available; expected auto or one of {', '.join(kind for kind in have if have[kind])}"
        )
    return torch.device(name)
