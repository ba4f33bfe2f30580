"""A trained model as a Python object: embeddings, attributes, verification, identification."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from fr_ps.data.layout import check_map
from fr_ps.data.preparation import capture_to_maps, format_warning, reproduce_preparation
from fr_ps.device import pick_device
from fr_ps.errors import InputError
from fr_ps.models.folder import load_model, weights_digest
from fr_ps.models.inference import BATCH_SIZE, Predictions, concatenate_predictions, predict_batch, require_finite
from fr_ps.models.thresholds import ValidationThreshold, read_thresholds
from fr_ps.photometric.acquisition import Acquisition, acquisition_warning
from fr_ps.serving.engine import OnnxEngine, load_onnx_engine, pick_engine
from fr_ps.serving.gallery import Gallery, Match, normalize_rows


@dataclass(frozen=True)
class VerificationResult:
    """The comparison of two sessions.

    Attributes:
        score: cosine of their embeddings.
        threshold: cosine from which the sessions match.
        validation_threshold: the entry that `threshold` was taken from; None if the caller gave the threshold.
    """

    score: float
    threshold: float
    validation_threshold: ValidationThreshold | None = None

    @property
    def same(self) -> bool:
        """Whether the sessions match: the score reaches the threshold."""
        return self.score >= self.threshold


def load_recognizer(model: str, device: str = "auto", engine: str | None = None) -> "Recognizer":
    """Load a model as a recognizer. Loading reads weights and settings; it executes no code from the model.

    Args:
        model: run id, `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or model folder.
        device: `auto`, `cpu`, `cuda` or `mps`; `auto` is the CPU with ONNX.
        engine: `torch` or `onnx`; None: the environment variable `FR_PS_ENGINE`, else `torch`.

    Raises:
        InputError: there is no such model, device or engine, or the model is damaged or of a newer format; with ONNX as
            `load_onnx_engine`.
    """
    from fr_ps.tracking.resolve import resolve_model  # kept out of models that MLflow serves

    engine = pick_engine(engine)
    chosen = pick_device("cpu" if engine == "onnx" and device == "auto" else device)
    return Recognizer(resolve_model(str(model)), chosen, engine)


class Recognizer:
    """A model, ready for inference.

    Maps have the shapes of a prepared data set: modality to H x W (albedo, depth) or H x W x 3 (normals), or n of them in one
    array. A model of several modalities accepts any subset of them.

    Attributes:
        folder: folder of the model.
        info: description of the model: modalities, size, classes, provenance.
        thresholds: thresholds from the validation set; None if the model was trained without one.
        onnx: computes the predictions from all modalities; None: torch does. Torch also computes those from some of them.
    """

    def __init__(self, folder: Path, device: torch.device, engine: str = "torch") -> None:
        self.network, self.info = load_model(folder, device)
        self.folder = folder
        self.thresholds = read_thresholds(folder)
        self.onnx: OnnxEngine | None = None
        if engine == "onnx":
            if device.type != "cpu":
                raise InputError(
                    f"device is {device.type}, but ONNX Runtime computes on the CPU; use device cpu, or engine torch"
                )
            self.onnx = load_onnx_engine(self.network, self.info.size, self.digest, folder)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights. A gallery stores it, because embeddings of two models cannot be compared."""
        return weights_digest(self.folder)

    def predict(self, maps: Mapping[str, np.ndarray], batch: int = BATCH_SIZE) -> Predictions:
        """Embeddings and probabilities of n sessions.

        Raises:
            InputError: maps of another modality or size, or with NaN; a prediction has NaN or infinity.
        """
        return self.predict_checked(self._check_maps(maps), batch)

    def predict_checked(self, maps: Mapping[str, np.ndarray], batch: int = BATCH_SIZE, names: Sequence[str] = ()) -> Predictions:
        """`predict` for maps that `check_map` has already checked and converted.

        Args:
            maps: modality to (n, C, H, W) float32.
            batch: sessions per batch.
            names: names of the n sessions for error messages; empty: their positions.

        Raises:
            InputError: a prediction has NaN or infinity.
        """
        count = len(next(iter(maps.values())))
        subset = [modality for modality in self.info.modalities if modality in maps]
        parts = []
        for start in range(0, count, batch):
            chunk = {modality: array[start : start + batch] for modality, array in maps.items()}
            if self.onnx and len(subset) == len(self.info.modalities):
                parts.append(self.onnx.predict_batch(chunk))
            else:
                parts += predict_batch(self.network, chunk, [subset])
        predictions = concatenate_predictions(parts)
        require_finite(predictions, names or [f"session {row}" for row in range(count)], self.folder)
        return predictions

    def embed(self, maps: Mapping[str, np.ndarray]) -> np.ndarray:
        """(n, D) float32: the direction identifies the subject, the norm is the quality. Raises as `predict`."""
        return self.predict(maps).embeddings

    def attributes(self, maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """(n, classes) float32 probabilities of each trained attribute; classes in the order of `info.classes`.

        Raises as `predict`.
        """
        probabilities = self.predict(maps).probabilities
        return {attribute: probabilities[attribute] for attribute in self.info.trained}

    def verify(
        self,
        first: Mapping[str, np.ndarray],
        second: Mapping[str, np.ndarray],
        fmr: float | None = None,
        threshold: float | None = None,
    ) -> VerificationResult:
        """Compare two sessions, at the threshold for a false match rate.

        Args:
            first: maps of one session.
            second: maps of the other session.
            fmr: false match rate; None: the lowest that the validation set supports.
            threshold: cosine to use instead.

        Raises:
            InputError: as `predict`; more than one session; an FMR that the validation set does not support.
        """
        embeddings = [self.embed(maps) for maps in (first, second)]
        if any(len(rows) != 1 for rows in embeddings):
            raise InputError("verify: expected maps of one session each; give H x W and H x W x 3 arrays")
        direction_a, direction_b = (normalize_rows(rows)[0] for rows in embeddings)
        score = float(direction_a @ direction_b)
        if threshold is not None:
            return VerificationResult(score, threshold)
        chosen = self.validation_threshold(fmr)
        return VerificationResult(score, chosen.threshold, chosen)

    def identify(
        self,
        maps: Mapping[str, np.ndarray],
        gallery: Gallery,
        fmr: float | None = None,
        top: int = 1,
        threshold: float | None = None,
    ) -> list[Match]:
        """Identify n sessions among the subjects of a gallery; `top` candidates each.

        `fmr` and `threshold` as in `verify`.

        Raises:
            InputError: as `predict`; the gallery is empty, or another model made it; an FMR that the validation set does not
                support.
        """
        gallery.check_searchable(self.digest)
        if threshold is None:
            threshold = self.validation_threshold(fmr).threshold
        return gallery.search(self.embed(maps), threshold, top)

    def validation_threshold(self, fmr: float | None = None) -> ValidationThreshold:
        """The verification threshold at a false match rate; None: at the lowest rate that the validation set supports.

        Raises:
            InputError: the model has no thresholds, or the validation set does not support that FMR.
        """
        if self.thresholds is None:
            raise InputError(f"{self.folder}: has no thresholds, as it was trained without a validation set; give --threshold")
        return self.thresholds.for_fmr(fmr)

    def capture_to_maps(
        self, capture: str | Path, prior: str | None = None, captures: str | Path | None = None
    ) -> dict[str, np.ndarray]:
        """The maps of a raw capture, computed with the settings of the model's training maps: modality to H x W (x 3).

        Issues a Python warning if another format version of `prepare` made the training maps, or if the capture differs from
        those of the training data in lights or bit depth.

        Args:
            capture: folder of one session, in a layout that `prepare` reads.
            prior: file of the mean face, if the training maps were prepared with one.
            captures: folder of all captures, if the file of lights is above that of the session.

        Raises:
            InputError: the capture cannot be used.
        """
        maps, acquisition = self.solve_capture(Path(capture), prior, Path(captures) if captures else None)
        for warning in self.capture_warnings([(str(capture), acquisition)]):
            warnings.warn(warning, stacklevel=2)
        return maps

    def solve_capture(
        self, capture: Path, prior: str | None = None, captures: Path | None = None, ambient: str | None = None
    ) -> tuple[dict[str, np.ndarray], Acquisition]:
        """`capture_to_maps` without warnings; returns also how the capture was taken.

        `ambient` is the name of the image without the lights; None: as in the training.
        """
        config, mean_face = reproduce_preparation(self.info.preparation, prior)
        config = replace(config, ambient=ambient or config.ambient)
        maps, details = capture_to_maps(capture, config, None, mean_face, captures)
        return {name: getattr(maps, name) for name in self.info.modalities}, Acquisition(**details["acquisition"])

    def capture_warnings(self, captures: Sequence[tuple[str, Acquisition]]) -> list[str]:
        """Warnings about maps of captures, given by name: `format_warning` and `acquisition_warning`."""
        found = format_warning(self.info.preparation), acquisition_warning(self.info.acquisition, captures)
        return [warning for warning in found if warning]

    def predicted_classes(self, attribute: str, probabilities: np.ndarray) -> list[str]:
        """The class names for (n, classes) probabilities; of two classes, at the validation threshold if there is one."""
        names = list(self.info.classes[attribute])  # type: ignore[index]
        threshold = self.thresholds.attributes.get(attribute) if self.thresholds else None
        if threshold is not None and len(names) == 2:
            # float64 as in the evaluation: a threshold between two adjacent float32 values rounds to one of them in float32.
            return [names[int(positive >= threshold)] for positive in probabilities[:, 1].astype(np.float64)]
        return [names[code] for code in probabilities.argmax(axis=1)]

    def check_map(self, modality: str, array: np.ndarray, where: str) -> np.ndarray:
        """Check one map, and return it as (C, H, W) float32. Errors begin with `where`.

        Raises:
            InputError: the model does not read this modality, or the map is invalid or of another size.
        """
        if modality not in self.info.modalities:
            raise InputError(f"{where}: this model does not read {modality}; it reads {', '.join(self.info.modalities)}")
        checked = check_map(array, modality, where)
        self.check_size(checked, where)
        return checked

    def check_size(self, array: np.ndarray, where: str) -> None:
        """Raise an InputError that begins with `where` if a (C, H, W) map does not have the size of the model."""
        size, (height, width) = self.info.size, array.shape[1:]
        if (height, width) != (size, size):
            raise InputError(f"{where}: {height} x {width} px; this model reads {size} x {size}; prepare with --size {size}")

    def _check_maps(self, maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """n maps of each modality as (n, C, H, W)."""
        checked = {}
        for modality, array in maps.items():
            array = np.asarray(array)
            one_session = array.ndim == (3 if modality == "normal" else 2)
            sessions = [array] if one_session or not array.ndim else list(array)
            if not sessions:
                raise InputError(f"{modality}: no session; expected one or more")
            checked[modality] = np.stack(
                [self.check_map(modality, single_map, f"{modality} {row}") for row, single_map in enumerate(sessions)]
            )
        if len({len(sessions) for sessions in checked.values()}) != 1:
            counts = ", ".join(f"{len(sessions)} of {modality}" for modality, sessions in checked.items()) or "none"
            raise InputError(f"maps: {counts}; expected one or more, and as many of each modality")
        return checked
