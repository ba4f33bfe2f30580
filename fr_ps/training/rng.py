"""Every global source of random numbers, as state that can be stored."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor


def rng_tensors() -> dict[str, Tensor]:
    """The states of torch's generators: of the CPU, and of every GPU that was used."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states |= {f"cuda.{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def rng_values() -> dict[str, Any]:
    """The states of Python's and numpy's global generators, as JSON holds them."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    version, numbers, next_gauss = random.getstate()
    return {
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, gauss],
        "python": [version, list(numbers), next_gauss],
    }


def restore_rng(tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Put all generators into the states that `rng_tensors` and `rng_values` gave; one that is not here is left out."""
    torch.set_rng_state(tensors["cpu"])
    if torch.cuda.is_available():
        for name, state in tensors.items():
            if name.startswith("cuda.") and int(name[5:]) < torch.cuda.device_count():
                torch.cuda.set_rng_state(state, int(name[5:]))
    if "mps" in tensors and torch.backends.mps.is_available():
        torch.mps.set_rng_state(tensors["mps"])
    name, keys, position, has_gauss, gauss = values["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, numbers, next_gauss = values["python"]
    random.setstate((version, tuple(numbers), next_gauss))
