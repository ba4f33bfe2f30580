"""A network as an ONNX graph: writing it, running it, and comparing its outputs with torch."""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fr_ps.data.labels import ATTRIBUTES
from fr_ps.data.layout import check_map
from fr_ps.errors import InputError, one_line
from fr_ps.files import sync_file
from fr_ps.models.network import FaceNetwork
from fr_ps.synthetic.scene import render_session

OUTPUTS = ("embedding", *(f"{task}_probabilities" for task in ATTRIBUTES))
"""Names of the outputs of the graph. Its inputs have the names of the modalities."""
TOLERANCE = 1e-3
"""The largest accepted difference from torch, relative to the largest value of the output."""
BATCH_SIZES = (1, 2, 7)
"""The batch sizes of the comparison with torch; only one of them is that of the export."""
_PACKAGES = {"run": ("onnxruntime",), "export": ("onnx", "onnxruntime", "onnxscript")}
InferenceFunction = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]


def require_onnx(use: str) -> None:
    """Check that the packages are installed that run (`run`) or write (`export`) a graph.

    Raises:
        InputError: names those that are missing.
    """
    missing = [name for name in _PACKAGES[use] if find_spec(name) is None]
    if missing:
        raise InputError(
            f"ONNX: {', '.join(missing)} not installed; run pip install {' '.join(missing)}, or use the engine torch"
        )


class _ExportedNetwork(nn.Module):
    """Takes maps by position, in the order of the modalities; returns the embedding and each attribute's probabilities."""

    def __init__(self, network: FaceNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
        outputs = self.network(dict(zip(self.network.modalities, maps)))
        return outputs.embedding, *(outputs.logits[task].softmax(dim=1) for task in ATTRIBUTES)


def write_onnx(network: FaceNetwork, size: int, file: Path) -> None:
    """Write `network` to `file` with a dynamic batch size, synced. Not atomic: for files inside `atomic_folder`.

    Inputs have the names of the modalities, (batch, C, size, size) float32; outputs are `OUTPUTS`.

    Raises:
        InputError: a package is not installed, or torch cannot export this network.
    """
    require_onnx("export")
    batch = torch.export.Dim("batch", min=1)
    registered = network.linear is not None and network.linear.registered
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                _ExportedNetwork(network).eval(),
                tuple(torch.from_numpy(array) for array in synthetic_maps(network.modalities, size, 2).values()),
                str(file),
                input_names=list(network.modalities),
                output_names=list(OUTPUTS),
                dynamic_shapes=(tuple({0: batch} for _ in network.modalities),),
                dynamo=True,
                verbose=False,
                external_data=False,
                # The optimizer needs many minutes for the iterations of a registration. onnxruntime optimizes again on loading.
                optimize=not registered,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise InputError(f"torch cannot export this network to ONNX ({one_line(error)}); try another backbone") from None
    with file.open("rb+") as written:
        sync_file(written)


def onnx_session(file: Path) -> InferenceFunction:
    """The ONNX file as a function of a mapping of modality to (n, C, H, W) float32.

    It runs on the CPU with as many threads as torch.

    Raises:
        InputError: onnxruntime is not installed, or cannot read the file.
    """
    require_onnx("run")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # A thread that waits for work sleeps: spinning, it would take the core from other requests and processes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only: it warns of each constant that it does not fold
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base class
        raise InputError(f"{file}: onnxruntime cannot read this file ({one_line(error)}); export the model again") from None
    return lambda maps: session.run(None, dict(maps))


def torch_session(network: FaceNetwork) -> InferenceFunction:
    """The function of `onnx_session`, computed by torch."""
    module = _ExportedNetwork(network).eval()

    @torch.inference_mode()
    def infer(maps: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return [output.numpy() for output in module(*(torch.from_numpy(maps[name]) for name in network.modalities))]

    return infer


def relative_differences(
    network: FaceNetwork, size: int, infer: InferenceFunction, batch_sizes: Sequence[int] = BATCH_SIZES
) -> dict[str, float]:
    """Output to its largest difference from torch on synthetic faces, relative to torch's largest value; NaN if one has NaN."""
    differences = dict.fromkeys(OUTPUTS, 0.0)
    for count in batch_sizes:
        maps = synthetic_maps(network.modalities, size, count)
        for name, expected, actual in zip(OUTPUTS, torch_session(network)(maps), infer(maps), strict=True):
            share = np.abs(expected - actual).max() / max(float(np.abs(expected).max()), 1e-12)
            differences[name] = float(np.maximum(differences[name], share))  # np.maximum keeps NaN
    return differences


def worst_difference(differences: Mapping[str, float]) -> tuple[str, float]:
    """The output with the largest difference, and that difference; NaN counts as the largest."""
    name = max(differences, key=lambda name: np.nan_to_num(differences[name], nan=np.inf))
    return name, differences[name]


def synthetic_maps(modalities: Sequence[str], size: int, count: int) -> dict[str, np.ndarray]:
    """Modality to the maps (count, C, size, size) of built-in faces of `count` subjects."""
    scenes = [render_session(0, subject, 0, size) for subject in range(count)]
    return {
        modality: np.stack([check_map(getattr(scene, modality), modality, "synthetic") for scene in scenes])
        for modality in modalities
    }
