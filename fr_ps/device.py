"""Selects the torch device and the precision of the training."""

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


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The data type of the forward pass in training: float32 or bfloat16.

    `auto` is bfloat16 where the device has instructions for it: a GPU of compute capability 8.0 or higher, or a processor with
    AVX512-BF16 or AMX. Without them it is slower than float32.
    """
    if name == "auto":
        name = "bfloat16" if _computes_bfloat16(device) else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def _computes_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
