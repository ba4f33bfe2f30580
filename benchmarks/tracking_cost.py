"""Share of the training thread's time that logging takes.

The real loop logs 12 metrics after every step, far more than `train` does: to the journal, which a thread delivers to MLflow;
by MLflow's own `log_metrics`, which waits for the store; and by its asynchronous logging. Each with a local SQLite file and
over HTTP with an `mlflow server` on this machine, interleaved in one process. Prints the share of time in the call itself,
and the steps per second relative to a loop without logging, which includes the load of background threads on two cores.
Medians over the turns.

    python benchmarks/tracking_cost.py
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from common import Measurement, argument_parser, limit_threads, make_trainer, report
from mlflow_server import Server

METRICS = 12
LogFunction = Callable[[dict[str, float], int], None]


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--backbone", default="convnextv2_atto")
    options = parser.parse_args()
    limit_threads(options.threads)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        os.environ["FR_PS_CACHE"] = f"{folder}/cache"
        server = Server(folder)
        server.start()
        stack.callback(server.stop)
        server.wait()
        sinks = log_functions(folder, {"SQLite": f"sqlite:///{folder}/mlflow.db", "HTTP": server.uri}, stack)
        shares, rates = measure(sinks, options)
        rows = [
            [how, where, 100 * statistics.median(shares[how, where]), statistics.median(relative_rates(rates, (how, where)))]
            for how, where in sinks
            if how != "no logging"
        ]
        numbers = {
            f"{where}_percent": Measurement(
                100 * statistics.median(shares["journal", where]), 0.5, "lower", "% of the training thread's time"
            )
            for where in ("SQLite", "HTTP")
        }
        report(numbers, rows, ["", "store", "% of the training thread", "steps/s over no logging"], options.json)


def relative_rates(rates: dict[tuple[str, str], list[float]], sink: tuple[str, str]) -> list[float]:
    """Steps per second of `sink` over those without logging, in each turn."""
    return [rate / without for rate, without in zip(rates[sink], rates["no logging", "-"])]


def log_functions(folder: Path, uris: dict[str, str], stack: ExitStack) -> dict[tuple[str, str], LogFunction]:
    """The function that logs metrics at a step, by method and store."""
    from mlflow import MlflowClient

    from fr_ps.tracking.lifecycle import start_run

    sinks: dict[tuple[str, str], LogFunction] = {("no logging", "-"): lambda values, step: None}
    for where, uri in uris.items():
        os.environ["MLFLOW_TRACKING_URI"] = uri
        run = stack.enter_context(start_run("journal", folder / "runs"))
        while run.mlflow_id is None:  # before MLFLOW_TRACKING_URI changes to the next store
            time.sleep(0.05)
        sinks["journal", where] = run.log_metrics
        client = MlflowClient(uri)
        for how, synchronous in (("log_metrics", True), ("log_metrics, asynchronous", False)):
            run_id = client.create_run("0", run_name=how).info.run_id
            sinks[how, where] = partial(_log_to_mlflow, uri=uri, run_id=run_id, synchronous=synchronous)
    return sinks


def _log_to_mlflow(values: dict[str, float], step: int, *, uri: str, run_id: str, synchronous: bool) -> None:
    import mlflow

    if mlflow.get_tracking_uri() != uri:
        mlflow.set_tracking_uri(uri)
    mlflow.log_metrics(values, step=step, run_id=run_id, synchronous=synchronous)


def measure(
    sinks: dict[tuple[str, str], LogFunction], options: argparse.Namespace
) -> tuple[dict[tuple[str, str], list[float]], dict[tuple[str, str], list[float]]]:
    """For each sink, its share of the time and its steps per second, in each turn."""
    import torch

    from fr_ps.config import Config, ModelConfig, SyntheticConfig

    torch.set_num_threads(options.threads)
    model = ModelConfig(backbone=options.backbone)
    config = Config(model=model, synthetic=SyntheticConfig(people=24, sessions=8))
    trainer = make_trainer(config, 4 * config.batch.people * config.batch.sessions)
    shares: dict[tuple[str, str], list[float]] = {sink: [] for sink in sinks}
    rates: dict[tuple[str, str], list[float]] = {sink: [] for sink in sinks}
    step = 0

    def epoch(log: LogFunction) -> tuple[float, float, int]:
        """Total seconds, seconds of logging, steps."""
        nonlocal step
        logging, first = 0.0, step

        def log_step() -> None:
            nonlocal logging, step
            step += 1
            begun = time.perf_counter()
            log({f"train/metric_{number}": 1.0 / (step + number) for number in range(METRICS)}, step)
            logging += time.perf_counter() - begun

        trainer.checkpoints.save_if_due = log_step  # called after every step
        begun = time.perf_counter()
        trainer.train_epoch()
        trainer.state.reset_epoch()
        return time.perf_counter() - begun, logging, step - first

    order = list(sinks)
    for turn in range(options.turns + 1):
        for sink in order if turn % 2 else order[::-1]:
            seconds, logging, steps = epoch(sinks[sink])
            if turn:  # the first turn is for warm-up
                shares[sink].append(logging / seconds)
                rates[sink].append(steps / seconds)
    return shares, rates


if __name__ == "__main__":
    main()
