"""Delivery to MLflow with SQLite and with a real server: repeated, rejected, to deleted runs, by killed processes."""

import json
import math
import os
import shutil
import signal
import sqlite3
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from fr_ps.tracking import uris
from fr_ps.tracking.delivery import DELIVERED_FILE, DeliveryQueue
from fr_ps.tracking.mlflow_sink import RUN_ID_TAG, STATUS_TAG, MlflowSink, display_uri, run_tracking_uri
from fr_ps.tracking.run import Run, new_run_id
from fr_ps.tracking.run_folder import RunInfo, new_run_info, read_run_info
from fr_ps.tracking.uris import create_sqlite_store, sqlite_path
from tests.tracking import servers


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run without a delivery thread."""
    folder = tmp_path / "runs" / new_run_id()
    new_run_info(folder.name, "a name").write(folder)
    return Run(folder)


def deliver(run: Run) -> tuple[str, list[str]]:
    """Deliver the rest as a new process; returns the MLflow id and the rejected items."""
    queue, sink = DeliveryQueue(run.folder), MlflowSink(run.folder, read_run_info(run.folder))
    while queue.send_batch(sink):
        pass
    return sink.ensure_run(), queue.rejected


def log_all_kinds(run: Run) -> None:
    run.set_status("RUNNING")
    run.log_params({"model/backbone": "miresnet18", "data/classes": "x" * 7000})
    run.set_tags({"fr_ps.protocol": "subject_disjoint", "long": "y" * 9000})
    for step in (1, 2, 3):
        run.log_metrics({"train/loss/total": 1 / step, "val/identity/auc": 0.5 + step / 10}, step)
    run.log_dataset("faces", "/somewhere", "0123456789abcdef0123456789abcdef", {"sessions": 4}, "training")
    (run.folder / "sub").mkdir()
    (run.folder / "a.txt").write_text("a")
    (run.folder / "sub" / "b.txt").write_text("b")
    run.log_artifact(run.folder / "a.txt")
    run.log_artifact(run.folder / "sub", "kept/sub")
    run.set_status("FINISHED")


def points(client: MlflowClient, mlflow_id: str, metric: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(mlflow_id, metric)]


def check_delivered(client: MlflowClient, run: Run, mlflow_id: str) -> None:
    stored = client.get_run(mlflow_id)
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "a name"
    assert stored.info.start_time == read_run_info(run.folder).begun
    assert stored.info.start_time <= stored.info.end_time
    assert stored.data.tags[RUN_ID_TAG] == run.id
    assert stored.data.tags[STATUS_TAG] == "FINISHED"
    assert stored.data.tags["fr_ps.protocol"] == "subject_disjoint"
    assert len(stored.data.tags["long"]) == 8000
    assert stored.data.params["model/backbone"] == "miresnet18"
    assert len(stored.data.params["data/classes"]) == 6000
    assert points(client, mlflow_id, "train/loss/total") == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert len(points(client, mlflow_id, "val/identity/auc")) == 3
    (data,) = stored.inputs.dataset_inputs
    assert data.dataset.digest == "0123456789abcdef0123456789abcdef"
    assert json.loads(data.dataset.profile) == {"sessions": 4}
    assert [(tag.key, tag.value) for tag in data.tags] == [("mlflow.data.context", "training")]
    assert {file.path for file in client.list_artifacts(mlflow_id)} == {"a.txt", "kept"}
    assert {file.path for file in client.list_artifacts(mlflow_id, "kept/sub")} == {"kept/sub/b.txt"}


def test_a_run_is_delivered_and_a_second_delivery_changes_nothing(either, run):
    log_all_kinds(run)
    mlflow_id, rejected = deliver(run)
    check_delivered(either, run, mlflow_id)
    before = either.get_run(mlflow_id).to_dictionary()
    history = [point.timestamp for point in either.get_metric_history(mlflow_id, "train/loss/total")]
    assert deliver(run) == (mlflow_id, [])
    (run.folder / DELIVERED_FILE).unlink()
    assert deliver(run) == (mlflow_id, [])
    check_delivered(either, run, mlflow_id)
    assert either.get_run(mlflow_id).to_dictionary() == before
    assert [point.timestamp for point in either.get_metric_history(mlflow_id, "train/loss/total")] == history
    assert rejected == []


def test_a_second_delivery_adds_no_row_to_the_database(store, run, tmp_path):
    log_all_kinds(run)
    deliver(run)

    def rows() -> dict[str, int]:
        with sqlite3.connect(tmp_path / "mlflow.db") as database:
            tables = ("runs", "metrics", "params", "tags", "inputs", "input_tags", "datasets")
            return {table: database.execute(f"select count(*) from {table}").fetchone()[0] for table in tables}

    before = rows()
    assert before["runs"] == before["datasets"] == 1
    assert before["metrics"] == 6
    (run.folder / DELIVERED_FILE).unlink()
    deliver(run)
    assert rows() == before


def test_a_repeated_step_keeps_its_first_value(either, run):
    run.log_metrics({"a": 1.0}, 1)
    mlflow_id, _ = deliver(run)
    run.journal.close()
    again = Run(run.folder)
    again.log_metrics({"a": 2.0, "b": 3.0}, 1)
    deliver(again)
    assert points(either, mlflow_id, "a") == [(1, 1.0)]
    assert points(either, mlflow_id, "b") == [(1, 3.0)]


def test_nan_and_infinity_are_delivered_once(either, run):
    run.log_metrics({"nan": math.nan, "up": math.inf, "down": -math.inf}, 1)
    mlflow_id, rejected = deliver(run)
    (run.folder / DELIVERED_FILE).unlink()
    assert deliver(run) == (mlflow_id, rejected) == (mlflow_id, [])
    ((_, nan),) = points(either, mlflow_id, "nan")
    ((_, up),) = points(either, mlflow_id, "up")
    ((_, down),) = points(either, mlflow_id, "down")
    assert math.isnan(nan)
    assert up > 1e308
    assert down < -1e308


def test_more_items_than_a_call_may_hold_are_delivered(either, run):
    run.log_params({f"p{number}": str(number) for number in range(250)})
    run.set_tags({f"t{number}": str(number) for number in range(250)})
    run.log_metrics({f"m{number}": float(number) for number in range(2500)}, 1)
    mlflow_id, rejected = deliver(run)
    data = either.get_run(mlflow_id).data
    assert (len(data.params), len(data.metrics), rejected) == (250, 2500, [])
    assert {f"t{number}" for number in range(250)} < set(data.tags)


def test_a_rejected_item_is_reported_and_the_others_are_delivered(either, run):
    mlflow_id, _ = deliver_started(run)
    either.log_param(mlflow_id, "p3", "another value")
    run.log_params({f"p{number}": str(number) for number in range(7)})
    run.log_metrics({"good": 1.0, "bad=name": 2.0, "fine": 3.0}, 1)
    run.set_tags({"first": "1", "k" * 300: "too long a name", "last": "2"})
    run.log_artifact(run.folder / "not there")
    run.log_dataset("d" * 600, "/somewhere", "digest", {}, "training")
    run.log_metrics({"after": 4.0}, 2)
    run.set_status("FINISHED")
    _, rejected = deliver(run)
    stored = either.get_run(mlflow_id)
    assert stored.info.status == "FINISHED"
    assert stored.data.params == {f"p{number}": str(number) for number in range(7)} | {"p3": "another value"}
    assert stored.data.metrics == {"good": 1.0, "fine": 3.0, "after": 4.0}
    assert (stored.data.tags["first"], stored.data.tags["last"]) == ("1", "2")
    assert len(rejected) == 5, rejected
    for one, start in zip(
        sorted(rejected), sorted(["p3: ", "bad=name: ", "k" * 300, f"artifact: {run.folder}/not there: ", "dataset: "])
    ):
        assert one.startswith(start)
        assert "\n" not in one
    assert DeliveryQueue(run.folder).pending() == 0


def deliver_started(run: Run) -> tuple[str, list[str]]:
    run.set_status("RUNNING")
    return deliver(run)


def test_a_deleted_mlflow_run_blocks_the_delivery_until_it_is_restored(either, run):
    mlflow_id, _ = deliver_started(run)
    either.delete_run(mlflow_id)
    run.log_metrics({"a": 1.0}, 1)
    run.log_params({"p": "1"})
    run.set_tags({"t": "1"})
    run.log_dataset("faces", "/somewhere", "digest", {}, "training")
    run.set_status("FINISHED")
    for _ in range(2):
        with pytest.raises(MlflowException, match="active"):
            deliver(run)
    assert DeliveryQueue(run.folder).pending() == 5
    assert DeliveryQueue(run.folder).rejected == []
    either.restore_run(mlflow_id)
    assert deliver(run) == (mlflow_id, [])
    stored = either.get_run(mlflow_id)
    assert (stored.data.metrics, stored.data.params, stored.info.status) == ({"a": 1.0}, {"p": "1"}, "FINISHED")
    assert len(stored.inputs.dataset_inputs) == 1


def test_tags_of_another_run_are_set_or_rejected_if_it_is_gone(either, run):
    other = either.create_run("0").info.run_id
    run.tag_other_run(other, {"fr_ps.kind": "resume"})
    run.tag_other_run("0" * 32, {"fr_ps.kind": "resume"})
    run.set_status("FINISHED")
    mlflow_id, rejected = deliver(run)
    assert either.get_run(other).data.tags["fr_ps.kind"] == "resume"
    assert either.get_run(mlflow_id).info.status == "FINISHED"
    (one,) = rejected
    assert "0" * 32 in one


def test_the_run_of_mlflow_run_gets_our_name_once(either, run):
    started = either.create_run(either.create_experiment(f"of {run.id}"), run_name="polite-ant-7").info.run_id
    RunInfo(run.id, "a name", started, tracking_uri=read_run_info(run.folder).tracking_uri).write(run.folder)
    run.set_status("RUNNING")
    assert deliver(run) == (started, [])
    assert either.get_run(started).info.run_name == "a name"
    assert either.get_run(started).data.tags[RUN_ID_TAG] == run.id
    either.update_run(started, name="what its user calls it")
    run.set_status("FINISHED")
    deliver(run)
    assert either.get_run(started).info.run_name == "what its user calls it"


def test_a_delivered_run_that_its_store_lost_is_an_error_with_the_remedy(either, run, rejected):
    deliver_started(run)
    replace(read_run_info(run.folder), mlflow_id="0" * 32).write(run.folder)
    run.set_status("FINISHED")
    before = runs_with_our_tag(either, run)
    where = read_run_info(run.folder).tracking_uri
    with rejected(where, "0" * 32, run.id, f"deliver the run again: fr-ps sync --run {run.id} --store {where}"):
        deliver(run)
    assert DeliveryQueue(run.folder).pending() == 1
    assert runs_with_our_tag(either, run) == before


def started_by_mlflow(client: MlflowClient, run: Run, status: str, owner: str) -> str:
    """A run that MLFLOW_RUN_ID names, with this status and, if not empty, our id."""
    started = client.create_run(client.create_experiment(f"{status} {owner} {run.id}")).info.run_id
    if owner:
        client.set_tag(started, RUN_ID_TAG, owner)
    if status != "RUNNING":
        client.set_terminated(started, status)
    now = int(time.time() * 1000) + 1
    RunInfo(run.id, "a name", started, tracking_uri=read_run_info(run.folder).tracking_uri, begun=now).write(run.folder)
    return started


def test_an_mlflow_run_that_ended_during_an_outage_is_adopted(either, run):
    started = started_by_mlflow(either, run, "FINISHED", "")
    replace(read_run_info(run.folder), begun=either.get_run(started).info.end_time - 1000).write(run.folder)
    run.log_metrics({"a": 1.0}, 1)
    run.set_status("FINISHED")
    assert deliver(run)[0] == started
    assert either.get_run(started).data.metrics == {"a": 1.0}


@pytest.mark.parametrize(
    ("status", "owner", "why"),
    [("RUNNING", "another", "belongs to run another"), ("FINISHED", "another", "another"), ("FINISHED", "", "is FINISHED")],
)
def test_an_ended_or_foreign_mlflow_run_is_not_adopted(either, run, status, owner, why):
    started = started_by_mlflow(either, run, status, owner)
    before = either.get_run(started).to_dictionary()
    run.log_metrics({"a": 1.0}, 1)
    run.set_status("FINISHED")
    sink = MlflowSink(run.folder, read_run_info(run.folder))
    mlflow_id = sink.ensure_run()
    assert why in sink.note
    assert run.id in sink.note
    deliver(run)
    assert mlflow_id != started
    assert runs_with_our_tag(either, run) == [mlflow_id]
    assert either.get_run(mlflow_id).data.metrics == {"a": 1.0}
    assert either.get_run(started).to_dictionary() == before


def test_a_missing_mlflow_run_is_replaced_by_a_new_one(either, run):
    RunInfo(run.id, "a name", "0" * 32, tracking_uri=read_run_info(run.folder).tracking_uri).write(run.folder)
    run.set_status("FINISHED")
    mlflow_id, _ = deliver(run)
    assert runs_with_our_tag(either, run) == [mlflow_id]
    assert read_run_info(run.folder).mlflow_id == mlflow_id


def runs_with_our_tag(client: MlflowClient, run: Run) -> list[str]:
    experiments = [one.experiment_id for one in client.search_experiments()]
    return [one.info.run_id for one in client.search_runs(experiments, f"tags.`{RUN_ID_TAG}` = '{run.id}'")]


CONNECT_AND_DIE = """
import os, signal, sys
from pathlib import Path
from fr_ps.tracking.run_folder import RunInfo, read_run_info
from fr_ps.tracking.mlflow_sink import MlflowSink
folder = Path(sys.argv[1])
sink = MlflowSink(folder, read_run_info(folder))
RunInfo.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # killed after creating the MLflow run, before writing its id
sink.ensure_run()
"""


def test_a_process_killed_before_it_wrote_the_mlflow_id_leads_to_no_second_run(either, run, start):
    process = start(CONNECT_AND_DIE, run.folder)
    process.wait(60)
    assert process.returncode == -signal.SIGKILL
    assert read_run_info(run.folder).mlflow_id is None
    (left,) = runs_with_our_tag(either, run)
    run.set_status("FINISHED")
    assert deliver(run) == (left, [])
    assert read_run_info(run.folder).mlflow_id == left
    assert runs_with_our_tag(either, run) == [left]
    assert either.get_run(left).info.status == "FINISHED"


@pytest.mark.parametrize("by", ["name", "id"])
def test_the_experiment_of_run_json_is_used(either, run, by):
    experiment = either.create_experiment(f"mine of {run.id}")
    named = {"experiment": f"mine of {run.id}"} if by == "name" else {"experiment_id": experiment}
    RunInfo(run.id, "a name", **named, tracking_uri=read_run_info(run.folder).tracking_uri).write(run.folder)
    run.set_status("RUNNING")
    mlflow_id, _ = deliver(run)
    assert either.get_run(mlflow_id).info.experiment_id == experiment
    assert read_run_info(run.folder).experiment == f"mine of {run.id}"


def test_the_store_of_run_json_is_used_without_an_environment_variable(store, run, monkeypatch):
    uri = os.environ["MLFLOW_TRACKING_URI"]
    assert read_run_info(run.folder).tracking_uri == uri
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    run.set_status("RUNNING")
    mlflow_id, _ = deliver(run)
    assert store.get_run(mlflow_id).info.run_name == "a name"


def test_a_run_stays_in_its_store_when_the_environment_changes(store, run, monkeypatch, make_store, tmp_path):
    mlflow_id, _ = deliver_started(run)
    (tmp_path / "other").mkdir()
    other = make_store(tmp_path / "other")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
    run.set_status("FINISHED")
    assert deliver(run) == (mlflow_id, [])
    assert store.get_run(mlflow_id).info.status == "FINISHED"
    assert MlflowClient(other).get_experiment_by_name("fr-ps") is None


def test_the_environment_supplies_the_secrets_of_a_uri(run, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@host:5000")
    info = new_run_info("id", "a name")
    assert info.tracking_uri == display_uri(info) == "http://host:5000"
    assert run_tracking_uri(info) == "http://me:secret@host:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@another:5000")
    assert run_tracking_uri(info) == "http://host:5000"


@pytest.mark.parametrize("how", ["refuses", "hangs", "answers 500"])
def test_a_broken_server_raises_soon_and_acknowledges_nothing(run, monkeypatch, how):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    run.set_status("RUNNING")
    with servers.hanging() as hanging, servers.failing() as (failing, calls):
        uri = {"refuses": servers.refusing(), "hangs": hanging, "answers 500": failing}[how]
        replace(read_run_info(run.folder), tracking_uri=uri).write(run.folder)
        with pytest.raises(MlflowException):
            deliver(run)
        assert len(calls) == (how == "answers 500")
    assert (DeliveryQueue(run.folder).pending(), DeliveryQueue(run.folder).rejected) == (1, [])
    assert read_run_info(run.folder).mlflow_id is None


def test_a_missing_store_is_created(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/new/folder/mlflow.db")
    new_run_info(run.id, "a name").write(run.folder)
    run.set_status("FINISHED")
    mlflow_id, _ = deliver(run)
    assert MlflowClient().get_run(mlflow_id).info.status == "FINISHED"
    assert [file.name for file in (tmp_path / "new/folder").iterdir()] == ["mlflow.db"]


WARM = """
import os, signal, sys, time
from pathlib import Path
from fr_ps.tracking.run_folder import new_run_info
from fr_ps.tracking.journal import Journal
from fr_ps.tracking.delivery import DeliveryQueue
from fr_ps.tracking.uris import create_sqlite_store
from fr_ps.tracking.mlflow_sink import MlflowSink
import mlflow.store.tracking.sqlalchemy_store  # imported once, before the children start
"""
KILLED = (
    WARM
    + """
path = Path(sys.argv[1])
for moment in map(float, sys.argv[2:]):
    child = os.fork()
    if child == 0:
        create_sqlite_store(f"sqlite:///{path}")
        os._exit(0)
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(moment, path.exists(), len([*path.parent.glob("*")]), flush=True)  # the folder may not exist yet
    if path.exists():
        break
"""
)


def test_a_process_killed_while_it_creates_a_store_leaves_none_or_a_complete_one(tmp_path, start):
    """MLflow's own migration, killed half-way, leaves a file that it can never open again."""
    path = tmp_path / "store" / "mlflow.db"
    moments = (0.02, 0.1, 0.25, 0.5, 0.75, 1.0)
    process = start(KILLED, path, *moments)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert printed.count("False") >= 2, printed
    assert any(" False 1" in line or " False 2" in line for line in printed.splitlines()), "none died half-way"
    create_sqlite_store(f"sqlite:///{path}")
    assert MlflowClient(f"sqlite:///{path}").create_experiment("x")
    assert [file.name for file in path.parent.iterdir()] == ["mlflow.db"]


TOGETHER = (
    WARM
    + """
children = []
start = time.time() + 0.5
for number in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        try:
            folder = Path(sys.argv[1]) / (f"runs{number}" if sys.argv[3] == "apart" else "runs") / f"run{number}"
            new_run_info(folder.name, folder.name).write(folder)
            Journal(folder).append("status", {"status": "FINISHED"})
            time.sleep(start + 0.15 * number - time.time())
            DeliveryQueue(folder).send_batch(MlflowSink(folder, new_run_info(folder.name, folder.name)))
            os._exit(0)
        except BaseException as error:
            print(repr(error)[:500], flush=True)
            os._exit(1)
    children.append(child)
print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""
)


@pytest.mark.parametrize("where", ["together", "apart"])
def test_concurrent_processes_create_one_store_and_all_get_their_run(tmp_path, start, monkeypatch, where):
    """With their runs in one folder, and in separate ones."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    process = start(TOGETHER, tmp_path, 3, where)
    printed, errors = process.communicate(timeout=120)
    assert printed.split() == ["0", "0", "0"], printed + errors
    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name("fr-ps").experiment_id])
    assert Counter((one.info.run_name, one.info.status) for one in found) == {
        (f"run{number}", "FINISHED"): 1 for number in range(3)
    }
    assert not list(tmp_path.glob(".partial*"))


def test_a_store_that_another_program_creates_first_is_kept(tmp_path, new_sqlite, monkeypatch):
    """As `mlflow ui` does, started at the same moment."""
    path = tmp_path / "mlflow.db"

    def create_slowly(uri: str, _root: str) -> None:
        shutil.copy(new_sqlite, str(sqlite_path(uri)))
        shutil.copy(new_sqlite, path)
        MlflowClient(f"sqlite:///{path}").create_experiment("of another program")

    monkeypatch.setattr(uris, "SqlAlchemyStore", create_slowly)
    create_sqlite_store(f"sqlite:///{path}")
    with sqlite3.connect(path) as database:
        assert ("of another program",) in database.execute("select name from experiments").fetchall()
    assert not list(tmp_path.glob(".partial*"))
