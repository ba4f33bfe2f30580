"""Cost of a checkpoint on the training thread, with a writer thread and without one.

Real checkpoints (`CheckpointManager`) of a real training on the built-in faces with an exponential moving average of the
weights, the largest kind: trained and averaged weights, two moments per weight. The training thread takes a copy; writing,
checksums and syncing run beside the next steps. Prints, as medians over the epochs: the time of the copy, the time until the
checkpoint is on disk, the copy as a share of an epoch, and the slowdown of a step during writing.

    python benchmarks/checkpoint_cost.py
"""

import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from common import Measurement, argument_parser, limit_threads, make_trainer, report


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--backbones", nargs="+", default=["convnextv2_atto", "miresnet18"])
    options = parser.parse_args()
    limit_threads(options.threads)
    numbers, rows = {}, []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FR_PS_CACHE"] = f"{folder}/cache"
        for backbone in options.backbones:
            size, copy, written, epoch, slowdown = measure(backbone, Path(folder) / backbone, options.epochs, options.threads)
            rows.append([backbone, size / 1e6, 1e3 * copy, 1e3 * written, epoch, 100 * copy / epoch, slowdown])
            numbers[f"{backbone}_percent"] = Measurement(
                100 * copy / epoch, 2.0, "lower", "% of an epoch, on the training thread"
            )
    headers = ["backbone", "MB", "copy ms", "on disk ms", "epoch s", "copy, % of an epoch", "step during writing / step"]
    report(numbers, rows, headers, options.json)


def measure(backbone: str, folder: Path, epochs: int, threads: int) -> tuple[float, float, float, float, float]:
    """Bytes, seconds of the copy, seconds until it is on disk, seconds per epoch, step during writing over step."""
    import torch

    from fr_ps.config import BatchConfig, Config, ModelConfig, SyntheticConfig, TrainConfig
    from fr_ps.tracking.run import Run
    from fr_ps.training.checkpoint_manager import CheckpointManager, describe_environment

    torch.set_num_threads(threads)
    config = Config(
        model=ModelConfig(backbone=backbone),
        synthetic=SyntheticConfig(people=24, sessions=8),
        batch=BatchConfig(people=4, sessions=4),
        train=TrainConfig(ema=0.999),
    )
    run = Run(folder / "run")
    trainer = make_trainer(config, 24 * 8)
    environment = describe_environment(trainer.setup, trainer.loader, torch.device("cpu"))
    copies, written, epoch_seconds, steps_during, steps_alone = [], [], [], [], []
    with CheckpointManager(run, trainer.setup, trainer.state, environment) as checkpoints:
        for epoch in range(epochs + 1):
            writing, step_start = bool(epoch % 2), [time.perf_counter()]
            steps = steps_during if writing else steps_alone
            # The trainer calls `save_if_due` after every step.
            trainer.checkpoints.save_if_due = partial(_time_step, checkpoints, writing, step_start, steps)
            begun = time.perf_counter()
            trainer.train_epoch()
            if not writing:
                epoch_seconds.append(time.perf_counter() - begun)
            checkpoints.wait()
            trainer.state.end_epoch()
            begun = time.perf_counter()
            checkpoints.save_epoch(["val/identity/auc"])
            copies.append(time.perf_counter() - begun)
            checkpoints.wait()
            written.append(time.perf_counter() - begun)
    size = sum(file.stat().st_size for file in Path(checkpoints.latest_checkpoint()).rglob("*") if file.is_file())
    slowdown = statistics.median(steps_during) / statistics.median(steps_alone) if steps_during else float("nan")
    epoch_seconds = epoch_seconds[1:] or epoch_seconds
    return size, *(statistics.median(values) for values in (copies[1:], written[1:], epoch_seconds)), slowdown


def _time_step(checkpoints: Any, writing: bool, step_start: list[float], steps: list[float]) -> None:
    """Add the seconds since `step_start[0]` to `steps`, and start the next step there.

    With `writing`, only steps during all of which a checkpoint was being written count; the next checkpoint is started as soon
    as none is being written.
    """
    took = time.perf_counter() - step_start[0]
    if checkpoints.writing == writing:
        steps.append(took)
    elif writing:
        checkpoints.save()
    step_start[0] = time.perf_counter()


if __name__ == "__main__":
    main()
