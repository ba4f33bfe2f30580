"""Results of predict, identify and verify as tables, and those tables as files."""

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
from fr_ps.serving.gallery import Gallery, Match
from fr_ps.serving.gallery_table import UNKNOWN
from fr_ps.serving.recognizer import Recognizer
from fr_ps.tables import SessionKey, escape_formula, format_csv

SUFFIXES = (".parquet", ".csv", ".npz")
PREDICTIONS = "predictions"
"""Kind of the table, as `write_output` records it."""


def prediction_table(recognizer: Recognizer, predictions: Predictions, keys: Sequence[SessionKey] | None = None) -> pd.DataFrame:
    """A table with one row per session: `id`, `session` (with `keys`), `quality`, `embedding`, and the attributes.

    `quality` is the norm of the embedding; `embedding` is an array of float32. Each attribute has its predicted class and
    probabilities: with two classes the probability of the second (`gender_probability`), with more a column per class
    (`emotion_probability_good`). Attributes that the model was not trained on are empty.

    Args:
        recognizer: recognizer of the model that predicted.
        predictions: of n sessions.
        keys: (id, session) of the n sessions; None: without these columns.
    """
    columns: dict[str, object] = {}
    if keys is not None:
        columns |= {"id": [subject for subject, _ in keys], "session": [session for _, session in keys]}
    columns["quality"] = np.linalg.norm(predictions.embeddings, axis=1)
    columns["embedding"] = list(predictions.embeddings)
    count = len(predictions.embeddings)
    for attribute, classes in recognizer.info.classes.items():
        trained = attribute in recognizer.info.trained
        probabilities = predictions.probabilities[attribute]
        columns[attribute] = (
            recognizer.predicted_classes(attribute, probabilities) if trained else pd.array([None] * count, dtype="string")
        )
        suffixes = {1: ""} if len(classes) == 2 else {code: f"_{name}" for code, name in enumerate(classes)}
        for code, suffix in suffixes.items():
            missing = np.full(count, np.nan, dtype=np.float32)
            columns[f"{attribute}_probability{suffix}"] = probabilities[:, code] if trained else missing
    return pd.DataFrame(columns)


def check_suffix(path: Path) -> None:
    """Check that `write_table` can write this file.

    Raises:
        InputError: the name ends in none of .parquet, .csv and .npz.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"--out {path}: expected a name that ends in {', '.join(SUFFIXES)}")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write the table in the format of the file's suffix: parquet; CSV, embeddings as JSON lists; NPZ, one array per column.

    Raises:
        InputError: another suffix, a full disk, or a folder that is not writable.
    """
    check_suffix(path)
    write_output(path, PREDICTIONS, _serialize(path.suffix, table))


def identification_rows(keys: Sequence[SessionKey], matches: Sequence[Match]) -> list[dict[str, str]]:
    """One row per session: the identified subject or `unknown`, the score, and the candidates."""
    return [
        {
            "id": subject,
            "session": session,
            "identified": match.subject or UNKNOWN,
            "score": f"{match.score:.4f}",
            "most alike": ", ".join(f"{candidate} {score:.4f}" for candidate, score in match.candidates),
        }
        for (subject, session), match in zip(keys, matches)
    ]


def identification_summary(keys: Sequence[SessionKey], matches: Sequence[Match], gallery: Gallery, threshold: float) -> str:
    """Lines of text: how many sessions were identified, and how many correctly, according to the sessions' ids."""
    enrolled = set(gallery.subjects)
    mated = [(subject, match) for (subject, _), match in zip(keys, matches) if subject in enrolled]
    nonmated = [match for (subject, _), match in zip(keys, matches) if subject not in enrolled]
    lines = [f"threshold {threshold:.4f}, {len(enrolled)} subjects enrolled"]
    if mated:
        correct = sum(match.subject == subject for subject, match in mated)
        rank1 = sum(match.candidates[0][0] == subject for subject, match in mated)
        unknown = sum(match.subject is None for _, match in mated)
        lines.append(
            f"{len(mated)} sessions of enrolled subjects: {correct} identified correctly, "
            f"{len(mated) - correct - unknown} as another subject, {unknown} unknown; rank 1 correct: {rank1}"
        )
    if nonmated:
        unknown = sum(match.subject is None for match in nonmated)
        lines.append(f"{len(nonmated)} sessions of subjects that are not enrolled: {unknown} unknown")
    return "\n".join(lines)


def verification_rows(
    keys: Sequence[SessionKey], embeddings: np.ndarray, gallery: Gallery, claimed: str | None, threshold: float
) -> list[dict[str, str]]:
    """One row per session: the claimed subject, the score against it, and whether the claim is accepted.

    `accepted` is `yes`, `no`, or `not enrolled`.

    Args:
        keys: (id, session) of n sessions.
        embeddings: (n, D).
        gallery: gallery with the enrolled subjects.
        claimed: subject that all sessions claim to be; None: each session claims its own id.
        threshold: cosine from which a claim is accepted.
    """
    enrolled = set(gallery.subjects)
    rows = []
    for (subject, session), embedding in zip(keys, embeddings):
        row = {"id": subject, "session": session, "claims": claimed or subject, "score": "", "accepted": "not enrolled"}
        if row["claims"] in enrolled:
            score = gallery.claim_score(embedding, row["claims"])
            row |= {"score": f"{score:.4f}", "accepted": "yes" if score >= threshold else "no"}
        rows.append(row)
    return rows


def write_rows(path: Path, rows: Sequence[dict[str, str]], kind: str) -> None:
    """Write rows as CSV; `kind` is the kind of output that `write_output` records."""
    write_output(path, kind, format_csv(list(rows[0]), [row.values() for row in rows]).encode())


def _serialize(suffix: str, table: pd.DataFrame) -> bytes:
    if suffix == ".parquet":
        content = BytesIO()
        table.to_parquet(content, index=False)
        return content.getvalue()
    if suffix == ".csv":
        cells = table.assign(embedding=[json.dumps(_shortest_decimals(row)) for row in table["embedding"]])
        for name in cells.columns[[dtype.kind not in "fiu" for dtype in cells.dtypes]]:
            cells[name] = cells[name].map(escape_formula)
        return str(cells.to_csv(index=False)).encode()
    content = BytesIO()
    np.savez(content, allow_pickle=False, **{str(name): _column_array(table[name]) for name in table.columns})
    return content.getvalue()


def _shortest_decimals(embedding: np.ndarray) -> list[float]:
    """The shortest decimals that read back as the same float32."""
    return [float(str(value)) for value in embedding]


def _column_array(column: Any) -> np.ndarray:
    if column.name == "embedding":
        return np.stack(column.to_list())
    values = column.to_numpy()
    return values if values.dtype.kind == "f" else np.array(["" if pd.isna(value) else str(value) for value in values])
