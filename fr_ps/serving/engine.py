"""What computes the predictions of a recognizer: torch, or ONNX Runtime on a graph in the cache."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fr_ps.cache import cache_folder
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.errors import InputError
from fr_ps.files import atomic_folder, remove_stale_temp
from fr_ps.locks import file_lock
from fr_ps.models.inference import Predictions
from fr_ps.models.network import FaceNetwork
from fr_ps.progress import echo
from fr_ps.serving.onnx_graph import (
    BATCH_SIZES,
    TOLERANCE,
    InferenceFunction,
    onnx_session,
    relative_differences,
    require_onnx,
    worst_difference,
    write_onnx,
)

ENGINES = ("torch", "onnx")
ENGINE_VARIABLE = "FR_PS_ENGINE"
"""Environment variable with the engine where a command or call names none, as in `mlflow models serve`."""
_FILE = "model.onnx"
_LOADED_BATCH_SIZES = (2,)
"""The comparison of each loading; that of an export is longer."""


def pick_engine(name: str | None) -> str:
    """`name`, or that of the environment variable `FR_PS_ENGINE`, or `torch`.

    Raises:
        InputError: there is no such engine.
    """
    chosen = name or os.environ.get(ENGINE_VARIABLE) or "torch"
    if chosen not in ENGINES:
        where = "engine" if name else ENGINE_VARIABLE
        raise InputError(f"{where} is {chosen!r}; expected one of {', '.join(ENGINES)}")
    return chosen


@dataclass(frozen=True)
class OnnxEngine:
    """ONNX Runtime on the graph of a model, on the CPU.

    Attributes:
        file: the graph, in the cache.
        infer: modality to (n, C, H, W) float32, all modalities of the model, to the outputs of the graph.
        output: the output with the largest difference from torch on built-in faces.
        difference: that difference, relative to torch's largest value.
    """

    file: Path
    infer: InferenceFunction
    output: str
    difference: float

    def predict_batch(self, maps: Mapping[str, np.ndarray]) -> Predictions:
        """Predictions for one batch of maps of all modalities: modality to (n, C, H, W) float32."""
        embeddings, *probabilities = self.infer(maps)
        return Predictions(embeddings, dict(zip(ATTRIBUTES, probabilities, strict=True)))

    def summary(self) -> str:
        """A line of text: the largest difference from torch, and the file."""
        return (
            f"ONNX Runtime: differs from torch by at most {self.difference:.2g} of the largest value ({self.output}); "
            f"limit {TOLERANCE:g}; graph {self.file}"
        )


def load_onnx_engine(network: FaceNetwork, size: int, digest: str, model: Path) -> OnnxEngine:
    """ONNX Runtime on the graph of `network`. The graph is exported once, into the cache.

    Each loading compares the outputs with those of torch. A graph that is damaged or that differs, as that of an older version
    of the code, is exported again.

    Args:
        network: in evaluation mode, on the CPU.
        size: side of the maps in pixels.
        digest: SHA-256 of the weights.
        model: model folder, for messages.

    Raises:
        InputError: a package is not installed, torch cannot export the network, its outputs differ from torch by more than
            `TOLERANCE`, or the cache cannot be written.
    """
    require_onnx("run")
    cache = cache_folder() / "onnx"
    file = cache / digest / _FILE
    with file_lock(cache):
        if file.exists():
            try:
                return _compare(network, size, file, _LOADED_BATCH_SIZES)
            except InputError:
                echo(f"ONNX Runtime: {file} is damaged or of an older version of the code")
        remove_stale_temp(cache)
        echo(f"ONNX Runtime: exporting {model}, once per model; this takes a minute or less")
        begun = time.perf_counter()
        with atomic_folder(file.parent) as folder:
            write_onnx(network, size, folder / _FILE)
            exported = _compare(network, size, folder / _FILE, BATCH_SIZES)
        echo(f"ONNX Runtime: exported in {time.perf_counter() - begun:.0f} s")
        return OnnxEngine(file, exported.infer, exported.output, exported.difference)


def _compare(network: FaceNetwork, size: int, file: Path, batch_sizes: tuple[int, ...]) -> OnnxEngine:
    """The engine of `file`.

    Raises:
        InputError: it cannot be read, or its outputs differ from torch by more than `TOLERANCE`.
    """
    infer = onnx_session(file)
    try:
        output, difference = worst_difference(relative_differences(network, size, infer, batch_sizes))
    except Exception as error:  # onnxruntime's exceptions have no common base class: a graph with other inputs
        raise InputError(f"{file}: onnxruntime cannot run this graph ({error}); delete it") from None
    if not difference <= TOLERANCE:
        raise InputError(
            f"{file}: {output} of ONNX Runtime differs from torch by {difference:.2g} of its largest value, more than "
            f"{TOLERANCE:g}; use --engine torch (or {ENGINE_VARIABLE}=torch)"
        )
    return OnnxEngine(file, infer, output, difference)
