"""Prediction tables, and files that read back as the same table."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fr_ps.errors import InputError
from fr_ps.serving.predict import PredictionResult, list_prepared_sessions, predict_sessions
from fr_ps.serving.recognizer import Recognizer
from fr_ps.serving.results import check_suffix, prediction_table, write_table
from fr_ps.tables import read_csv_rows


@pytest.fixture(scope="module")
def result(recognizer: Recognizer, prepared: Path) -> PredictionResult:
    return predict_sessions(recognizer, list_prepared_sessions(recognizer, prepared), 64)


@pytest.fixture
def table(recognizer: Recognizer, result: PredictionResult) -> pd.DataFrame:
    return prediction_table(recognizer, result.predictions, result.keys)


def test_columns_of_the_prediction_table(table: pd.DataFrame, recognizer: Recognizer, result: PredictionResult) -> None:
    attributes = ("gender", "spectacles", "facial_hair", "pose", "emotion")
    expected = [column for name in attributes for column in (name, f"{name}_probability")]
    assert list(table.columns) == ["id", "session", "quality", "embedding", *expected]
    assert np.allclose(table["quality"], np.linalg.norm(result.predictions.embeddings, axis=1))
    assert recognizer.thresholds is not None
    threshold = recognizer.thresholds.attributes["gender"]
    for _, row in table.iterrows():
        assert row["gender"] == ("male" if row["gender_probability"] >= threshold else "female")
    assert np.array_equal(table["gender_probability"], result.predictions.probabilities["gender"][:, 1])
    assert table["pose"].isna().all()  # the model was not trained on it
    assert table["pose_probability"].isna().all()


def test_more_than_two_classes_have_one_column_each(recognizer: Recognizer, result: PredictionResult) -> None:
    three = {"blankstare": ["blankstare"], "good": ["positive"], "bad": ["negative"]}
    info = recognizer.info
    other = object.__new__(Recognizer)
    other.__dict__ |= recognizer.__dict__ | {"info": type(info)(**{**vars(info), "classes": {**info.classes, "emotion": three}})}
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], size=len(result.keys)).astype(np.float32)
    predictions = type(result.predictions)(
        result.predictions.embeddings, result.predictions.probabilities | {"emotion": probabilities}
    )
    other.thresholds = None
    table = prediction_table(other, predictions)
    columns = [f"emotion_probability_{name}" for name in three]
    assert np.array_equal(table[columns].to_numpy(), probabilities)
    assert table["emotion"].tolist() == [list(three)[code] for code in probabilities.argmax(axis=1)]


def test_parquet_is_exact(table: pd.DataFrame, tmp_path: Path) -> None:
    write_table(tmp_path / "out.parquet", table)
    read = pd.read_parquet(tmp_path / "out.parquet")
    assert list(read.columns) == list(table.columns)
    assert np.stack(read["embedding"]).dtype == np.float32
    assert np.array_equal(np.stack(read["embedding"]), np.stack(table["embedding"]))
    assert read["gender"].tolist() == table["gender"].tolist()
    assert read["pose"].isna().all()


def test_csv_embeddings_are_exact(table: pd.DataFrame, tmp_path: Path) -> None:
    write_table(tmp_path / "out.csv", table)
    read = pd.read_csv(tmp_path / "out.csv", dtype={"session": str})
    embeddings = np.array([json.loads(text) for text in read["embedding"]], dtype=np.float32)
    assert np.array_equal(embeddings, np.stack(table["embedding"]))
    assert read["id"].astype(str).tolist() == table["id"].tolist()


def test_csv_escapes_formulas_and_leaves_numbers_unchanged(table: pd.DataFrame, tmp_path: Path) -> None:
    formula = table.assign(id=["=1+1", *table["id"][1:]], quality=np.float32(-0.1))
    write_table(tmp_path / "out.csv", formula)
    _, rows = read_csv_rows(tmp_path / "out.csv")
    assert [row["id"] for _, row in rows] == formula["id"].astype(str).tolist()
    (line,) = [line for line in (tmp_path / "out.csv").read_text().splitlines() if "1+1" in line]
    assert line.startswith("'=1+1,")
    assert ",-0.1," in line


def test_npz_needs_no_pickle(table: pd.DataFrame, tmp_path: Path) -> None:
    write_table(tmp_path / "out.npz", table)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as read:
        assert set(read) == set(table.columns)
        assert np.array_equal(read["embedding"], np.stack(table["embedding"]))
        assert read["id"].tolist() == table["id"].tolist()
        assert read["pose"].tolist() == [""] * len(table)


def test_another_suffix_is_rejected() -> None:
    with pytest.raises(InputError, match=r"expected a name that ends in .parquet, .csv, .npz"):
        check_suffix(Path("out.pkl"))
