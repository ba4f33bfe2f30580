"""Weights from gradients: what comes to the shared maps, against torchjd on the whole Jacobian and against theory."""

import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import quadprog
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchjd import aggregation
from torchjd.linalg import QuadprogProjector

from fr_ps.losses.gradient_weighting import GradientWeighting, gradient_method
from fr_ps.models.layers import reverse_gradient

# Name to torchjd's own aggregation of a Jacobian, for the sum of the losses.
OF_JACOBIANS: dict[str, Callable[[Tensor], Tensor]] = {
    "upgrad": lambda rows: len(rows) * aggregation.UPGrad(projector=QuadprogProjector(reg_eps=1e-14))(rows),
    "pcgrad": aggregation.PCGrad(),
    "cagrad": lambda rows: len(rows) * aggregation.CAGrad(0.5, norm_eps=1e-8)(rows),
    "mgda": lambda rows: len(rows) * aggregation.MGDA(epsilon=1e-12, max_iters=5000)(rows),
    "aligned_mtl": lambda rows: len(rows) * aggregation.AlignedMTL()(rows),
}
every_method = pytest.mark.parametrize("name", OF_JACOBIANS)


def build(name: str, tasks: str = "abc", c: float = 0.5, **adversarial: float) -> GradientWeighting:
    return GradientWeighting(dict.fromkeys(tasks, 1.0), adversarial, gradient_method(name, c))


class Network(nn.Module):
    """Two backbones, and on their maps tasks that share layers with each other, and an adversary, in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbones = nn.ModuleList([nn.Linear(4, 10), nn.Linear(4, 6)])
        self.between = nn.Linear(16, 8)
        self.heads = nn.ModuleDict({task: nn.Linear(8, 3) for task in "abcd"})
        self.double()
        self.x = torch.randn(5, 4, dtype=torch.float64)

    def run(self) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Shared maps and losses, that of a 30 times as large and against that of b, and d the adversary's."""
        maps = [backbone(self.x).view(5, -1, 2) for backbone in self.backbones]
        features = self.between(torch.cat([one.flatten(1) for one in maps], dim=1)).tanh()
        out = {task: head(reverse_gradient(features, 0.3) if task == "d" else features) for task, head in self.heads.items()}
        losses = {task: (value - 1).square().mean() for task, value in out.items()}
        losses["a"] = 30 * (features - 1).square().mean() + losses["a"]
        losses["b"] = (features + 1).square().mean() + losses["b"]
        return maps, losses


@st.composite
def jacobians(draw: st.DrawFn) -> Tensor:
    """Up to six gradients in few dimensions, so that they are often dependent, and of very different lengths."""
    rows = draw(st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=1, max_size=6))
    lengths = draw(st.lists(st.integers(-4, 0), min_size=len(rows), max_size=len(rows)))
    return torch.tensor(rows, dtype=torch.float64) * 10.0 ** torch.tensor(lengths)[:, None]


def at_maps(total: Tensor, maps: list[Tensor]) -> Tensor:
    """What `backward` of the total brings to the maps."""
    for one in maps:
        one.retain_grad()
    total.backward()
    return torch.cat([one.grad.flatten() for one in maps if one.grad is not None])


def projected(vector: Tensor, rows: Tensor) -> Tensor:
    """The nearest vector to `vector` that has no negative product with a row, by quadprog."""
    found = quadprog.solve_qp(np.eye(len(vector)), vector.numpy(), rows.T.numpy(), np.zeros(len(rows)))[0]
    return torch.from_numpy(found)


def flat_gradient(loss: Tensor, maps: list[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, maps, retain_graph=True)])


@every_method
def test_the_maps_get_the_combination_of_torchjd_and_the_gradient_of_the_adversaries(name: str) -> None:
    network, weighting = Network(), build(name, d=0.1).double()
    maps, losses = network.run()
    rows = torch.stack([flat_gradient(losses[task], maps) for task in "abc"])
    assert (rows @ rows.T).min() < 0  # there is a conflict
    torch.manual_seed(1)
    direction = OF_JACOBIANS[name](rows)
    shorter = min(1.0, float(direction.norm() / rows.sum(dim=0).norm()))
    adversary = 0.1 * shorter * projected(flat_gradient(losses["d"], maps), rows)
    torch.manual_seed(1)
    got = at_maps(weighting(losses, maps), maps)
    torch.testing.assert_close(got, direction + adversary, rtol=1e-6, atol=1e-12)
    weights = torch.stack([weighting.weights()[task] for task in "abc"])
    torch.testing.assert_close(weights @ rows, got - adversary, rtol=1e-6, atol=1e-12)
    assert weighting.weights()["d"] == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["fixed", *OF_JACOBIANS])
def test_adversaries_are_never_stronger_against_the_tasks_than_with_fixed_weights(name: str) -> None:
    """A combination can be as short as the shortest gradient: an adversary at its full length would outweigh it.

    Against b it pulls with -3, which is left out; nothing conflicts with the rest of it.
    """
    rows = torch.tensor([[30.0, 0, 0], [0, 2, 0], [-3, 0, 1]], dtype=torch.float64)
    adversary = torch.tensor([0.0, -3, 4], dtype=torch.float64)
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    method = (lambda gramian: torch.ones_like(gramian[0])) if name == "fixed" else gradient_method(name, 0.5)
    weighting = GradientWeighting(dict.fromkeys("abc", 1.0), {"d": 2.0}, method).double()
    torch.manual_seed(0)
    weighting(dict(zip("abcd", [*(rows @ x), adversary @ x])), [x]).backward()
    direction = torch.stack([weighting.weights()[task] for task in "abc"]) @ rows
    shorter = float(direction.norm() / rows.sum(dim=0).norm())
    assert (shorter < 0.2) == (name in {"mgda", "aligned_mtl"})
    rest = torch.tensor([0.0, 0, 4], dtype=torch.float64)
    torch.testing.assert_close(x.grad, direction + 2 * min(shorter, 1) * rest)


@every_method
@settings(deadline=None, max_examples=40)
@given(rows=jacobians(), adversary=st.lists(st.integers(-100, 100), min_size=3, max_size=3), weight=st.floats(0, 1e3))
def test_with_adversaries_every_loss_falls_as_without_them_or_more(
    name: str, rows: Tensor, adversary: list[int], weight: float
) -> None:
    def gradient(constant: float) -> Tensor:
        torch.manual_seed(0)
        x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        tasks = [str(index) for index in range(len(rows))]
        weighting = GradientWeighting(dict.fromkeys(tasks, 1.0), {"adversarial": constant}, gradient_method(name, 0.5)).double()
        losses = dict(zip(tasks, rows @ x)) | {"adversarial": torch.tensor(adversary, dtype=torch.float64) @ x}
        weighting(losses, [x]).backward()
        assert x.grad is not None
        return x.grad

    gained = rows @ (gradient(weight) - gradient(0.0)) / rows.norm(dim=1).clamp_min(1e-30)
    assert gained.min() >= -1e-7 * max(1.0, weight) * 100


@every_method
def test_parameters_after_the_maps_and_the_total_are_as_with_fixed_weights(name: str) -> None:
    network = Network()
    maps, losses = network.run()
    weighting = GradientWeighting({"a": 0.5, "b": 2.0, "c": 1.0}, {"d": 0.1}, gradient_method(name, 0.5))
    total = weighting(losses, maps)
    plain = 0.5 * losses["a"] + 2 * losses["b"] + losses["c"] + 0.1 * losses["d"]
    behind = [*network.between.parameters(), *network.heads.parameters()]
    torch.testing.assert_close(total, plain, rtol=1e-12, atol=0)
    expected = torch.autograd.grad(plain, behind, retain_graph=True)
    for got, wanted in zip(torch.autograd.grad(total, behind, retain_graph=True), expected):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-15)
    before = list(network.backbones.parameters())
    changed = [
        not torch.allclose(got, wanted, rtol=1e-3)
        for got, wanted in zip(torch.autograd.grad(total, before, retain_graph=True), torch.autograd.grad(plain, before))
    ]
    assert all(changed)


@pytest.mark.parametrize("name", ["upgrad", "pcgrad"])
def test_without_conflicts_the_weights_are_the_constant_ones(name: str) -> None:
    x = torch.zeros(3, requires_grad=True)
    weighting = GradientWeighting({"a": 2.0, "b": 3.0}, {}, gradient_method(name, 0.5))
    weighting({"a": x[0] + x[1], "b": x[0] + 5 * x[2]}, [x]).backward()
    torch.testing.assert_close(x.grad, torch.tensor([5.0, 2.0, 15.0]))
    assert {task: float(weight) for task, weight in weighting.weights().items()} == pytest.approx({"a": 2, "b": 3}, rel=1e-6)


@every_method
def test_gradients_that_are_equally_long_and_orthogonal_weigh_1_each_as_in_a_sum(name: str) -> None:
    weights = gradient_method(name, 0.5)(7 * torch.eye(5, dtype=torch.float64))
    torch.testing.assert_close(weights, torch.full((5,), 1.5 if name == "cagrad" else 1.0, dtype=torch.float64))


def falls(method: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """By how much each loss, of these (tasks, values) gradients at 0 and a curvature of 1, falls with a small step."""
    x = torch.zeros(rows.shape[1], dtype=rows.dtype, requires_grad=True)
    tasks = [str(index) for index in range(len(rows))]
    weighting = GradientWeighting(dict.fromkeys(tasks, 1.0), {}, method)

    def losses() -> Tensor:
        return rows @ x + x.square().sum() / 2

    before = losses().detach()
    shared = x * 1
    weighting(dict(zip(tasks, rows @ shared + shared.square().sum() / 2)), [shared]).backward()
    assert x.grad is not None
    with torch.no_grad():
        x -= 1e-6 * x.grad
    return before - losses().detach()


def two(angle: float, ratio: float) -> Tensor:
    """(2, 2) gradients that many degrees apart, the first that many times as long."""
    turn = math.radians(angle)
    return torch.tensor([[ratio, 0.0], [math.cos(turn), math.sin(turn)]], dtype=torch.float64)


def both_fall(name: str, angle: float, ratio: float, c: float) -> bool:
    """Whether the loss of the shorter gradient falls according to the theory; the other one always does.

    fixed: it goes along the sum. CAGrad: the nearest direction along which the shorter one's loss falls lies -cos of its
    angle to the sum away from it, in lengths of the sum, and c must reach beyond. Aligned-MTL: by the root of a 2 x 2
    matrix, G^(1/2) = (G + sqrt(det G)) / t, whose row of the shorter gradient must have a positive sum.
    """
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    along_sum = 1 + ratio * cosine
    if name == "fixed":
        return along_sum > 0
    if name == "cagrad":
        return c > -along_sum / math.sqrt(1 + ratio**2 + 2 * ratio * cosine)
    return name != "aligned_mtl" or 1 + ratio * (cosine + sine) > 0


@pytest.mark.parametrize("ratio", [1.0, 1.5, 5.0, 100.0])
@pytest.mark.parametrize("angle", [100, 120, 134, 136, 150, 170])
@pytest.mark.parametrize("name", ["fixed", *OF_JACOBIANS])
def test_two_conflicting_losses_both_fall_where_the_theory_predicts_it(name: str, angle: float, ratio: float) -> None:
    method = (lambda gramian: torch.ones_like(gramian[0])) if name == "fixed" else gradient_method(name, 0.5)
    fell = falls(method, two(angle, ratio))
    assert bool((fell > 0).all()) is both_fall(name, angle, ratio, 0.5)
    assert fell.sum() > 0  # which all of them promise


def test_the_theory_predicts_different_results_for_the_weightings() -> None:
    """Else the test above would show little."""
    assert not both_fall("fixed", 120, 5, 0.5)
    assert both_fall("cagrad", 120, 5, 0.5)
    assert not both_fall("cagrad", 150, 100, 0.5)
    assert both_fall("aligned_mtl", 134, 100, 0.5)
    assert not both_fall("aligned_mtl", 150, 100, 0.5)


@pytest.mark.parametrize(("c", "both"), [(0.0, False), (0.7, False), (0.88, True)])
def test_the_constant_of_cagrad_determines_whether_both_losses_fall(c: float, both: bool) -> None:
    assert both_fall("cagrad", 150, 100, c) is both
    assert bool((falls(gradient_method("cagrad", c), two(150, 100)) > 0).all()) is both


def conflicting(seed: int, longest: float, tasks: int = 6) -> Tensor:
    """(tasks, 30) gradients that pull to two sides, the first `longest` times as long as the others."""
    generator = torch.Generator().manual_seed(seed)
    sides = torch.randn(tasks, 1, generator=generator).sign() * torch.randn(1, 30, generator=generator)
    rows = nn.functional.normalize(torch.randn(tasks, 30, generator=generator) + sides)
    rows[0] *= longest
    return rows.double()


@pytest.mark.parametrize("longest", [1.0, 100.0])
@pytest.mark.parametrize("name", ["upgrad", "mgda"])
def test_no_loss_of_many_rises(name: str, longest: float) -> None:
    """Longer ones, and those that conflict more: see the tests of the solvers."""
    for seed in range(30):
        rows = conflicting(seed, longest)
        direction = gradient_method(name, 0.5)(rows @ rows.T) @ rows
        assert (nn.functional.cosine_similarity(rows, direction[None]) > -1e-6).all()


@pytest.mark.parametrize("name", ["cagrad", "aligned_mtl"])
def test_the_sum_of_many_losses_falls(name: str) -> None:
    for seed in range(30):
        rows = conflicting(seed, 5.0)
        direction = gradient_method(name, 0.5)(rows @ rows.T) @ rows
        assert rows.sum(dim=0) @ direction > 0


@every_method
@settings(deadline=None, max_examples=60)
@given(rows=jacobians(), exponent=st.integers(-40, 30))
def test_weights_are_finite_for_any_gradients_and_independent_of_their_common_scale(
    name: str, rows: Tensor, exponent: int
) -> None:
    directions = []
    for factor in (1.0, 2.0**exponent):  # by which numbers scale exactly
        torch.manual_seed(0)
        x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        tasks = [str(index) for index in range(len(rows))]
        weighting = GradientWeighting(dict.fromkeys(tasks, 1.0), {}, gradient_method(name, 0.5)).double()
        weighting(dict(zip(tasks, factor * rows @ x)), [x]).backward()
        assert all(torch.isfinite(weight) for weight in weighting.weights().values())
        assert x.grad is not None
        directions.append(x.grad / factor)
    assert torch.equal(*directions)


@every_method
def test_a_task_without_a_loss_in_the_batch_has_no_effect_and_keeps_its_weight(name: str) -> None:
    network, weighting = Network(), build(name, d=0.1).double()
    maps, losses = network.run()
    torch.manual_seed(1)
    weighting({task: losses[task] for task in "adb"}, maps).backward()
    rows = torch.stack([flat_gradient(loss, again) for again, made in [network.run()] for loss in (made["a"], made["b"])])
    torch.manual_seed(1)
    expected = OF_JACOBIANS[name](rows)
    got = weighting.weights()
    torch.testing.assert_close(got["a"] * rows[0] + got["b"] * rows[1], expected, rtol=1e-6, atol=1e-12)
    assert got["c"] == 1
    assert network.heads["c"].weight.grad is None


@every_method
def test_the_map_of_a_frozen_branch_has_no_effect(name: str) -> None:
    network = Network()
    network.backbones[0].requires_grad_(False)
    network.x.requires_grad_(False)
    maps = [backbone(network.x) for backbone in network.backbones]
    losses = {task: (sum(one.sum(dim=1) for one in maps) - index).square().mean() for index, task in enumerate("abc")}
    (gradient,) = torch.autograd.grad(build(name)(losses, maps), [maps[1]], retain_graph=True)
    torch.manual_seed(0)
    rows = torch.stack([torch.autograd.grad(losses[task], maps[1], retain_graph=True)[0].flatten() for task in "abc"])
    assert torch.isfinite(gradient).all()
    assert torch.linalg.matrix_rank(torch.cat([rows, gradient.flatten()[None]])) == torch.linalg.matrix_rank(rows)


@every_method
@pytest.mark.parametrize("maps", [[], [torch.zeros(2)]], ids=["outside training", "all frozen"])
def test_without_a_map_that_learns_the_total_is_the_plain_sum(name: str, maps: list[Tensor]) -> None:
    losses = {task: torch.tensor(value, requires_grad=True) for task, value in {"a": 3.0, "b": 5.0, "d": 7.0}.items()}
    weighting = build(name, d=0.1)
    total = weighting(losses, maps)
    total.backward()
    assert total.item() == pytest.approx(8.7)
    assert [float(loss.grad) for loss in losses.values() if loss.grad is not None] == pytest.approx([1, 1, 0.1])
    assert all(float(weighting.weights()[task]) == 1 for task in "abc")


@every_method
def test_a_loss_without_a_gradient_leaves_the_other_gradients(name: str) -> None:
    """Left in, MGDA would give it all the weight."""
    x = torch.zeros(3, requires_grad=True)
    weighting = build(name)
    weighting({"a": x[0] + x[1], "b": 0 * x.sum(), "c": x[2]}, [x]).backward()
    assert x.grad is not None
    assert (x.grad > 0.1).all()


@every_method
def test_a_single_loss_keeps_its_own_gradient(name: str) -> None:
    x = torch.zeros(3, requires_grad=True)
    build(name)({"b": x[0] + 2 * x[1]}, [x]).backward()
    direction = torch.tensor([1.0, 2.0, 0.0])
    torch.testing.assert_close(x.grad, direction * (1.5 if name == "cagrad" else 1))


@every_method
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_nonfinite_gradient_makes_all_nonfinite(name: str, value: float) -> None:
    """No solver runs, and the gradient of the step shows the failure."""
    x = torch.ones(3, requires_grad=True)
    weighting = build(name)
    weighting({"a": x.sum(), "b": (value * x).sum(), "c": x[0]}, [x]).backward()
    assert x.grad is not None
    assert not torch.isfinite(x.grad).any()
    assert all(torch.isfinite(buffer).all() for buffer in weighting.buffers())


@every_method
def test_half_precision_maps_get_the_combination_in_their_precision(name: str) -> None:
    network = Network().float()
    network.x = network.x.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps, losses = network.run()
    assert maps[0].dtype == torch.bfloat16
    rows = torch.stack([flat_gradient(losses[task], maps).float() for task in "abc"])
    weighting = build(name, d=0.0)
    got = at_maps(weighting(losses, maps), maps).float()
    expected = torch.stack([weighting.weights()[task] for task in "abc"]) @ rows
    torch.testing.assert_close(got, expected, rtol=0, atol=0.02 * rows.abs().max().item())


def test_the_reported_weight_is_the_mean_over_the_steps_of_the_epoch_with_the_task() -> None:
    weighting = build("mgda", tasks="ab", d=0.1)

    def step(first: float, second: float | None) -> None:
        x = torch.zeros(2, requires_grad=True)
        losses = {"a": first * x[0]} | ({"b": second * x[1]} if second else {})
        weighting(losses, [x])

    def weights() -> list[float]:
        return [float(weighting.weights()[task]) for task in "ab"]

    assert weights() == [1, 1]
    step(1.0, 2.0)
    assert weights() == pytest.approx([1.6, 0.4])  # 2 / (1 + 4) of the squared lengths 4 and 1
    step(1.0, 1.0)
    assert weights() == pytest.approx([1.3, 0.7])
    step(1.0, None)
    assert weights() == pytest.approx([3.6 / 3, 0.7])
    weighting.end_epoch({"a": 1.0, "b": 1.0})
    assert weights() == pytest.approx([1.2, 0.7])
    step(2.0, 1.0)
    assert weights() == pytest.approx([0.4, 1.6])


def test_pcgrad_uses_the_global_seed_and_does_not_set_it() -> None:
    rows = conflicting(0, 10.0)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(gradient_method("pcgrad", 0.5)(rows @ rows.T))
        assert torch.initial_seed() == seed
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_torchjd_and_its_solvers_are_imported_only_where_they_are_used() -> None:
    code = "import fr_ps.losses, sys; sys.exit('torchjd' in sys.modules or 'cvxpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
