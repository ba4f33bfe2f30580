"""Throughput of the real training loop relative to bare steps.

Bare: forward, losses, backward and optimizer step on tensors in memory. Real: `Trainer.train_epoch` (store, sampler,
augmentation, losses, clipping, means) and the epoch's metrics logged to MLflow on SQLite. Same network, losses, optimizer,
batch shape, precision and process. The speed of the machine drifts, so real and bare epochs alternate, and the ratio is the
median over the turns. An epoch has six steps, as that of `fr-ps train` without settings (24 training subjects with 8 sessions
in batches of 32), which is the shortest of our experiments; that of `yale_fusion.yaml` has 20.

A network is a backbone with the default settings, or a recipe of `experiments/` on built-in faces: `synthetic.yaml` is the
default of `train`, `yale_fusion.yaml` has three small ResNets, for which augmentation weighs most.

    python benchmarks/train_throughput.py
"""

import os
import statistics
import tempfile
from itertools import count
from pathlib import Path

from common import Measurement, argument_parser, interleave, limit_threads, make_trainer, report
from training_loops import bare_step, training_settings, with_steps


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--steps", type=int, default=6, help="of an epoch")
    parser.add_argument("--networks", nargs="+", default=["miresnet18", "convnextv2_atto", "synthetic.yaml", "yale_fusion.yaml"])
    options = parser.parse_args()
    limit_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FR_PS_CACHE"] = f"{folder}/cache"
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        numbers, rows = {}, []
        for name in options.networks:
            real, bare = measure(name, Path(folder), options.turns, options.steps, options.threads)
            ratio = statistics.median(r / b for r, b in zip(real, bare))
            rows.append([name, statistics.median(bare), statistics.median(real), ratio])
            number = f"{name.removesuffix('.yaml')}_ratio".replace(":", "_")
            numbers[number] = Measurement(ratio, 0.97, "higher", "images/s of the real loop over bare steps")
    report(numbers, rows, ["network", "bare images/s", "real images/s", "ratio (median of turns)"], options.json)


def measure(name: str, folder: Path, turns: int, steps: int, threads: int) -> tuple[list[float], list[float]]:
    """Images per second of the real loop and of bare steps, one pair per turn."""
    import torch

    from fr_ps.tracking.lifecycle import start_run

    torch.set_num_threads(threads)
    config = with_steps(training_settings(name), steps)
    trainer = make_trainer(config, config.synthetic.people * config.synthetic.sessions)
    state, loader = trainer.state, trainer.loader
    images = sum(len(indices) for indices in loader.epoch_indices(0))
    step = bare_step(trainer, loader.load(loader.epoch_indices(0)[0], 0, 0))

    def bare_epoch() -> None:
        state.network.train()
        for _ in range(steps):
            step()

    with start_run(name, folder / "runs") as run:
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
