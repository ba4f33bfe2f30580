"""Export of a model to ONNX: the outputs are compared with torch, and size, latency and accuracy are measured."""

import logging
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fr_ps.data.labels import ATTRIBUTES
from fr_ps.data.layout import CHANNELS
from fr_ps.errors import InputError, one_line
from fr_ps.files import atomic_folder, sync_file, write_json
from fr_ps.models.network import FaceNetwork
from fr_ps.outputs import check_contains_no_input, check_replaceable
from fr_ps.serving.predict import SessionInput, list_prepared_sessions, predict_sessions
from fr_ps.serving.recognizer import Recognizer

ONNX_FILE = "model.onnx"
INFO_FILE = "model_onnx.json"
TOLERANCE = 1e-3
"""The largest accepted difference from torch, relative to the largest value of the output."""
_CHECKED_BATCH_SIZES = (1, 2, 7)
_LATENCY_RUNS, _WARM_UP_RUNS = 30, 3
InferenceFunction = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]


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


class _ExportedNetwork(nn.Module):
    """Takes maps by position, in the order of the modalities; returns the embedding and each attribute's probabilities."""

    def __init__(self, network: FaceNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
        outputs = self.network(dict(zip(self.network.modalities, maps)))
        return outputs.embedding, *(outputs.logits[task].softmax(dim=1) for task in ATTRIBUTES)


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
    outputs = ["embedding", *(f"{task}_probabilities" for task in ATTRIBUTES)]
    with atomic_folder(out) as folder:
        _write_onnx(recognizer, folder / ONNX_FILE, outputs)
        infer = onnx_session(folder / ONNX_FILE)
        differences = _relative_differences(recognizer, infer, outputs)
        worst = max(differences, key=lambda name: np.nan_to_num(differences[name], nan=np.inf))
        if not differences[worst] <= TOLERANCE:
            raise InputError(
                f"{out}: {worst} of ONNX differs from torch by {differences[worst]:.2g} of its largest value, more than "
                f"{TOLERANCE:g}; nothing was written, use the model with torch"
            )
        description = {
            "weights": recognizer.digest,
            "inputs": {modality: ["batch", CHANNELS[modality], info.size, info.size] for modality in info.modalities},
            "outputs": outputs,
            "classes": {task: list(names) for task, names in info.classes.items()},
            "trained": list(info.trained),
        }
        write_json(folder / INFO_FILE, description)
    rows = [
        {"": "torch", "MB": _megabytes(recognizer.folder / "model.safetensors")}
        | _measure_latency(_torch_session(recognizer), recognizer),
        {"": "ONNX", "MB": _megabytes(out / ONNX_FILE)} | _measure_latency(infer, recognizer),
    ]
    lines = [f"largest difference from torch, as a share of the largest value: {differences[worst]:.2g} ({worst})"]
    if data:
        lines.append(_measure_accuracy(recognizer, infer, sessions, data, batch, rows))
    return ExportResult(out / ONNX_FILE, differences, rows, lines)


def onnx_session(file: Path) -> InferenceFunction:
    """The ONNX file as a function of a mapping of modality to (n, C, H, W) float32.

    It runs on the CPU with as many threads as torch.

    Raises:
        InputError: onnxruntime cannot read the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only: it warns of each constant that it does not fold
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base class
        raise InputError(f"{file}: onnxruntime cannot read this file ({one_line(error)}); export the model again") from None
    return lambda maps: session.run(None, dict(maps))


def _write_onnx(recognizer: Recognizer, file: Path, outputs: list[str]) -> None:
    modalities = recognizer.info.modalities
    batch = torch.export.Dim("batch", min=1)
    linear = recognizer.network.linear
    registered = linear is not None and linear.registered
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                _ExportedNetwork(recognizer.network).eval(),
                tuple(torch.from_numpy(array) for array in _random_maps(recognizer, 2).values()),
                str(file),
                input_names=list(modalities),
                output_names=outputs,
                dynamic_shapes=(tuple({0: batch} for _ in modalities),),
                dynamo=True,
                verbose=False,
                external_data=False,
                # The optimizer needs many minutes for the iterations of a registration. onnxruntime optimizes again on loading.
                optimize=not registered,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise InputError(
                f"{recognizer.info.backbones}: torch cannot export this model to ONNX ({one_line(error)}); try another backbone"
            ) from None
    with file.open("rb+") as written:
        sync_file(written)


def _random_maps(recognizer: Recognizer, count: int) -> dict[str, np.ndarray]:
    """Random maps (count, C, H, W) of every modality."""
    rng = np.random.default_rng(0)
    size = recognizer.info.size
    return {name: rng.random((count, CHANNELS[name], size, size), dtype=np.float32) for name in recognizer.info.modalities}


def _torch_session(recognizer: Recognizer) -> InferenceFunction:
    module = _ExportedNetwork(recognizer.network).eval()

    @torch.inference_mode()
    def infer(maps: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return [output.numpy() for output in module(*(torch.from_numpy(array) for array in maps.values()))]

    return infer


def _relative_differences(recognizer: Recognizer, infer: InferenceFunction, outputs: list[str]) -> dict[str, float]:
    """Output to its largest relative difference from torch, over batch sizes other than the exported one."""
    differences = dict.fromkeys(outputs, 0.0)
    for count in _CHECKED_BATCH_SIZES:
        maps = _random_maps(recognizer, count)
        for name, expected, actual in zip(outputs, _torch_session(recognizer)(maps), infer(maps), strict=True):
            share = np.abs(expected - actual).max() / max(float(np.abs(expected).max()), 1e-12)
            differences[name] = float(np.maximum(differences[name], share))  # np.maximum keeps NaN
    return differences


def _measure_latency(infer: InferenceFunction, recognizer: Recognizer) -> dict[str, object]:
    """Milliseconds per session: median and 95th percentile after a warm-up."""
    maps = _random_maps(recognizer, 1)
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
        embeddings.append(infer({name: np.stack([maps[name] for maps in read]) for name in recognizer.info.modalities})[0])
    for row, outputs in zip(rows, (result.predictions.embeddings, np.concatenate(embeddings))):
        row["identity AUC"] = verification_metrics(AllPairs(outputs, ids).score()).values["auc"]
    return f"accuracy on {len(ids)} sessions of {len(np.unique(ids))} subjects of {data}"


def _megabytes(file: Path) -> float:
    return file.stat().st_size / 1e6
