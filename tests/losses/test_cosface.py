"""CosFace against its formula."""

import math

import numpy as np
import pytest
import torch

from fr_ps.losses.margin import CosFace


def test_the_logits_are_those_of_the_formula_of_the_paper() -> None:
    torch.manual_seed(0)
    loss = CosFace(8, 5, scale=30, margin=0.35)
    x, people = 20 * torch.randn(6, 8), np.array([0, 1, 2, 3, 4, 0])
    weight = loss.weight.detach().double().numpy()
    terms = []
    for vector, person in zip(x.double().numpy(), people):
        cosines = [float(vector @ row) / math.sqrt(float(vector @ vector) * float(row @ row)) for row in weight]
        others = sum(math.exp(30 * cosine) for index, cosine in enumerate(cosines) if index != person)
        true = math.exp(30 * (cosines[person] - 0.35))
        terms.append(-math.log(true / (true + others)))
    assert loss(x, torch.from_numpy(people)).item() == pytest.approx(np.mean(terms), rel=1e-5)
