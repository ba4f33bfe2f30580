"""A whole `fr-ps train` of the built-in experiment, relative to its bare steps.

Whole: from the end of the imports to the return of the command: data, network, all epochs with validation and checkpoints,
test, figures, report, model card, and the delivery to MLflow on SQLite. Bare: the time of one forward, losses, backward and
optimizer step on tensors in memory, times the number of steps; measured before and after the training. The built-in faces are
rendered before. The stages of the whole are from cProfile in the main thread.

    python benchmarks/whole_train.py
"""

import os
import statistics
import tempfile
import time
from dataclasses import replace
from importlib import import_module
from typing import Any

from common import Measurement, argument_parser, limit_threads, make_trainer, report
from profile_time import STEP, Functions, Profile, Profiled
from training_loops import EXPERIMENTS, bare_step

_BARE_STEPS = 15
STAGES: Functions = {
    "open data, split": ("setup.py", "build_setup"),
    "build the network": ("build_model.py", "build_model"),
    "fit the linear embedding": ("fit_linear.py", "fit_linear_embedding"),
    **STEP,
    "validation": ("trainer.py", "validate"),
    "logging, checkpoint copy": ("trainer.py", "end_epoch"),
    "test": ("finalize.py", "evaluate_best"),
    "figures, report, model cards": ("finalize.py", "log_artifacts"),
    "wait for MLflow": ("delivery.py", "finish"),
}


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--flags", nargs="*", default=[], help="flags of fr-ps train, without --, as train.epochs=2")
    options = parser.parse_args()
    limit_threads(options.threads)
    flags = ["--config", str(EXPERIMENTS / "synthetic.yaml"), *(f"--{flag}" for flag in options.flags)]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FR_PS_CACHE"] = f"{folder}/cache"
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        os.chdir(folder)
        whole, bare, steps = measure(flags, options.threads)
    ratio = bare * steps / whole.seconds
    numbers = {"whole_train_ratio": Measurement(ratio, 0.9, "higher", "bare steps over the whole train, in time")}
    rest = whole.seconds - sum(whole.stages.values())
    stages = [(f"whole: {name}", seconds) for name, seconds in [*whole.stages.items(), ("rest", rest)]]
    parts = [(f"{steps} bare steps of {1000 * bare:.0f} ms", bare * steps), ("whole", whole.seconds), *stages]
    report(numbers, [[name, s, s / whole.seconds] for name, s in parts], ["", "s", "of the whole"], options.json)


def measure(flags: list[str], threads: int) -> tuple[Profiled, float, int]:
    """The whole training and its stages, seconds of one bare step, and the number of steps."""
    import torch

    from fr_ps.arguments import training_config
    from fr_ps.cli import main as fr_ps
    from fr_ps.cli import parse_command_line

    import_module("fr_ps.tracking.lifecycle")  # mlflow is imported with it, and imports are not measured
    torch.set_num_threads(threads)
    config = training_config(parse_command_line(["train", *flags])["train"])
    config = replace(config, train=replace(config.train, threads=threads))
    trainer = make_trainer(config, config.synthetic.people * config.synthetic.sessions)  # imports, renders and packs
    before = time_bare_steps(trainer)
    profile = Profile()
    with profile.record():
        code = fr_ps(["train", *flags, f"--train.threads={threads}"])
    if code:
        raise SystemExit(f"fr-ps train ended with code {code}")
    return (
        profile.task(STAGES),
        statistics.median([*before, *time_bare_steps(trainer)]),
        trainer.steps_per_epoch * config.train.epochs,
    )


def time_bare_steps(trainer: Any) -> list[float]:
    """Seconds of some bare steps, after one to warm up."""
    loader = trainer.loader
    step = bare_step(trainer, loader.load(loader.epoch_indices(0)[0], 0, 0))
    trainer.state.network.train()
    seconds = []
    for _ in range(_BARE_STEPS + 1):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


if __name__ == "__main__":
    main()
