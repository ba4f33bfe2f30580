"""A linear embedding of the maps, fitted in closed form: symmetric low-resolution maps, whitened within subjects."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fr_ps.data.layout import CHANNELS
from fr_ps.models.layers import mirror_maps, normalise_maps, resample_maps
from fr_ps.models.registration import (
    CONSTANTS,
    FACE_SIDE,
    OLD_CONSTANTS,
    Constants,
    correction_shape,
    register_maps,
    registered_modalities,
)

_RESAMPLED = 56
"""Side to which the maps are resampled before they are smoothed."""
_SIDE = 14
_SIGMA = 2.0
"""Standard deviation of the smoothing at `_RESAMPLED` pixels. It makes the embedding less sensitive to the face's position."""
_WEIGHTS = {"albedo": 0.5}
"""Modality to the factor of its normalised maps; 1 for others. The log albedo varies more than the components of normals."""


class LinearEmbedding(nn.Module):
    """Maps of some modalities to unit vectors: smoothed, reduced to 14 x 14, averaged with their mirror image, projected.

    With registration, there are two parts with features and a projection each: of the maps as they are, which the classifiers of
    attributes read, and of the maps after `fr_ps.models.registration`, which give the vector. Older models join both.

    The mean with the mirror image removes what differs between the halves of a face, which with few lights is mostly shadow.
    The projection, from `fr_ps.training.fit_linear`, is the inverse square root of the covariance within subjects (WCCN; Hatch,
    Kajarekar and Stolcke, "Within-class covariance normalization for SVM-based speaker recognition", Interspeech 2006). Before it
    is fitted, all vectors are 0.

    Args:
        modalities: of the maps. Depth is left out beside normals, from which it is integrated.
        registered: whether there is the second part; without albedo and normals there is none.

    Attributes:
        compared: modalities that the registration compares with the mean face.
        means: (parts, D) means of the features of the training maps.
        projections: (parts, D, D).
    """

    means: Tensor
    projections: Tensor
    mean_face: Tensor
    registration_correction: Tensor

    def __init__(self, modalities: Sequence[str], registered: bool = False) -> None:
        super().__init__()
        self.modalities = tuple(modality for modality in modalities if modality != "depth" or "normal" not in modalities)
        self.widths = [CHANNELS[modality] * _SIDE * _SIDE // 2 for modality in self.modalities]
        self.compared = registered_modalities(self.modalities) if registered else ()
        self.registered = bool(self.compared)
        parts, values = 1 + self.registered, sum(self.widths)
        self.register_buffer("means", torch.zeros(parts, values))
        self.register_buffer("projections", torch.zeros(parts, values, values))
        if self.registered:
            self.register_buffer("mean_face", torch.zeros(_face_shape(self.compared)))
            self.register_buffer("registration_constants", torch.tensor(CONSTANTS))
            self.register_buffer("registration_correction", torch.zeros(correction_shape(self.compared)))

    def set_registration(self, mean_face: Mapping[str, Tensor], correction: Tensor) -> None:
        """Set the mean face, from `congeal`, and the correction that `register` applies."""
        self.mean_face.copy_(torch.cat([mean_face[modality] for modality in self.compared], dim=1))
        self.registration_correction.copy_(correction)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Also loads older models, whose registration has no correction, and a newer one after an older one.

        The oldest of them lack `registration_constants` too. With normals, their registration compares only these.
        """
        face, correction = (state_dict.get(f"{prefix}{name}") for name in ("mean_face", "registration_correction"))
        if self.registered and face is not None:
            self.compared = registered_modalities(self.modalities)
            correction_size = correction_shape(self.compared)
            if correction is None or not correction.numel():
                correction_size = (0, 4)
                state_dict.setdefault(f"{prefix}registration_correction", self.means.new_zeros(correction_size))
                oldest = ("normal",) if "normal" in self.compared else self.compared
                if face.shape == _face_shape(oldest):
                    self.compared = oldest
                    state_dict.setdefault(f"{prefix}registration_constants", torch.tensor(OLD_CONSTANTS))
            for name, size in (("mean_face", _face_shape(self.compared)), ("registration_correction", correction_size)):
                if self.get_buffer(name).shape != size:
                    setattr(self, name, self.means.new_zeros(size))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def features(self, maps: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Of each part: modality to its (B, d) features before the projection, for the modalities in `maps`."""
        used = {modality: maps[modality] for modality in self.modalities if modality in maps}
        parts = [used]
        if self.registered:
            parts.append(used | self._register(used) if set(self.compared) & set(used) else used)
        return [{modality: _half_face(of_one, modality) for modality, of_one in part.items()} for part in parts]

    def _register(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        faces = self.get_buffer("mean_face").split([CHANNELS[modality] for modality in self.compared], dim=1)
        constants = Constants(*self.get_buffer("registration_constants"))
        correction = self.registration_correction if self.registration_correction.numel() else None
        return register_maps(maps, dict(zip(self.compared, faces)), constants, correction)

    @property
    def attribute_width(self) -> int:
        """Width of `attribute_features`."""
        return 2 * self.means.shape[1]

    def forward(self, maps: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> Tensor:
        """(B, D) unit vectors; 0 without any of the modalities. Arguments are those of `centred_features`."""
        return self.join(self.project(self.centred_features(maps, present)))

    def centred_features(self, maps: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> list[Tensor]:
        """Of each part: (B, D) features of all modalities less their means.

        Args:
            maps: modality to (B, C, H, W); an absent modality counts as the mean of the training maps.
            present: modality to (B,) bool, whether the map of a session is used; None: all in `maps`. The registration reads
                all in `maps` in any case.
        """
        batch = next(iter(maps.values())).shape[0]  # len() would fix the batch size of the ONNX export
        parts = []
        for features, mean in zip(self.features(maps), self.means):
            centred = []
            for modality, of_modality in zip(self.modalities, mean.split(self.widths)):
                if modality not in features:
                    centred.append(of_modality.new_zeros(batch, of_modality.shape[0]))
                    continue
                difference = features[modality] - of_modality
                centred.append(difference if present is None else difference.where(present[modality][:, None], 0))
            parts.append(torch.cat(centred, dim=1))
        return parts

    def project(self, centred: Sequence[Tensor]) -> list[Tensor]:
        """Of each part: (B, D) unit vectors from `centred_features`."""
        return [functional.normalize(one @ projection, dim=1) for one, projection in zip(centred, self.projections)]

    def join(self, projected: Sequence[Tensor]) -> Tensor:
        """(B, D) unit vectors of the last part; (B, 2 D) unit vectors of both parts in an older model with registration."""
        is_older = self.registered and not self.registration_correction.numel()
        joined = projected if is_older else projected[-1:]
        return torch.cat(list(joined), dim=1) / len(joined) ** 0.5

    def attribute_features(self, projected: Sequence[Tensor], centred: Sequence[Tensor]) -> Tensor:
        """(B, 2 D) input of the classifiers of attributes: the unit vectors of the unregistered maps, and their features.

        The projection suppresses what varies within subjects, as the emotion; the features retain it.
        """
        return torch.cat([projected[0], centred[0]], dim=1)


def _face_shape(modalities: Sequence[str]) -> tuple[int, int, int, int]:
    return 1, sum(CHANNELS[modality] for modality in modalities), FACE_SIDE, FACE_SIDE


def _half_face(maps: Tensor, modality: str) -> Tensor:
    """(B, C, H, W) maps to (B, C 14 x 7): one half of the mean of the smoothed map and its mirror image."""
    if maps.shape[-1] > _RESAMPLED:
        maps = resample_maps(maps, modality, _RESAMPLED)
    maps = normalise_maps(maps, modality, "log") * _WEIGHTS.get(modality, 1.0)
    maps = functional.interpolate(_smooth(maps), (_SIDE, _SIDE), mode="area")
    symmetric = (maps + mirror_maps(maps, modality)) / 2
    return symmetric[..., : _SIDE // 2].flatten(1)


def _smooth(maps: Tensor) -> Tensor:
    """The maps convolved with a Gaussian; pixels outside the maps repeat their border."""
    sigma = _SIGMA * maps.shape[-1] / _RESAMPLED
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).repeat(maps.shape[1], 1, 1, 1)
    padded = functional.pad(maps, (radius, radius, radius, radius), mode="replicate")
    rows = functional.conv2d(padded, kernel, groups=maps.shape[1])
    return functional.conv2d(rows, kernel.transpose(2, 3), groups=maps.shape[1])
