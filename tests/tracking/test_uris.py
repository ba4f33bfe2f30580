"""URIs of stores and artifacts in folders of any name, against SQLite and MLflow's own file functions."""

import os
import sqlite3
from pathlib import Path

import mlflow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path
from sqlalchemy import create_engine

from fr_ps.errors import InputError
from fr_ps.redaction import redact
from fr_ps.serving.registry import get_champion
from fr_ps.tracking import uris
from fr_ps.tracking.uris import (
    artifact_root,
    create_sqlite_store,
    default_tracking_uri,
    redacted_uri,
    registry_uri,
    sqlite_path,
    sqlite_uri,
    tracking_uri,
)
from tests.conftest import MakeStore
from tests.tracking import servers
from tests.tracking.conftest import no_settings  # noqa: F401

NAMES = [
    *("a b", "dự án", "copy (1)", "a+b", "50%", "O'Brien", "a,b", "a#b", "a?b", "a;b", "a:b", "a%20b", "[x]", "~x"),
    *("a{b}", "a&b=c", "x@y", 'a"b', "a\\b", "$HOME", "%", "%%41"),
]
folder_names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=40).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200
)


def opened_by_sqlalchemy(uri: str) -> str:
    """The path that SQLAlchemy gives to SQLite for an address."""
    engine = create_engine(uri)
    try:
        return str(engine.dialect.create_connect_args(engine.url)[0][0])
    finally:
        engine.dispose()


@pytest.mark.parametrize("name", NAMES)
def test_the_default_store_is_the_file_of_this_folder_without_a_second_folder(tmp_path, monkeypatch, name):
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    uri = tracking_uri()
    sqlite3.connect(folder / "mlflow.db").close()  # the file is there: making its tables takes seconds
    assert opened_by_sqlalchemy(uri) == str(folder / "mlflow.db")
    assert sqlite_path(uri) == folder / "mlflow.db"
    assert uri == default_tracking_uri() == registry_uri()
    assert opened_by_sqlalchemy(redacted_uri(uri)) == str(folder / "mlflow.db")
    assert redact(redacted_uri(uri)) == redacted_uri(uri)
    create_sqlite_store(uri)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@given(name=folder_names)
def test_a_uri_names_its_file_for_any_folder_name(name):
    path = Path("/somewhere", name, "mlflow.db")
    uri = sqlite_uri(path)
    assert opened_by_sqlalchemy(uri) == str(path)
    assert sqlite_path(uri) == sqlite_path(redacted_uri(uri)) == path
    assert redact(redacted_uri(uri)) == redacted_uri(uri)


@given(name=folder_names)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_artifacts_are_in_this_folder_for_any_folder_name(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert local_file_uri_to_path(f"{artifact_root()}/x") == f"{folder}/mlruns/x"


@pytest.mark.parametrize("name", ["a b", "dự án", "a?b", "a#b", "a%20b"])
def test_an_artifact_is_written_and_read_for_any_folder_name(tmp_path, monkeypatch, make_store: MakeStore, name):
    """Through MLflow, with the run and experiment that MlflowSink makes."""
    from fr_ps.tracking.lifecycle import start_run

    folder = tmp_path / name
    folder.mkdir()
    make_store(folder)
    monkeypatch.chdir(folder)
    Path("a.txt").write_text("a")
    lines: list[str] = []
    with start_run("x", Path("runs"), lines.append) as run:
        run.log_artifact(Path("a.txt"))
    assert [line for line in lines if "waiting for MLflow" not in line] == []  # printed on a busy machine
    client = MlflowClient(tracking_uri())
    assert client.get_run(run.mlflow_id).info.status == "FINISHED"
    copied = Path(mlflow.artifacts.download_artifacts(run_id=run.mlflow_id, artifact_path="a.txt", tracking_uri=tracking_uri()))
    assert copied.read_text() == "a"
    (kept,) = [path for path in folder.rglob("a.txt") if "artifacts" in path.parts]
    assert kept.is_relative_to(folder / "mlruns")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_named_store_replaces_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking_uri() == registry_uri() == "http://127.0.0.1:5000"
    assert default_tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://127.0.0.1:6000")
    assert registry_uri() == "http://127.0.0.1:6000"


def test_a_recorded_uri_has_no_password_that_looks_like_a_port():
    assert redacted_uri("postgresql://user:12/x@h/db") == "postgresql://***"


@pytest.mark.parametrize("uri", ["", "sqlite://", "sqlite:///:memory:", "sqlite:///a.db?mode=ro", "http://host/a.db", "sqlite"])
def test_other_uris_have_no_file(uri):
    assert sqlite_path(uri) is None


LIMITS = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT")


def limits() -> list[str]:
    return [os.environ[name] for name in LIMITS]


@pytest.fixture
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP limits as in a process without any request so far."""
    monkeypatch.setattr(uris, "_own_limits", {})
    monkeypatch.setattr(uris, "_open_client_used", False)
    for name in LIMITS:
        monkeypatch.setenv(name, "")  # restored after the test
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("new_process")
def test_registry_requests_are_retried_before_and_during_a_delivery_whose_own_are_not() -> None:
    with uris.retried_requests():
        assert limits() == ["2", "60"]
    uris.open_client("http://127.0.0.1:9")
    assert limits() == ["0", "20"]
    with uris.retried_requests():
        uris.open_client("http://127.0.0.1:9")  # as the delivery thread does after each failure
        assert limits() == ["2", "60"]
    assert limits() == ["0", "20"]


@pytest.mark.usefixtures("new_process")
def test_a_registry_request_is_retried_after_a_delivery_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    with servers.failing() as (uri, calls):
        uris.open_client(uri)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(InputError, match="check that the MLflow server"):
            get_champion("faces")
        assert len(calls) == 3


@pytest.mark.usefixtures("new_process")
def test_http_limits_that_the_user_set_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(LIMITS, ("5", "90"), strict=True):
        monkeypatch.setenv(name, value)
    uris.open_client("http://127.0.0.1:9")
    with uris.retried_requests():
        assert limits() == ["5", "90"]
    assert limits() == ["5", "90"]
