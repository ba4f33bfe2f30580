"""Selects the torch device and the precision of the training."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fr_ps.errors import InputError

_FLOAT32_PRODUCTS: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
"""torch's options of matrix products and convolutions on a GPU. Only their `allow_tf32` is used: torch.export reads it, and
reading it raises an error once the newer `fp32_precision` is set."""


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


def process_device(name: str) -> torch.device:
    """The torch device `name` for this process. With several processes on this machine, each gets a GPU of its own.

    Raises:
        InputError: there is no such device, or more processes than GPUs.
    """
    device, number = pick_device(name), int(os.environ.get("LOCAL_RANK") or 0)
    if device.type == "mps" and int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise InputError("device is 'mps', which several processes cannot share; expected cpu: give --device cpu")
    if device.type != "cuda":
        return device
    if number >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise InputError(f"process {number + 1} of this machine has no GPU: it has {count}; start at most {count} on it")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The data type of the forward pass in training: float32, bfloat16 or float16.

    `auto` is bfloat16 where the device has instructions for it: a GPU of compute capability 8.0 or higher, or a processor with
    AVX512-BF16 or AMX. Without them bfloat16 is slower than float32. On an older GPU `auto` is float16, else float32.
    """
    if name == "auto":
        name = "bfloat16" if _computes_bfloat16(device) else "float16" if device.type == "cuda" else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def configure_device(device: torch.device, precision: torch.dtype, *, deterministic: bool) -> None:
    """Set torch's global options for a training.

    In a float32 training, convolutions and matrix products on a GPU use full float32. In other precisions, the few that remain in
    float32 use TF32. Without `deterministic`, cuDNN chooses the fastest algorithm for each shape by measurement.

    Args:
        device: of the training.
        precision: of its forward pass.
        deterministic: only algorithms with reproducible results, also on a GPU.
    """
    for products in _FLOAT32_PRODUCTS:
        products.allow_tf32 = precision != torch.float32
    torch.backends.cudnn.benchmark = device.type == "cuda" and not deterministic
    torch.backends.cudnn.deterministic = deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(deterministic)


@contextmanager
def full_float32() -> Iterator[None]:
    """Matrix products and convolutions in full float32: not in TF32, even if the training of this process allows it."""
    before = [products.allow_tf32 for products in _FLOAT32_PRODUCTS]
    for products in _FLOAT32_PRODUCTS:
        products.allow_tf32 = False
    try:
        yield
    finally:
        for products, value in zip(_FLOAT32_PRODUCTS, before):
            products.allow_tf32 = value


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on a device. The CPU does not wait for a copy from pinned memory to a CUDA GPU.

    On MPS it waits, since an asynchronous copy there would read the source after it is freed.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


def _computes_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
