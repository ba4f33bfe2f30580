"""Non-finite steps are skipped, counted and explained; a training whose losses grew ends with a warning."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fr_ps.cli import main
from fr_ps.config import OptimConfig, ScheduleConfig
from fr_ps.errors import InputError
from fr_ps.tracking.journal import JOURNAL_FILE, read_events
from fr_ps.training.batch_loader import Batch, BatchLoader
from fr_ps.training.divergence import NonFiniteGuard, diagnose_nonfinite, divergence_warning
from fr_ps.training.setup import write_config
from fr_ps.training.trainer import Trainer
from tests.conftest import AssertRejected
from tests.training.runs import LATEST_CHECKPOINT, make_config, make_trainer, run_training, small_config


def curves(**losses: list[float]) -> dict[str, dict[int, float]]:
    return {f"train/loss/{task}": dict(enumerate(values, start=1)) for task, values in losses.items()}


def test_a_growing_sum_of_losses_gives_a_warning_with_its_values() -> None:
    warning = divergence_warning(curves(identity=[120.0, 200, 310, 320, 330], gender=[1.0, 1, 0, 0, 0]), ["gender"])
    assert warning.startswith("the training diverged: the sum of the task losses rose from 121 in epoch 1 to 325 at the end")
    assert "mean of 2 epochs" in warning
    assert "\n" not in warning


@pytest.mark.parametrize(
    "identity",
    [
        [30.0, 20, 10, 5],
        [30.0, 44, 44, 44],  # noise
        [30.0, 300, 25, 25, 25, 25],  # recovered
        [30.0],
        [],
    ],
)
def test_losses_that_fell_recovered_or_cannot_be_compared_give_no_warning(identity: list[float]) -> None:
    assert divergence_warning(curves(identity=identity, gender=[1.0] * len(identity)), ["gender"]) == ""


def test_weights_and_adversaries_do_not_count() -> None:
    """A total with learnt weights is no measure, and an adversary's loss is meant to grow."""
    grown = [1.0, 10, 100, 100]
    both = curves(identity=[30.0, 20, 10, 10], gender=[1.0, 1, 1, 1], total=grown, adversarial_gender=grown)
    assert divergence_warning(both, ["gender"]) == ""


def test_an_epoch_without_a_finite_step_is_left_out() -> None:
    some = curves(identity=[30.0, 20, 90, 90, 90, 90, 90], gender=[1.0] * 7)
    del some["train/loss/identity"][2]
    assert "to 91 at the end" in divergence_warning(some, ["gender"])


def test_a_diverged_training_has_the_warning_in_every_output(prepared: Path, tmp_path: Path) -> None:
    config = small_config(prepared, epochs=2)
    config = replace(
        config,
        loss=replace(config.loss, weighting="fixed"),
        optim=OptimConfig(lr=1, clip=0),
        schedule=ScheduleConfig(name="constant", warmup_epochs=0),
    )
    result, run, _ = run_training(config, tmp_path / "run")
    (warning,) = [one for one in result.warnings if "diverged" in one]
    events = [event for _, event in read_events(run.folder / JOURNAL_FILE)]
    tags = {name: value for event in events if event.kind == "tags" for name, value in event.data.items()}
    assert tags["fr_ps.warning"] == warning
    assert "the training diverged" in tags["mlflow.note.content"]
    for page in ("report/report.html", "checkpoints/best/README.md"):
        assert "the training diverged" in (run.folder / page).read_text()


class Poisoned(BatchLoader):
    """Maps with a NaN in the batches `bad`."""

    bad: tuple[int, ...] = ()

    def load(self, indices: np.ndarray, epoch: int, index: int) -> Batch:
        batch = super().load(indices, epoch, index)
        if index in self.bad:
            batch.maps["albedo"][0, 0, 3, 3] = torch.nan
        return batch


def training(prepared: Path, weighting: str, bad: tuple[int, ...], limit: int = 10) -> Any:
    """With batch norm, AdaFace's statistics, an average and a weighting: everything that a forward pass changes."""
    loss = {"weighting": weighting, "identity_loss": "adaface"}
    trainer = make_trainer(make_config(prepared, loss=loss, ema=0.9, bad_steps=limit))
    trainer.loader.__class__ = Poisoned
    trainer.loader.bad = bad  # type: ignore[attr-defined]
    return trainer


def epoch(trainer: Trainer, accumulate: int = 1, clip: float = 5.0) -> dict[str, float]:
    trainer.accumulate, trainer.clip = accumulate, clip
    return trainer.train_epoch()


def state(trainer: Trainer) -> dict[str, Tensor]:
    found = trainer.state.state_dict()
    return {
        f"{section}.{name}": tensor
        for section in ("model", "network", "losses", "optimizer")
        for name, tensor in found[section].items()
        if isinstance(tensor, Tensor)
    }


@pytest.mark.parametrize("weighting", ["uncertainty", "dwa", "upgrad", "mgda", "cagrad", "aligned_mtl", "pcgrad"])
@pytest.mark.parametrize("clip", [5.0, 0.0])
def test_a_nonfinite_step_changes_no_state(prepared, weighting, clip):
    trainer = training(prepared, weighting, bad=(0, 1, 2, 3), limit=99)
    before = state(trainer)
    values = epoch(trainer, clip=clip)
    after = state(trainer)
    # The optimizer allocates its moments in its first step, with zeros.
    assert all(not tensor.any() for name, tensor in after.items() if name not in before)
    assert {name.split(".")[0] for name in after.keys() - before.keys()} <= {"optimizer"}
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=0, equal_nan=True)
    assert values["train/skipped_steps"] == len(trainer.loader.epoch_indices(0)) == 4
    assert "train/loss/total" not in values  # nothing of a bad step is in the means, and a mean of nothing is absent


def test_the_steps_around_a_nonfinite_one_are_taken_and_counted(prepared):
    trainer = training(prepared, "uncertainty", bad=(1,))
    values = epoch(trainer)
    assert values["train/skipped_steps"] == 1
    assert trainer.state.guard.consecutive_skipped == 0
    assert all(np.isfinite(value) for value in values.values())
    assert all(torch.isfinite(tensor).all() for tensor in state(trainer).values())
    assert trainer.state.meter.counts["loss/total"] == 3
    trainer.state.end_epoch()
    trainer.loader.bad = ()
    assert epoch(trainer)["train/skipped_steps"] == 0


def test_one_nonfinite_batch_makes_an_accumulated_step_nonfinite(prepared):
    trainer = training(prepared, "fixed", bad=(3,))
    assert epoch(trainer, accumulate=2)["train/skipped_steps"] == 1
    assert trainer.state.meter.counts["loss/total"] == 2


def test_too_many_consecutive_nonfinite_steps_are_an_error_with_task_sessions_and_checkpoint(prepared, rejected):
    trainer = training(prepared, "fixed", bad=(1, 2, 3), limit=2)
    sessions = trainer.loader.session_names(trainer.loader.epoch_indices(0)[2])
    expected = (
        "2 steps in a row were skipped",
        "the loss of identity",
        "in epoch 1",
        sessions[0],
        sessions[5],
        LATEST_CHECKPOINT,
        "optim.lr",
    )
    with rejected(*expected):
        epoch(trainer)


def test_the_error_of_an_accumulated_step_names_the_nonfinite_batches(prepared, rejected):
    trainer = training(prepared, "fixed", bad=(0,), limit=1)
    order = trainer.loader.epoch_indices(0)
    with rejected("the loss of identity", trainer.loader.session_names(order[0])[0]):
        epoch(trainer, accumulate=2)
    assert not set(trainer.loader.session_names(order[0])) >= set(trainer.loader.session_names(order[1]))


def test_separate_nonfinite_steps_do_not_end_the_training(prepared):
    trainer = training(prepared, "fixed", bad=(0, 2), limit=2)
    assert epoch(trainer)["train/skipped_steps"] == 2


def test_the_task_with_a_nonfinite_gradient_is_found(prepared):
    """A loss that is a number, and whose gradient is none: the root of 0."""
    trainer = training(prepared, "fixed", bad=())

    class Rooted(nn.Module):
        def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
            return (0 * logits).sum().sqrt()

    trainer.state.losses.attributes["pose"] = Rooted()
    batch = trainer.loader.load(trainer.loader.epoch_indices(0)[0], 0, 0)
    assert (
        diagnose_nonfinite(trainer.state.network, trainer.state.losses, batch)
        == "the gradient of pose, adversarial_pose is NaN or infinite"
    )
    trainer.state.guard.max_consecutive = 1
    with pytest.raises(InputError, match="the gradient of pose, adversarial_pose is NaN or infinite"):
        epoch(trainer)


def test_the_command_adds_how_to_continue_a_diverged_training(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, small_config(prepared, epochs=3))
    monkeypatch.setattr(NonFiniteGuard, "diverged", True)
    assert main(["train", "--config", "config.yaml", "--optim.lr", "0.25", "--train.bad_steps", "1", "--device", "cpu"]) == 2
    (folder,) = (tmp_path / "runs").iterdir()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "lower optim.lr (now 0.25)" in line  # the setting, not the rate of this step of the warm-up
    assert line.endswith(f"fr-ps train --resume {folder.name} --allow-changed --optim.lr VALUE")


def test_a_step_that_was_interrupted_is_undone_and_a_whole_one_is_not(prepared: Path) -> None:
    trainer = training(prepared, "uncertainty", bad=())
    guard, buffers = trainer.state.guard, list(trainer.state.network.buffers())
    epoch(trainer)
    after = [buffer.clone() for buffer in buffers]
    guard.restore()
    assert all(torch.equal(buffer, saved) for buffer, saved in zip(buffers, after))
    guard.snapshot()
    for buffer in buffers:
        buffer += 1
    guard.restore()
    assert all(torch.equal(buffer, saved) for buffer, saved in zip(buffers, after))


def test_a_late_check_finds_the_steps_that_were_skipped(prepared: Path, rejected: AssertRejected) -> None:
    """On a GPU the counters are read every 20 batches only."""
    trainer = training(prepared, "fixed", bad=(0, 1), limit=2)
    trainer.check_every = 4
    batches = trainer.loader.epoch_indices(0)
    with rejected("2 steps in a row were skipped", "NaN or infinite") as _:
        try:
            epoch(trainer)
        except InputError as error:
            named = set(str(error).split("at the sessions ")[1].split(";")[0].split(" and ")[0].split(", "))
            assert named <= set(trainer.loader.session_names(np.concatenate(batches[:2])))
            raise
