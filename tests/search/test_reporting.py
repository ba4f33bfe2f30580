"""What the end of a search prints about trial runs that cannot be delivered."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from fr_ps.config import Config, SearchConfig
from fr_ps.config.search import StudyConfig
from fr_ps.search.reporting import _sync_trial_runs
from fr_ps.search.running_search import RunningSearch
from fr_ps.search.spec import build_study_spec
from fr_ps.search.trial_queue import RUN
from fr_ps.tracking.run_folder import RUN_INFO_FILE, ParentRun, new_run_info


@pytest.mark.parametrize(("content", "count"), [("{", 0), (None, 1)])
def test_a_damaged_run_folder_is_not_reported_as_an_unreachable_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str | None, count: int
) -> None:
    """Of two trials the first one's `run.json` is damaged, or intact; the server refuses connections."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    study, runs = optuna.create_study(), tmp_path / "runs"
    info = new_run_info("r1", "s-000")
    info.write(runs / "r1")
    if content is not None:
        (runs / "r1" / RUN_INFO_FILE).write_text(content)
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={RUN: "r1"}))
    search = {"space": {"optim.lr": {"low": 1e-4, "high": 1e-2}}, "objectives": {"val/identity/auc": "maximize"}}
    spec = build_study_spec(SearchConfig(study=StudyConfig(name="s"), **search), Config())  # type: ignore[arg-type]
    _sync_trial_runs(RunningSearch(spec, study, info, ParentRun("p", "0"), runs / "p", 1, runs))
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("MLflow unreachable") == count
