"""Where to compute."""

import torch

from fr_ps.errors import InputError


def pick_device(name: str) -> torch.device:
    """The device that a setting names; `auto` takes a GPU where there is one.

    Raises:
        InputError: there is no such device here.
    """
    have = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if have[kind]))
    if not have.get(name):
        raise InputError(
            f"device is {name!r}, which is not here; expected auto or one of {', '.join(kind for kind in have if have[kind])}"
        )
    return torch.device(name)
