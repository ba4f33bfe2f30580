"""What a checkpoint costs the training thread, and what it would cost without a thread of its own.

Real checkpoints (`CheckpointManager`) of a real training on the built-in faces with a moving average of the weights, which is the
largest that there is: trained and averaged weights, two moments a weight. The copy is taken on the training thread; writing,
checksums and syncing go on beside the next steps. Printed are, as medians over the epochs: the copy; the whole until it is on
disk; the copy as a share of an epoch; and how much longer a step takes while a checkpoint is being written.

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
            size, copy, whole, epoch, slower = measure(backbone, Path(folder) / backbone, options.epochs, options.threads)
            rows.append([backbone, size / 1e6, 1e3 * copy, 1e3 * whole, epoch, 100 * copy / epoch, slower])
            numbers[f"{backbone}_percent"] = Measurement(
                100 * copy / epoch, 2.0, "lower", "% of an epoch, on the training thread"
            )
    headers = ["backbone", "MB", "copy ms", "on disk ms", "epoch s", "copy, % of an epoch", "step while writing / step"]
    report(numbers, rows, headers, options.json)


def measure(backbone: str, folder: Path, epochs: int, threads: int) -> tuple[float, float, float, float, float]:
    """Bytes, seconds of the copy, seconds until it is on disk, seconds an epoch, step while writing over step."""
    import torch

    from fr_ps.config import BatchConfig, Config, ModelConfig, SyntheticConfig, TrainConfig
    from fr_ps.tracking.run import Run
    from fr_ps.training.checkpoint_manager import CheckpointManager, describe_environment

    torch.set_num_threads(threads)
    config = Config(
        model=ModelConfig(backbone=backbone),  # type: ignore[arg-type]
        synthetic=SyntheticConfig(people=24, sessions=8),
        batch=BatchConfig(people=4, sessions=4),
        train=TrainConfig(ema=0.999),
    )
    run = Run(folder / "run")
    trainer = make_trainer(config, 24 * 8)
    environment = describe_environment(trainer.setup, trainer.loader, torch.device("cpu"))
    copies, wholes, seconds, during, alone = [], [], [], [], []
    with CheckpointManager(run, trainer.setup, trainer.state, environment) as checkpoints:
        for epoch in range(epochs + 1):
            steps = during if epoch % 2 else alone
            writing, last = bool(epoch % 2), [time.perf_counter()]
            trainer.checkpoints.save_if_due = partial(_time_step, checkpoints, writing, last, steps)  # called after every step
            begun = time.perf_counter()
            trainer.train_epoch()
            if not writing:
                seconds.append(time.perf_counter() - begun)
            checkpoints.wait()
            trainer.state.end_epoch()
            begun = time.perf_counter()
            checkpoints.save_epoch(["val/identity/auc"])
            copies.append(time.perf_counter() - begun)
            checkpoints.wait()
            wholes.append(time.perf_counter() - begun)
    size = sum(file.stat().st_size for file in Path(checkpoints.latest_name()).rglob("*") if file.is_file())
    slower = statistics.median(during) / statistics.median(alone) if during else float("nan")
    return size, statistics.median(copies[1:]), statistics.median(wholes[1:]), statistics.median(seconds[1:] or seconds), slower


def _time_step(checkpoints: Any, writing: bool, last: list[float], steps: list[float]) -> None:
    """Add the seconds of a step during all of which a checkpoint was being written, or none, as `writing` requires."""
    took = time.perf_counter() - last[0]
    busy = checkpoints.writing
    if busy == writing:
        steps.append(took)
    elif writing:
        checkpoints.save()
    last[0] = time.perf_counter()


if __name__ == "__main__":
    main()
