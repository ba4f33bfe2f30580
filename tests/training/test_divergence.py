"""A training whose losses grew, all of them finite, ends with a warning; others do not."""

from dataclasses import replace
from pathlib import Path

import pytest

from fr_ps.config import OptimConfig, ScheduleConfig
from fr_ps.tracking.journal import JOURNAL_FILE, read_events
from fr_ps.training.divergence import divergence_warning
from tests.training.runs import run_training, small_config


def curves(**losses: list[float]) -> dict[str, dict[int, float]]:
    return {f"train/loss/{task}": dict(enumerate(values, start=1)) for task, values in losses.items()}


def test_a_sum_of_losses_that_grew_is_named_with_its_numbers() -> None:
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
def test_losses_that_fell_recovered_or_cannot_be_compared_give_none(identity: list[float]) -> None:
    assert divergence_warning(curves(identity=identity, gender=[1.0] * len(identity)), ["gender"]) == ""


def test_weights_and_adversaries_do_not_count() -> None:
    """A total with learnt weights is no measure, and an adversary's loss is meant to grow."""
    grown = [1.0, 10, 100, 100]
    both = curves(identity=[30.0, 20, 10, 10], gender=[1.0, 1, 1, 1], total=grown, adversarial_gender=grown)
    assert divergence_warning(both, ["gender"]) == ""


def test_an_epoch_without_a_good_step_is_left_out() -> None:
    some = curves(identity=[30.0, 20, 90, 90, 90, 90, 90], gender=[1.0] * 7)
    del some["train/loss/identity"][2]
    assert "to 91 at the end" in divergence_warning(some, ["gender"])


def test_a_training_that_diverged_ends_with_the_warning_everywhere(prepared: Path, tmp_path: Path) -> None:
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
