"""What a worker removes from its machine after a trial."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from fr_ps.search.trial import RUN
from fr_ps.search.trial_queue import EPOCHS, OUTCOME
from fr_ps.search.worker import remove_ended_checkpoints, total_epochs


@pytest.mark.parametrize(
    ("state", "outcome", "is_removed"),
    [
        (TrialState.COMPLETE, "complete", True),
        (TrialState.PRUNED, "pruned", True),
        (TrialState.FAIL, "failed", True),
        (TrialState.FAIL, None, False),
        (TrialState.FAIL, "complete", False),  # killed after the outcome was stored, and before the trial was ended
        (TrialState.RUNNING, None, False),
        (TrialState.WAITING, None, False),
    ],
)
def test_checkpoints_remain_only_where_a_trial_can_resume_from_them(
    tmp_path: Path, state: TrialState, outcome: str | None, is_removed: bool
) -> None:
    study = optuna.create_study(direction="maximize")
    attributes = {RUN: "ended"} | ({OUTCOME: outcome} if outcome else {})
    values = {"value": 0.5} if state == TrialState.COMPLETE else {}
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=0.9, user_attrs={RUN: "best", OUTCOME: "complete"}))
    study.add_trial(create_trial(state=state, user_attrs=attributes, **values))
    (tmp_path / "ended" / "checkpoints" / "last").mkdir(parents=True)
    remove_ended_checkpoints(study, tmp_path)
    assert (tmp_path / "ended" / "checkpoints").exists() != is_removed


@pytest.mark.parametrize("retry_run", ["killed", "other"], ids=["resumed", "started over in a new run"])
@pytest.mark.parametrize(
    ("state", "is_kept"),
    [(TrialState.RUNNING, True), (TrialState.WAITING, True), (TrialState.PRUNED, False), (TrialState.FAIL, False)],
    ids=["running", "waiting", "pruned", "killed too"],
)
def test_after_a_retry_only_its_own_checkpoints_remain_and_only_until_it_ends(
    tmp_path: Path, state: TrialState, is_kept: bool, retry_run: str
) -> None:
    study = optuna.create_study(direction="maximize")
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=0.9, user_attrs={RUN: "best", OUTCOME: "complete"}))
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={RUN: "killed"}))
    history = {"failed_trial": 1, "retry_history": [1]}
    outcome = {OUTCOME: "pruned"} if state == TrialState.PRUNED else {}
    study.add_trial(create_trial(state=state, user_attrs={RUN: retry_run} | outcome, system_attrs=history))
    for run in {"killed", retry_run}:
        (tmp_path / run / "checkpoints" / "last").mkdir(parents=True)
    remove_ended_checkpoints(study, tmp_path)
    assert [path.parent.name for path in tmp_path.glob("*/checkpoints")] == ([retry_run] if is_kept else [])


@pytest.mark.parametrize(
    ("retry_run", "attributes", "epochs"),
    [("killed", {EPOCHS: 5}, 5), ("killed", {}, 5), ("other", {EPOCHS: 5}, 8), ("other", {EPOCHS: 0}, 3)],
    ids=["resumed", "resumed and running", "started over", "just started over"],
)
def test_the_budget_counts_every_trained_epoch_once(retry_run: str, attributes: dict[str, int], epochs: int) -> None:
    study = optuna.create_study(direction="maximize")
    reported: dict[int, float] = {1: 0.5, 2: 0.5, 3: 0.5}
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={RUN: "killed"}, intermediate_values=reported))
    history = {"failed_trial": 0, "retry_history": [0]}
    retry = create_trial(
        state=TrialState.RUNNING, user_attrs={RUN: retry_run} | attributes, system_attrs=history,
        intermediate_values=reported | {4: 0.5, 5: 0.5},
    )  # fmt: skip
    study.add_trial(retry)
    assert total_epochs(study) == epochs
