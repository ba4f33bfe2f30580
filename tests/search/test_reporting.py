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
from fr_ps.tracking.delivery import DeliveryQueue
from fr_ps.tracking.run import Run
from fr_ps.tracking.run_folder import ParentRun, new_run_info


@pytest.mark.parametrize("damaged", ["run.json", "journal.jsonl"])
def test_a_damaged_run_folder_hides_no_other_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damaged: str
) -> None:
    """Of three trials, a file of the first one is damaged; the others are intact. The server refuses connections."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    study, runs = optuna.create_study(), tmp_path / "runs"
    for name in ("r1", "r2", "r3"):
        info = new_run_info(name, "s")
        info.write(runs / name)
        Run(runs / name).set_tags({"a": "b"})
        study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={RUN: name}))
    (runs / "r1" / damaged).write_text("{\n{}\n")
    search = {"space": {"optim.lr": {"low": 1e-4, "high": 1e-2}}, "objectives": {"val/identity/auc": "maximize"}}
    spec = build_study_spec(SearchConfig(study=StudyConfig(name="s"), **search), Config())  # type: ignore[arg-type]
    _sync_trial_runs(RunningSearch(spec, study, info, ParentRun("p", "0"), runs / "p", 1, runs))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "buffered" in line] == lines
    (line,) = lines
    events = sum(DeliveryQueue(runs / name).pending() for name in ("r2", "r3"))
    assert line.startswith(f"{events} events of trials are buffered and not yet in MLflow (")
    assert line.endswith("; later: fr-ps sync")
