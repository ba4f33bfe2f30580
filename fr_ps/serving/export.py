"""Export of a model to ONNX: the outputs are compared with torch, and size, latency and accuracy are measured."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fr_ps.data.layout import CHANNELS
from fr_ps.errors import InputError
from fr_ps.files import atomic_folder, write_json
from fr_ps.outputs import check_contains_no_input, check_replaceable
from fr_ps.serving.onnx_graph import (
    OUTPUTS,
    TOLERANCE,
    InferenceFunction,
    onnx_session,
    relative_differences,
    synthetic_maps,
    torch_session,
    worst_difference,
    write_onnx,
)
from fr_ps.serving.predict import SessionInput, list_prepared_sessions, predict_sessions
from fr_ps.serving.recognizer import Recognizer

ONNX_FILE = "model.onnx"
INFO_FILE = "model_onnx.json"
_LATENCY_RUNS, _WARM_UP_RUNS = 30, 3


@dataclass(frozen=True)
class ExportResult:
    """The result of an export.

    Attributes:
        file: the ONNX file.
        differences: output to its largest difference from torch, relative to torch's largest value.
        rows: one row for torch and one for ONNX: size, latency, and with data the accuracy.
        lines: lines to print: the largest difference from torch, and the sessions behind the accuracy.
    """

    file: Path
    differences: dict[str, float]
    rows: list[dict[str, object]]
    lines: list[str]


def export(recognizer: Recognizer, out: Path, data: Path | None, *, part: str | None, batch: int) -> ExportResult:
    """Write the model to `out` as `model.onnx` with a dynamic batch size, and its inputs and outputs as `model_onnx.json`.

    Inputs have the names of the modalities, (batch, C, H, W) float32; outputs are `embedding` and
    `{attribute}_probabilities`.

    Args:
        recognizer: recognizer of the model.
        out: folder to create, or to replace if it holds only an earlier export.
        data: prepared data set to measure the identity AUC on; None: no accuracy.
        part: only sessions of this part of the model's own split; None: all.
        batch: sessions per batch.

    Raises:
        InputError: the model cannot be exported; `out` is an input or holds other files; the outputs differ from torch; the
            data set cannot be used.
    """
    out = out.resolve()
    check_contains_no_input(out, {"--model": recognizer.folder, "--data": data})
    check_replaceable(out, INFO_FILE, [ONNX_FILE])
    sessions = list_prepared_sessions(recognizer, data, None, part) if data else []
    info = recognizer.info
    with atomic_folder(out) as folder:
        write_onnx(recognizer.network, info.size, folder / ONNX_FILE)
        infer = onnx_session(folder / ONNX_FILE)
        differences = relative_differences(recognizer.network, info.size, infer)
        worst, difference = worst_difference(differences)
        if not difference <= TOLERANCE:
            raise InputError(
                f"{out}: {worst} of ONNX differs from torch by {difference:.2g} of its largest value, more than "
                f"{TOLERANCE:g}; nothing was written, use the model with torch"
            )
        description = {
            "weights": recognizer.digest,
            "inputs": {modality: ["batch", CHANNELS[modality], info.size, info.size] for modality in info.modalities},
            "outputs": list(OUTPUTS),
            "classes": {task: list(names) for task, names in info.classes.items()},
            "trained": list(info.trained),
        }
        write_json(folder / INFO_FILE, description)
    rows = [
        {"": "torch", "MB": _megabytes(recognizer.folder / "model.safetensors")}
        | _measure_latency(torch_session(recognizer.network), recognizer),
        {"": "ONNX", "MB": _megabytes(out / ONNX_FILE)} | _measure_latency(infer, recognizer),
    ]
    lines = [f"largest difference from torch, as a share of the largest value: {difference:.2g} ({worst})"]
    if data:
        lines.append(_measure_accuracy(recognizer, infer, sessions, data, batch, rows))
    return ExportResult(out / ONNX_FILE, differences, rows, lines)


def _measure_latency(infer: InferenceFunction, recognizer: Recognizer) -> dict[str, object]:
    """Milliseconds per session: median and 95th percentile after a warm-up."""
    maps = synthetic_maps(recognizer.info.modalities, recognizer.info.size, 1)
    seconds = []
    for _ in range(_LATENCY_RUNS + _WARM_UP_RUNS):
        begun = time.perf_counter()
        infer(maps)
        seconds.append(time.perf_counter() - begun)
    del seconds[:_WARM_UP_RUNS]
    return {"p50 ms": 1000 * statistics.median(seconds), "p95 ms": 1000 * float(np.quantile(seconds, 0.95))}


def _measure_accuracy(
    recognizer: Recognizer,
    infer: InferenceFunction,
    sessions: list[SessionInput],
    data: Path,
    batch: int,
    rows: list[dict[str, object]],
) -> str:
    """Add the identity AUC to both rows; return a line that states the number of sessions and subjects."""
    # Imported here: serving needs no metrics code.
    from fr_ps.evaluation.pairwise.pairs import AllPairs
    from fr_ps.evaluation.pairwise.verification import verification_metrics

    result = predict_sessions(recognizer, sessions, batch)
    ids = np.array([subject for subject, _ in result.keys])
    by_key = {session.key: session for session in sessions}
    embeddings = []
    for start in range(0, len(ids), batch):
        read = [by_key[key].read() for key in result.keys[start : start + batch]]
        embeddings.append(infer({name: np.stack([one.maps[name] for one in read]) for name in recognizer.info.modalities})[0])
    for row, outputs in zip(rows, (result.predictions.embeddings, np.concatenate(embeddings))):
        row["identity AUC"] = verification_metrics(AllPairs(outputs, ids).score()).values["auc"]
    return f"accuracy on {len(ids)} sessions of {len(np.unique(ids))} subjects of {data}"


def _megabytes(file: Path) -> float:
    return file.stat().st_size / 1e6
