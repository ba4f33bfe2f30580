"""Fixtures with real tracking stores and processes, and an environment without MLflow settings."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow_server import Server

from fr_ps.tracking import uris
from tests.conftest import MakeStore

Start = Callable[..., "subprocess.Popen[str]"]
SLOW_FIXTURES = {"start", "server"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with a process or a server of their own are slow."""
    for item in items:
        if item.path.parent == Path(__file__).parent and SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder, and no MLflow variables except short time limits."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]


@pytest.fixture
def store(make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A SQLite store of its own, which MLFLOW_TRACKING_URI names."""
    uri = make_store(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return MlflowClient(uri)


@pytest.fixture
def quick_store(new_sqlite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Creating a SQLite store copies an empty one, as MLflow's migration takes seconds."""
    monkeypatch.setattr(uris, "SqlAlchemyStore", lambda uri, _root: shutil.copy(new_sqlite, str(uris.sqlite_path(uri))))


@pytest.fixture(scope="session")
def one_server(tmp_path_factory: pytest.TempPathFactory, new_sqlite: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(new_sqlite, folder / "server.db")
    server = Server(folder)
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


@pytest.fixture
def server(one_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A real server process, which MLFLOW_TRACKING_URI names."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", one_server.uri)
    return one_server


@pytest.fixture(params=["sqlite", pytest.param("http", marks=pytest.mark.slow)])
def either(request: pytest.FixtureRequest) -> MlflowClient:
    """The SQLite store, and then the server."""
    if request.param == "sqlite":
        return request.getfixturevalue("store")
    return MlflowClient(request.getfixturevalue("server").uri)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts Python processes from source and arguments; kills the rest at the end."""
    started: list[subprocess.Popen[str]] = []

    def begin(source: str, *arguments: object) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", source, *map(str, arguments)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def fill() -> Callable[[Path], None]:
    """Fills a disk with one file."""

    def filled(path: Path) -> None:
        with suppress(OSError), path.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    return filled
