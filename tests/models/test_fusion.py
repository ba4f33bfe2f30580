"""Every way to fuse against its formula, computed another way in float64, also where modalities are missing."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fr_ps.models.fusion import (
    FUSIONS,
    ClassHead,
    FullyConnected,
    GatedAttention,
    ProbabilityFusionHead,
    ScoreFusion,
    build_class_head,
)

WIDTHS = (8, 6, 8)
CHANNELS = 8
CLASSES = 3
PRESENT = torch.tensor(
    [
        [True, True, True],
        [True, False, False],
        [False, True, True],
        [False, False, True],
        [True, True, False],
        [True, False, True],
        [True, True, True],
    ]
)
ALL = torch.ones_like(PRESENT)


def embeddings(present: Tensor = ALL, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Of 7 sessions, of different norms; zero where missing."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [3 * torch.randn(len(present), width, generator=generator, dtype=torch.float64) for width in WIDTHS]
    return [array.where(present[:, [index]], 0).to(dtype) for index, array in enumerate(drawn)]


def build(name: str, widths: Sequence[int] = WIDTHS, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(3)
    return FUSIONS[name](widths, CHANNELS).to(dtype)


def state(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.double().numpy() for name, tensor in module.state_dict().items()}


def arrays(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    return [tensor.double().numpy() for tensor in tensors]


def softmax(logits: np.ndarray) -> np.ndarray:
    raw = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raw / raw.sum(axis=-1, keepdims=True)


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("widths", [(8,), (8, 6), WIDTHS])
def test_the_output_has_the_stated_width(name: str, widths: Sequence[int]) -> None:
    module = build(name, widths)
    got = module(embeddings()[: len(widths)], ALL[:, : len(widths)])
    assert got.shape == (7, module.width)
    assert module.width == (sum(widths) if name in ("concat", "score") else CHANNELS)


def test_concatenation_joins_the_embeddings_in_order() -> None:
    parts = embeddings(PRESENT)
    expected = [[*a, *b, *c] for a, b, c in zip(*(part.tolist() for part in parts))]
    assert build("concat")(parts, PRESENT).tolist() == expected


@pytest.mark.parametrize("training", [True, False])
def test_fully_connected_is_linear_then_a_norm_then_a_prelu(training: bool) -> None:
    module = build("fc").train(training)
    assert isinstance(module, FullyConnected)
    with torch.no_grad():
        module.reduce[1].running_mean.normal_()
        module.reduce[1].running_var.uniform_(0.5, 2)
        for parameter in module.parameters():
            parameter.uniform_(-1, 1)
    stored = {name: array.copy() for name, array in state(module).items()}
    x = np.concatenate(arrays(embeddings()), axis=1) @ stored["reduce.0.weight"].T
    mean = x.mean(axis=0) if training else stored["reduce.1.running_mean"]
    var = x.var(axis=0) if training else stored["reduce.1.running_var"]
    x = (x - mean) / np.sqrt(var + 1e-5) * stored["reduce.1.weight"] + stored["reduce.1.bias"]
    expected = np.maximum(x, 0) + stored["reduce.2.weight"] * np.minimum(x, 0)
    np.testing.assert_allclose(module(embeddings(), ALL).detach().numpy(), expected, rtol=1e-9)


def gated_by_hand(module: GatedAttention, parts: Sequence[np.ndarray], present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fused embeddings and the weights, one number at a time."""
    stored = state(module)
    fused, weights = [], []
    for row, there in enumerate(present):
        scores, aligned = {}, {}
        for m in np.flatnonzero(there):
            h = aligned[m] = np.array([float(w @ parts[m][row]) for w in stored[f"align.{m}.weight"]])
            score = 0.0
            for k, w in enumerate(stored["score.weight"][0]):
                v = math.tanh(stored["tanh.weight"][k] @ h + stored["tanh.bias"][k])
                u = 1 / (1 + math.exp(-(stored["gate.weight"][k] @ h + stored["gate.bias"][k])))
                score += w * v * u
            scores[m] = score
        total = sum(math.exp(score) for score in scores.values())
        a = [math.exp(scores[m]) / total if m in scores else 0.0 for m in range(len(there))]
        weights.append(a)
        fused.append(sum(a[m] * aligned[m] for m in scores))
    return np.array(fused), np.array(weights)


def gated() -> GatedAttention:
    """With weights that are no longer small, so that modalities differ in theirs."""
    module = build("gated")
    assert isinstance(module, GatedAttention)
    with torch.no_grad():
        for linear in (module.tanh, module.gate, module.score):
            linear.weight.normal_()
    return module


@pytest.mark.parametrize("present", [ALL, PRESENT], ids=["all", "some missing"])
def test_gated_attention_is_the_formula_of_ilse_2018(present: Tensor) -> None:
    module, parts = gated(), embeddings(present)
    expected, weights = gated_by_hand(module, arrays(parts), present.numpy())
    np.testing.assert_allclose(module(parts, present).detach().numpy(), expected, rtol=1e-9, atol=1e-12)
    assert np.ptp(weights[[0, 6]], axis=1).max() > 0.05  # they do differ


def test_attention_weights_sum_to_one_and_are_zero_for_missing_modalities() -> None:
    module, parts = gated(), embeddings(PRESENT)
    aligned = torch.stack([linear(part) for linear, part in zip(module.align, parts)], dim=1)
    weights = module.attention(aligned, PRESENT).detach()
    np.testing.assert_allclose(weights.sum(dim=1).numpy(), 1, rtol=1e-12)
    assert torch.equal(weights > 0, PRESENT)
    assert (weights[~PRESENT] == 0).all()


@pytest.mark.parametrize("width", [CHANNELS, 5])
def test_the_initial_alignment_of_gated_attention_keeps_norms_and_angles(width: int) -> None:
    """Where there is room for all of them; of one modality the fused embedding is the turned one."""
    module = build("gated", (width,))
    x = torch.randn(7, width, dtype=torch.float64)
    y = module([x], ALL[:, :1]).detach()
    torch.testing.assert_close(y @ y.T, x @ x.T, rtol=1e-6, atol=1e-6)


def pairs() -> list[tuple[int, int]]:
    """Of sessions that lack the same modalities; one that has all is in two."""
    return [(a, b) for a in range(len(PRESENT)) for b in range(len(PRESENT)) if torch.equal(PRESENT[a], PRESENT[b])]


def test_score_fusion_gives_the_mean_cosine_of_the_modalities() -> None:
    """Also where both lack the same modalities, of those that are there."""
    module = build("score")
    assert isinstance(module, ScoreFusion)
    first, second = embeddings(PRESENT, seed=0), embeddings(PRESENT, seed=1)
    fused = [module(parts, PRESENT).numpy() for parts in (first, second)]
    for row, other in pairs():
        there = np.flatnonzero(PRESENT[row])
        own = [cosine(arrays(first)[m][row], arrays(second)[m][other]) for m in there]
        assert cosine(fused[0][row], fused[1][other]) == pytest.approx(sum(own) / len(own), abs=1e-12)


def test_score_fusion_gives_the_mean_norm_of_the_modalities() -> None:
    parts = embeddings(PRESENT)
    fused = build("score")(parts, PRESENT).numpy()
    for row, there in enumerate(PRESENT.numpy()):
        norms = [math.sqrt(sum(x * x for x in part[row].tolist())) for part, known in zip(parts, there) if known]
        assert math.sqrt(sum(x * x for x in fused[row])) == pytest.approx(sum(norms) / len(norms), rel=1e-6)


def test_concatenation_and_scores_of_one_modality_are_its_embedding() -> None:
    x = embeddings()[0]
    for name in ("concat", "score"):
        torch.testing.assert_close(build(name, (8,))([x], ALL[:, :1]), x)


def probabilities_by_hand(module: ProbabilityFusionHead, present: Tensor) -> np.ndarray:
    stored, parts = state(module), arrays(embeddings(present))
    rows = []
    for row, there in enumerate(present.numpy()):
        own = [
            softmax(parts[m][row] @ stored[f"linears.{m}.weight"].T + stored[f"linears.{m}.bias"]) for m in np.flatnonzero(there)
        ]
        rows.append(np.mean(own, axis=0))
    return np.array(rows)


@pytest.mark.parametrize("present", [ALL, PRESENT], ids=["all", "some missing"])
def test_the_mean_of_probabilities_sums_to_one(present: Tensor) -> None:
    torch.manual_seed(3)
    module = ProbabilityFusionHead(WIDTHS, CLASSES).double()
    logits = module(embeddings(present), present).detach()
    expected = probabilities_by_hand(module, present)
    np.testing.assert_allclose(softmax(logits.numpy()), expected, rtol=1e-5)
    # They are logs of probabilities already, so that the cross-entropy is that of the mean.
    np.testing.assert_allclose(logits.exp().sum(dim=1).numpy(), 1, rtol=1e-5)


def test_a_probability_of_one_does_not_overflow_the_mean() -> None:
    module = ProbabilityFusionHead((1, 1), 2)
    with torch.no_grad():
        for linear, weight in zip(module.linears, (1e4, 0.0)):
            linear.weight.copy_(torch.tensor([[weight], [-weight]]))  # type: ignore[operator]
            linear.bias.zero_()  # type: ignore[operator]
    parts = [torch.ones(2, 1, requires_grad=True), torch.ones(2, 1, requires_grad=True)]
    logits = module(parts, torch.tensor([[True, True], [False, True]]))
    np.testing.assert_allclose(logits.exp().detach().numpy(), [[0.75, 0.25], [0.5, 0.5]], rtol=1e-6)
    logits[:, 1].sum().backward()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in parts)


@pytest.mark.parametrize("name", FUSIONS)
def test_a_class_head_is_linear_in_the_fused_embedding_and_score_fusion_has_one_per_modality(name: str) -> None:
    torch.manual_seed(3)
    head = build_class_head(name, WIDTHS, CHANNELS, CLASSES).double().eval()
    parts = embeddings(PRESENT)
    if name == "score":
        assert isinstance(head, ProbabilityFusionHead)
        assert [linear.in_features for linear in head.linears] == list(WIDTHS)
        return
    assert isinstance(head, ClassHead)
    fused = head.fusion(parts, PRESENT).detach().numpy()
    expected = fused @ head.linear.weight.detach().numpy().T + head.linear.bias.detach().numpy()
    np.testing.assert_allclose(head(parts, PRESENT).detach().numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("present", [ALL, PRESENT], ids=["all", "some missing"])
@pytest.mark.parametrize("name", FUSIONS)
def test_gradients_are_those_of_finite_differences(name: str, present: Tensor) -> None:
    """Of the embeddings that are there."""
    module = build(name).eval()
    parts = [part.requires_grad_() for part in embeddings()]

    def fused(*given: Tensor) -> Tensor:
        return module([part.where(present[:, [index]], 0) for index, part in enumerate(given)], present)

    assert torch.autograd.gradcheck(fused, parts)


@pytest.mark.parametrize("kind", ["embedding", "logits"])
@pytest.mark.parametrize("name", FUSIONS)
def test_a_missing_modality_gives_no_nan_and_has_no_gradient(name: str, kind: str) -> None:
    torch.manual_seed(3)
    module = build(name) if kind == "embedding" else build_class_head(name, WIDTHS, CHANNELS, CLASSES).double()
    drawn = [part.requires_grad_() for part in embeddings()]
    got = module([part.where(PRESENT[:, [index]], 0) for index, part in enumerate(drawn)], PRESENT)
    assert got.isfinite().all()
    (got * torch.randn_like(got)).sum().backward()
    for index, part in enumerate(drawn):
        assert part.grad is not None
        assert part.grad.isfinite().all()
        assert torch.equal(part.grad.abs().sum(dim=1) > 0, PRESENT[:, index])
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize("name", ["gated", "score"])
def test_the_order_of_the_modalities_affects_only_their_own_weights(name: str) -> None:
    """Fusing them in another order, with their alignments in that order, is the same to cosines and norms."""
    parts, order = embeddings(PRESENT), [2, 0, 1]
    module, other = build(name), build(name, [WIDTHS[m] for m in order])
    renamed = {
        f"align.{place}.weight": module.state_dict()[f"align.{m}.weight"] for place, m in enumerate(order) if name == "gated"
    }
    other.load_state_dict(module.state_dict() | renamed)
    a, b = module(parts, PRESENT), other([parts[m] for m in order], PRESENT[:, order])
    torch.testing.assert_close(a @ a.T, b @ b.T)
