"""The command `models`."""

from typing import Literal

from jsonargparse import Namespace

from fr_ps.arguments import Command, ImageSize, Parser
from fr_ps.config import BACKBONES, ModelConfig
from fr_ps.terminal import echo_loading


def _add_models_arguments(models: Parser) -> None:
    models.description = "Cost of every backbone: parameters, multiply-adds, feature map, and time of a training step."
    models.add_argument("--backbone", type=str, default=None, help="only this backbone, also timm:NAME")
    models.add_argument("--size", type=ImageSize, default=112, help="side of the maps in pixels")
    models.add_argument("--channels_in", type=Literal[1, 3], default=1, help="1: albedo or depth; 3: normals")
    models.add_argument("--smoke", type=bool, default=True, help="run and time a training step of each backbone but the largest")
    models.add_argument("--device", type=str, default="auto", help="device of that step: auto, cpu, cuda or mps")


def _models(arguments: Namespace) -> None:
    echo_loading("PyTorch and timm")
    from tabulate import tabulate

    from fr_ps.device import pick_device
    from fr_ps.models.cost import cost_row

    # ModelConfig rejects unknown backbones, with the message of a training.
    names = [ModelConfig(backbone=arguments.backbone).backbone] if arguments.backbone else BACKBONES
    device = pick_device(arguments.device) if arguments.smoke else None
    rows = [cost_row(name, arguments.channels_in, arguments.size, device) for name in names]
    print(tabulate(rows, headers="keys", floatfmt=".2f", missingval="-"))
    print(
        f"\nparameters in millions, of the backbone and of the whole network; multiply-adds in billions, of the whole network"
        f" on one map of {arguments.channels_in} x {arguments.size} x {arguments.size}"
    )
    if arguments.smoke:
        print("step: forward and backward of two maps; -: too large, not run")


COMMANDS = {"models": Command(_add_models_arguments, _models)}
