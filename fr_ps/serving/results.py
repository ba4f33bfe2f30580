"""What a model says as a table, a row a session, and that table as a file."""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fr_ps.errors import InputError
from fr_ps.models.inference import Predictions
from fr_ps.outputs import write_output
from fr_ps.serving.recognizer import Recognizer
from fr_ps.tables import escape_formula

SUFFIXES = (".parquet", ".csv", ".npz")
PREDICTIONS = "predictions"
"""The kind of this output for `fr_ps.outputs`."""


def prediction_table(recognizer: Recognizer, answers: Predictions) -> pd.DataFrame:
    """A row a session: `quality`, `embedding` (list of float32), and of each attribute the class's name and its probability.

    Of two classes the probability is of the second, the positive one, as `gender_probability`; of more, there is a column a
    class, as `emotion_probability_positive`. An attribute that the model was not trained on is empty.
    """
    columns: dict[str, object] = {
        "quality": np.linalg.norm(answers.embeddings, axis=1),
        "embedding": list(answers.embeddings),
    }
    rows = len(answers.embeddings)
    for attribute, classes in recognizer.info.classes.items():
        known = attribute in recognizer.info.trained
        probabilities = answers.probabilities[attribute]
        columns[attribute] = (
            recognizer.predicted_classes(attribute, probabilities) if known else pd.array([None] * rows, dtype="string")
        )
        shown = {1: ""} if len(classes) == 2 else {code: f"_{name}" for code, name in enumerate(classes)}
        for code, name in shown.items():
            missing = np.full(rows, np.nan, dtype=np.float32)
            columns[f"{attribute}_probability{name}"] = probabilities[:, code] if known else missing
    return pd.DataFrame(columns)


def add_keys(table: pd.DataFrame, keys: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """The table with the columns `id` and `session` before the others."""
    table.insert(0, "session", [session for _, session in keys])
    table.insert(0, "id", [person for person, _ in keys])
    return table


def check_suffix(path: Path) -> None:
    """Refuse a file that `write_table` cannot write.

    Raises:
        InputError: neither .parquet, .csv nor .npz.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"--out {path}: expected a name that ends in {', '.join(SUFFIXES)}")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write the table as its name's ending says: parquet; CSV, embeddings as JSON lists; or NPZ, an array a column.

    Raises:
        InputError: another ending, a full disk, or a folder that cannot be written.
    """
    check_suffix(path)
    write_output(path, PREDICTIONS, _serialize(path.suffix, table))


def _serialize(suffix: str, table: pd.DataFrame) -> bytes:
    if suffix == ".parquet":
        content = BytesIO()
        table.to_parquet(content, index=False)
        return content.getvalue()
    if suffix == ".csv":
        written = table.assign(embedding=[json.dumps(_shortest_decimals(row)) for row in table["embedding"]])
        for name in written.columns[[kind.kind not in "fiu" for kind in written.dtypes]]:
            written[name] = written[name].map(escape_formula)
        return str(written.to_csv(index=False)).encode()
    content = BytesIO()
    np.savez(content, allow_pickle=False, **{str(name): _column_array(table[name]) for name in table.columns})
    return content.getvalue()


def _shortest_decimals(embedding: np.ndarray) -> list[float]:
    """The decimals that are read back as the same float32, and no more."""
    return [float(str(value)) for value in embedding]


def _column_array(column: Any) -> np.ndarray:
    if column.name == "embedding":
        return np.stack(column.to_list())
    values = column.to_numpy()
    return values if values.dtype.kind == "f" else np.array(["" if pd.isna(value) else str(value) for value in values])
