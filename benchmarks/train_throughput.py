"""Throughput of the real training loop relative to bare steps.

Bare: forward, losses, backward and optimizer step on tensors in memory. Real: `Trainer.train_epoch` (store, sampler,
augmentation, losses, clipping, means) and the epoch's metrics logged to MLflow on SQLite. Same network, losses, optimizer,
batch shape and process. The speed of the machine drifts, so epochs are short (two steps), real and bare epochs alternate, and
the ratio is the median over the turns. Logging takes a larger share of short epochs than of real ones.

    python benchmarks/train_throughput.py
"""

import os
import statistics
import tempfile
from itertools import count
from pathlib import Path

from common import Measurement, argument_parser, interleave, limit_threads, make_trainer, report


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--backbones", nargs="+", default=["miresnet18", "convnextv2_atto"])
    options = parser.parse_args()
    limit_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FR_PS_CACHE"] = f"{folder}/cache"
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        numbers, rows = {}, []
        for backbone in options.backbones:
            real, bare = measure(backbone, Path(folder), options.turns, options.threads)
            ratio = statistics.median(r / b for r, b in zip(real, bare))
            rows.append([backbone, statistics.median(bare), statistics.median(real), ratio])
            numbers[f"{backbone}_ratio"] = Measurement(ratio, 0.95, "higher", "images/s of the real loop over bare steps")
    report(numbers, rows, ["backbone", "bare images/s", "real images/s", "ratio (median of turns)"], options.json)


def measure(backbone: str, folder: Path, turns: int, threads: int) -> tuple[list[float], list[float]]:
    """Images per second of the real loop and of bare steps, one pair per turn."""
    import torch

    from fr_ps.config import Config, ModelConfig, SyntheticConfig
    from fr_ps.tracking.lifecycle import start_run

    torch.set_num_threads(threads)
    config = Config(model=ModelConfig(backbone=backbone), synthetic=SyntheticConfig(people=24, sessions=8))
    trainer = make_trainer(config, 2 * config.batch.people * config.batch.sessions)
    state, loader = trainer.state, trainer.loader
    steps = len(loader.epoch_batches(0))
    images = sum(len(indices) for indices in loader.epoch_batches(0))
    batch = loader.load(loader.epoch_batches(0)[0], 0, 0)

    def bare_epoch() -> None:
        state.network.train()
        for _ in range(steps):
            total = state.losses(state.network(batch.maps), batch.targets).total
            state.optimizer.zero_grad(set_to_none=True)
            total.backward()
            state.optimizer.step()

    with start_run(backbone, folder / "runs") as run:
        epoch = count()

        def real_epoch() -> None:
            values = trainer.train_epoch()
            state.reset_epoch()
            run.log_metrics(values, next(epoch))

        seconds = interleave({"real": real_epoch, "bare": bare_epoch}, turns)
    real, bare = ([images / each for each in seconds[name]] for name in ("real", "bare"))
    return real, bare


if __name__ == "__main__":
    main()
