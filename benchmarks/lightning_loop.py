"""Throughput of the real training loop relative to Lightning with its MLFlowLogger.

Both train the same network with the same losses and optimizer on the same batches of built-in faces in memory-mapped maps, by
the same loader, and log the loss of every epoch to MLflow on SQLite. Ours also computes the means of all losses, counts skipped
steps and writes to the run's journal. Lightning has its progress bar, checkpoints and model summary off. Both clip the gradient
norm. Each loop runs in a process of its own, as the threads of one would slow those of the other; their epochs alternate, and
the ratio is the median over the turns. The time of an epoch includes the logging at its end. Needs `pip install 'fr-ps[bench]'`.

    python benchmarks/lightning_loop.py
"""

import argparse
import logging
import multiprocessing
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from common import Measurement, argument_parser, interleave, limit_threads, make_trainer, report
from training_loops import training_settings, with_steps


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--steps", type=int, default=4, help="of an epoch")
    parser.add_argument("--backbone", default="convnextv2_atto")
    options = parser.parse_args()
    limit_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FR_PS_CACHE"] = f"{folder}/cache"
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        images, seconds = measure(options, Path(folder))
    ratio = statistics.median(theirs / ours for ours, theirs in zip(seconds["fr-ps"], seconds["Lightning"]))
    rows = [[loop, images / statistics.median(each)] for loop, each in seconds.items()]
    numbers = {"over_lightning": Measurement(ratio, 1, "higher", "images/s of ours over Lightning with MLFlowLogger")}
    report(numbers, rows, ["loop", "images/s"], options.json)


def measure(options: argparse.Namespace, folder: Path) -> tuple[int, dict[str, list[float]]]:
    """Images of an epoch, and the seconds of an epoch of each loop in each turn."""
    from fr_ps.tracking.uris import create_sqlite_store

    create_sqlite_store(os.environ["MLFLOW_TRACKING_URI"])  # now, as both loops would create it at the same time
    trainer = build_trainer(options)  # also generates the faces, for both loops
    images = sum(len(indices) for indices in trainer.loader.epoch_indices(0))
    context = multiprocessing.get_context("spawn")
    epochs: dict[str, Callable[[], None]] = {}
    processes = []
    try:
        for name, loop in {"fr-ps": train_with_fr_ps, "Lightning": train_with_lightning}.items():
            ours, theirs = context.Pipe()
            processes.append(context.Process(target=loop, args=(options, folder, theirs), daemon=True))
            processes[-1].start()
            theirs.close()  # so that `recv` fails, and does not wait, once the process has ended
            ours.recv()
            epochs[name] = partial(train_epoch, ours)
        return images, interleave(epochs, options.turns)
    except (EOFError, ConnectionError):
        raise SystemExit("a training process ended; its error is printed above") from None
    finally:
        for process in processes:
            process.kill()
            process.join()


def train_epoch(connection: Connection) -> None:
    """Train an epoch in the process at the other end of `connection`."""
    connection.send(None)
    connection.recv()


def build_trainer(options: argparse.Namespace) -> Any:
    """Our trainer of the benchmark's network and data."""
    import torch

    torch.set_num_threads(options.threads)
    config = with_steps(training_settings(options.backbone), options.steps)
    return make_trainer(config, config.synthetic.people * config.synthetic.sessions)


def train_with_fr_ps(options: argparse.Namespace, folder: Path, connection: Connection) -> None:
    """Train an epoch after each message from `connection`; sends one before the first epoch and one after each."""
    from fr_ps.tracking.lifecycle import start_run

    trainer = build_trainer(options)
    with start_run(options.backbone, folder / "runs", echo=lambda _: None) as run:
        for epoch in count():
            connection.send(None)
            connection.recv()
            run.log_metrics(trainer.train_epoch(), epoch)
            trainer.state.reset_epoch()


def train_with_lightning(options: argparse.Namespace, _: Path, connection: Connection) -> None:
    """The same with Lightning, on the network, losses, optimizer and loader of our trainer."""
    import lightning
    from lightning.pytorch.loggers import MLFlowLogger

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    trainer = build_trainer(options)

    class Turns(lightning.Callback):  # type: ignore[misc]
        def on_train_epoch_start(self, *_: Any) -> None:  # not at the end, which comes before the logging
            connection.send(None)
            connection.recv()

    fitting = lightning.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        logger=MLFlowLogger("lightning", tracking_uri=os.environ["MLFLOW_TRACKING_URI"]),
        callbacks=[Turns()],
        gradient_clip_val=trainer.clip,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=len(trainer.loader.epoch_indices(0)),
    )
    fitting.fit(make_module(trainer), _EpochStream(trainer.loader))


def make_module(trainer: Any) -> Any:
    """A LightningModule of the network, losses and optimizer of our trainer."""
    import lightning

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network, self.losses = trainer.state.network, trainer.state.losses

        def training_step(self, batch: Any, _: int) -> Any:
            loss = self.losses(self.network(batch.maps, batch.present), batch.targets, batch.labelled)
            self.log("train/loss/total", loss.total, on_step=False, on_epoch=True, batch_size=len(batch.present))
            return loss.total

        def configure_optimizers(self) -> Any:
            return trainer.state.optimizer

    return Module()


class _EpochStream:
    """The batches of our loader, one epoch for each iteration."""

    def __init__(self, loader: Any) -> None:
        self.loader, self.epochs = loader, count()

    def __len__(self) -> int:
        return len(self.loader.epoch_indices(0))

    def __iter__(self) -> Any:
        epoch = next(self.epochs)
        return self.loader.stream(self.loader.epoch_indices(epoch), epoch)


if __name__ == "__main__":
    main()
