"""Names that settings may take and that errors list."""

from typing import Literal

Modality = Literal["albedo", "normal", "depth"]
Attribute = Literal["gender", "spectacles", "facial_hair", "pose", "emotion"]
LabelForm = Literal["auto", "raw", "reduced", "encoded"]
CaptureLayout = Literal["plain", "photoface"]
Align = Literal["auto", "landmarks", "boxes", "none"]
Fit = Literal["crop", "pad", "stretch"]
Solver = Literal["least_squares", "robust", "integrable"]
Integration = Literal["poisson", "frankot_chellappa"]
LightAxes = Literal["xy", "-xy", "x-y", "-x-y", "yx", "-yx", "y-x", "-y-x"]
Adversaries = Literal["rest", "identity", "off"]
Fusion = Literal["concat", "fc", "gated", "score"]
BACKBONES = (
    *(f"miresnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *(f"irse{depth}" for depth in (50, 101, 152)),
    *(f"convnextv2_{size}" for size in ("atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "huge")),
)
TIMM_PREFIX = "timm:"
"""What stands before the name of a backbone that is any other network of timm."""
PEELING_ORDER: tuple[Attribute, ...] = ("spectacles", "facial_hair", "emotion", "pose", "gender")
SYNTHETIC_ROOT = "synthetic"
"""The value of `data.root` that stands for the built-in faces."""
