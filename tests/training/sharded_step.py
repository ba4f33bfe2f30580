"""Centres that are sharded over several processes, which test_sharded_centres.py starts. Writes what each process has to files.

Arguments: a prepared data set, and a folder for the files.
"""

import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from fr_ps.config import BatchConfig, LossConfig, OptimConfig
from fr_ps.distributed import from_main_process, gather_rows, is_main_process, own_part, own_rows, process_group, rank, world_size
from fr_ps.losses import IDENTITY_LOSSES, build_identity_loss
from fr_ps.losses.margin import AdaFace, MarginLoss
from fr_ps.training.sampled_centres import sampled_centres
from fr_ps.training.sharded_centres import Sections, scatter_centres, take_centres
from fr_ps.training.trainer import Trainer
from tests.training.runs import make_config, make_trainer

CHANNELS, SUBJECTS, STEPS = 8, 41, 3
TARGETS = torch.tensor([7, 3, 30, 7, 40, 19])
CASES = [(name, share, weighted) for name in IDENTITY_LOSSES for share in (1.0, 0.3) for weighted in (False, True)]


def build(name: str, weighted: bool) -> MarginLoss:
    """A loss in float64; under torchrun, with the own part of the centres."""
    torch.manual_seed(0)
    person_weights = torch.linspace(0.2, 1, SUBJECTS) if weighted else None
    config = LossConfig(identity_loss=name)  # type: ignore[arg-type]
    loss = build_identity_loss(config, CHANNELS, SUBJECTS, person_weights, own_part(SUBJECTS) if world_size() > 1 else None)
    if isinstance(loss, AdaFace):
        loss.norm_mean.fill_(20.0)
        loss.norm_std.fill_(5.0)
    return loss.double().eval()


def embeddings() -> Tensor:
    return 20 * torch.randn(len(TARGETS), CHANNELS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def loss_step(name: str, share: float, weighted: bool) -> dict[str, Tensor]:
    """Value and gradients of the loss, and the subjects to which the rows of the gradient belong."""
    loss = build(name, weighted)
    assert loss.part is not None
    own = embeddings()[own_rows(len(TARGETS))].requires_grad_()
    optimizer = torch.optim.AdamW([loss.weight])
    with sampled_centres([loss], optimizer, TARGETS, share, 0) if share < 1 else nullcontext():
        value = loss(gather_rows(own), TARGETS)
        value.backward()
        subjects = torch.tensor(loss.part) if loss.sampled is None else loss.sampled
        assert own.grad is not None
        assert loss.weight.grad is not None
        return {"value": value.detach(), "embeddings": own.grad, "centres": loss.weight.grad.clone(), "subjects": subjects}


def trained(prepared: Path, optim: str) -> Trainer:
    """A trainer after some steps with a sample of the centres; with three identity losses, and clipped gradients."""
    config = make_config(prepared, loss={"sampled_subject_share": 0.5, "branches": True})
    config = replace(config, data=replace(config.data, modalities=("albedo", "normal")))
    optimizer = OptimConfig(name=optim, lr=1e-3, clip=1.0)  # type: ignore[arg-type]
    config = replace(config, batch=BatchConfig(people=2, sessions=2, steps=4), optim=optimizer)
    trainer = make_trainer(config)
    trainer.state.network.train()
    stream = trainer.loader.stream(trainer.loader.epoch_indices(0), 0)
    for step in range(STEPS):
        trainer.train_step(stream, range(step, step + 1))
    return trainer


def tensors(state: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of losses and optimizer in the state of a training, and the weights of the network."""
    sections = ((section, state[section]) for section in ("losses", "optimizer", "model"))
    return {
        f"{section}.{name}": value for section, values in sections for name, value in values.items() if torch.is_tensor(value)
    }


def resumed_state(prepared: Path, trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The state of `trainer`, and that of another one which has loaded it; empty except on the main process."""
    saved = trainer.state.state_dict()
    other = trained(prepared, "adamw").state
    with torch.no_grad():
        other.losses.identity.weight.zero_()
    taken: Sections = {}

    def take() -> dict[str, dict[str, Tensor]]:
        state = {name: dict(value) if isinstance(value, dict) else value for name, value in saved.items()}
        taken.update(take_centres(other.losses, other.optimizer, state))
        return state

    state = from_main_process(take)
    scatter_centres(other.losses, other.optimizer, state, taken)
    other.load_state_dict(state)
    again = other.state_dict()
    return (tensors(saved), tensors(again)) if is_main_process() else ({}, {})


if __name__ == "__main__":
    torch.set_num_threads(1)
    prepared, folder = Path(sys.argv[1]), Path(sys.argv[2])
    with process_group():
        for number, case in enumerate(CASES):
            save_file(loss_step(*case), folder / f"{number}-{rank()}.safetensors")
        sgd = trained(prepared, "sgd").state.state_dict()
        saved, again = resumed_state(prepared, trained(prepared, "adamw"))
        if is_main_process():
            save_file(tensors(sgd), folder / "sgd.safetensors")
            save_file(saved, folder / "saved.safetensors")
            save_file(again, folder / "again.safetensors")
