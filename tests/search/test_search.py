"""One search from start to end in this process, with workers that run one after the other."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import FrozenTrial, TrialState

from fr_ps.cli import main, parse_command_line
from fr_ps.search import worker
from fr_ps.search.results import WIDTH
from fr_ps.tracking.run_lock import run_lock
from tests.conftest import MakeStore
from tests.forked import empty_png
from tests.pages import HtmlPage
from tests.search.conftest import OBJECTIVE, SETTINGS, rejection

TRIALS = 3
"""Two with different rates, and one that repeats a rate."""
STUDY: dict[str, Any] = SETTINGS | {
    "study": {"name": "small", "seed": 0},
    "train": {"epochs": 1, "threads": 1},
    "space": {"optim.lr": [0.001, 0.003]},
    "sampler": {"name": "random"},
    "pruner": {"name": "none"},
    "budget": {"trials": TRIALS},
    "after": {"seeds": 1, "register": "faces"},
}


def run_jobs(jobs: Mapping[Path, Any], poll_finished: Callable[[], int], limit: int = 0) -> None:
    """As `run_workers`, in this process."""
    poll_finished()
    for job in jobs.values():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stdin", io.StringIO(json.dumps(job) + "\n"))
            worker._run_job()
        poll_finished()


@dataclass(frozen=True)
class FinishedSearch:
    """Folder and MLflow store of a finished search, and exit code and output of its command."""

    folder: Path
    uri: str
    exit_code: int
    output: str

    @property
    def study(self) -> optuna.Study:
        return optuna.load_study(study_name="small", storage=f"sqlite:///{self.folder}/studies.db")

    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def runs(self) -> tuple[Run, list[Run]]:
        """The study's run in MLflow, and its children."""
        client = MlflowClient(self.uri)
        runs = client.search_runs([client.get_experiment_by_name("fr-ps").experiment_id])
        (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        return parent, [run for run in runs if run is not parent]


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory, make_store: MakeStore, undrawn: None) -> Iterator[FinishedSearch]:
    folder = tmp_path_factory.mktemp("search")
    uri = make_store(folder)
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
            patch.delenv(name, raising=False)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        for module in ("launcher", "final_runs"):
            patch.setattr(f"fr_ps.search.{module}.run_workers", run_jobs)
        patch.setattr("fr_ps.progress._SECONDS_BETWEEN_LINES", 0.0)  # a line at each advance
        patch.setattr("fr_ps.search.plots.plot_png", empty_png)
        patch.setattr(worker, "_stop_with_launcher", lambda: None)  # reads the standard input of this process
        output = io.StringIO()
        with redirect_stdout(output):
            exit_code = main(["search", "--config", "study.yaml"])
        yield FinishedSearch(folder, uri, exit_code, output.getvalue())


def test_a_search_prints_every_trial_the_best_one_and_the_run(search: FinishedSearch) -> None:
    assert search.exit_code == 0
    parent, _ = search.runs()
    assert search.output.splitlines()[-1] == parent.info.run_id
    for number in range(TRIALS):
        assert re.search(rf"^trial +{number}  complete", search.output, re.MULTILINE)
    assert f"best: trial {search.study.best_trial.number}, {OBJECTIVE} {search.study.best_value:.4f}" in search.output
    own = [line for line in search.output.splitlines() if re.match(r"trial +\d+  | {11}|\w+/|the best|[A-Z]", line)]
    assert max(map(len, own)) <= WIDTH


def test_every_trial_is_a_child_run_with_its_settings_and_value(search: FinishedSearch) -> None:
    parent, children = search.runs()
    assert parent.info.status == "FINISHED"
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    runs = {int(run.data.tags["fr_ps.trial"]): run for run in children if "fr_ps.trial" in run.data.tags}
    assert sorted(runs) == list(range(TRIALS))
    for trial in search.trials():
        run = runs[trial.number]
        assert trial.state == TrialState.COMPLETE
        assert (run.info.status, run.data.tags["fr_ps.trial_state"], run.data.tags["fr_ps.kind"]) == (
            "FINISHED",
            "complete",
            "trial",
        )
        assert trial.user_attrs["run"] == run.data.tags["fr_ps.run_id"]
        assert trial.user_attrs["mlflow_run"] == run.info.run_id
        assert trial.user_attrs["outcome"] == "complete"
        assert trial.user_attrs["epochs"] == (0 if "copied" in trial.user_attrs["reason"] else 1)
        assert float(run.data.params["optim/lr"]) == trial.params["optim.lr"]
        assert run.data.metrics[f"best/{OBJECTIVE}"] == trial.value
        assert not any(name.startswith("test/") for name in run.data.metrics)


def test_the_attributes_of_the_study_keep_the_keys_of_version_0_1(search: FinishedSearch) -> None:
    attributes = search.study.user_attrs
    assert {"fr_ps.definition", "fr_ps.parent", "fr_ps.data_digest", "fr_ps.final"} <= attributes.keys()
    assert attributes["fr_ps.parent"].keys() == {"card", "parent", "folder"}
    assert {"id", "name", "mlflow_id", "host", "experiment_id", "tags"} <= attributes["fr_ps.parent"]["card"].keys()
    assert attributes["fr_ps.parent"]["parent"].keys() == {"mlflow_id", "experiment_id"}
    assert attributes["fr_ps.definition"].keys() == {"objectives", "space", "base"}
    assert attributes["fr_ps.final"].keys() == {f"trial-{search.study.best_trial.number:03d}-seed-0", "base-seed-0"}
    assert {"run", "host"} <= search.trials()[0].user_attrs.keys()


def test_a_trial_with_the_settings_of_another_copies_its_values(search: FinishedSearch) -> None:
    rates = [trial.params["optim.lr"] for trial in search.trials()]
    assert len(set(rates)) == 2
    (copy,) = [number for number, rate in enumerate(rates) if rate in rates[:number]]
    original = rates.index(rates[copy])
    trials = search.trials()
    assert trials[copy].user_attrs["reason"] == f"same settings as trial {original}; values copied"
    assert trials[copy].values == trials[original].values
    assert trials[copy].intermediate_values == {}


def test_checkpoints_stay_for_the_best_trial_only(search: FinishedSearch) -> None:
    best = search.study.best_trial.number
    for trial in search.trials():
        folder = search.folder / "runs" / trial.user_attrs["run"] / "checkpoints"
        assert sorted(path.name for path in folder.glob("*")) == (["best"] if trial.number == best else [])


def test_the_report_has_results_that_train_and_search_accept(search: FinishedSearch) -> None:
    parent, _ = search.runs()
    folder = search.folder / "runs" / parent.data.tags["fr_ps.run_id"] / "report"
    files = {file.name for file in folder.iterdir() if file.suffix != ".png"}
    assert files == {"best.yaml", "trials.csv", "study.yaml", "gain.csv", "search.html"}
    with (folder / "trials.csv").open() as file:
        assert [(row["trial"], row["state"]) for row in csv.DictReader(file)] == [(str(n), "complete") for n in range(TRIALS)]
    arguments = parse_command_line(["train", "--config", str(folder / "best.yaml")])["train"]
    assert arguments.optim.lr == search.study.best_params["optim.lr"]
    assert arguments.train.select == OBJECTIVE
    assert {file.path for file in MlflowClient(search.uri).list_artifacts(parent.info.run_id, "report")} >= {"report/best.yaml"}
    points = MlflowClient(search.uri).get_metric_history(parent.info.run_id, f"best/{OBJECTIVE}")
    assert sorted(point.step for point in points) == list(range(1, TRIALS + 1))
    assert max(points, key=lambda point: point.step).value == search.study.best_value


def test_final_runs_are_tested_and_the_best_one_is_registered(search: FinishedSearch) -> None:
    parent, children = search.runs()
    finals = {run.info.run_name: run for run in children if "fr_ps.trial" not in run.data.tags}
    best, base = f"small-trial-{search.study.best_trial.number:03d}-seed-0", "small-base-seed-0"
    assert finals.keys() == {best, base}
    auc = {name: run.data.metrics["test/identity/auc"] for name, run in finals.items()}
    assert parent.data.metrics["gain/identity/auc"] == pytest.approx(auc[best] - auc[base])
    page = HtmlPage((search.folder / "runs" / parent.data.tags["fr_ps.run_id"] / "report" / "search.html").read_text())
    addresses = {str(attributes["href"]) for _, attributes in page.tags_of("a")}
    ours = {run.data.tags["fr_ps.run_id"] for run in children}
    assert {f"../../{run}/" for run in ours} == {address for address in addresses if not address.startswith("#")}
    (version,) = MlflowClient(search.uri).search_model_versions("name='faces'")
    assert version.run_id == finals[best].info.run_id
    assert "registered as models:/faces/1" in search.output


def test_a_finished_search_that_starts_again_trains_nothing(search: FinishedSearch, capsys: pytest.CaptureFixture[str]) -> None:
    folders = sorted((search.folder / "runs").iterdir())
    assert main(["search", "--config", "study.yaml", "--after.register", ""]) == 0
    assert f"{TRIALS} of {TRIALS} trials have ended" in capsys.readouterr().out
    assert sorted((search.folder / "runs").iterdir()) == folders


def test_a_search_joins_as_a_worker_while_another_process_leads(
    search: FinishedSearch, capsys: pytest.CaptureFixture[str]
) -> None:
    parent, _ = search.runs()
    with run_lock(search.folder / "runs" / parent.data.tags["fr_ps.run_id"]):
        assert main(["search", "--config", "study.yaml"]) == 0
    output = capsys.readouterr().out
    assert "this study is led from" in output
    assert "best: trial" not in output


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"space": {"optim.lr": [0.001, 0.003, 0.01]}}, ("optim.lr", "0.01")),
        ({"space": {"optim.weight_decay": [0.1]}}, ("space", "absent")),
        ({"objectives": {"val/identity/eer": "minimize"}}, ("minimize",)),
        ({"objectives": {"val/gender/auc": "maximize"}}, (OBJECTIVE, "objectives")),
        ({"optim": {"weight_decay": 0.1}}, ("optim.weight_decay", "0.05", "0.1")),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_study_that_starts_again_with_another_definition_is_an_error(
    search: FinishedSearch, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], words: tuple[str, ...]
) -> None:
    folders = sorted((search.folder / "runs").iterdir())
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(STUDY | change))
    line = rejection(tmp_path / "other.yaml", capsys)
    for word in ("'small'", "study.name", *words):
        assert word in line
    assert sorted((search.folder / "runs").iterdir()) == folders
    assert len(search.trials()) == TRIALS
