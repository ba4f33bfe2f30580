"""The network of one modality: which loss moves which parameters, and what it answers when."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fr_ps.config import PEELING_ORDER
from fr_ps.errors import InputError
from fr_ps.models.network import FaceNetwork

ORDER = ("spectacles", "facial_hair", "emotion", "pose", "gender")
CLASSES = {"gender": 2, "spectacles": 2, "facial_hair": 2, "pose": 2, "emotion": 3}
CHANNELS = 32
STEP = 1e-7  # small, as the modules have kinks (maxima, ReLU)
TARGET = torch.tensor([0, 1, 0, 1, 1, 0])


class Small(nn.Module):
    """(B, 1, 32, 32) -> (B, 16, 4, 4)."""

    out_channels = 16

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 16, 8, stride=8), nn.BatchNorm2d(16), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


DEFAULTS: dict[str, Any] = {
    "order": ORDER,
    "fsm": True,
    "reduction": 8,
    "adversaries": "rest",
    "reversal": 1.0,
    "attribute_channels": 0,
}


def build(reversal: float = 1.0, dtype: torch.dtype = torch.float32, **settings: Any) -> FaceNetwork:
    """Twice the same weights for two calls."""
    torch.manual_seed(1)
    settings = DEFAULTS | {"reversal": reversal} | settings
    return FaceNetwork("albedo", Small(), channels=CHANNELS, classes=CLASSES, **settings).to(dtype)


def maps(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {"albedo": torch.rand(len(TARGET), 1, 32, 32, generator=generator).to(dtype) + 0.05}


def loss_of(outputs: dict[str, Tensor], name: str) -> Tensor:
    if name == "identity":
        return functional.normalize(outputs[name])[:, 0].sum() + outputs[name].norm(dim=1).mean()
    return functional.cross_entropy(outputs[name], TARGET)


def parts(network: FaceNetwork) -> Iterator[tuple[str, nn.Module]]:
    """Everything that holds parameters, by what it is."""
    yield "backbone", network.backbone
    yield "project", network.project
    for what, modules in (("separate", network.separate), ("head", network.heads), ("adversary", network.adversaries)):
        for task, module in modules.items():
            yield f"{what} {task}", module
    yield "identity", network.identity


def moved(name: str, **settings: Any) -> set[str]:
    """The parts that get a gradient from one loss."""
    network = build(**settings)
    loss_of(network(maps()), name).backward()
    return {
        part
        for part, module in parts(network)
        if any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in module.parameters())
    }


def test_the_peeling_order_is_the_originals() -> None:
    assert PEELING_ORDER == ORDER


def test_the_parts_hold_all_parameters() -> None:
    """Else the tables below would miss some."""
    network = build()
    counted = sum(parameter.numel() for _, module in parts(network) for parameter in module.parameters())
    assert counted == sum(parameter.numel() for parameter in network.parameters())


TABLE = {
    "spectacles": {"head spectacles", "separate spectacles"},
    "facial_hair": {"head facial_hair", "separate spectacles", "separate facial_hair"},
    "emotion": {"head emotion", "separate spectacles", "separate facial_hair", "separate emotion"},
    "pose": {"head pose", "separate spectacles", "separate facial_hair", "separate emotion", "separate pose"},
    "gender": {"head gender", *(f"separate {task}" for task in ORDER)},
    "identity": {"identity", *(f"separate {task}" for task in ORDER)},
}
TABLE |= {f"adversarial_{task}": {f"adversary {task}"} | {part for part in TABLE[task] if "separate" in part} for task in ORDER}


@pytest.mark.parametrize("name", TABLE)
def test_a_loss_moves_its_own_head_its_separation_those_before_and_the_backbone_and_nothing_else(name: str) -> None:
    assert moved(name) == TABLE[name] | {"backbone", "project"}


def slope(value: Callable[[], Tensor], parameters: list[Tensor], directions: list[Tensor]) -> float:
    """The derivative of `value` along `directions`, by central differences."""
    ends = []
    for step in (STEP, -STEP):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions):
                parameter += step * direction
            ends.append(value().item())
            for parameter, direction in zip(parameters, directions):
                parameter -= step * direction
    return (ends[0] - ends[1]) / (2 * STEP)


@pytest.mark.parametrize("task", ORDER)
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_an_adversary_learns_with_the_plain_sign_and_the_rest_with_the_reversed_one(task: str, alpha: float) -> None:
    """Against finite differences, which know nothing of the reversal."""
    network, inputs = build(alpha, torch.float64), maps(torch.float64)
    name = f"adversarial_{task}"

    def value() -> Tensor:
        return loss_of(network(inputs), name)

    value().backward()
    below = [network.backbone, network.project, *(network.separate[before] for before in ORDER[: ORDER.index(task) + 1])]
    for modules, factor in (([network.adversaries[task]], 1.0), *(([module], -alpha) for module in below)):
        parameters = [parameter for module in modules for parameter in module.parameters()]
        directions = [torch.randn_like(parameter) for parameter in parameters]
        got = sum((parameter.grad * direction).sum().item() for parameter, direction in zip(parameters, directions))  # type: ignore[operator]
        numeric = slope(value, parameters, directions)
        assert abs(numeric) > 1e-5
        assert got == pytest.approx(factor * numeric, rel=1e-3, abs=1e-8)


def test_a_reversal_of_one_half_gives_minus_half_of_the_unreversed_gradient() -> None:
    """Minus one reverses the reversal."""
    gradients = []
    for reversal in (0.5, -1.0):
        network = build(reversal)
        loss_of(network(maps()), "adversarial_pose").backward()
        gradients.append([parameter.grad for parameter in network.backbone.parameters()])
    for reversed_, plain in zip(*gradients):
        torch.testing.assert_close(reversed_, -0.5 * plain)


def test_in_training_every_task_but_identity_has_an_adversary_and_in_evaluation_none() -> None:
    network, inputs = build(), maps()
    assert set(network(inputs)) == {"identity", *ORDER, *(f"adversarial_{task}" for task in ORDER), "shared_albedo"}
    assert set(network.eval()(inputs)) == {"identity", *ORDER}


def test_outputs_have_a_column_a_class_and_an_embedding_the_channels() -> None:
    for name, output in build()(maps()).items():
        if name == "shared_albedo":
            continue
        expected = CHANNELS if name == "identity" else CLASSES[name.removeprefix("adversarial_")]
        assert output.shape == (len(TARGET), expected)


@pytest.mark.parametrize("scale", [1e-2, 7.0, 255.0])
def test_answers_do_not_depend_on_how_bright_the_lights_were(scale: float) -> None:
    network, inputs = build().eval(), maps()
    factors = torch.tensor([scale, 1.0, scale, 1.0, scale, 1.0])[:, None, None, None]
    with torch.no_grad():
        plain, scaled = network(inputs), network({"albedo": inputs["albedo"] * factors})
    for name in plain:
        torch.testing.assert_close(scaled[name], plain[name], rtol=1e-3, atol=1e-4)
    assert (plain["identity"].std(dim=0) > 0).any()


def test_an_answer_in_evaluation_does_not_depend_on_the_rest_of_the_batch() -> None:
    network, inputs = build().eval(), maps()
    with torch.no_grad():
        together = network(inputs)
        alone = network({"albedo": inputs["albedo"][2:3]})
    for name in together:
        torch.testing.assert_close(alone[name], together[name][2:3], rtol=1e-4, atol=1e-5)


def test_all_that_stays_of_the_picture_after_peeling_is_the_identitys() -> None:
    """What the heads read and what identity reads sum to the projected map."""
    network, inputs = build().eval(), maps()
    read: list[Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, args: read.append(args[0]))
        for module in (*network.heads.values(), network.identity)
    ]
    shared: list[Tensor] = []
    hooks.append(network.project.register_forward_hook(lambda _, __, output: shared.append(output)))
    with torch.no_grad():
        network(inputs)
    for hook in hooks:
        hook.remove()
    assert len(read) == 6
    torch.testing.assert_close(torch.stack(read).sum(dim=0), shared[0], rtol=1e-5, atol=1e-6)


def test_the_backbone_runs_once_a_batch() -> None:
    network = build()
    calls: list[int] = []
    network.backbone.register_forward_hook(lambda *_: calls.append(1))
    network(maps())
    assert len(calls) == 1


def test_in_another_order_another_attribute_is_split_off_first() -> None:
    order = ("gender", "pose", "emotion", "facial_hair", "spectacles")
    assert moved("gender", order=order) == {"head gender", "separate gender", "backbone", "project"}
    before = {f"separate {task}" for task in order[:4]}
    assert moved("facial_hair", order=order) == before | {"head facial_hair", "backbone", "project"}


@pytest.mark.parametrize("task", ORDER)
def test_discriminators_of_the_identity_move_all_separations_with_the_reversed_sign(task: str) -> None:
    """Each reads the last rest, and that is what the identity reads."""
    name, settings = f"adversarial_{task}", {"adversaries": "identity"}
    assert moved(name, **settings) == {f"adversary {task}", "backbone", "project", *(f"separate {other}" for other in ORDER)}
    gradients = []
    for reversal in (0.5, -1.0):
        network = build(reversal, **settings)
        loss_of(network(maps()), name).backward()
        below = [network.backbone, network.project, network.separate]
        gradients.append([parameter.grad for module in below for parameter in module.parameters()])
    for reversed_, plain in zip(*gradients):
        torch.testing.assert_close(reversed_, -0.5 * plain)


def test_discriminators_of_the_identity_read_what_the_identity_reads() -> None:
    network = build(adversaries="identity")
    read: dict[str, Tensor] = {}
    for name, module in (("identity", network.identity), *network.adversaries.items()):
        module.register_forward_pre_hook(lambda _, args, name=name: read.update({name: args[0]}))
    network(maps())
    assert set(read) == {"identity", *ORDER}
    assert all(torch.equal(read["identity"], value) for value in read.values())


@pytest.mark.parametrize("name", ["identity", *ORDER])
def test_without_separation_a_loss_moves_its_head_and_what_is_shared_and_there_are_no_adversaries(name: str) -> None:
    head = name if name == "identity" else f"head {name}"
    assert moved(name, fsm=False) == {head, "backbone", "project"}
    assert set(build(fsm=False)(maps())) == {"identity", *ORDER, "shared_albedo"}


def test_without_separation_every_head_reads_the_shared_map() -> None:
    network, inputs = build(fsm=False).eval(), maps()
    shared = network.shared_map(inputs)
    outputs = network(inputs)
    for task in ORDER:
        assert torch.equal(outputs[task], network.heads[task](shared))
    assert torch.equal(outputs["identity"], network.identity(shared))


def test_without_adversaries_the_other_answers_are_the_same() -> None:
    inputs = maps()
    on, off = build()(inputs), build(adversaries="off")(inputs)
    assert set(off) == {"identity", *ORDER, "shared_albedo"}
    without = build(adversaries="off")
    assert not any("adversar" in name for name in without.state_dict())
    without.load_state_dict(build().state_dict(), strict=False)
    off = without(inputs)
    assert all(torch.equal(on[name], off[name]) for name in off)


def test_attribute_embeddings_can_be_narrower_than_the_identitys_and_the_discriminators() -> None:
    network = build(attribute_channels=4)
    assert {head.linear.in_features for head in network.heads.values()} == {4}
    assert {judge.linear.in_features for judge in network.adversaries.values()} == {CHANNELS}
    assert network(maps())["identity"].shape == (len(TARGET), CHANNELS)
    expected = {"head pose", "separate spectacles", "separate facial_hair", "separate emotion", "separate pose"}
    assert moved("pose", attribute_channels=4) == expected | {"backbone", "project"}


def test_a_batch_of_one_is_refused_in_training_and_answered_in_evaluation() -> None:
    network = build()
    one = {"albedo": maps()["albedo"][:1]}
    with pytest.raises(InputError, match=r"batch\.people"):
        network(one)
    assert network.eval()(one)["identity"].shape == (1, CHANNELS)
