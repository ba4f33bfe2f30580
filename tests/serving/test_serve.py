"""`mlflow models serve`: requests to a real server over HTTP."""

import json
import shutil
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow_server import ModelServer

from fr_ps.serving.predict import list_prepared_sessions, predict_sessions
from fr_ps.serving.recognizer import Recognizer
from fr_ps.serving.registry import register, set_champion
from fr_ps.tracking.layout import BEST_CHECKPOINT
from fr_ps.tracking.lifecycle import start_run
from tests.conftest import MakeStore
from tests.serving.test_request import ANGLES, header_of_png, text_of
from tests.test_npy import BAD_HEADERS, forged


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


def test_the_server_predicts_like_the_model(served: Served, recognizer: Recognizer, prepared: Path, sessions: Any) -> None:
    expected = predict_sessions(recognizer, list_prepared_sessions(recognizer, prepared), 64)
    records = [texts(one) for one in sessions]
    lists = {name: array.tolist() for name, array in sessions[0].items()}
    split = {"columns": list(lists), "data": [list(lists.values())]}
    bodies: list[tuple[dict[str, Any], int]] = [
        ({"dataframe_records": records}, 4),
        ({"dataframe_split": split}, 1),
    ]
    by_key = dict(zip(expected.keys, expected.predictions.embeddings))
    keys = sorted(by_key)
    for body, count in bodies:
        status, answer = served.post_json(body)
        assert status == 200, answer
        assert len(answer["predictions"]) == count
        for row, key in zip(answer["predictions"], keys):
            assert np.allclose(row["embedding"], by_key[key], rtol=1e-4, atol=1e-5)
            assert row["gender"] in ("male", "female")
            assert 0 <= row["gender_probability"] <= 1
            assert row["pose"] is None


def test_concurrent_clients_get_their_own_predictions(served: Served, sessions: Any) -> None:
    def call(place: int) -> tuple[int, tuple[int, Any]]:
        return place % 4, served.post_json({"dataframe_records": [texts(sessions[place % 4])]})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(call, range(24)))
    alone = [served.post_json({"dataframe_records": [texts(one)]})[1]["predictions"][0]["embedding"] for one in sessions]
    for place, (status, answer) in answers:
        assert status == 200
        assert np.allclose(answer["predictions"][0]["embedding"], alone[place], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "JSON"),
        (b"[]", "dataframe_records"),
        (b"{}", "dataframe_records"),
        (b'{"dataframe_records": []}', "expected 1 to 256"),
        (b'{"dataframe_records": [{"albedo": "!!"}]}', "row 0: albedo: not base64"),
        (b'{"dataframe_records": [{"depth": [[1, 2], [3, 4]]}]}', "it reads albedo, normal"),
        (b'{"dataframe_records": [{"albedo": [[1, 2], [3, 4]]}]}', "2 x 2 px; this model reads 48 x 48"),
        (b'{"dataframe_records": [{"x": 1}]}', "expected 1 to 256"),
        (b'{"dataframe_records": [{"images": "x", "albedo": [[1]]}]}', "images and albedo"),
        (
            json.dumps({"dataframe_records": [{"albedo": b64encode(forged(BAD_HEADERS["list as a key"])).decode()}]}).encode(),
            "row 0: albedo: the text is no .npy file",
        ),
        (
            json.dumps({"dataframe_records": [{"images": [header_of_png(13_000)] * 4, **ANGLES}]}).encode(),
            "row 0: im0.png: 13000 x 13000 pixels; expected at most 64 million",
        ),
        (b'{"instances": [[1, 2]]}', ""),
        (b'{"inputs": {"albedo": [1]}}', ""),
    ],
)
def test_a_bad_request_gets_a_400_with_the_reason_and_the_server_lives(
    served: Served, sessions: Any, body: bytes, words: str
) -> None:
    status, answer = served.post(body)
    assert 400 <= status < 500, answer
    assert words in answer
    assert "Traceback" not in answer
    assert len(answer) < 20_000
    assert served.post_json({"dataframe_records": [texts(sessions[0])]})[0] == 200


def test_another_kind_of_content_gets_a_4xx(served: Served) -> None:
    for kind in ("text/plain", "application/x-pickle", "application/octet-stream"):
        status, _ = served.post(b"\x80\x04.", kind)
        assert 400 <= status < 500


def test_a_request_of_100_mb_gets_a_4xx_and_the_server_lives(served: Served, sessions: Any) -> None:
    record = json.dumps(texts(sessions[0]))
    many = ", ".join([record] * (100_000_000 // len(record)))
    status, answer = served.post(f'{{"dataframe_records": [{many}]}}'.encode())
    assert 400 <= status < 500
    assert "expected 1 to 256" in answer
    big = json.dumps({"dataframe_records": [{"albedo": "A" * 100_000_000}]}).encode()
    status, answer = served.post(big)
    assert 400 <= status < 500
    assert "row 0: albedo" in answer
    assert len(answer) < 20_000
    assert served.post_json({"dataframe_records": [texts(sessions[0])]})[0] == 200
