"""The engine: predictions of ONNX Runtime against those of torch, and the cached graph."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch

import fr_ps
from fr_ps.data.dataset import open_dataset
from fr_ps.models.folder import weights_digest
from fr_ps.serving import engine as module
from fr_ps.serving import onnx_graph
from fr_ps.serving.engine import pick_engine
from fr_ps.serving.mlflow_model import save_pyfunc_model
from fr_ps.serving.recognizer import Recognizer
from tests.conftest import AssertRejected, Command
from tests.serving.conftest import CPU


@pytest.fixture(scope="module")
def maps(prepared: Path) -> dict[str, np.ndarray]:
    return open_dataset(prepared, ["albedo", "normal"]).store.read(np.arange(9))


@pytest.fixture(scope="module")
def by_onnx(both: Path) -> Recognizer:
    return Recognizer(both, CPU, "onnx")


def graph_of(model: Path, cache: Path) -> Path:
    return cache / "onnx" / weights_digest(model) / "model.onnx"


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_onnx_predicts_as_torch_at_any_batch_size(
    by_onnx: Recognizer, recognizer: Recognizer, maps: dict[str, np.ndarray], batch: int
) -> None:
    found, expected = (one.predict_checked(maps, batch) for one in (by_onnx, recognizer))
    assert by_onnx.onnx is not None
    assert np.abs(found.embeddings - expected.embeddings).max() <= 1e-5 * np.abs(expected.embeddings).max()
    for attribute, probabilities in expected.probabilities.items():
        assert np.abs(found.probabilities[attribute] - probabilities).max() <= 1e-5


def test_torch_computes_the_predictions_from_a_subset_of_the_modalities(
    by_onnx: Recognizer, recognizer: Recognizer, maps: dict[str, np.ndarray]
) -> None:
    subset = {"normal": maps["normal"]}
    assert np.array_equal(by_onnx.predict_checked(subset).embeddings, recognizer.predict_checked(subset).embeddings)


def test_the_graph_is_exported_once_per_weights(
    both: Path, cache: Path, by_onnx: Recognizer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "write_onnx", lambda *_arguments: pytest.fail("exported again"))
    shutil.copytree(both, tmp_path / "copy")
    again = Recognizer(tmp_path / "copy", CPU, "onnx")
    assert again.onnx is not None
    assert again.onnx.file == graph_of(both, cache)
    assert again.onnx.difference < 1e-4


@pytest.mark.parametrize("damage", ["truncated", "another network"])
def test_a_damaged_or_different_graph_is_exported_again(
    both: Path, by_onnx: Recognizer, maps: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setenv("FR_PS_CACHE", str(tmp_path))
    assert by_onnx.onnx is not None
    file = graph_of(both, tmp_path)
    file.parent.mkdir(parents=True)
    if damage == "truncated":
        file.write_bytes(by_onnx.onnx.file.read_bytes()[:5000])
    else:
        graph = onnx.load(by_onnx.onnx.file)
        for weights in graph.graph.initializer:
            if weights.data_type == onnx.TensorProto.FLOAT:
                weights.raw_data = bytes(len(weights.raw_data))
        onnx.save(graph, file)
    exports = []
    monkeypatch.setattr(
        module,
        "write_onnx",
        lambda *_arguments: exports.append(shutil.copy(by_onnx.onnx.file, _arguments[-1])),  # type: ignore[union-attr]
    )
    found = Recognizer(both, CPU, "onnx")
    assert len(exports) == 1
    assert np.array_equal(found.predict_checked(maps).embeddings, by_onnx.predict_checked(maps).embeddings)


def test_a_graph_that_differs_from_torch_is_refused_and_not_kept(
    both: Path, by_onnx: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rejected: AssertRejected
) -> None:
    monkeypatch.setenv("FR_PS_CACHE", str(tmp_path))
    assert by_onnx.onnx is not None
    real, source = by_onnx.onnx.infer, by_onnx.onnx.file
    monkeypatch.setattr(module, "write_onnx", lambda _network, _size, file: shutil.copy(source, file))
    monkeypatch.setattr(module, "onnx_session", lambda _file: lambda maps: [output * 1.01 for output in real(maps)])
    with rejected("differs from torch by 0.01", "more than 0.001", "--engine torch"):
        Recognizer(both, CPU, "onnx")
    assert not list(tmp_path.rglob("*.onnx"))


def test_the_engine_is_named_by_the_call_else_by_the_environment(
    both: Path, monkeypatch: pytest.MonkeyPatch, rejected: AssertRejected
) -> None:
    monkeypatch.delenv("FR_PS_ENGINE", raising=False)
    assert pick_engine(None) == "torch"
    monkeypatch.setenv("FR_PS_ENGINE", "onnx")
    assert (pick_engine(None), pick_engine("torch")) == ("onnx", "torch")
    assert fr_ps.load(str(both)).onnx is not None
    monkeypatch.setenv("FR_PS_ENGINE", "tensorrt")
    with rejected("FR_PS_ENGINE is 'tensorrt'", "torch, onnx"):
        fr_ps.load(str(both))
    with rejected("device is meta", "use device cpu"):
        Recognizer(both, torch.device("meta"), "onnx")


def test_a_missing_package_is_named(both: Path, monkeypatch: pytest.MonkeyPatch, rejected: AssertRejected) -> None:
    monkeypatch.setattr(onnx_graph, "find_spec", lambda name: None if name == "onnxruntime" else name)
    with rejected("onnxruntime not installed", "pip install onnxruntime", "engine torch"):
        fr_ps.load(str(both), engine="onnx")


def test_the_mlflow_model_uses_the_engine_of_the_environment(
    both: Path, tmp_path: Path, maps: dict[str, np.ndarray], by_onnx: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    save_pyfunc_model(both, tmp_path / "model")
    monkeypatch.setenv("FR_PS_ENGINE", "onnx")
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    row = {"albedo": maps["albedo"][0, 0], "normal": np.moveaxis(maps["normal"][0], 0, -1)}
    expected = by_onnx.predict_checked({name: array[:1] for name, array in maps.items()})
    assert np.array_equal(model.predict(pd.DataFrame([row]))["embedding"][0], expected.embeddings[0])


def test_predict_with_onnx_writes_the_table_of_torch_and_prints_the_difference(
    both: Path, prepared: Path, tmp_path: Path, run_command: Command
) -> None:
    for engine in ("torch", "onnx"):
        output = run_command(
            "predict", "--model", both, "--data", prepared, "--out", tmp_path / f"{engine}.parquet", "--engine", engine
        )
        assert ("ONNX Runtime: differs from torch by at most" in output) == (engine == "onnx")
    expected, found = (pd.read_parquet(tmp_path / f"{engine}.parquet") for engine in ("torch", "onnx"))
    assert list(found.columns) == list(expected.columns)
    for column in ("id", "session", "gender", "emotion"):
        assert found[column].tolist() == expected[column].tolist()
    assert np.allclose(np.stack(found["embedding"]), np.stack(expected["embedding"]), rtol=1e-4, atol=1e-5)
