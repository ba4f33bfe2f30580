"""ONNX export: the same outputs as torch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from fr_ps.config import FusionConfig
from fr_ps.data.dataset import open_dataset
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.errors import InputError
from fr_ps.models import build_network
from fr_ps.models.inference import predict_batch
from fr_ps.models.registration import congeal, correction_shape, registration_features
from fr_ps.serving import export as module
from fr_ps.serving.export import INFO_FILE, ONNX_FILE, ExportResult, export
from fr_ps.serving.onnx_graph import onnx_session
from fr_ps.serving.recognizer import Recognizer
from tests.serving.conftest import CPU, SMALL, make_model


@pytest.fixture(scope="module")
def exported(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recognizer, ExportResult, Path]:
    folder = tmp_path_factory.mktemp("export")
    recognizer = Recognizer(make_model(folder / "model", prepared, "albedo", "normal"), CPU)
    return recognizer, export(recognizer, folder / "onnx", prepared, part=None, batch=16), folder / "onnx"


@pytest.mark.parametrize("batch", [1, 3, 24])
def test_onnx_equals_torch_on_real_maps_at_any_batch_size(
    exported: tuple[Recognizer, ExportResult, Path], prepared: Path, batch: int
) -> None:
    recognizer, _, folder = exported
    maps = open_dataset(prepared, ["albedo", "normal"]).store.read(np.arange(batch))
    embedding, *probabilities = onnx_session(folder / ONNX_FILE)(maps)
    expected = recognizer.predict_checked(maps)
    scale = np.abs(expected.embeddings).max()
    assert np.abs(embedding - expected.embeddings).max() <= 1e-5 * scale
    for attribute, found in zip(ATTRIBUTES, probabilities, strict=True):
        assert np.abs(found - expected.probabilities[attribute]).max() <= 1e-5


def test_onnx_equals_torch_with_every_part_of_a_network_that_averages_over_flips(prepared: Path, tmp_path: Path) -> None:
    model = replace(SMALL, embedding="flatten", albedo="log", input_size=40, flip_average=True, linear=0.5, linear_attributes=0.5)
    fusion = FusionConfig(name="score", joint="also")
    recognizer = Recognizer(make_model(tmp_path / "model", prepared, "albedo", "normal", model=model, fusion=fusion), CPU)
    assert recognizer.network.linear is not None
    assert recognizer.network.linear_attributes is not None
    for weights in (recognizer.network.linear.projections, *recognizer.network.linear_attributes.buffers()):
        weights.normal_(generator=torch.Generator().manual_seed(0))
    found = export(recognizer, tmp_path / "onnx", prepared, part=None, batch=16)
    assert max(found.differences.values()) < 1e-4
    maps = open_dataset(prepared, ["albedo", "normal"]).store.read(np.arange(3))
    branches = dict.fromkeys(recognizer.info.branches, replace(model, flip_average=False))
    plain = build_network(branches, "score", recognizer.info.num_classes(), 48, recognizer.info.joint)
    plain.load_state_dict(recognizer.network.state_dict())
    (ours,), run = predict_batch(plain.eval(), maps, [list(maps)]), onnx_session(found.file)
    assert not np.allclose(run(maps)[0], ours.embeddings, rtol=1e-2)


def test_onnx_equals_torch_with_a_registration(prepared: Path, tmp_path: Path) -> None:
    model = replace(SMALL, linear=0.5, registration=True)
    recognizer = Recognizer(make_model(tmp_path / "model", prepared, "albedo", "normal", model=model), CPU)
    linear, maps = recognizer.network.linear, open_dataset(prepared, ["albedo", "normal"]).store.read(np.arange(24))
    assert linear is not None
    linear.projections.normal_(generator=torch.Generator().manual_seed(0))
    mean_face = congeal(registration_features({name: torch.from_numpy(of_one) for name, of_one in maps.items()}))
    correction = torch.randn(correction_shape(mean_face), generator=torch.Generator().manual_seed(0))
    linear.set_registration(mean_face, 1e-3 * correction)
    found = export(recognizer, tmp_path / "onnx", None, part=None, batch=16)
    assert max(found.differences.values()) < 1e-3
    embeddings = onnx_session(found.file)(maps)[0]
    expected = recognizer.predict_checked(maps).embeddings
    np.testing.assert_allclose(embeddings, expected, atol=2e-3 * np.abs(expected).max())


def test_inputs_and_outputs_have_names_and_a_dynamic_batch(exported: tuple[Recognizer, ExportResult, Path]) -> None:
    graph = onnx.load(exported[2] / ONNX_FILE).graph
    onnx.checker.check_model(str(exported[2] / ONNX_FILE))
    shapes = {one.name: [d.dim_param or d.dim_value for d in one.type.tensor_type.shape.dim] for one in graph.input}
    assert shapes == {"albedo": ["batch", 1, 48, 48], "normal": ["batch", 3, 48, 48]}
    assert [one.name for one in graph.output] == ["embedding", *(f"{name}_probabilities" for name in ATTRIBUTES)]
    assert f'"weights": "{exported[0].digest}"' in (exported[2] / INFO_FILE).read_text()


def test_the_table_has_size_latency_and_accuracy(exported: tuple[Recognizer, ExportResult, Path]) -> None:
    _, found, _ = exported
    by_torch, by_onnx = found.rows
    for row in found.rows:
        assert row["MB"] > 0  # type: ignore[operator]
        assert 0 < row["p50 ms"] <= row["p95 ms"]  # type: ignore[operator]
    assert by_onnx["identity AUC"] == pytest.approx(by_torch["identity AUC"], abs=1e-3)
    assert max(found.differences.values()) < 1e-4
    assert "accuracy on 24 sessions of 6 subjects" in found.lines[1]


@pytest.mark.parametrize(("factor", "by"), [(1.01, r"by 0\.01"), (np.nan, "by nan")])
def test_an_export_that_differs_from_torch_leaves_no_files(
    exported: tuple[Recognizer, ExportResult, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float, by: str
) -> None:
    recognizer, _, folder = exported
    real = onnx_session(folder / ONNX_FILE)
    monkeypatch.setattr(module, "write_onnx", lambda _network, _size, file: file.write_bytes((folder / ONNX_FILE).read_bytes()))
    monkeypatch.setattr(module, "onnx_session", lambda _file: lambda maps: [array * factor for array in real(maps)])
    with pytest.raises(InputError, match=f"of ONNX differs from torch {by}"):
        export(recognizer, tmp_path / "onnx", None, part=None, batch=8)
    assert not (tmp_path / "onnx").exists()
    assert not list(tmp_path.glob(".partial-*"))


def test_a_folder_with_other_files_is_not_replaced(exported: tuple[Recognizer, ExportResult, Path], tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(InputError, match=r"already exists, and fr-ps did not write it \(no model_onnx.json\); move it"):
        export(exported[0], tmp_path, None, part=None, batch=8)
    assert (tmp_path / "precious.txt").read_text() == "x"


def test_another_onnx_file_and_the_model_itself_are_not_replaced(
    exported: tuple[Recognizer, ExportResult, Path], tmp_path: Path
) -> None:
    recognizer = exported[0]
    (tmp_path / "model.onnx").write_text("theirs")
    with pytest.raises(InputError, match=r"no model_onnx.json"):
        export(recognizer, tmp_path, None, part=None, batch=8)
    assert (tmp_path / "model.onnx").read_text() == "theirs"
    for out in (recognizer.folder, recognizer.folder.parent):
        with pytest.raises(InputError, match="the input --model"):
            export(recognizer, out, None, part=None, batch=8)
    assert (recognizer.folder / "model.safetensors").is_file()


def test_a_file_that_is_no_onnx_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"hello")
    with pytest.raises(InputError, match=r"x.onnx: onnxruntime cannot read this file"):
        onnx_session(tmp_path / "x.onnx")
