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
            size, copy, whole, epoch, slower = measure(backbone, Path(folder) / backbone, options.epochs, options.threads)
            rows.append([backbone, size / 1e6, 1e3 * copy, 1e3 * whole, epoch, 100 * copy / epoch, slower])
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
    size = sum(file.stat().st_size for file in Path(checkpoints.latest_checkpoint()).rglob("*") if file.is_file())
    slower = statistics.median(during) / statistics.median(alone) if during else float("nan")
    return size, statistics.median(copies[1:]), statistics.median(wholes[1:]), statistics.median(seconds[1:] or seconds), slower


def _time_step(checkpoints: Any, writing: bool, last: list[float], steps: list[float]) -> None:
    """Record the duration of a step that ran entirely during writing (with `writing`), or entirely without it."""
    took = time.perf_counter() - last[0]
    busy = checkpoints.writing
    if busy == writing:
        steps.append(took)
    elif writing:
        checkpoints.save()
    last[0] = time.perf_counter()


if __name__ == "__main__":
    main()
