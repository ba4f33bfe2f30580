"""One modality's branch: what its embeddings and discriminators read, and what it leaves alone when it is frozen."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fr_ps.errors import InputError
from fr_ps.models.branch import IDENTITY, Branch
from tests.models.small import CHANNELS, CLASSES, COUNT, ORDER, make_branch, make_maps

TASKS = (IDENTITY, *ORDER)


def albedo() -> Tensor:
    return make_maps()["albedo"]


def reads(branch: Branch, modules: nn.ModuleDict) -> dict[str, Tensor]:
    """What each of `modules` was given when `branch` read a batch."""
    read: dict[str, Tensor] = {}

    def remember(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda _, args: read.update({name: args[0]})

    hooks = [module.register_forward_pre_hook(remember(name)) for name, module in modules.items()]
    branch(albedo(), 1.0)
    for hook in hooks:
        hook.remove()
    return read


def test_the_identity_embedding_uses_the_rest_after_all_separations() -> None:
    """What the attributes' embeddings and the identity's are made of sums to the shared map."""
    branch = make_branch().eval()
    read = reads(branch, branch.embeddings)
    assert set(read) == set(TASKS)
    torch.testing.assert_close(torch.stack([*read.values()]).sum(dim=0), branch.shared_map(albedo()), rtol=1e-5, atol=1e-6)
    assert all(part.abs().max() > 1e-3 for part in read.values())


@pytest.mark.parametrize("order", [ORDER, ORDER[::-1]], ids=["the original's", "the other way round"])
def test_each_attribute_is_separated_from_the_rest_of_the_previous_one(order: tuple[str, ...]) -> None:
    """Calling the separations one after the other, in the order of the settings."""
    branch = make_branch(order=order).eval()
    read = reads(branch, branch.embeddings)
    rest = branch.shared_map(albedo())
    for task in order:
        part, rest = branch.separate[task](rest)
        assert torch.equal(read[task], part)
    assert torch.equal(read[IDENTITY], rest)


@pytest.mark.parametrize("settings", [{}, {"attribute_channels": 4}, {"fsm": False}], ids=str)
def test_embeddings_have_the_stated_widths(settings: dict[str, Any]) -> None:
    branch = make_branch(**settings)
    features = branch(albedo(), 1.0)
    narrow = settings.get("attribute_channels", CHANNELS)
    assert branch.embedding_widths == {IDENTITY: CHANNELS, **dict.fromkeys(ORDER, narrow)}
    assert {task: tuple(embedding.shape) for task, embedding in features.embeddings.items()} == {
        task: (COUNT, width) for task, width in branch.embedding_widths.items()
    }
    assert features.shared.shape == (COUNT, CHANNELS, 4, 4)


def test_without_separation_every_embedding_uses_the_shared_map_and_there_are_no_discriminators() -> None:
    branch = make_branch(fsm=False).eval()
    shared = branch.shared_map(albedo())
    assert all(torch.equal(read, shared) for read in reads(branch, branch.embeddings).values())
    assert not branch.separate
    assert not branch.adversaries
    assert branch.adversarial_attributes == ()
    assert make_branch(fsm=False)(albedo(), 1.0).adversarial == {}


def test_each_discriminator_reads_the_rest_of_its_own_split() -> None:
    branch = make_branch()
    read = reads(branch, branch.adversaries)
    rest = make_branch().shared_map(albedo())
    assert set(read) == set(ORDER)
    for task in ORDER:
        _, rest = branch.separate[task](rest)
        torch.testing.assert_close(read[task], rest)


def test_identity_discriminators_read_the_input_of_the_identity_embedding() -> None:
    branch = make_branch(adversary_input="identity")
    inputs, read = reads(branch, branch.adversaries), reads(branch, branch.embeddings)
    assert set(inputs) == set(ORDER)
    for value in inputs.values():
        torch.testing.assert_close(value, read[IDENTITY])
    assert (inputs["pose"] - read["pose"]).abs().max() > 1e-3


def test_discriminators_run_in_training_only_with_one_column_per_class() -> None:
    branch = make_branch()
    assert branch.adversarial_attributes == ORDER
    assert {task: tuple(logits.shape) for task, logits in branch(albedo(), 1.0).adversarial.items()} == {
        task: (COUNT, count) for task, count in CLASSES.items()
    }
    assert branch.eval()(albedo(), 1.0).adversarial == {}


def test_without_adversaries_no_discriminator_exists_and_the_embeddings_are_the_same() -> None:
    on, off = make_branch(), make_branch(adversary_input="off")
    assert not any("adversar" in name for name in off.state_dict())
    assert off.adversarial_attributes == ()
    off.load_state_dict(on.state_dict(), strict=False)
    theirs, ours = on(albedo(), 1.0), off(albedo(), 1.0)
    assert ours.adversarial == {}
    assert all(torch.equal(theirs.embeddings[task], ours.embeddings[task]) for task in TASKS)


def test_attribute_embeddings_can_be_narrower_than_identity_embeddings_and_discriminators() -> None:
    branch = make_branch(attribute_channels=4)
    assert {discriminator.linear.in_features for discriminator in branch.adversaries.values()} == {CHANNELS}
    assert branch.embedding_widths[IDENTITY] == CHANNELS
    assert {branch.embedding_widths[task] for task in ORDER} == {4}


def test_a_backbone_with_matching_channels_has_no_projection() -> None:
    assert isinstance(make_branch(channels=16).project, nn.Identity)
    assert isinstance(make_branch().project, nn.Conv2d)


def test_a_batch_of_one_is_rejected_in_training_and_accepted_in_evaluation() -> None:
    branch, one = make_branch(), albedo()[:1]
    with pytest.raises(InputError, match=r"batch\.people"):
        branch(one, 1.0)
    assert branch.eval()(one, 1.0).embeddings[IDENTITY].shape == (1, CHANNELS)


def frozen() -> Branch:
    branch = make_branch()
    branch.freeze()
    return branch


def test_a_frozen_branch_stays_in_evaluation_mode_after_train() -> None:
    branch = frozen()
    branch.train()
    assert not any(module.training for module in branch.modules())
    parent = nn.ModuleDict({"branch": branch}).train()
    assert parent.training
    assert not any(module.training for module in branch.modules())


def test_a_frozen_branch_accepts_a_batch_of_one() -> None:
    assert frozen().train()(albedo()[:1], 1.0).embeddings[IDENTITY].shape == (1, CHANNELS)


def test_a_frozen_branch_runs_as_in_evaluation_without_gradients_statistics_and_discriminators() -> None:
    branch = frozen().train()
    before = {name: tensor.clone() for name, tensor in branch.state_dict().items()}
    features = branch(albedo(), 1.0)
    expected = make_branch().eval()(albedo(), 1.0)
    assert all(torch.equal(features.embeddings[task], expected.embeddings[task]) for task in TASKS)
    assert not any(embedding.requires_grad for embedding in features.embeddings.values())
    assert features.adversarial == {}
    assert branch.adversarial_attributes == ()
    assert all(torch.equal(before[name], tensor) for name, tensor in branch.state_dict().items())
