"""Registration of maps to the mean face of the training sessions by a rotation, a scale and a shift.

The mean face and the registration of the training sessions are found in turns (congealing: Learned-Miller, "Data driven image
models through continuous joint alignment", PAMI 2006). A session is registered by inverse compositional Gauss-Newton steps (Baker
and Matthews, "Lucas-Kanade 20 years on: a unifying framework", IJCV 2004) from coarse to fine, with the loss of Huber ("Robust
estimation of a location parameter", Annals of Mathematical Statistics 1964), since a session differs from the mean face by more
than its position.

Lights from below or from one side cast shadows that the mean face lacks. They bias the registration, for all subjects in nearly
the same way. A linear correction predicts this bias from the remaining difference (one step of supervised descent: Xiong and De
la Torre, "Supervised descent method and its applications to face alignment", CVPR 2013). `fr_ps.training.fit_registration` fits
it.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fr_ps.data.augment import MapBatch, Similarity, apply_similarity
from fr_ps.data.layout import CHANNELS
from fr_ps.models.layers import normalise_maps

MODALITIES = ("albedo", "normal")
"""Maps that are registered, and that the registration is computed from."""
LEVELS = (14, 28)
"""Coarse to fine: side in pixels."""
FACE_SIDE = LEVELS[-1]
"""Side of the mean face in pixels, to which the maps of every size are resampled for the registration."""
ROUNDS = 2
"""Rounds of congealing."""
MOVED_SIDE = 56
"""Largest side in pixels of the maps that `register_maps` returns."""
LARGEST = 0.4
"""Largest rotation in radians, logarithm of the scale, and shift in half sides, before the correction; a session beyond it is not
registered."""

_STEPS = 10
_LARGEST_STEP = 0.2
_DIFFERENCE = 0.01
_HUBER = 0.5  # larger residuals count by their absolute value
_NORMAL_WEIGHT = 2.0


class Constants(NamedTuple):
    """What a model stores of its registration beside the mean face.

    Attributes:
        window: radius of the compared disc; the half side of the map is 1.
        coarse_prior: weight of the squared parameters of the motion at the first of `LEVELS`, relative to the mean loss over the
            compared values. It keeps a session near its crop, from which shadows would move it.
        fine_prior: the same at the second.
    """

    window: float | Tensor
    coarse_prior: float | Tensor
    fine_prior: float | Tensor


CONSTANTS = Constants(1.3, 0.5, 0.1)
OLD_CONSTANTS = Constants(0.72, 0.1, 0.02)
"""Of models that do not store them. Their sessions are registered by the normals alone if there are normals."""


def registration_features(maps: Mapping[str, Tensor]) -> MapBatch:
    """What the registration compares: each of `MODALITIES` in `maps` to (B, C, `FACE_SIDE`, `FACE_SIDE`).

    Albedo is replaced by its logarithm, shifted and scaled to median 0 and mean absolute value 1, since the exposure is unknown.

    Args:
        maps: modality to (B, C, H, H).
    """
    return {name: normalise_maps(_resample(maps[name], FACE_SIDE), name, "log") for name in registered_modalities(maps)}


def registered_modalities(modalities: Collection[str]) -> tuple[str, ...]:
    """Those of `modalities` that are registered, in the order of `MODALITIES`."""
    return tuple(name for name in MODALITIES if name in modalities)


def congeal(features: MapBatch, constants: Constants = CONSTANTS) -> MapBatch:
    """The mean face: modality to (1, C, h, h), the mean of the B registered sessions.

    The transforms average to the identity, so that the face has the mean position and size of the sessions' faces.

    Args:
        features: `registration_features` of the training sessions.
        constants: of the model.
    """
    parameters = _no_motion(features)
    mean_face = _mean(features)
    for _ in range(ROUNDS):
        parameters = _register(features, mean_face, constants, parameters)
        parameters = parameters - parameters.mean(dim=0)
        similarity = _similarity(parameters)
        mean_face = _mean({name: apply_similarity(maps, name, similarity) for name, maps in features.items()})
    return mean_face


def register(
    features: MapBatch, mean_face: MapBatch, constants: Constants = CONSTANTS, correction: Tensor | None = None
) -> Similarity:
    """The transforms that move B sessions to the mean face, for `apply_similarity`; each depends on its session only.

    A session whose transform would exceed `LARGEST` before the correction gets the identity. This can happen if the map has no
    face.

    Args:
        features: `registration_features` of the sessions, of modalities of the mean face.
        mean_face: from `congeal`.
        constants: of the model.
        correction: `correction_shape`, applied to sessions with all modalities of the mean face; None: no correction.
    """
    target = {name: mean_face[name] for name in features}
    parameters = _register(features, target, constants, _no_motion(features))
    if correction is not None and len(target) == len(mean_face):
        bias = face_differences(features, mean_face, _similarity(parameters), constants) @ correction[:-1] + correction[-1]
        is_registered = (parameters != 0).any(dim=1, keepdim=True)
        parameters = torch.where(is_registered, _undo(parameters, bias.clamp(-_LARGEST_STEP, _LARGEST_STEP)), parameters)
    return _similarity(parameters)


def face_differences(features: MapBatch, mean_face: MapBatch, similarity: Similarity, constants: Constants = CONSTANTS) -> Tensor:
    """(B, n) differences between the features after `similarity` and the mean face, at the coarsest of `LEVELS`."""
    level = LEVELS[0]
    target, moving = ({name: _reduce(of_one, level) for name, of_one in maps.items()} for maps in (mean_face, features))
    window = _window(level, constants.window, similarity.angle.device)
    return _values(moving, similarity, window) - _values(target, _similarity(_no_motion(target)), window)


def correction_shape(modalities: Collection[str]) -> tuple[int, int]:
    """(n + 1, 4): the weights of `face_differences` of the modalities, and last the intercept, of each parameter of the bias.

    The parameters of a bias are those of a `Similarity`: angle, logarithm of the side, centre.
    """
    return sum(CHANNELS[name] for name in registered_modalities(modalities)) * LEVELS[0] ** 2 + 1, 4


def register_maps(
    maps: Mapping[str, Tensor], mean_face: MapBatch, constants: Constants = CONSTANTS, correction: Tensor | None = None
) -> MapBatch:
    """The maps (B, C, H, H) of each of `MODALITIES`, moved to the mean face and averaged to at most `MOVED_SIDE` a side.

    The transforms are computed from the modalities of `mean_face` only; `maps` must have at least one of these. The other
    arguments are those of `register`.
    """
    features = {name: values for name, values in registration_features(maps).items() if name in mean_face}
    similarity = register(features, mean_face, constants, correction)
    return {name: _reduce(apply_similarity(maps[name], name, similarity), MOVED_SIDE) for name in registered_modalities(maps)}


def _register(features: MapBatch, mean_face: MapBatch, constants: Constants, parameters: Tensor) -> Tensor:
    """(B, 4) parameters after the steps of all levels; all 0 for a session of which one exceeds `LARGEST`."""
    for level, prior in zip(LEVELS, (constants.coarse_prior, constants.fine_prior), strict=True):
        target = {name: _reduce(maps, level) for name, maps in mean_face.items()}
        window = _window(level, constants.window, parameters.device)
        jacobian = _jacobian(target, window)  # (n, 4)
        products = (jacobian[:, :, None] * jacobian[:, None, :]).flatten(1)  # (n, 16)
        moving = {name: _reduce(maps, level) for name, maps in features.items()}
        expected = _values(target, _similarity(_no_motion(target)), window)
        for _ in range(_STEPS):
            residuals = _values(moving, _similarity(parameters), window) - expected  # (B, n)
            weights = (_HUBER / residuals.abs().clamp_min(1e-6)).clamp_max(1) / residuals.shape[1]
            curvature = (weights @ products).view(-1, 4, 4) + prior * torch.eye(4, device=parameters.device)
            slope = (weights * residuals) @ jacobian + prior * parameters
            step = _solve(curvature, slope).clamp(-_LARGEST_STEP, _LARGEST_STEP)
            parameters = _undo(parameters, step)
    return torch.where((parameters.abs() <= LARGEST).all(dim=1, keepdim=True), parameters, 0)


def _no_motion(features: MapBatch) -> Tensor:
    """(B, 4) parameters of the identity."""
    first = next(iter(features.values()))
    return first.new_zeros(first.shape[0], 4)


def _solve(matrices: Tensor, vectors: Tensor) -> Tensor:
    """(B, 4) solutions of (B, 4, 4) positive definite systems, by Gauss-Jordan without pivoting; ONNX has no operator for it."""
    system = torch.cat([matrices, vectors[:, :, None]], dim=2)
    for pivot in range(4):
        row = system[:, pivot : pivot + 1] / system[:, pivot : pivot + 1, pivot : pivot + 1]
        others = torch.arange(4, device=system.device)[:, None] != pivot
        system = torch.where(others, system - system[:, :, pivot : pivot + 1] * row, row)
    return system[:, :, 4]


def _jacobian(target: MapBatch, window: Tensor) -> Tensor:
    """(n, 4) derivatives of the n values of the mean face by the parameters of its own transform."""
    moves = _DIFFERENCE * torch.cat([torch.eye(4), -torch.eye(4)]).to(window.device)
    values = _values({name: maps.expand(8, -1, -1, -1) for name, maps in target.items()}, _similarity(moves), window)
    return ((values[:4] - values[4:]) / (2 * _DIFFERENCE)).T


def _values(features: MapBatch, similarity: Similarity, window: Tensor) -> Tensor:
    """(B, n) values of the moved features inside the window."""
    moved = [
        (_NORMAL_WEIGHT if name == "normal" else 1) * apply_similarity(maps, name, similarity) for name, maps in features.items()
    ]
    return (torch.cat(moved, dim=1) * window).flatten(1)


def _window(side: int, radius: float | Tensor, device: torch.device) -> Tensor:
    """(side, side): 1 in the middle, less at the border and least in the corners, where a moved map repeats its last pixels."""
    at = (torch.arange(side, device=device) + 0.5) / side * 2 - 1
    return torch.exp(-(((at[:, None] / radius) ** 2 + (at / radius) ** 2) ** 3))


def _similarity(parameters: Tensor) -> Similarity:
    """From (B, 4): angle, logarithm of the side, centre."""
    angle, log_side = parameters[:, 0], parameters[:, 1]
    return Similarity(torch.ones_like(angle), angle, torch.exp(log_side), parameters[:, 2:])


def _undo(parameters: Tensor, step: Tensor) -> Tensor:
    """The parameters of the transform that applies the inverse of `step` first, then `parameters`."""
    angle_and_side = parameters[:, :2] - step[:, :2]
    linear = _similarity(torch.cat([angle_and_side, step[:, 2:]], dim=1)).matrix()[:, :, :2]
    centre = parameters[:, 2:] - (linear @ step[:, 2:, None])[:, :, 0]
    return torch.cat([angle_and_side, centre], dim=1)


def _mean(features: MapBatch) -> MapBatch:
    means = {name: maps.mean(dim=0, keepdim=True) for name, maps in features.items()}
    return {name: functional.normalize(mean, dim=1) if name == "normal" else mean for name, mean in means.items()}


def _reduce(maps: Tensor, side: int) -> Tensor:
    """(B, C, h, h) averaged to at most `side` pixels a side."""
    return maps if maps.shape[-1] <= side else _resample(maps, side)


def _resample(maps: Tensor, side: int) -> Tensor:
    return functional.interpolate(maps, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
