"""The search that a process runs."""

import os
from dataclasses import dataclass
from pathlib import Path

import optuna

from fr_ps.search.spec import StudySpec
from fr_ps.search.trial_queue import read_slots
from fr_ps.tracking.run_folder import RUN_INFO_FILE, ParentRun, RunInfo, read_run_info
from fr_ps.tracking.table_view import SERVER_SCHEMES, run_url


@dataclass(frozen=True)
class RunningSearch:
    """The search that this process runs: an open study and its run.

    Attributes:
        spec: of the study.
        study: in the database.
        run_info: content of `run.json` of the study's run as of its creation.
        study_run: ids of that run in MLflow, where it is the parent of the trials' runs.
        folder: of the study's run, on the machine where it started.
        workers: number of processes on this machine.
        runs: folder of the runs.
    """

    spec: StudySpec
    study: optuna.Study
    run_info: RunInfo
    study_run: ParentRun
    folder: Path
    workers: int
    runs: Path

    @property
    def threads(self) -> int:
        """Threads of each worker; 0: PyTorch's default."""
        share = max(1, (os.cpu_count() or 1) // self.workers) if self.workers > 1 else 0
        return self.spec.base.train.threads or share

    @property
    def all_finished(self) -> bool:
        """Whether all `max_trials` trials have ended; False where the hours or epochs of the budget ended the search earlier."""
        return read_slots(self.study, self.spec.max_trials).all_finished

    def mlflow_address(self, mlflow_id: str | None) -> str:
        """The page of a run on the tracking server; empty without a server, or before the run is there."""
        server = self.run_info.tracking_uri
        return run_url(server, self.study_run.experiment_id, mlflow_id) if mlflow_id and server.startswith(SERVER_SCHEMES) else ""

    def run_address(self, run_id: str) -> str:
        """The page of a run on the tracking server, or else its folder as seen from the study's report; empty without either."""
        folder = self.runs / run_id
        if not run_id or not (folder / RUN_INFO_FILE).is_file():
            return ""
        return self.mlflow_address(read_run_info(folder).mlflow_id) or f"../../{run_id}/"
