"""Choices of settings, which error messages list. This module imports no torch."""

from typing import Literal

Modality = Literal["albedo", "normal", "depth"]
BranchName = Literal["albedo", "normal", "depth", "joint"]
JOINT: BranchName = "joint"
"""Name of the branch that reads all maps."""
Attribute = Literal["gender", "spectacles", "facial_hair", "pose", "emotion"]
LabelForm = Literal["auto", "raw", "reduced", "encoded"]
SyntheticLayout = Literal["plain", "photoface", "diligent", "lp"]
CaptureLayout = Literal["plain", "photoface", "diligent", "lp"]
MaskSource = Literal["file", "auto", "none"]
Align = Literal["auto", "landmarks", "boxes", "mask", "none"]
Fit = Literal["crop", "pad", "stretch"]
Solver = Literal["least_squares", "robust", "integrable"]
Integration = Literal["poisson", "frankot_chellappa"]
LightAxes = Literal["xy", "-xy", "x-y", "-x-y", "yx", "-yx", "y-x", "-y-x"]
NormalConvention = Literal["opengl", "directx"]
Adversaries = Literal["rest", "identity", "off"]
AlbedoNormalization = Literal["mean", "log"]
IdentityEmbedding = Literal["mean", "flatten"]
Fusion = Literal["concat", "fc", "gated", "score"]
JointBranch = Literal["off", "only", "also"]
BACKBONES = (
    *(f"miresnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *(f"irse{depth}" for depth in (50, 101, 152)),
    *(f"convnextv2_{size}" for size in ("atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "huge")),
    *(f"resnet10_{width}" for width in (16, 32, 64)),
)
TIMM_PREFIX = "timm:"
"""Prefix of the backbones that are other timm networks."""
PEELING_ORDER: tuple[Attribute, ...] = ("spectacles", "facial_hair", "emotion", "pose", "gender")
SYNTHETIC_ROOT = "synthetic"
"""Value of `data.root` for the built-in faces."""
