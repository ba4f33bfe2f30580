"""Throughput of the real training loop relative to Lightning with its MLFlowLogger.

Both train the same network with the same losses and optimizer on the same batches of built-in faces in memory-mapped maps, by
the same loader, and log the loss of every epoch to MLflow on SQLite. Ours also computes the means of all losses, counts skipped
steps and writes to the run's journal. Lightning has its progress bar, checkpoints and model summary off. Both clip the gradient
norm. Epochs of one process alternate; the ratio is the median over the turns. Needs `pip install 'fr-ps[bench]'`.

    python benchmarks/lightning_loop.py
"""

import contextlib
import logging
import os
import statistics
import tempfile
import warnings
from itertools import count
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
        images, seconds = measure(options.backbone, Path(folder), options.turns, options.steps, options.threads)
    ratio = statistics.median(theirs / ours for ours, theirs in zip(seconds["fr-ps"], seconds["Lightning"]))
    rows = [[loop, images / statistics.median(each)] for loop, each in seconds.items()]
    numbers = {"over_lightning": Measurement(ratio, 1, "higher", "images/s of ours over Lightning with MLFlowLogger")}
    report(numbers, rows, ["loop", "images/s"], options.json)


def measure(backbone: str, folder: Path, turns: int, steps: int, threads: int) -> tuple[int, dict[str, list[float]]]:
    """Images of an epoch, and the seconds of an epoch of each loop in each turn."""
    import torch

    from fr_ps.tracking.lifecycle import start_run
    from fr_ps.tracking.uris import create_sqlite_store

    create_sqlite_store(os.environ["MLFLOW_TRACKING_URI"])  # now, as both loops would create it at the same time
    torch.set_num_threads(threads)
    config = with_steps(training_settings(backbone), steps)
    trainers = [make_trainer(config, config.synthetic.people * config.synthetic.sessions) for _ in range(2)]
    images = sum(len(indices) for indices in trainers[0].loader.epoch_batches(0))
    with start_run(backbone, folder / "runs") as run:
        epoch = count()

        def ours() -> None:
            values = trainers[0].train_epoch()
            trainers[0].state.reset_epoch()
            run.log_metrics(values, next(epoch))

        with lightning_epochs(trainers[1]) as theirs:
            return images, interleave({"fr-ps": ours, "Lightning": theirs}, turns)


@contextlib.contextmanager
def lightning_epochs(trainer: Any) -> Any:
    """A function that trains one epoch with Lightning, on the network, losses, optimizer and loader of our trainer.

    One `fit` with many epochs runs in a generator-like thread: it waits at the end of each epoch until the next one is asked for,
    so that only epochs are timed, and not the start of `fit`.
    """
    import threading

    import lightning
    import mlflow
    from lightning.pytorch.loggers import MLFlowLogger

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    turn, done, stop = threading.Semaphore(0), threading.Semaphore(0), threading.Event()

    class Turns(lightning.Callback):  # type: ignore[misc]
        def on_train_epoch_start(self, *_: Any) -> None:
            turn.acquire()

        def on_train_epoch_end(self, fitting: Any, *_: Any) -> None:
            fitting.should_stop = stop.is_set()
            done.release()

    logger = MLFlowLogger("lightning", tracking_uri=mlflow.get_tracking_uri() or os.environ["MLFLOW_TRACKING_URI"])
    fitting = lightning.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        logger=logger,
        callbacks=[Turns()],
        gradient_clip_val=trainer.clip,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=len(trainer.loader.epoch_batches(0)),
    )
    thread = threading.Thread(target=fitting.fit, args=(make_module(trainer), _EpochStream(trainer.loader)), daemon=True)
    thread.start()

    def epoch() -> None:
        turn.release()
        done.acquire()

    yield epoch
    stop.set()
    epoch()
    thread.join()


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
        return len(self.loader.epoch_batches(0))

    def __iter__(self) -> Any:
        epoch = next(self.epochs)
        return self.loader.stream(self.loader.epoch_batches(epoch), epoch)


if __name__ == "__main__":
    main()
