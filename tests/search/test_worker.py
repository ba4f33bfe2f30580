"""What a worker removes from its machine after a trial."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from fr_ps.search.trial import RUN
from fr_ps.search.trial_queue import OUTCOME
from fr_ps.search.worker import remove_ended_checkpoints


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
