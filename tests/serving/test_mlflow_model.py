"""The MLflow model: requests as its scoring server handles them, and the code of models that version 0.1 logged."""

import errno
import json
import os
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel, scoring_server

from fr_ps.config import ModelConfig
from fr_ps.data.layout import CHANNELS
from fr_ps.errors import InputError
from fr_ps.serving import mlflow_model
from fr_ps.serving.mlflow_model import REQUIREMENTS, save_pyfunc_model
from fr_ps.serving.recognizer import Recognizer
from tests.serving.conftest import make_model
from tests.serving.test_request import ANGLES, header_of_png, make_capture_row, text_of
from tests.test_npy import BAD_HEADERS, forged

OLD_PYFUNC_FILE = Path(__file__).parents[1] / "old_files" / "pyfunc_model.py"


@pytest.fixture(scope="module")
def packaged(both: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packaged") / "model"
    save_pyfunc_model(both, folder)
    return folder


@pytest.fixture(scope="module")
def model(packaged: Path) -> PyFuncModel:
    return mlflow.pyfunc.load_model(str(packaged))


@pytest.fixture(scope="module")
def session(prepared: Path) -> dict[str, np.ndarray]:
    folder = next((prepared / "data").glob("*/*"))
    return {name: np.load(folder / f"{name}.npy") for name in ("albedo", "normal")}


def post(model: PyFuncModel, body: bytes, content_type: str = "application/json") -> tuple[int, str]:
    """Status and text of the scoring server's response, computed in this process."""
    try:
        response = scoring_server.invocations(body, content_type, model, model.metadata.get_input_schema())
    except MlflowException as error:
        return error.get_http_status_code(), error.message
    return response.status, response.response


def test_the_scoring_server_predicts_like_the_recognizer(
    model: PyFuncModel, recognizer: Recognizer, session: dict[str, np.ndarray]
) -> None:
    lists = {name: array.tolist() for name, array in session.items()}
    for body in (
        {"dataframe_records": [{name: text_of(array) for name, array in session.items()}]},
        {"dataframe_split": {"columns": list(lists), "data": [list(lists.values())]}},
    ):
        status, text = post(model, json.dumps(body).encode())
        assert status == 200, text
        (row,) = json.loads(text)["predictions"]
        assert np.allclose(row["embedding"], recognizer.embed(session)[0], rtol=1e-4, atol=1e-5)
        assert row["gender"] in ("male", "female")
        assert 0 <= row["gender_probability"] <= 1
        assert row["pose"] is None
        assert row["maps"] == "albedo+normal"


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
        (b'{"dataframe_records": [{"unknown": 1}]}', "expected 1 to 256"),
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
def test_an_invalid_request_gets_status_400_and_the_cause(model: PyFuncModel, body: bytes, words: str) -> None:
    status, text = post(model, body)
    assert status == 400, text
    assert words in text
    assert "Traceback" not in text


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-pickle", "application/octet-stream"])
def test_another_content_type_gets_status_415(model: PyFuncModel, content_type: str) -> None:
    assert post(model, b"\x80\x04.", content_type)[0] == 415


def test_the_pyfunc_model_of_version_0_1_runs_on_this_package(
    both: Path, session: dict[str, np.ndarray], recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has imported this package runs the `pyfunc_model.py` of a logged model on it, not on the model's code."""
    monkeypatch.setattr(mlflow_model, "PYFUNC_FILE", OLD_PYFUNC_FILE)
    save_pyfunc_model(both, tmp_path / "model")
    assert (tmp_path / "model" / OLD_PYFUNC_FILE.name).read_bytes() == OLD_PYFUNC_FILE.read_bytes()
    old = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    assert np.array_equal(old.predict(pd.DataFrame([session]))["embedding"][0], recognizer.embed(session)[0])
    with pytest.raises(MlflowException, match="row 0: albedo: not base64"):
        old.predict(pd.DataFrame([{"albedo": "!!"}]))


def test_the_package_has_the_code_and_no_pickle(packaged: Path) -> None:
    files = [file for file in packaged.rglob("*") if file.is_file()]
    assert not [file for file in files if file.suffix in (".pkl", ".pickle", ".pt", ".pth", ".bin", ".pyc")]
    assert (packaged / "code/fr_ps/serving/recognizer.py").is_file()
    assert not list(packaged.rglob("__pycache__"))


def test_the_signature_has_every_column_that_a_request_may_have(model: PyFuncModel) -> None:
    names = set(model.metadata.get_input_schema().input_names())
    intensities = {"intensity", "intensity_r", "intensity_g", "intensity_b"}
    assert names == {*CHANNELS, *ANGLES, *"xyz", *intensities, "images", "mask", "ambient", "landmarks"}


@pytest.mark.parametrize(
    ("error", "raised", "text"),
    [
        (MlflowException("bad\nsignature"), InputError, r"both: MLflow cannot package this model \(bad signature\); check"),
        (OSError(errno.ENOSPC, "No space left on device"), OSError, "No space left"),
    ],
)
def test_a_failure_to_package_raises_an_input_error_or_the_os_error_of_the_disk(
    both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception], text: str
) -> None:
    def fail(*_arguments: Any, **_named: Any) -> None:
        raise error

    monkeypatch.setattr(mlflow.pyfunc, "save_model", fail)
    with pytest.raises(raised, match=text):
        save_pyfunc_model(both, tmp_path / "model")


def test_the_requirements_are_pinned_without_local_versions(packaged: Path) -> None:
    lines = (packaged / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in lines] == list(REQUIREMENTS)
    assert not [line for line in lines if "+" in line]


ALLOWED_ONLY = """
import importlib.metadata as metadata
import sys
from importlib.machinery import PathFinder

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

def closure(names):
    found, rest = set(), list(names)
    while rest:
        name = canonicalize_name(rest.pop())
        if name in found:
            continue
        try:
            needed = [Requirement(text) for text in metadata.requires(name) or []]
        except metadata.PackageNotFoundError:  # optional on this platform
            continue
        found.add(name)
        rest += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found

folder, requirements = sys.argv[1:]
allowed = closure(line.partition("==")[0] for line in open(requirements))
blocked = {
    root for root, owners in metadata.packages_distributions().items()
    if not allowed & {canonicalize_name(owner) for owner in owners}
} - {"packaging", "fr_ps"}
assert {"optuna", "plotly", "onnx", "onnxruntime", "torchjd", "jsonargparse"} <= blocked, blocked

class AllowedFinder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in blocked else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = AllowedFinder
import glob

import mlflow.pyfunc
import numpy
import pandas

rows = pandas.read_pickle(f"{folder}/rows.pickle")
for model in sorted(glob.glob(f"{folder}/*/MLmodel")):
    loaded = mlflow.pyfunc.load_model(model.removesuffix("/MLmodel"))
    for row in rows:
        assert numpy.isfinite(loaded.predict(pandas.DataFrame([row]))["embedding"][0]).all()
import fr_ps

assert fr_ps.__file__.startswith(folder), fr_ps.__file__
print("predicted")
"""


@pytest.mark.slow
def test_a_model_predicts_if_only_its_requirements_can_be_imported(
    prepared: Path, captures: Path, session: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """A process that cannot import any other distribution loads models of each kind, and predicts from maps and from images."""
    for place, backbone in enumerate(("miresnet18", "convnextv2_atto", "timm:test_resnet")):
        architecture = ModelConfig(backbone=backbone, channels=32, fsm=False)  # type: ignore[arg-type]
        folder = make_model(tmp_path / f"folder{place}", prepared, "albedo", "normal", model=architecture)
        save_pyfunc_model(folder, tmp_path / f"model{place}")
    pd.to_pickle([session, make_capture_row(next(captures.glob("*/*")))], tmp_path / "rows.pickle")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", ALLOWED_ONLY, str(tmp_path), str(tmp_path / "model0" / "requirements.txt")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split()[-1:] == ["predicted"], done.stderr
