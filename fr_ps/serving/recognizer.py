"""A trained model as an object that answers: who, whether two are one, and the attributes."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from fr_ps.data.layout import check_map
from fr_ps.data.preparation import capture_to_maps, format_warning, reproduce_preparation
from fr_ps.errors import InputError
from fr_ps.models.folder import load_model, weights_digest
from fr_ps.models.inference import Predictions, predict_subsets, require_finite
from fr_ps.models.thresholds import ValidationThreshold, read_thresholds
from fr_ps.serving.gallery import Gallery, Match, normalize_rows

DEFAULT_BATCH_SIZE = 64
"""Sessions that are answered at once; training scores by as many, and the last bits of an answer depend on it."""


@dataclass(frozen=True)
class VerificationResult:
    """Whether two sessions are of one person.

    Attributes:
        score: cosine of their embeddings.
        threshold: that it was held against.
        point: what that threshold did on validation; None where it was given.
    """

    score: float
    threshold: float
    validation_threshold: ValidationThreshold | None = None

    @property
    def same(self) -> bool:
        """Whether they are taken for one person."""
        return self.score >= self.threshold


class Recognizer:
    """A model that is ready to answer.

    Maps are given as prepared data sets have them: modality to H x W (albedo, depth) or H x W x 3 (normals), or n of them in
    one array. Of a model of several modalities some may be left away.

    Attributes:
        folder: of the model.
        info: what it is: modalities, size, classes, provenance.
        thresholds: that validation chose; None where nobody was validated on.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.network, self.info = load_model(folder, device)
        self.folder = folder
        self.thresholds = read_thresholds(folder)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its weights, which tells whose gallery it is."""
        return weights_digest(self.folder)

    def predict(self, maps: Mapping[str, np.ndarray], batch: int = DEFAULT_BATCH_SIZE) -> Predictions:
        """Embeddings and probabilities of n sessions.

        Raises:
            InputError: maps that this model does not read, of another size, or with NaN; an answer with NaN or infinity.
        """
        return self.predict_checked(self._check_maps(maps), batch)

    def predict_checked(
        self, maps: Mapping[str, np.ndarray], batch: int = DEFAULT_BATCH_SIZE, names: Sequence[str] = ()
    ) -> Predictions:
        """`answer` about maps that `check_map` has brought to (n, C, H, W).

        `names` (n,) are those of the sessions in errors; none: their places.

        Raises:
            InputError: an answer with NaN or infinity.
        """
        rows = np.arange(len(next(iter(maps.values()))))
        subset = [modality for modality in self.info.modalities if modality in maps]
        answers = predict_subsets(self.network, InMemoryMaps(maps), rows, batch, [subset])[0]
        require_finite(answers, names or [f"session {row}" for row in rows], self.folder)
        return answers

    def embed(self, maps: Mapping[str, np.ndarray]) -> np.ndarray:
        """(n, D) float32: the direction says who, and the norm how well that can be seen. Errors as of `answer`."""
        return self.predict(maps).embeddings

    def attributes(self, maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """(n, classes) float32 probabilities of each attribute that was trained, in the order of `info.classes`.

        Errors as of `answer`.
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
        """Whether two sessions are of one person, at the threshold for a wanted false match rate.

        Args:
            first: maps of one session.
            second: of the other.
            fmr: wanted; None: the smallest that validation could tell with support.
            threshold: cosine instead of that.

        Raises:
            InputError: as `answer`, more than one session, or an FMR that validation cannot tell.
        """
        embeddings = [self.embed(maps) for maps in (first, second)]
        if any(len(some) != 1 for some in embeddings):
            raise InputError("verify: expected maps of one session each; give H x W and H x W x 3 arrays")
        one, other = (normalize_rows(some)[0] for some in embeddings)
        score = float(one @ other)
        if threshold is not None:
            return VerificationResult(score, threshold)
        point = self.validation_threshold(fmr)
        return VerificationResult(score, point.threshold, point)

    def identify(
        self,
        maps: Mapping[str, np.ndarray],
        gallery: Gallery,
        fmr: float | None = None,
        top: int = 1,
        threshold: float | None = None,
    ) -> list[Match]:
        """Who of the gallery each of n sessions is, or that it is nobody of them; with the `top` most alike.

        Raises:
            InputError: as `answer`; the gallery is empty or another model's; an FMR that validation cannot tell.
        """
        gallery.check_searchable(self.digest)
        return gallery.search(self.embed(maps), self.validation_threshold(fmr).threshold if threshold is None else threshold, top)

    def validation_threshold(self, fmr: float | None = None) -> ValidationThreshold:
        """The threshold of verification for a wanted FMR.

        Raises:
            InputError: the model has none, or validation cannot tell that FMR.
        """
        if self.thresholds is None:
            raise InputError(f"{self.folder}: has no thresholds, as nobody was validated on; give --threshold")
        return self.thresholds.for_fmr(fmr)

    def capture_to_maps(self, capture: str | Path, prior: str | None = None) -> dict[str, np.ndarray]:
        """The maps of a raw capture, made as those were that the model was trained on: modality to H x W (x 3).

        A Python warning is issued where these are of another format of `prepare`.

        Args:
            capture: folder of one session, with its pictures and lights.
            prior: file of the mean face, if these were made with one.

        Raises:
            InputError: a capture that cannot be used.
        """
        config, mean_face = reproduce_preparation(self.info.preparation, prior)
        if warning := format_warning(self.info.preparation):
            warnings.warn(warning, stacklevel=2)
        maps, _ = capture_to_maps(Path(capture), config, None, mean_face)
        return {modality: getattr(maps, modality) for modality in self.info.modalities}

    def predicted_classes(self, attribute: str, probabilities: np.ndarray) -> list[str]:
        """The class names that (n, classes) probabilities stand for, at the threshold of validation where there is one."""
        names = list(self.info.classes[attribute])  # type: ignore[index]
        threshold = self.thresholds.attributes.get(attribute) if self.thresholds else None
        if threshold is not None and len(names) == 2:
            # In float64, as in the evaluation: in float32 a threshold between two neighbouring probabilities becomes one of them.
            return [names[int(positive >= threshold)] for positive in probabilities[:, 1].astype(np.float64)]
        return [names[code] for code in probabilities.argmax(axis=1)]

    def check_map(self, modality: str, array: np.ndarray, where: str) -> np.ndarray:
        """One map as (C, H, W) float32.

        Raises:
            InputError: not one that this model reads.
        """
        if modality not in self.info.modalities:
            raise InputError(f"{where}: this model does not read {modality}; it reads {', '.join(self.info.modalities)}")
        checked = check_map(array, modality, where)
        self.check_size(checked, where)
        return checked

    def check_size(self, array: np.ndarray, where: str) -> None:
        """Refuse a (C, H, W) map of another size than the model's, by an InputError that names `where` it stands."""
        size, (height, width) = self.info.size, array.shape[1:]
        if (height, width) != (size, size):
            raise InputError(f"{where}: {height} x {width} px; this model reads {size} x {size}; prepare with --size {size}")

    def _check_maps(self, maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """n maps of each modality as (n, C, H, W)."""
        found = {}
        for modality, array in maps.items():
            array = np.asarray(array)
            single = array.ndim == (3 if modality == "normal" else 2)
            several = [array] if single or not array.ndim else list(array)
            if not several:
                raise InputError(f"{modality}: no session; expected one or more")
            found[modality] = np.stack([self.check_map(modality, one, f"{modality} {row}") for row, one in enumerate(several)])
        if len({len(several) for several in found.values()}) != 1:
            counts = ", ".join(f"{len(several)} of {modality}" for modality, several in found.items()) or "none"
            raise InputError(f"maps: {counts}; expected one or more, and as many of each modality")
        return found


class InMemoryMaps:
    def __init__(self, maps: Mapping[str, np.ndarray]) -> None:
        self.maps = maps

    def read(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {modality: several[rows] for modality, several in self.maps.items()}
