"""`mlflow models serve`: requests to a real server over HTTP."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow_server import ModelServer

from fr_ps.serving.recognizer import Recognizer
from fr_ps.serving.registry import register, set_champion
from fr_ps.tracking.lifecycle import start_run
from fr_ps.tracking.run_folder import BEST_CHECKPOINT
from tests.conftest import MakeStore
from tests.serving.test_request import text_of

pytestmark = pytest.mark.slow


class Served(ModelServer):
    """A server of the registered champion."""

    def post_json(self, body: Any) -> tuple[int, Any]:
        status, text = self.post(json.dumps(body).encode())
        return status, json.loads(text)


@pytest.fixture(scope="module")
def served(both: Path, make_store: MakeStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("serve")
    uri = make_store(folder)
    server = Served(folder, "models:/faces@champion")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        with start_run("r", Path("runs")) as run:
            shutil.copytree(both, run.folder / BEST_CHECKPOINT)
            run.log_model(run.folder / BEST_CHECKPOINT, 1)
        set_champion(register(run.id, "faces"), None)
        server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def sessions(prepared: Path) -> list[dict[str, np.ndarray]]:
    folders = sorted((prepared / "data").glob("*/*"))[:4]
    return [{name: np.load(folder / f"{name}.npy") for name in ("albedo", "normal")} for folder in folders]


def texts(session: dict[str, np.ndarray]) -> dict[str, str]:
    return {name: text_of(array) for name, array in session.items()}


def test_the_server_predicts_like_the_model(served: Served, recognizer: Recognizer, sessions: Any) -> None:
    status, answer = served.post_json({"dataframe_records": [texts(one) for one in sessions]})
    assert status == 200, answer
    assert len(answer["predictions"]) == len(sessions)
    for row, maps in zip(answer["predictions"], sessions):
        assert np.allclose(row["embedding"], recognizer.embed(maps)[0], rtol=1e-4, atol=1e-5)


def test_an_invalid_request_gets_status_400_and_the_server_lives(served: Served, sessions: Any) -> None:
    """test_mlflow_model.py tests the other invalid requests in process."""
    status, answer = served.post(b'{"dataframe_records": [{"albedo": "!!"}]}')
    assert status == 400, answer
    assert "row 0: albedo: not base64" in answer
    assert "Traceback" not in answer
    assert served.post_json({"dataframe_records": [texts(sessions[0])]})[0] == 200


def test_concurrent_clients_get_their_own_predictions(served: Served, sessions: Any) -> None:
    def call(number: int) -> tuple[int, tuple[int, Any]]:
        return number % 4, served.post_json({"dataframe_records": [texts(sessions[number % 4])]})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(call, range(24)))
    alone = [served.post_json({"dataframe_records": [texts(one)]})[1]["predictions"][0]["embedding"] for one in sessions]
    for number, (status, answer) in answers:
        assert status == 200
        assert np.allclose(answer["predictions"][0]["embedding"], alone[number], rtol=1e-5, atol=1e-6)


def test_requests_of_100_mb_get_status_400_and_the_server_lives(served: Served, sessions: Any) -> None:
    record = json.dumps(texts(sessions[0]))
    many = ", ".join([record] * (100_000_000 // len(record)))
    large = json.dumps({"dataframe_records": [{"albedo": "A" * 100_000_000}]})
    for body, cause in ((f'{{"dataframe_records": [{many}]}}', "expected 1 to 256"), (large, "row 0: albedo")):
        status, answer = served.post(body.encode())
        assert status == 400
        assert cause in answer
        assert len(answer) < 20_000
    assert served.post_json({"dataframe_records": [texts(sessions[0])]})[0] == 200
