"""Requests in every form, and one line of error for each invalid one."""

import base64
import copy
import csv
import io
import pickle
import shutil
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fr_ps.data.preparation import FORMAT
from fr_ps.errors import InputError
from fr_ps.photometric.lights import light_directions
from fr_ps.serving.predict import PredictionResult, list_prepared_sessions, predict_sessions
from fr_ps.serving.recognizer import Recognizer
from fr_ps.serving.request import MAX_CONCURRENT_REQUESTS, MAX_SESSIONS, predict_rows
from tests.conftest import AssertRejected
from tests.test_npy import BAD_HEADERS, forged

Cells = dict[str, Any]


def text_of(array: np.ndarray) -> str:
    """A map as base64 of a .npy file."""
    content = io.BytesIO()
    np.save(content, array)
    return base64.b64encode(content.getvalue()).decode()


def encoded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


@pytest.fixture(scope="module")
def result(recognizer: Recognizer, prepared: Path) -> PredictionResult:
    return predict_sessions(recognizer, list_prepared_sessions(recognizer, prepared), 64)


@pytest.fixture(scope="module")
def rows(prepared: Path, result: PredictionResult) -> list[Cells]:
    """Rows of three sessions with maps."""
    folders = [prepared / "data" / person / session for person, session in result.keys[:3]]
    return [{name: np.load(folder / f"{name}.npy") for name in ("albedo", "normal")} for folder in folders]


@pytest.mark.parametrize("form", [lambda array: array, lambda array: array.tolist(), text_of], ids=["array", "lists", "text"])
def test_maps_in_every_form_give_the_predictions_of_the_files(
    recognizer: Recognizer, result: PredictionResult, rows: list[Cells], form: Any
) -> None:
    request = pd.DataFrame([{name: form(array) for name, array in cells.items()} for cells in rows])
    found = predict_rows(recognizer, request)
    assert np.allclose(np.stack(found["embedding"]), result.predictions.embeddings[:3], rtol=1e-4, atol=1e-5)
    assert np.allclose(found["gender_probability"].astype(float), result.predictions.probabilities["gender"][:3, 1], atol=1e-5)
    assert found["pose"].tolist() == [None] * 3
    assert found["maps"].tolist() == ["albedo+normal"] * 3


def test_normals_in_bgr_order_get_a_warning_in_every_row(recognizer: Recognizer, rows: list[Cells]) -> None:
    reversed_rows = [{"albedo": cells["albedo"], "normal": cells["normal"][..., ::-1]} for cells in rows]
    warnings = predict_rows(recognizer, pd.DataFrame(reversed_rows))["warning"].tolist()
    assert len(set(warnings)) == 1
    assert "n_z seems to be in the first channel" in warnings[0]
    assert predict_rows(recognizer, pd.DataFrame(rows))["warning"].tolist() == [None] * 3


def test_rows_with_different_modalities_keep_their_order(recognizer: Recognizer, rows: list[Cells]) -> None:
    mixed = pd.DataFrame([rows[0], {"normal": rows[1]["normal"]}, rows[2]])
    found = np.stack(predict_rows(recognizer, mixed)["embedding"])
    whole = np.stack(predict_rows(recognizer, pd.DataFrame(rows))["embedding"])
    alone = np.stack(predict_rows(recognizer, pd.DataFrame([{"normal": rows[1]["normal"]}]))["embedding"])
    assert np.allclose(found[[0, 2]], whole[[0, 2]], rtol=1e-4, atol=1e-5)
    assert np.allclose(found[1], alone[0], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def capture_row(captures: Path, result: PredictionResult) -> Cells:
    """The row of the first session with its images and lights."""
    return make_capture_row(captures / result.keys[0][0] / result.keys[0][1])


def make_capture_row(folder: Path) -> Cells:
    with (folder / "lights.csv").open() as file:
        lights = list(csv.DictReader(file))
    numbers = {name: [float(one[name]) for one in lights] for name in lights[0] if name != "image"}
    return {"images": [encoded(folder / one["image"]) for one in lights], **numbers}


def test_images_with_lights_give_the_prediction_of_the_prepared_maps(
    recognizer: Recognizer, result: PredictionResult, capture_row: Cells
) -> None:
    found = predict_rows(recognizer, pd.DataFrame([capture_row]))
    assert np.allclose(found["embedding"][0], result.predictions.embeddings[0], rtol=1e-4, atol=1e-5)


def test_images_of_another_prepare_format_get_a_warning(
    recognizer: Recognizer, older: Recognizer, capture_row: Cells, rows: list[Cells]
) -> None:
    found = predict_rows(older, pd.DataFrame([capture_row]))["warning"].tolist()
    assert f"captures are solved with format {FORMAT}" in found[0]
    assert predict_rows(recognizer, pd.DataFrame([capture_row]))["warning"].tolist() == [None]
    assert predict_rows(older, pd.DataFrame(rows))["warning"].tolist() == [None] * 3


def with_preparation(recognizer: Recognizer, **settings: Any) -> Recognizer:
    """A copy of the recognizer of a model whose maps were prepared with these settings."""
    changed = copy.copy(recognizer)
    changed.info = replace(recognizer.info, preparation=recognizer.info.preparation | settings)
    return changed


def test_vectors_give_the_prediction_of_the_angles(recognizer: Recognizer, result: PredictionResult, capture_row: Cells) -> None:
    cells = {name: cell for name, cell in capture_row.items() if name not in ANGLES}
    directions = 3 * light_directions(list(zip(*(capture_row[name] for name in ANGLES))))
    cells |= {name: component.tolist() for name, component in zip("xyz", directions.T)}
    found = predict_rows(recognizer, pd.DataFrame([cells]))
    assert np.allclose(found["embedding"][0], result.predictions.embeddings[0], rtol=1e-4, atol=1e-5)


def test_a_mask_gives_the_prediction_of_a_capture_with_that_mask(
    recognizer: Recognizer, captures: Path, capture_row: Cells, result: PredictionResult, tmp_path: Path
) -> None:
    shutil.copytree(captures / result.keys[0][0] / result.keys[0][1], tmp_path / "a")
    mask = np.zeros((48, 48), np.uint8)
    mask[8:40, 10:38] = 255
    Image.fromarray(mask).save(tmp_path / "a/mask.png")
    found = predict_rows(recognizer, pd.DataFrame([capture_row | {"mask": encoded(tmp_path / "a/mask.png")}]))
    expected = recognizer.embed(recognizer.capture_to_maps(tmp_path / "a"))[0]
    assert np.allclose(found["embedding"][0], expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(expected, result.predictions.embeddings[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="row 0: mask: the model's maps were made with mask none; remove it"):
        predict_rows(with_preparation(recognizer, mask="none"), pd.DataFrame([capture_row | {"mask": image_text()}]))


def test_an_ambient_image_is_subtracted_whatever_its_name_in_the_training(
    recognizer: Recognizer, captures: Path, capture_row: Cells, result: PredictionResult, tmp_path: Path
) -> None:
    """`im0.png` in the training is the name of the first image of the request."""
    shutil.copytree(captures / result.keys[0][0] / result.keys[0][1], tmp_path / "a")
    Image.new("L", (48, 48), 20).save(tmp_path / "a/dark.png")
    expected = with_preparation(recognizer, ambient="dark.png").capture_to_maps(tmp_path / "a")
    other = with_preparation(recognizer, ambient="im0.png")
    found = predict_rows(other, pd.DataFrame([capture_row | {"ambient": encoded(tmp_path / "a/dark.png")}]))
    assert np.allclose(found["embedding"][0], recognizer.embed(expected)[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="row 0: ambient: missing; expected the image without the lights"):
        predict_rows(other, pd.DataFrame([capture_row]))


def test_images_unlike_the_training_captures_get_one_warning(
    recognizer: Recognizer, capture_row: Cells, rows: list[Cells]
) -> None:
    elevation = [angle + 25 for angle in capture_row["elevation_deg"]]
    table = pd.DataFrame([capture_row, capture_row | {"elevation_deg": elevation}])
    (warning,) = set(predict_rows(recognizer, table)["warning"])
    assert warning.startswith("warning: 1 of 2 captures are unlike those of the training data, e.g. row 1: ")
    assert "mean light direction 2" in warning
    assert predict_rows(recognizer, pd.DataFrame([capture_row]))["warning"].tolist() == [None]
    assert predict_rows(recognizer, pd.DataFrame(rows))["warning"].tolist() == [None] * 3


def image_text(mode: str = "L", kind: str = "PNG", size: int = 48) -> str:
    content = io.BytesIO()
    Image.new(mode, (size, size), 100).save(content, kind)
    return base64.b64encode(content.getvalue()).decode()


def header_of_png(side: int) -> str:
    """A PNG without pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    ]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode()


def deep(levels: int) -> Any:
    nested: Any = 1
    for _ in range(levels):
        nested = [nested]
    return nested


ANGLES = {"azimuth_deg": [-20, 20, 0, 0], "elevation_deg": [0, 0, 20, -20]}
ALBEDO = np.full((48, 48), 0.5, np.float32)
BAD: dict[str, tuple[Cells, tuple[str, ...]]] = {
    "nothing": ({"other": 1}, ("no maps and no images; expected albedo, normal, or images", "columns of the row: other")),
    "another modality": ({"depth": ALBEDO.tolist()}, ("depth", "it reads albedo, normal")),
    "size": ({"albedo": ALBEDO[:32, :32].tolist()}, ("albedo", "32 x 32", "48")),
    "nan": ({"albedo": np.where(ALBEDO == ALBEDO, np.nan, 0)}, ("albedo", "NaN")),
    "encoded normals": ({"normal": np.random.default_rng(0).uniform(0.4, 0.7, (48, 48, 3))}, ("normal", "store 2 m - 1")),
    "ragged": ({"albedo": [[1, 2], [3]]}, ("albedo", "not an array of numbers")),
    "text": ({"albedo": [["a"] * 48] * 48}, ("albedo", "not an array of numbers")),
    "a number": ({"albedo": 3}, ("albedo", "must be H x W")),
    "no base64": ({"albedo": "../../etc/passwd"}, ("albedo", "not base64")),
    "no npy": ({"albedo": base64.b64encode(b"hello").decode()}, ("albedo", "no .npy file")),
    "a pickle": ({"albedo": base64.b64encode(pickle.dumps(ALBEDO)).decode()}, ("albedo", "no .npy file")),
    "no list of images": ({"images": "x", **ANGLES}, ("images", "3 to 128")),
    "two images": ({"images": [image_text()] * 2, **ANGLES}, ("images", "3 to 128")),
    "no lights": ({"images": [image_text()] * 4}, ("azimuth_deg", "list of 4 numbers")),
    "fewer lights": ({"images": [image_text()] * 4, **ANGLES, "elevation_deg": [1, 2]}, ("elevation_deg", "list of 4 numbers")),
    "no image": ({"images": ["aGVsbG8="] * 4, **ANGLES}, ("images 0", "no PNG")),
    "a truncated image": ({"images": [image_text()[:80]] * 4, **ANGLES}, ("im0.png",)),
    "transparent": ({"images": [image_text("LA")] * 4, **ANGLES}, ("im0.png", "alpha")),
    "lights in a plane": (
        {"images": [image_text()] * 4, "azimuth_deg": [0, 0, 0, 0], "elevation_deg": [0, 10, 20, 30]},
        ("lights.csv",),
    ),
    "maps and images": (
        {"images": [image_text()] * 4, **ANGLES, "albedo": ALBEDO},
        ("images and albedo", "one or the other"),
    ),
    "a ragged list": ({"images": [image_text()] * 4, **ANGLES, "azimuth_deg": [1, [2], 3, 4]}, ("azimuth_deg", "4 numbers")),
    "invalid landmarks": ({"images": [image_text()] * 4, **ANGLES, "landmarks": "ä"}, ("landmarks", "metadata.txt")),
    "a forged header": (
        {"albedo": base64.b64encode(b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4',").decode()},
        ("albedo", "no .npy file"),
    ),
    "a boolean in a header": (
        {"albedo": base64.b64encode(forged(BAD_HEADERS["boolean in the shape"])).decode()},
        ("albedo", "no .npy file", "'shape': (True, 4)"),
    ),
    "a list as a key": ({"albedo": base64.b64encode(forged(BAD_HEADERS["list as a key"])).decode()}, ("albedo", "no .npy file")),
    "a size beyond int64": (
        {"normal": base64.b64encode(forged(BAD_HEADERS["beyond int64"])).decode()},
        ("normal", "no .npy file"),
    ),
    "a deep sum": ({"albedo": base64.b64encode(forged(BAD_HEADERS["sum"])).decode()}, ("albedo", "no .npy file")),
    "a number too large": ({"albedo": [[10**400] * 48] * 48}, ("albedo", "not an array of numbers")),
    "an infinite number": ({"albedo": [[1e39] * 48] * 48}, ("albedo", "infinity")),
    "too deep": ({"albedo": deep(5000)}, ("albedo", "not an array of numbers")),
    "an image of too many pixels": (
        {"images": [header_of_png(13_000)] * 4, **ANGLES},
        ("im0.png", "13000 x 13000 pixels", "64 million"),
    ),
    "images of too many pixels together": (
        {"images": [header_of_png(7_000)] * 4, **ANGLES},
        ("images", "196,000,000 pixels", "100 million"),
    ),
    "angles and vectors": (
        {"images": [image_text()] * 4, **ANGLES, "x": [0, 1, 0, 1], "y": [0, 0, 1, 1], "z": [2, 2, 2, 2]},
        ("lights.csv: columns are image,azimuth_deg,elevation_deg,x,y,z",),
    ),
    "a vector without z": ({"images": [image_text()] * 4, "x": [0, 1, 0, 1], "y": [0, 0, 1, 1]}, ("z", "list of 4 numbers")),
    "a vector of length 0": (
        {"images": [image_text()] * 4, "x": [0, 1, 0, 1], "y": [0, 0, 1, 1], "z": [0, 2, 2, 2]},
        ("lights.csv: row 2", "length 0"),
    ),
    "a mask of another size": (
        {"images": [image_text()] * 4, **ANGLES, "mask": image_text(size=32)},
        ("mask.png: 32 x 32, but the images are 48 x 48",),
    ),
    "a mask that is no image": ({"images": [image_text()] * 4, **ANGLES, "mask": "aGVsbG8="}, ("mask: no PNG",)),
    "an unexpected ambient image": (
        {"images": [image_text()] * 4, **ANGLES, "ambient": image_text()},
        ("ambient: the model's maps were made without", "remove it"),
    ),
    "an invalid angle": ({"images": [image_text()] * 4, **ANGLES, "azimuth_deg": ["a", 1, 2, 3]}, ("azimuth_deg",)),
}


@pytest.mark.parametrize("name", BAD)
def test_an_invalid_row_is_rejected_with_its_number_and_the_cause(recognizer: Recognizer, rows: list[Cells], name: str) -> None:
    cells, words = BAD[name]
    with pytest.raises(InputError) as caught:
        predict_rows(recognizer, pd.DataFrame([rows[0], cells]))
    text = str(caught.value)
    assert text.startswith("row 1: ")
    assert "\n" not in text
    assert len(text) < 500
    assert "/tmp" not in text
    for word in words:
        assert word in text


def test_a_npy_file_with_objects_runs_no_code(recognizer: Recognizer, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    content = io.BytesIO()
    np.save(content, np.array([Payload()], dtype=object), allow_pickle=True)
    cell = base64.b64encode(content.getvalue()).decode()
    with pytest.raises(InputError, match=r"no \.npy file of numbers"):
        predict_rows(recognizer, pd.DataFrame([{"albedo": cell}]))
    assert not (tmp_path / "ran").exists()


def test_too_many_rows_and_no_row_are_rejected(recognizer: Recognizer, rows: list[Cells]) -> None:
    for request in (pd.DataFrame([rows[0]] * (MAX_SESSIONS + 1)), pd.DataFrame()):
        with pytest.raises(InputError, match=f"expected 1 to {MAX_SESSIONS}"):
            predict_rows(recognizer, request)
    with pytest.raises(InputError, match="expected a table"):
        predict_rows(recognizer, np.zeros((2, 2)))  # type: ignore[arg-type]


def test_concurrent_requests_are_limited(recognizer: Recognizer, rows: list[Cells], monkeypatch: Any) -> None:
    inside, most, lock = 0, 0, threading.Lock()
    predict_checked, barrier = recognizer.predict_checked, threading.Barrier(MAX_CONCURRENT_REQUESTS)

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        barrier.wait(20)  # the maximum is inside together
        with lock:
            inside -= 1
        return predict_checked(*arguments, **named)

    monkeypatch.setattr(recognizer, "predict_checked", counted)
    with ThreadPoolExecutor(3 * MAX_CONCURRENT_REQUESTS) as pool:
        results = list(pool.map(lambda _: predict_rows(recognizer, pd.DataFrame(rows)), range(3 * MAX_CONCURRENT_REQUESTS)))
    assert len(results) == 3 * MAX_CONCURRENT_REQUESTS
    assert most == MAX_CONCURRENT_REQUESTS


def test_base64_may_be_wrapped_or_a_data_url(recognizer: Recognizer, rows: list[Cells], result: PredictionResult) -> None:
    plain = {name: text_of(array) for name, array in rows[0].items()}
    wrapped = {name: base64.encodebytes(base64.b64decode(text)).decode().replace("\n", "\r\n") for name, text in plain.items()}
    url = {name: f"data:application/octet-stream;base64,{text}" for name, text in plain.items()}
    for cells in (wrapped, url, {name: text.encode() for name, text in plain.items()}):
        found = predict_rows(recognizer, pd.DataFrame([cells]))
        assert np.allclose(found["embedding"][0], result.predictions.embeddings[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "cell", [{}, {"a": [1]}, True, 3, "", "text", [[True]], [None], [[[]]], [10**400], ["1"], [{"a": 1}], 1e400]
)
@pytest.mark.parametrize("name", ["albedo", "normal", "images", "landmarks", "azimuth_deg", "intensity"])
def test_a_cell_of_another_type_is_rejected_with_row_and_column(
    recognizer: Recognizer, rows: list[Cells], capture_row: Cells, name: str, cell: Any, rejected: AssertRejected
) -> None:
    request = [rows[0], (rows[0] if name in rows[0] else capture_row) | {name: cell}]
    if name == "landmarks" and isinstance(cell, str):
        pytest.skip("text is read as a metadata.txt")
    with rejected("row 1: ", name):
        predict_rows(
            recognizer, pd.DataFrame({column: [one.get(column) for one in request] for column in {**request[0], **request[1]}})
        )
