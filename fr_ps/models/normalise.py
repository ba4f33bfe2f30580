"""What every network does to a map first; part of the model, so that whoever runs one cannot forget it."""

from torch import Tensor

_DEPTH_UNIT = 8


def normalise_maps(maps: Tensor, modality: str) -> Tensor:
    """(B, C, H, W) maps brought to a range of about -1 to 1.

    Albedo is known up to the lights' intensity only, so each picture is divided by its own mean. Depth is in pixels, so
    it is told in eighths of the picture's side, and does not depend on the resolution. Normals are as they should be.
    """
    if modality == "albedo":
        return maps / maps.mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6) - 1
    if modality == "depth":
        return maps * (_DEPTH_UNIT / maps.shape[-1])
    return maps
