"""The network of one modality or more: which loss moves which parameters, and what it answers when."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fr_ps.config import PEELING_ORDER
from fr_ps.config.names import JointBranch
from fr_ps.errors import InputError
from fr_ps.models.branch import IDENTITY, Branch, Features
from fr_ps.models.fusion import FUSIONS
from fr_ps.models.network import FaceNetwork, NetworkOutput
from tests.models.small import CHANNELS, CLASSES, COUNT, ORDER, SETTINGS, by_name, make_branch, make_maps, make_network

STEP = 1e-7  # small, as the modules have kinks (maxima, ReLU)
TARGET = torch.tensor([0, 1, 0, 1, 1, 0])
ONE, TWO, THREE = ("albedo",), ("albedo", "normal"), ("albedo", "normal", "depth")
TASKS = (IDENTITY, *ORDER)


def branch_of(network: FaceNetwork, modality: str = "albedo") -> Branch:
    return cast(Branch, network.branches[modality])


def loss_of(outputs: NetworkOutput, name: str) -> Tensor:
    output = by_name(outputs)[name]
    if name == IDENTITY:
        return functional.normalize(output)[:, 0].sum() + output.norm(dim=1).mean()
    return functional.cross_entropy(output, TARGET)


def parts(network: FaceNetwork) -> Iterator[tuple[str, list[nn.Parameter]]]:
    """Everything that is trained, by what it is; of a branch with its modality before it."""
    for modality in network.modalities:
        branch = branch_of(network, modality)
        yield f"{modality} backbone", [*branch.backbone.parameters()]
        yield f"{modality} project", [*branch.project.parameters()]
        for what, modules in (
            ("separate", branch.separate),
            ("embedding", branch.embeddings),
            ("adversary", branch.adversaries),
        ):
            for task, module in modules.items():
                yield f"{modality} {what} {task}", [*module.parameters()]
        yield f"{modality} gain", [network.log_gains[modality]]
    for task, head in network.heads.items():
        yield f"head {task}", [*head.parameters()]
    yield "identity", [*network.identity.parameters()]


def moved(name: str, modalities: Sequence[str] = ONE, fusion: str = "concat", **settings: Any) -> set[str]:
    """The parts that get a gradient from one loss."""
    network = make_network(modalities, fusion, **settings)
    loss_of(network(make_maps(modalities)), name).backward()
    return {
        part
        for part, parameters in parts(network)
        if any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in parameters)
    }


def in_branches(modalities: Sequence[str], *names: str) -> set[str]:
    return {f"{modality} {name}" for modality in modalities for name in names}


def separations(task: str) -> list[str]:
    """Of the attribute `task` and those that are split off before it; all of them for the identity."""
    return [f"separate {other}" for other in (ORDER if task == IDENTITY else ORDER[: ORDER.index(task) + 1])]


def expected(name: str, modalities: Sequence[str], fusion: str) -> set[str]:
    """What the loss `name` is to move."""
    task = name.removeprefix("adversarial_")
    own = [f"adversary {task}"] if task != name else [f"embedding {task}"]
    own += ["gain"] if name == IDENTITY else []
    shared = set() if task != name or task == IDENTITY else {f"head {task}"}
    shared |= {"identity"} if name == IDENTITY and fusion in ("fc", "gated") else set()
    return in_branches(modalities, "backbone", "project", *own, *separations(task)) | shared


LOSSES = (*TASKS, *(f"adversarial_{task}" for task in ORDER))


def test_the_peeling_order_is_that_of_the_original() -> None:
    assert PEELING_ORDER == ORDER


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_parts_hold_all_parameters(fusion: str) -> None:
    """Else the tables below would miss some."""
    network = make_network(TWO, fusion)
    counted = sum(parameter.numel() for _, parameters in parts(network) for parameter in parameters)
    assert counted == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "separated"),
    [
        ("spectacles", 1),
        ("adversarial_spectacles", 1),
        ("facial_hair", 2),
        ("adversarial_facial_hair", 2),
        ("emotion", 3),
        ("adversarial_emotion", 3),
        ("pose", 4),
        ("adversarial_pose", 4),
        ("gender", 5),
        ("adversarial_gender", 5),
        (IDENTITY, 5),
    ],
)
def test_a_loss_reaches_only_its_head_its_separation_those_before_and_the_backbone(name: str, separated: int) -> None:
    found = moved(name)
    assert found == expected(name, ONE, "concat")
    assert sum("separate" in part for part in found) == separated


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_loss_in_a_fusion_reaches_the_same_parts_of_every_branch_and_the_fusion(fusion: str, name: str) -> None:
    assert moved(name, TWO, fusion) == expected(name, TWO, fusion)


@pytest.mark.parametrize("name", [IDENTITY, "emotion", "adversarial_pose"])
def test_a_loss_with_three_modalities_reaches_the_same_parts(name: str) -> None:
    assert moved(name, THREE) == expected(name, THREE, "concat")


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


def check_signs(network: FaceNetwork, inputs: dict[str, Tensor], task: str, alpha: float) -> None:
    """Against finite differences, which know nothing of the reversal."""

    def value() -> Tensor:
        return loss_of(network(inputs), f"adversarial_{task}")

    value().backward()
    for modality in network.modalities:
        branch = branch_of(network, modality)
        below = [branch.backbone, branch.project, *(branch.separate[before] for before in ORDER[: ORDER.index(task) + 1])]
        for module, factor in ((branch.adversaries[task], 1.0), *((module, -alpha) for module in below)):
            parameters = [*module.parameters()]
            directions = [torch.randn_like(parameter) for parameter in parameters]
            got = sum((cast(Tensor, p.grad) * direction).sum().item() for p, direction in zip(parameters, directions))
            numeric = slope(value, [*parameters], directions)
            assert abs(numeric) > 1e-6
            assert got == pytest.approx(factor * numeric, rel=1e-3, abs=1e-8)


@pytest.mark.parametrize("task", ORDER)
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_an_adversary_learns_with_the_plain_sign_and_the_rest_with_the_reversed_one(task: str, alpha: float) -> None:
    check_signs(make_network(reversal=alpha, dtype=torch.float64), make_maps(dtype=torch.float64), task, alpha)


@pytest.mark.parametrize("task", ["spectacles", "gender"])
def test_adversaries_in_every_branch_of_a_fusion_learn_with_the_plain_sign(task: str) -> None:
    check_signs(make_network(TWO, reversal=0.5, dtype=torch.float64), make_maps(TWO, torch.float64), task, 0.5)


def below_gradients(name: str, reversal: float, modalities: Sequence[str], **settings: Any) -> list[Tensor]:
    """Of everything below the discriminators."""
    network = make_network(modalities, reversal=reversal, **settings)
    loss_of(network(make_maps(modalities)), name).backward()
    branches = [branch_of(network, modality) for modality in modalities]
    below = [module for branch in branches for module in (branch.backbone, branch.project, branch.separate)]
    gradients = [parameter.grad for module in below for parameter in module.parameters()]
    return [gradient for gradient in gradients if gradient is not None]


@pytest.mark.parametrize("modalities", [ONE, TWO], ids="+".join)
def test_a_reversal_of_one_half_gives_minus_half_of_the_unreversed_gradient(modalities: Sequence[str]) -> None:
    """Minus one reverses the reversal."""
    half, plain = (below_gradients("adversarial_pose", reversal, modalities) for reversal in (0.5, -1.0))
    assert any(gradient.abs().sum() > 0 for gradient in plain)
    for reversed_, gradient in zip(half, plain, strict=True):
        torch.testing.assert_close(reversed_, -0.5 * gradient)


@pytest.mark.parametrize("modalities", [ONE, TWO, THREE], ids="+".join)
def test_in_training_every_task_but_identity_has_an_adversary_and_in_evaluation_none(modalities: Sequence[str]) -> None:
    network, inputs = make_network(modalities), make_maps(modalities)
    shared = {f"shared_{modality}" for modality in modalities}
    assert set(by_name(network(inputs))) == {*TASKS, *(f"adversarial_{task}" for task in ORDER), *shared}
    assert set(by_name(network.eval()(inputs))) == set(TASKS)


WIDTHS = {"concat": 2 * CHANNELS, "fc": CHANNELS, "gated": CHANNELS, "score": 2 * CHANNELS}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_outputs_have_one_column_per_class_and_embeddings_the_width_of_the_fusion(fusion: str) -> None:
    network = make_network(TWO, fusion)
    assert network.embedding_size == WIDTHS[fusion]
    for name, output in by_name(network(make_maps(TWO))).items():
        if name.startswith("shared_"):
            assert output.shape == (COUNT, CHANNELS, 4, 4)
        else:
            width = WIDTHS[fusion] if name == IDENTITY else CLASSES[name.removeprefix("adversarial_")]
            assert output.shape == (COUNT, width)


def test_a_single_modality_has_as_many_channels_as_its_map() -> None:
    network = make_network()
    assert network.embedding_size == CHANNELS
    assert network(make_maps()).embedding.shape == (COUNT, CHANNELS)


@pytest.mark.parametrize("scale", [1e-2, 7.0, 255.0])
def test_predictions_do_not_depend_on_the_scale_of_albedo(scale: float) -> None:
    network, inputs = make_network().eval(), make_maps()
    factors = torch.tensor([scale, 1.0, scale, 1.0, scale, 1.0])[:, None, None, None]
    with torch.no_grad():
        plain, scaled = network(inputs), network({"albedo": inputs["albedo"] * factors})
    for name, output in by_name(plain).items():
        torch.testing.assert_close(by_name(scaled)[name], output, rtol=1e-3, atol=1e-4)
    assert (plain.embedding.std(dim=0) > 0).any()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_prediction_does_not_depend_on_the_rest_of_the_batch(fusion: str) -> None:
    network, inputs = make_network(TWO, fusion).eval(), make_maps(TWO)
    with torch.no_grad():
        together = network(inputs)
        alone = network({modality: array[2:3] for modality, array in inputs.items()})
    for name, output in by_name(together).items():
        torch.testing.assert_close(by_name(alone)[name], output[2:3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("modalities", [ONE, TWO, THREE], ids="+".join)
def test_each_backbone_runs_once_per_batch(modalities: Sequence[str]) -> None:
    network = make_network(modalities)
    calls: list[str] = []
    for modality in modalities:
        branch_of(network, modality).backbone.register_forward_hook(lambda *_, modality=modality: calls.append(modality))
    network(make_maps(modalities))
    assert sorted(calls) == sorted(modalities)


def test_the_order_setting_determines_the_first_separated_attribute() -> None:
    order = ("gender", "pose", "emotion", "facial_hair", "spectacles")
    base = ("backbone", "project")
    assert moved("gender", order=order) == {"head gender", *in_branches(ONE, *base, "embedding gender", "separate gender")}
    before = [f"separate {task}" for task in order[:4]]
    found = moved("facial_hair", order=order)
    assert found == {"head facial_hair", *in_branches(ONE, *base, "embedding facial_hair", *before)}


@pytest.mark.parametrize("task", ORDER)
def test_identity_discriminators_train_all_separations_with_the_reversed_sign(task: str) -> None:
    name = f"adversarial_{task}"
    found = moved(name, adversary_input="identity")
    assert found == in_branches(ONE, "backbone", "project", f"adversary {task}", *separations(IDENTITY))
    half, plain = (below_gradients(name, reversal, ONE, adversary_input="identity") for reversal in (0.5, -1.0))
    for reversed_, gradient in zip(half, plain, strict=True):
        torch.testing.assert_close(reversed_, -0.5 * gradient)


@pytest.mark.parametrize("name", TASKS)
def test_without_separation_a_loss_reaches_its_head_and_shared_parts_and_there_are_no_adversaries(name: str) -> None:
    own = {"albedo gain"} if name == IDENTITY else {f"head {name}"}
    assert moved(name, fsm=False) == own | in_branches(ONE, "backbone", "project", f"embedding {name}")
    assert set(by_name(make_network(fsm=False)(make_maps()))) == {*TASKS, "shared_albedo"}


def test_without_adversaries_the_other_outputs_are_the_same() -> None:
    inputs = make_maps(TWO)
    on, without = by_name(make_network(TWO)(inputs)), make_network(TWO, adversary_input="off")
    assert not any("adversar" in name for name in without.state_dict())
    without.load_state_dict(make_network(TWO).state_dict(), strict=False)
    off = by_name(without(inputs))
    assert set(off) == {*TASKS, "shared_albedo", "shared_normal"}
    assert all(torch.equal(on[name], off[name]) for name in off)


def test_a_narrow_attribute_embedding_reaches_the_same_parts_as_a_wide_one() -> None:
    network = make_network(attribute_channels=4)
    assert network(make_maps()).embedding.shape == (COUNT, CHANNELS)
    assert moved("pose", attribute_channels=4) == expected("pose", ONE, "concat")


def test_a_batch_of_one_is_rejected_in_training_and_accepted_in_evaluation() -> None:
    network = make_network(TWO)
    one = {modality: array[:1] for modality, array in make_maps(TWO).items()}
    with pytest.raises(InputError, match=r"batch\.people"):
        network(one)
    assert network.eval()(one).embedding.shape == (1, 2 * CHANNELS)


# What a network of one modality answers.


def test_with_one_modality_identity_is_the_scaled_embedding_and_attributes_are_linear_in_theirs() -> None:
    network, inputs = make_network().eval(), make_maps()
    with torch.no_grad():
        network.log_gains["albedo"].copy_(torch.tensor(2.5).log())
        outputs, features = network(inputs), branch_of(network)(inputs["albedo"], 1.0)
    torch.testing.assert_close(outputs.embedding, 2.5 * features.embeddings[IDENTITY])
    for task in ORDER:
        state = network.heads[task].state_dict()
        logits = features.embeddings[task] @ state["linear.weight"].T + state["linear.bias"]
        torch.testing.assert_close(outputs.logits[task], logits)


def test_the_gain_starts_at_its_constant_and_learns() -> None:
    network = make_network()
    outputs = network(make_maps())
    embedding = make_network().branches["albedo"](make_maps()["albedo"], 1.0).embeddings[IDENTITY]
    torch.testing.assert_close(outputs.embedding, FaceNetwork.INITIAL_GAIN * embedding)
    outputs.embedding.square().sum().backward()
    gradient = network.log_gains["albedo"].grad
    assert gradient is not None
    assert gradient > 0


class Given(nn.Module):
    """A backbone whose channels vary within a picture with a deviation of 1, and from picture to picture of `between`."""

    out_channels = 512

    def __init__(self, between: float, side: int) -> None:
        super().__init__()
        self.between, self.side = between, side

    def forward(self, x: Tensor) -> Tensor:
        return self.between * torch.randn(len(x), 512, 1, 1) + torch.randn(len(x), 512, self.side, self.side)


def norms_at_the_start(fusion: str, modalities: Sequence[str], between: float, side: int) -> Tensor:
    torch.manual_seed(0)
    settings = SETTINGS | {"channels": 512, "fsm": False}
    branches = {modality: Branch(modality, Given(between, side), **settings) for modality in modalities}
    network = FaceNetwork(branches, fusion, channels=512, classes=CLASSES)
    inputs = {modality: array.repeat(5, 1, 1, 1) for modality, array in make_maps(modalities).items()}
    return network(inputs).embedding.norm(dim=1)


@pytest.mark.parametrize("side", [3, 7])
def test_initial_norms_are_inside_the_range_of_magface(side: int) -> None:
    """Also where pictures differ as much from each other as within, which is more than the backbones' do."""
    for between in (0.3, 1.0):
        norms = norms_at_the_start("concat", ONE, between, side)
        assert (norms > 10).all()
        assert (norms < 110).all()


@pytest.mark.parametrize("modalities", [TWO, THREE], ids="+".join)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_initial_norms_of_every_fusion_are_inside_the_range_of_magface(fusion: str, modalities: Sequence[str]) -> None:
    """Embeddings of each modality have norms of some 7, as at the start of a training."""
    norms = norms_at_the_start(fusion, modalities, 0.3, 7)
    assert (norms > 10).all()
    assert (norms < 110).all()


# Maps that are missing.


def outputs_close(first: NetworkOutput, second: NetworkOutput) -> bool:
    a, b = by_name(first), by_name(second)
    return a.keys() == b.keys() and all(torch.allclose(a[name], b[name], rtol=1e-5, atol=1e-5) for name in a)


@pytest.mark.parametrize("joint", ["off", "also", "only"])
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("there", [("albedo",), ("depth",), ("albedo", "depth"), ("normal", "depth")], ids="+".join)
def test_an_omitted_map_equals_one_marked_as_absent(fusion: str, joint: JointBranch, there: Sequence[str]) -> None:
    network, inputs = make_network(THREE, fusion, joint=joint).eval(), make_maps(THREE)
    present = torch.tensor([modality in there for modality in THREE]).expand(COUNT, -1)
    with torch.no_grad():
        of_few = network({modality: inputs[modality] for modality in there})
        of_all = network(inputs, present)
        whole = network(inputs)
    assert outputs_close(of_few, of_all)
    assert not any(torch.allclose(by_name(of_few)[task], by_name(whole)[task], rtol=1e-4) for task in TASKS)


@pytest.mark.parametrize("joint", ["off", "also", "only"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_content_of_an_absent_map_has_no_effect_and_absence_is_per_row(fusion: str, joint: JointBranch) -> None:
    network, inputs = make_network(TWO, fusion, joint=joint).eval(), make_maps(TWO)
    present = torch.tensor([[True, True], [True, False], [False, True]] * 2)
    other = {modality: array.flip(2) ** 2 for modality, array in inputs.items()}
    mixed = {
        modality: torch.where(present[:, [index], None, None], inputs[modality], other[modality])
        for index, modality in enumerate(TWO)
    }
    with torch.no_grad():
        first, second, whole = network(inputs, present), network(mixed, present), network(inputs)
    assert outputs_close(first, second)
    for task in TASKS:
        same = torch.isclose(by_name(first)[task], by_name(whole)[task], rtol=1e-5, atol=1e-6).all(dim=1)
        assert same.tolist() == [True, False, False] * 2


@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_available_map_is_both_given_and_marked_as_present(fusion: str) -> None:
    network, inputs = make_network(THREE, fusion).eval(), make_maps(THREE)
    present = torch.tensor([[True, True, False]]).expand(COUNT, -1)
    with torch.no_grad():
        given = network({modality: inputs[modality] for modality in ("albedo", "depth")}, present)
        only = network({"albedo": inputs["albedo"]})
    assert outputs_close(given, only)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_training_row_without_a_modality_has_no_gradient_in_the_embeddings_of_its_branch(fusion: str) -> None:
    network = make_network(TWO, fusion)
    inputs = make_maps(TWO)
    features = network.encode(inputs)
    for of_one in features.values():
        for embedding in of_one.embeddings.values():
            embedding.retain_grad()
    present = torch.tensor([[True, True], [True, False], [False, True]] * 2)
    outputs = network.decode(features, inputs, present)
    torch.stack([loss_of(outputs, task) for task in TASKS]).sum().backward()
    for index, modality in enumerate(TWO):
        for embedding in features[modality].embeddings.values():
            rows = cast(Tensor, embedding.grad).abs().sum(dim=1)
            assert torch.equal(rows > 0, present[:, index])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_embedding_of_a_branch_alone_is_that_of_its_own_network_whatever_is_present(fusion: str) -> None:
    network, inputs = make_network(TWO, fusion), make_maps(TWO)
    present = torch.tensor([[True, True], [True, False], [False, True]] * 2)
    own = network(inputs, present).branch_embeddings
    for modality in TWO:
        alone = make_network((modality,), "concat")
        branch_of(alone, modality).load_state_dict(branch_of(make_network(TWO, fusion), modality).state_dict())
        torch.testing.assert_close(own[modality], alone({modality: inputs[modality]}).embedding)
    own["albedo"].sum().backward()
    gradients = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert {name.partition(".")[2].partition(".")[0] for name in gradients} == {"albedo"}


def test_frozen_branches_a_single_branch_and_evaluation_have_no_embeddings_of_branches() -> None:
    network = make_network(TWO)
    assert network.branch_loss_widths == dict.fromkeys(TWO, CHANNELS)
    assert network.eval()(make_maps(TWO)).branch_embeddings == {}
    branch_of(network, "albedo").freeze()
    assert set(network.train()(make_maps(TWO)).branch_embeddings) == set(network.branch_loss_widths) == {"normal"}
    for joint in ("off", "only"):
        single = make_network(ONE if joint == "off" else TWO, joint=joint)
        assert single(make_maps(TWO)).branch_embeddings == single.branch_loss_widths == {}
    assert set(make_network(TWO, joint="also")(make_maps(TWO)).branch_embeddings) == {*TWO, "joint"}


@pytest.mark.parametrize("joint", ["off", "also", "only"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_missing_maps_give_no_nan_in_outputs_and_gradients(fusion: str, joint: JointBranch) -> None:
    network = make_network(THREE, fusion, joint=joint)
    present = torch.tensor([[True, False, False], [False, True, False], [False, False, True]] * 2)
    outputs = network(make_maps(THREE), present)
    assert all(output.isfinite().all() for output in by_name(outputs).values())
    torch.stack([loss_of(outputs, name) for name in LOSSES]).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("joint", ["off", "also", "only"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_encoding_once_and_decoding_each_subset_equals_the_network_on_these_maps_only(fusion: str, joint: JointBranch) -> None:
    network, inputs = make_network(THREE, fusion, joint=joint).eval(), make_maps(THREE)
    with torch.no_grad():
        features: dict[str, Features] = network.encode(inputs)
        for subset in (("normal",), ("albedo", "depth"), THREE):
            chosen = {modality: inputs[modality] for modality in subset}
            decoded = network.decode(network.encode_subset(features, inputs, subset), chosen)
            assert outputs_close(decoded, network(chosen))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_order_of_the_given_maps_has_no_effect(fusion: str) -> None:
    network, inputs = make_network(TWO, fusion).eval(), make_maps(TWO)
    with torch.no_grad():
        assert outputs_close(network(dict(reversed(inputs.items()))), network(inputs))


# A branch that reads all maps.


def test_a_joint_branch_reads_the_normalised_maps_as_channels() -> None:
    network, inputs = make_network(THREE, joint="only").eval(), make_maps(THREE)
    stacked = torch.cat(
        [
            inputs["albedo"] / inputs["albedo"].mean(dim=(1, 2, 3), keepdim=True) - 1,
            inputs["normal"],
            inputs["depth"] / 4,  # an eighth of 32
        ],
        dim=1,
    )
    assert network.modalities == THREE
    with torch.no_grad():
        expected = branch_of(network, "joint")(stacked, 1.0).embeddings[IDENTITY] * FaceNetwork.INITIAL_GAIN
        torch.testing.assert_close(network(inputs).embedding, expected)
        stacked[:, 1:4] = 0
        expected = branch_of(network, "joint")(stacked, 1.0).embeddings[IDENTITY] * FaceNetwork.INITIAL_GAIN
        torch.testing.assert_close(network({name: inputs[name] for name in ("albedo", "depth")}).embedding, expected)


def test_a_joint_branch_stands_beside_the_others() -> None:
    network, inputs = make_network(TWO, joint="also"), make_maps(TWO)
    outputs = network(inputs)
    assert outputs.embedding.shape == (COUNT, 3 * CHANNELS)
    assert list(outputs.shared) == ["albedo", "normal", "joint"]
    outputs.embedding.square().sum().backward()
    for name in outputs.shared:
        weight = branch_of(network, name).backbone.layers[0].weight  # type: ignore[index,union-attr]
        assert weight.grad.abs().sum() > 0


# Averages over mirror images.


def mirrored(maps: dict[str, Tensor]) -> dict[str, Tensor]:
    signs = torch.tensor([-1.0, 1, 1])[:, None, None]
    return {modality: of_one.flip(3) * (signs if modality == "normal" else 1) for modality, of_one in maps.items()}


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("joint", ["off", "also", "only"])
def test_a_flip_average_is_the_mean_of_two_passes_also_with_missing_maps(fusion: str, joint: JointBranch) -> None:
    plain = make_network(THREE, fusion, joint=joint).eval()
    averaging = make_network(THREE, fusion, joint=joint, flip_average=True).eval()
    inputs = make_maps(THREE)
    present = torch.tensor([[True, True, True], [True, False, False], [False, True, True]] * 2)
    with torch.no_grad():
        first, second, got = (
            by_name(run) for run in (plain(inputs, present), plain(mirrored(inputs), present), averaging(inputs, present))
        )
        directions = [functional.normalize(run[IDENTITY].double()) for run in (first, second)]
        norms = [run[IDENTITY].double().norm(dim=1, keepdim=True) for run in (first, second)]
    expected = (directions[0] + directions[1]) / 2 * (norms[0] + norms[1]) / 2
    torch.testing.assert_close(got[IDENTITY].double(), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(first[IDENTITY], second[IDENTITY], rtol=1e-3)
    for task in ORDER:
        torch.testing.assert_close(got[task], (first[task] + second[task]) / 2, rtol=1e-4, atol=1e-5)


def test_a_flip_average_is_the_same_for_a_face_and_its_mirror_image() -> None:
    network, inputs = make_network(THREE, "gated", flip_average=True).eval(), make_maps(THREE)
    with torch.no_grad():
        assert outputs_close(network(inputs), network(mirrored(inputs)))
        features = network.encode(inputs)
        for subset in (("normal",), ("albedo", "depth")):
            chosen = {modality: inputs[modality] for modality in subset}
            decoded = network.decode({modality: features[modality] for modality in subset}, chosen)
            assert outputs_close(decoded, network(chosen))


def test_training_uses_no_flip_average() -> None:
    first, second = (make_network(TWO, flip_average=flip_average)(make_maps(TWO)) for flip_average in (False, True))
    assert outputs_close(first, second)


# Branches that differ, and branches that are frozen.


def test_adversaries_of_an_attribute_are_the_mean_of_the_branches() -> None:
    network, inputs = make_network(TWO), make_maps(TWO)
    outputs = network(inputs)
    of_branches = [branch_of(make_network(TWO), modality)(inputs[modality], 1.0).adversarial for modality in TWO]
    for task in ORDER:
        expected = np.mean([logits[task].detach().double().numpy() for logits in of_branches], axis=0)
        np.testing.assert_allclose(outputs.adversarial[task].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_branches_of_other_widths_fuse(fusion: str) -> None:
    branches = {"albedo": make_branch(), "depth": make_branch("depth", channels=16, attribute_channels=8, adversary_input="off")}
    network = FaceNetwork(branches, fusion, channels=24, classes=CLASSES)
    outputs = network(make_maps(("albedo", "depth")))
    assert outputs.embedding.shape == (COUNT, 24 if fusion in ("fc", "gated") else CHANNELS + 16)
    assert {task: outputs.logits[task].shape[1] for task in ORDER} == CLASSES
    torch.stack([loss_of(outputs, name) for name in LOSSES]).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def step(network: FaceNetwork, modalities: Sequence[str]) -> NetworkOutput:
    """One training step on all its losses; the outputs before it."""
    network.train()
    outputs = network(make_maps(modalities))
    losses = [loss_of(outputs, name) for name in LOSSES if name in by_name(outputs)]
    torch.stack(losses).sum().backward()
    free = [parameter for parameter in network.parameters() if parameter.requires_grad]
    torch.optim.AdamW(free, lr=0.1, weight_decay=0.1).step()
    return outputs


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_training_step_leaves_a_frozen_branch_unchanged_and_trains_the_other(fusion: str) -> None:
    network = make_network(TWO, fusion)
    branch_of(network, "albedo").freeze()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    step(network, TWO)
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(before[name], tensor)}
    assert not [name for name in changed if name.startswith("branches.albedo.")]
    assert {"branches.normal.backbone.layers.0.weight", "branches.normal.backbone.layers.1.running_mean"} <= changed
    assert "log_gains.albedo" in changed


def test_a_frozen_branch_has_no_adversaries_and_with_all_frozen_there_are_none() -> None:
    network, inputs = make_network(TWO), make_maps(TWO)
    branch_of(network, "albedo").freeze()
    logits = branch_of(make_network(TWO), "normal")(inputs["normal"], 1.0).adversarial
    outputs = network.train()(inputs)
    assert network.adversarial_attributes == tuple(CLASSES)
    for task in ORDER:
        torch.testing.assert_close(outputs.adversarial[task], logits[task])
    branch_of(network, "normal").freeze()
    assert network.adversarial_attributes == ()
    assert set(by_name(network.train()(inputs))) == {*TASKS, "shared_albedo", "shared_normal"}


def test_the_shared_map_of_a_frozen_branch_requires_no_gradient() -> None:
    """The task weightings leave out such a map."""
    network = make_network(TWO)
    branch_of(network, "albedo").freeze()
    outputs = network.train()(make_maps(TWO))
    assert (outputs.shared["albedo"].requires_grad, outputs.shared["normal"].requires_grad) == (False, True)
