"""Tensor names of published IResNet weights (insightface's arcface_torch, also used by MagFace) to ours.

Their `iresnet18`, 34, 50 and 100 (Deng et al., "ArcFace", CVPR 2019; Meng et al., "MagFace", CVPR 2021) are the IR units of
`fr_ps.models.iresnet`: `conv1`, `bn1`, `prelu`, then `layer1` to `layer4` of units `bn1`, `conv1`, `bn2`, `prelu`, `conv2`,
`bn3`, `downsample`. After them come `bn2`, `fc` and `features`, the embedding layer. A MagFace checkpoint has all of these under
`features.module.` or `module.features.`, and the classifier weights in a further `fc`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from fr_ps.errors import InputError
from fr_ps.models.iresnet import IRESNETS, BasicBlock, IResNet

IGNORED_TENSORS_NOTE = (
    "names of a published IResNet; its bn2, fc and features are left out, as the branch makes an embedding for each task"
)
_SIGNATURE_TENSOR = "layer1.0.prelu.weight"
"""Distinguishes it from a torchvision ResNet, which has similar names but no PReLU."""
_STEM = {"conv1": "stem.0", "bn1": "stem.1", "prelu": "stem.2"}
_UNIT = {"bn1": "body.0", "conv1": "body.1", "bn2": "body.2", "prelu": "body.3", "conv2": "body.4", "bn3": "body.5"}
_NAME = re.compile(r"(?:layer(?P<stage>[1-4])\.(?P<unit>\d+)\.)?(?P<part>[a-z]+\d?)(?P<rest>\..+)")


def is_published_iresnet(content: Mapping[str, Tensor]) -> bool:
    """Whether `content` has the names of a published IResNet."""
    return _prefix(content) is not None


def rename_published_iresnet(content: Mapping[str, Tensor], backbone: nn.Module, path: Path) -> dict[str, Tensor]:
    """The tensors of a published IResNet under the names of `backbone`; tensors that it does not have keep their names.

    Raises:
        InputError: the backbone has other units.
    """
    prefix = _prefix(content) or ""
    inner = {name.removeprefix(prefix): name for name in content if name.startswith(prefix)}
    theirs = _checkpoint_units(inner)
    ours = _backbone_units(backbone)
    if theirs != ours:
        fitting = [name for name, (block, units) in IRESNETS.items() if issubclass(block, BasicBlock) and units == theirs]
        remedy = f"expected model.backbone {' or '.join(fitting)}" if fitting else "no backbone matches"
        counts = "-".join(map(str, theirs))
        raise InputError(f"{path}: a published IResNet of {counts} units of two convolutions, unlike the backbone; {remedy}")
    starts = [sum(theirs[:stage]) for stage in range(len(theirs))]
    renamed = {name: tensor for name, tensor in content.items() if not name.startswith(prefix)}
    return renamed | {_rename(name, starts): content[full] for name, full in inner.items()}


def _prefix(content: Mapping[str, Tensor]) -> str | None:
    """The prefix of the IResNet's names in `content`; None if it contains no IResNet."""
    return next(
        (
            name.removesuffix(_SIGNATURE_TENSOR)
            for name in content
            if name == _SIGNATURE_TENSOR or name.endswith(f".{_SIGNATURE_TENSOR}")
        ),
        None,
    )


def _checkpoint_units(names: Mapping[str, str]) -> tuple[int, ...]:
    """Units of each of the four stages."""
    found = [match for name in names if (match := _NAME.fullmatch(name)) and match["stage"]]
    return tuple(len({match["unit"] for match in found if match["stage"] == stage}) for stage in "1234")


def _backbone_units(backbone: nn.Module) -> tuple[int, ...]:
    """Units of two convolutions of each stage; empty for other networks."""
    if not isinstance(backbone, IResNet) or not all(isinstance(unit, BasicBlock) for unit in backbone.blocks):
        return ()
    units: list[int] = []
    for unit in backbone.blocks:
        if not isinstance(unit.shortcut, nn.Identity):  # the first of a stage, which has a stride
            units.append(0)
        units[-1] += 1
    return tuple(units)


def _rename(name: str, starts: list[int]) -> str:
    """The name of the tensor `name` in our IResNet; unchanged if ours has no such tensor."""
    match = _NAME.fullmatch(name)
    if match is None:
        return name
    if match["stage"] is None:
        return _STEM[match["part"]] + match["rest"] if match["part"] in _STEM else name
    block = f"blocks.{starts[int(match['stage']) - 1] + int(match['unit'])}"
    if match["part"] == "downsample":
        return f"{block}.shortcut{match['rest']}"
    return f"{block}.{_UNIT[match['part']]}{match['rest']}" if match["part"] in _UNIT else name
