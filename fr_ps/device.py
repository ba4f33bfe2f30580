"""Selects the torch device."""

import torch

from fr_ps.errors import InputError


def pick_device(name: str) -> torch.device:
    """The torch device `name`; `auto`: CUDA if available, else MPS, else the CPU.

    Raises:
        InputError: this machine has no such device.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if available[kind]))
    if not available.get(name):
        raise InputError(
            f"device is {name!r}, not available; expected auto or one of {', '.join(one for one in available if available[one])}"
        )
    return torch.device(name)
