"""The saved view of the run table: stored with the experiment, printed as an address, and shown by a browser."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow import MlflowClient
from mlflow_server import Server

from fr_ps.tracking.lifecycle import start_run
from fr_ps.tracking.run_folder import ParentRun
from fr_ps.tracking.table_view import VIEW_TAG, print_view_command, run_url, view_url

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

RUNS = Path("runs")


def test_the_first_run_stores_the_view_in_its_experiment(store: MlflowClient) -> None:
    with start_run("r", RUNS):
        pass
    view = json.loads(store.get_experiment_by_name("fr-ps").tags[VIEW_TAG])
    assert view["selectedColumns"][0] == "metrics.`best/val/identity/auc`"
    assert set(view["columnOrder"]) == set(view["columnWidths"]) > set(view["selectedColumns"])


def test_an_experiment_without_the_view_gets_it(store: MlflowClient) -> None:
    experiment = store.create_experiment("fr-ps")  # as of an earlier version, or made by `mlflow run`
    with start_run("r", RUNS):
        pass
    assert VIEW_TAG in store.get_experiment(experiment).tags


def test_without_a_server_the_command_comes_with_the_address(
    store: MlflowClient, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start_run("r", RUNS):
        pass
    assert capsys.readouterr().out == ""
    experiment = store.get_experiment_by_name("fr-ps").experiment_id
    address = view_url("http://127.0.0.1:5000", experiment)
    print_view_command(".venv/bin/mlflow")
    assert capsys.readouterr().out == f"view: run `.venv/bin/mlflow ui`, then open {address}\n"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    option = f"--backend-store-uri sqlite:///{tmp_path}/mlflow.db"
    print_view_command()
    assert capsys.readouterr().out == f"view: run `mlflow ui {option}`, then open {address}\n"


def test_make_train_ends_without_an_error_if_the_store_does_not_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.db").write_text("no database")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"sqlite:///{tmp_path}/broken.db")
    print_view_command()
    assert capsys.readouterr().out == f"view: run `mlflow ui --backend-store-uri {uri}`, then open http://127.0.0.1:5000\n"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # its address was printed by the run
    print_view_command()
    assert capsys.readouterr().out == ""


def test_the_printed_address_shows_the_identity_auc_without_a_click(
    server: Server, capsys: pytest.CaptureFixture[str], browser: "Chrome"
) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    with start_run("the run", RUNS) as run:
        run.log_metrics({"best/val/identity/auc": 0.9915, "best/val/identity/eer": 0.0312}, 2)
        run.log_metrics({"best/val/identity/auc": 0.9715, "val/identity/auc": 0.1234}, 1)
        run.log_metrics({"test/identity/auc": 0.9671, "test/identity/eer": 0.0678}, 0)
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"view: {server.uri}/#/experiments/\d+/runs\?\S+", line)
    browser.get(line.removeprefix("view: "))

    def table(driver: "Chrome") -> str:
        return str(driver.execute_script("return [...document.querySelectorAll('.ag-root')].map(e => e.innerText).join(' ')"))

    WebDriverWait(browser, 60).until(lambda driver: "the run" in table(driver) and "0.9915" in table(driver))
    shown = table(browser)
    assert "best/val/identity/auc" in shown
    assert "0.9671" in shown
    assert "0.1234" not in shown


def test_the_run_of_a_trial_prints_no_address(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    client = MlflowClient(server.uri)
    experiment = client.create_experiment("studies")
    parent = ParentRun(client.create_run(experiment).info.run_id, experiment)
    with start_run("trial", RUNS, parent=parent):
        pass
    assert capsys.readouterr().out == ""


def test_the_address_of_a_run_opens_its_page_for_trainings() -> None:
    expected = "http://host:5000/#/experiments/3/runs/abc?workflowType=machine_learning"
    assert run_url("http://host:5000/", "3", "abc") == expected
