"""Random numbers after a restore are those that would have come."""

import json
import random

import numpy as np
import torch

from fr_ps.training.rng import restore_rng, rng_tensors, rng_values


def drawn() -> list[float]:
    return [torch.rand(3).sum().item(), torch.randn(1).item(), np.random.normal(), np.random.rand(), random.gauss(0, 1)]  # noqa: NPY002


def test_every_generator_goes_on_where_it_was_after_json() -> None:
    torch.manual_seed(3)
    np.random.seed(4)  # noqa: NPY002
    random.seed(5)
    drawn()  # an odd number of normals: the generators hold the second of a pair back
    tensors, values = rng_tensors(), json.loads(json.dumps(rng_values()))
    expected = [drawn() for _ in range(3)]
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    assert drawn() != expected[0]
    restore_rng(tensors, values)
    assert [drawn() for _ in range(3)] == expected


def test_a_gpu_that_is_not_here_is_left_out() -> None:
    tensors = rng_tensors() | {"cuda.7": torch.zeros(16, dtype=torch.uint8)}
    restore_rng(tensors, rng_values())
