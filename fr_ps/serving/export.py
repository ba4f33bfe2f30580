"""A model as ONNX, for programs that have no torch: checked against torch on the same input, with what it costs."""

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
from fr_ps.models.inference import Predictions, concatenate
from fr_ps.models.network import FaceNetwork
from fr_ps.outputs import check_contains_no_input, check_replaceable
from fr_ps.serving.predict import SessionInput, list_prepared_sessions, predict_sessions
from fr_ps.serving.recognizer import Recognizer

ONNX_FILE = "model.onnx"
INFO_FILE = "model_onnx.json"
TOLERANCE = 1e-3
"""The largest difference, as a share of the largest value, that is taken for rounding."""
_CHECKED_BATCH_SIZES = (1, 2, 7)
_LATENCY_RUNS = 30
InferenceFunction = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class ExportResult:
    """What an export came to.

    Attributes:
        file: the ONNX file.
        differences: output to the largest difference from torch, as a share of torch's largest value.
        rows: of torch and of ONNX: size, latency, and accuracy where data were given.
        lines: what was checked.
    """

    file: Path
    differences: dict[str, float]
    rows: list[dict[str, object]]
    lines: list[str]


class _ExportedNetwork(nn.Module):
    """The network as a function of arrays to arrays: embedding, then the probabilities of each attribute."""

    def __init__(self, network: FaceNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
        outputs = self.network(dict(zip(self.network.modalities, maps)))
        return outputs.embedding, *(outputs.logits[task].softmax(dim=1) for task in ATTRIBUTES)


def export(recognizer: Recognizer, out: Path, data: Path | None, *, part: str | None, batch: int) -> ExportResult:
    """Write the model to `out` as `model.onnx` with a dynamic batch, and `model_onnx.json`, which says what is in and out.

    Inputs are named as the modalities, (batch, C, H, W) float32; outputs `embedding` and `{attribute}_probabilities`.

    Args:
        recognizer: with the model.
        out: folder, made, or replaced whole where it holds an export and nothing else.
        data: prepared data set to measure identity's AUC on; None: no accuracy.
        part: of the model's own split; None: every row.
        batch: sessions a batch.

    Raises:
        InputError: it cannot be exported; `out` is an input, or holds what is no export; what comes out differs from torch;
            the data cannot be used.
    """
    out = out.resolve()
    check_contains_no_input(out, {"--model": recognizer.folder, "--data": data})
    check_replaceable(out, INFO_FILE, [ONNX_FILE])
    sessions = list_prepared_sessions(recognizer, data, None, part) if data else []
    info = recognizer.info
    outputs = ["embedding", *(f"{task}_probabilities" for task in ATTRIBUTES)]
    with atomic_folder(out) as folder:
        _write_onnx(recognizer, folder / ONNX_FILE, outputs)
        run = onnx_session(folder / ONNX_FILE)
        differences = _relative_differences(recognizer, run, outputs)
        worst = max(differences, key=lambda name: np.nan_to_num(differences[name], nan=np.inf))
        if not differences[worst] <= TOLERANCE:
            raise InputError(f"{out}: ONNX gives another {worst} than torch, by {differences[worst]:.2g} of its largest value")
        described = {
            "weights": recognizer.digest,
            "inputs": {modality: ["batch", CHANNELS[modality], info.size, info.size] for modality in info.modalities},
            "outputs": outputs,
            "classes": {task: list(names) for task, names in info.classes.items()},
            "trained": list(info.trained),
        }
        write_json(folder / INFO_FILE, described)
    rows = [
        {"": "torch", "MB": _megabytes(recognizer.folder / "model.safetensors")}
        | _measure_latency(_torch_session(recognizer), recognizer),
        {"": "ONNX", "MB": _megabytes(out / ONNX_FILE)} | _measure_latency(run, recognizer),
    ]
    lines = [f"largest difference from torch, as a share of the largest value: {differences[worst]:.2g} ({worst})"]
    if data:
        lines.append(_measure_accuracy(recognizer, run, sessions, data, batch, rows))
    return ExportResult(out / ONNX_FILE, differences, rows, lines)


def onnx_session(file: Path) -> InferenceFunction:
    """The ONNX file as a function of modality to (n, C, H, W) float32; it computes on the CPU, by as many threads as torch.

    Raises:
        InputError: onnxruntime cannot read it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has many, without a common kind
        raise InputError(f"{file}: onnxruntime cannot read it ({one_line(error)})") from None
    return lambda maps: session.run(None, dict(maps))


def _write_onnx(recognizer: Recognizer, file: Path, outputs: list[str]) -> None:
    modalities = recognizer.info.modalities
    batch = torch.export.Dim("batch", min=1)
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
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise InputError(f"{recognizer.info.backbones}: cannot be exported to ONNX ({one_line(error)})") from None
    with file.open("rb+") as written:
        sync_file(written)


def _random_maps(recognizer: Recognizer, rows: int) -> dict[str, np.ndarray]:
    """Something that looks like maps to the network."""
    rng = np.random.default_rng(0)
    size = recognizer.info.size
    return {name: rng.random((rows, CHANNELS[name], size, size), dtype=np.float32) for name in recognizer.info.modalities}


def _torch_session(recognizer: Recognizer) -> InferenceFunction:
    module = _ExportedNetwork(recognizer.network).eval()

    @torch.inference_mode()
    def run(maps: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return [output.numpy() for output in module(*(torch.from_numpy(array) for array in maps.values()))]

    return run


def _relative_differences(recognizer: Recognizer, run: InferenceFunction, outputs: list[str]) -> dict[str, float]:
    """Output to the largest difference from torch over batches of other sizes than the exported one."""
    differences = dict.fromkeys(outputs, 0.0)
    for rows in _CHECKED_BATCH_SIZES:
        maps = _random_maps(recognizer, rows)
        for name, expected, got in zip(outputs, _torch_session(recognizer)(maps), run(maps), strict=True):
            share = np.abs(expected - got).max() / max(float(np.abs(expected).max()), 1e-12)
            differences[name] = float(np.maximum(differences[name], share))  # a NaN stays one
    return differences


def _measure_latency(run: InferenceFunction, recognizer: Recognizer) -> dict[str, object]:
    """Milliseconds of one session: median and 95th percentile of some turns after a warm-up."""
    maps = _random_maps(recognizer, 1)
    seconds = []
    for turn in range(_LATENCY_RUNS + 3):
        begun = time.perf_counter()
        run(maps)
        if turn >= 3:
            seconds.append(time.perf_counter() - begun)
    return {"p50 ms": 1000 * statistics.median(seconds), "p95 ms": 1000 * float(np.quantile(seconds, 0.95))}


def _measure_accuracy(
    recognizer: Recognizer,
    run: InferenceFunction,
    sessions: list[SessionInput],
    data: Path,
    batch: int,
    rows: list[dict[str, object]],
) -> str:
    """Put identity's AUC of both into the rows; returns a line on whom that is."""
    # Imported here: serving a model needs no metrics code.
    from fr_ps.evaluation.pairwise.pairs import AllPairs
    from fr_ps.evaluation.pairwise.verification import verification_metrics

    answered = predict_sessions(recognizer, sessions, batch)
    ids = np.array([person for person, _ in answered.keys])
    by_key = {session.key: session for session in sessions}
    parts = []
    for start in range(0, len(answered.keys), batch):
        read = [by_key[key].read() for key in answered.keys[start : start + batch]]
        embeddings, *probabilities = run({name: np.stack([maps[name] for maps in read]) for name in recognizer.info.modalities})
        parts.append(Predictions(embeddings, dict(zip(ATTRIBUTES, probabilities))))
    for row, answers in zip(rows, (answered.predictions, concatenate(parts))):
        row["identity AUC"] = verification_metrics(AllPairs(answers.embeddings, ids).score()).values["auc"]
    return f"accuracy on {len(ids)} sessions of {len(np.unique(ids))} people of {data}"


def _megabytes(file: Path) -> float:
    return file.stat().st_size / 1e6
