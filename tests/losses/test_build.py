"""Settings to losses: every name is built, and every setting reaches its loss."""

from copy import deepcopy
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import Tensor

from fr_ps.config import LossConfig
from fr_ps.errors import InputError
from fr_ps.losses import ATTRIBUTE_LOSSES, IDENTITY_LOSSES, PERSON_WEIGHTS, WEIGHTINGS, build_losses
from fr_ps.losses.multitask import MultiTaskLoss
from fr_ps.models.network import NetworkOutput
from tests.models.small import to_output

COUNTS = {"gender": torch.tensor([3, 9]), "pose": torch.tensor([8, 2])}
SESSIONS = torch.tensor([1, 2, 4, 5])
TABLES: dict[str, dict[str, Any]] = {
    "identity_loss": IDENTITY_LOSSES,
    "person_weights": PERSON_WEIGHTS,
    "attribute_loss": ATTRIBUTE_LOSSES,
    "weighting": WEIGHTINGS,
}
NAMES = [(key, name) for key in TABLES for name in get_args(get_type_hints(LossConfig)[key])]


def build(**settings: Any) -> MultiTaskLoss:
    torch.manual_seed(0)
    return build_losses(LossConfig(**settings), 8, SESSIONS, COUNTS, COUNTS)


def batch() -> tuple[NetworkOutput, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    shared = torch.randn(6, 8, generator=generator).requires_grad_()
    outputs = {"identity": 20 * shared, "shared_normal": shared}
    for task in COUNTS:
        outputs |= {name: shared @ torch.randn(8, 2, generator=generator) for name in (task, f"adversarial_{task}")}
    return to_output(outputs), {
        "identity": torch.tensor([0, 1, 2, 3, 0, 1]),
        "gender": torch.tensor([0, 1] * 3),
        "pose": torch.arange(6) // 3,
    }


def parts(losses: MultiTaskLoss) -> dict[str, float]:
    """The parts of a batch's loss, and the total after two epochs of it."""
    outputs, targets = batch()
    for factor in (2.0, 1.0):
        total, made, _ = losses(outputs, targets)
        losses.weighting.end_epoch({task: factor * float(part) ** factor for task, part in made.items()})
    total, made, _ = losses(outputs, targets)
    return {task: float(part) for task, part in made.items()} | {"total": float(total.detach())}


@pytest.mark.parametrize(("key", "name"), NAMES)
def test_every_name_is_built_trains_and_is_loaded_from_its_state(key: str, name: str) -> None:
    losses = build(**{key: name})
    outputs, targets = batch()
    losses(outputs, targets).total.backward()
    assert losses.identity.weight.grad is not None
    assert losses.identity.weight.grad.abs().sum() > 0
    again = build(**{key: name})
    again.load_state_dict(losses.state_dict())
    assert parts(again) == parts(losses)


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_a_weighting_resumes_from_its_state_within_an_epoch(name: str) -> None:
    outputs, targets = batch()
    wanted = targets | {"pose": torch.full((6,), -1)}

    def steps(losses: MultiTaskLoss, optimizer: torch.optim.Optimizer | None, count: int) -> list[float]:
        seen = []
        for index in range(count):
            total, made, _ = losses(outputs, wanted if index % 2 else targets)
            if optimizer:
                optimizer.zero_grad()
                total.backward(retain_graph=True)
                optimizer.step()
            if index % 3 == 2:
                losses.weighting.end_epoch({task: float(part) / (index + 1) for task, part in made.items()})
            seen += [float(total.detach()), *map(float, losses.weighting.weights().values())]
        return seen

    def start() -> tuple[MultiTaskLoss, torch.optim.Optimizer | None]:
        losses = build(weighting=name)
        learnt = list(losses.weighting.parameters())
        return losses, torch.optim.AdamW(learnt, lr=0.1) if learnt else None

    losses, optimizer = start()
    fresh = steps(losses, optimizer, 8)[-9:]
    state, random = {key: tensor.clone() for key, tensor in losses.state_dict().items()}, torch.get_rng_state()
    resumed, other = start()
    resumed.load_state_dict(state)
    if optimizer and other:
        other.load_state_dict(deepcopy(optimizer.state_dict()))
    torch.set_rng_state(random)
    went_on = steps(losses, optimizer, 5)
    torch.set_rng_state(random)
    assert steps(resumed, other, 5) == went_on
    assert name == "fixed" or went_on[-9:] != fresh


@pytest.mark.parametrize(("adversaries", "there"), [(tuple(COUNTS), set(COUNTS)), ((), set()), (("pose", "emotion"), {"pose"})])
@pytest.mark.parametrize("name", WEIGHTINGS)
def test_only_attributes_that_have_a_discriminator_have_an_adversarial_term(
    name: str, adversaries: tuple[str, ...], there: set[str]
) -> None:
    losses = build_losses(LossConfig(weighting=name), 8, SESSIONS, COUNTS, adversaries)
    adversarial = {f"adversarial_{task}" for task in there}
    assert set(losses.weighting.weights()) == {"identity", *COUNTS, *adversarial}
    outputs, targets = batch()
    outputs = outputs._replace(adversarial={task: outputs.adversarial[task] for task in there})
    assert set(losses(outputs, targets).tasks) == {"identity", *COUNTS, *adversarial}


def test_the_registries_have_exactly_the_names_of_the_settings() -> None:
    assert {(key, name) for key, table in TABLES.items() for name in table} == set(NAMES)


@pytest.mark.parametrize(
    ("base", "change", "moved"),
    [
        ({}, {"identity_loss": "arcface"}, {"identity"}),
        ({}, {"identity_loss": "cosface"}, {"identity"}),
        ({}, {"identity_loss": "adaface"}, {"identity"}),
        ({}, {"lambda_g": 50.0}, {"identity"}),
        ({}, {"scale": 32.0}, {"identity"}),
        ({}, {"contrastive": 0.5}, {"identity"}),
        ({"contrastive": 0.5}, {"contrastive_temperature": 0.2}, {"identity"}),
        ({}, {"person_weights": "soft"}, {"identity"}),
        ({"person_weights": "soft"}, {"person_weights": "original"}, {"identity"}),
        ({"identity_loss": "arcface"}, {"arcface_margin": 0.3}, {"identity"}),
        ({"identity_loss": "cosface"}, {"cosface_margin": 0.2}, {"identity"}),
        ({"identity_loss": "adaface"}, {"adaface_margin": 0.3}, {"identity"}),
        ({}, {"attribute_loss": "cross_entropy"}, {"gender", "pose"}),
        ({}, {"focal_gamma": 2.0}, {"gender", "pose"}),
        ({}, {"focal_gamma": "counts"}, {"gender", "pose"}),
        ({}, {"focal_gammas": {"pose": [0, 2.5]}}, {"pose"}),
        ({"focal_gamma": "counts"}, {"focal_gammas": {"gender": [2, 0]}}, {"gender"}),
        ({}, {"class_weights": {"gender": [1, 1]}}, {"gender"}),
        ({"attribute_loss": "cross_entropy"}, {"class_weights": {"gender": [1, 1]}}, {"gender"}),
        ({"attribute_loss": "cross_entropy"}, {"label_smoothing": 0.1}, {"gender", "pose"}),
        ({"weighting": "dwa"}, {"dwa_temperature": 0.5}, set()),
        ({"weighting": "dwa"}, {"adversarial": 0.3}, set()),
        ({"weighting": "mgda"}, {"adversarial": 0.3}, set()),
        ({"weighting": "mgda"}, {"attribute": 0.3}, set()),
    ],
    ids=lambda one: str(sorted(one) if isinstance(one, set) else one),
)
def test_a_setting_changes_only_its_own_losses(base: dict[str, Any], change: dict[str, Any], moved: set[str]) -> None:
    before, after = parts(build(**base)), parts(build(**(base | change)))
    changed = {task for task in before if before[task] != pytest.approx(after[task], rel=1e-6)}
    assert changed == moved | {f"adversarial_{task}" for task in moved - {"identity"}} | {"total"}


@pytest.mark.parametrize("name", IDENTITY_LOSSES)
def test_each_branch_gets_an_identity_loss_of_its_width_with_subjects_of_its_own(name: str) -> None:
    made = [
        build_losses(LossConfig(identity_loss=name, branches=branches), 8, SESSIONS, {}, (), {"albedo": 5, "normal": 3})  # type: ignore[arg-type]
        for branches in (True, False)
    ]
    assert {modality: loss.weight.shape for modality, loss in made[0].branches.items()} == {"albedo": (4, 5), "normal": (4, 3)}
    assert not made[1].branches
    assert {key for key in made[0].state_dict() if not key.startswith("branches.")} == set(made[1].state_dict())


def test_the_constant_of_cagrad_is_its_setting() -> None:
    weights = []
    for c in (0.0, 0.5):
        losses = build(weighting="cagrad", cagrad_c=c)
        losses(*batch())
        weights.append([float(losses.weighting.weights()[task]) for task in ("identity", *COUNTS)])
    assert weights[0] == pytest.approx([1, 1, 1])
    assert weights[1] != pytest.approx([1, 1, 1], abs=0.1)


def test_adaface_has_the_constants_of_the_paper() -> None:
    losses = build(identity_loss="adaface")
    assert (losses.identity.h, losses.identity.t_alpha) == (0.333, 0.01)


@pytest.mark.parametrize("key", ["class_weights", "focal_gammas"])
def test_numbers_for_another_number_of_classes_are_rejected(key: str) -> None:
    with pytest.raises(InputError, match=rf"^loss\.{key}\.pose is \[1, 2, 3\]; expected 2 numbers, one per class$"):
        build(**{key: {"pose": [1, 2, 3]}})


def test_numbers_for_an_untrained_attribute_are_ignored() -> None:
    assert parts(build(class_weights={"emotion": [1, 2, 3]})) == parts(build())
