"""What a checkpoint costs the training thread, and what it would cost without a thread of its own.

Real checkpoints (`Keeper`) of a real training on the built-in faces with a moving average of the weights, which is the
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

from common import Measurement, argument_parser, limit_threads, report


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
    from fr_ps.device import pick_device
    from fr_ps.losses import build_losses
    from fr_ps.models import build_network
    from fr_ps.tracking.run import Run
    from fr_ps.training.checkpoint_manager import CheckpointManager
    from fr_ps.training.train import build_setup, build_train_state
    from fr_ps.training.trainer import train_epoch

    torch.set_num_threads(threads)
    config = Config(
        model=ModelConfig(backbone=backbone),  # type: ignore[arg-type]
        synthetic=SyntheticConfig(people=24, sessions=8),
        batch=BatchConfig(people=4, sessions=4),
        train=TrainConfig(ema=0.999),
    )
    run = Run(folder / "run")
    plan, feed = build_setup(config, {}, run, pick_device("cpu"), lambda line: None)
    torch.manual_seed(0)
    network = build_network(plan.info.branches, plan.info.fusion, plan.info.class_counts(), config.loss.reversal)
    counts = feed.class_counts(plan.info.class_counts())
    losses = build_losses(config.loss, network.channels, feed.sessions_per_subject(), counts, network.adversarial_tasks)
    learner = build_train_state(config, network, losses)
    copies, wholes, seconds, during, alone = [], [], [], [], []
    with CheckpointManager(plan, feed, learner, run) as keeper:
        for epoch in range(epochs + 1):
            steps = during if epoch % 2 else alone
            writing, last = bool(epoch % 2), [time.perf_counter()]
            stepped = partial(_step, keeper, writing, last, steps)
            begun = time.perf_counter()
            train_epoch(
                learner,
                feed,
                rate=lambda step: 1e-4,
                reversal=lambda step: 0.1,
                clip=5.0,
                accumulate=1,
                stepped=stepped,
            )
            if not writing:
                seconds.append(time.perf_counter() - begun)
            keeper.wait()
            learner.end_epoch()
            begun = time.perf_counter()
            keeper.save_epoch(["val/identity/auc"])
            copies.append(time.perf_counter() - begun)
            keeper.wait()
            wholes.append(time.perf_counter() - begun)
    size = sum(file.stat().st_size for file in Path(keeper.latest_name()).rglob("*") if file.is_file())
    slower = statistics.median(during) / statistics.median(alone) if during else float("nan")
    return size, statistics.median(copies[1:]), statistics.median(wholes[1:]), statistics.median(seconds[1:] or seconds), slower


def _step(keeper: Any, writing: bool, last: list[float], steps: list[float]) -> None:
    """Note how long a step took, if a checkpoint was being written all the while, or none, as `writing` says."""
    took = time.perf_counter() - last[0]
    pending = keeper.writer._pending
    busy = pending is not None and not pending.done()
    if busy == writing:
        steps.append(took)
    elif writing:
        keeper.write()
    last[0] = time.perf_counter()


if __name__ == "__main__":
    main()
