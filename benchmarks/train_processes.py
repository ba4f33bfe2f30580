"""Two processes that train together, relative to one process with two threads, and where a step spends its time.

The processes are those of `fr-ps train --processes 2`: torchrun on this machine, gloo, one thread each, half of each batch each,
and batch norm over the whole batch. One process trains on the same batches with two threads. `train.sync_batch_norm: false` gives
each process its own batch norm. Two processes that know nothing of each other train on half of a batch each: what the machine
could give without any exchange. In every turn each way starts anew, warms up for an epoch, times one, and profiles one; the order
alternates. The starts do not count.

    python benchmarks/train_processes.py
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import Measurement, argument_parser, interleave, limit_threads, make_trainer, report
from profile_time import STEP, Functions, Profile
from training_loops import training_settings, with_steps

WAYS = {
    "1 process, 2 threads": (1, True, True),
    "2 processes, 1 thread each": (2, True, True),
    "2, each its own batch norm": (2, True, False),
    "2 that exchange nothing": (2, False, True),
}
"""Name to the number of processes, whether they train together, and `train.sync_batch_norm`."""
STAGES = STEP | {"gradients": ("distributed.py", "sum_gradients")}
"""Stages of a step, whose time includes that of exchanges within them."""
EXCHANGES: Functions = {
    "of it all_gather": ("distributed_c10d.py", "all_gather"),
    "of it all_reduce": ("distributed_c10d.py", "all_reduce"),
}
"""Exchanges within the stages, with the wait for the other process: of outputs and batch norms. Those of gradients only start."""
Worker = Mapping[str, Any]
"""What a process measured: `rate`, images per second, and `stages`, milliseconds of a step."""


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4, help="of an epoch")
    parser.add_argument("--backbones", nargs="+", default=["convnextv2_atto", "resnet10_32"])
    parser.add_argument("--worker", help="backbone to train in this process; only for the processes that this script starts")
    parser.add_argument("--split", type=int, default=1, help="into how many parts a worker's batches are split; it trains on one")
    parser.add_argument("--own-batch-norm", action="store_true", help="a worker's train.sync_batch_norm is false")
    options = parser.parse_args()
    if options.worker:
        limit_threads(options.threads)
        train_together(options.worker, options.steps, options.threads, options.split, not options.own_batch_norm)
        return
    numbers, rows, stages = {}, [], []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FR_PS_CACHE"] = f"{folder}/cache"
        for backbone in options.backbones:
            measured = measure(backbone, options.turns, options.steps)
            one, *others = ([sum(worker["rate"] for worker in turn) for turn in turns] for turns in measured.values())
            ratios = [statistics.median(b / a for a, b in zip(one, rates)) for rates in others]
            rows += [
                [backbone, way, statistics.median(rates), ratio]
                for way, rates, ratio in zip(WAYS, (one, *others), (1.0, *ratios), strict=True)
            ]
            stages += [[backbone, way, *median_stages(turns)] for way, turns in measured.items()]
            name = f"{backbone}_two_processes".replace(":", "_")
            numbers[name] = Measurement(ratios[0], 0.9, "higher", "images/s of two processes over one with two threads")
    report({}, stages, ["backbone", "ms of a step", "all", *STAGES, "rest", *EXCHANGES], None)
    report(numbers, rows, ["backbone", "", "images/s", "ratio (median of turns)"], options.json)


def measure(backbone: str, turns: int, steps: int) -> dict[str, list[list[Worker]]]:
    """What the processes of each way that count measured, in each turn."""
    found: dict[str, list[list[Worker]]] = {way: [] for way in WAYS}

    def run(way: str) -> None:
        found[way].append(train_in(backbone, steps, *WAYS[way]))

    interleave({way: lambda way=way: run(way) for way in WAYS}, turns)
    return {way: each[1:] for way, each in found.items()}  # without the turn that warms up


def train_in(backbone: str, steps: int, processes: int, together: bool, sync_batch_norm: bool) -> list[Worker]:
    """What new processes measured: the first one of those that train together, all of those that do not."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    launcher = launcher if processes > 1 and together else []
    threads = 2 // processes
    command = [sys.executable, *launcher, str(Path(__file__).resolve()), "--worker", backbone, "--steps", str(steps)]
    command += ["--threads", str(threads), "--split", str(1 if together else processes)]
    command += [] if sync_batch_norm else ["--own-batch-norm"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(1 if together else processes)
    ]
    printed = [process.communicate() for process in started]
    for process, (output, errors) in zip(started, printed):
        if process.returncode:
            raise RuntimeError(output + errors)
    return [json.loads(output.splitlines()[-1]) for output, _ in printed]


def train_together(backbone: str, steps: int, threads: int, split: int, sync_batch_norm: bool) -> None:
    """Train three epochs, together with the processes that torchrun started, if any; the main one prints a `Worker`."""
    import torch

    from fr_ps.distributed import is_main_process, process_group

    torch.set_num_threads(threads)
    with process_group():
        config = with_steps(training_settings(backbone), steps)
        config = replace(config, batch=replace(config.batch, people=config.batch.people // split))
        config = replace(config, train=replace(config.train, sync_batch_norm=sync_batch_norm))
        trainer = make_trainer(config, config.synthetic.people * config.synthetic.sessions)
        images = sum(len(indices) for indices in trainer.loader.epoch_indices(0))
        for _ in range(2):
            begun = time.perf_counter()
            trainer.train_epoch()
            trainer.state.reset_epoch()
            rate = images / (time.perf_counter() - begun)
        profile = Profile()
        with profile.record():
            trainer.train_epoch()
        if is_main_process():
            task = profile.task(STAGES)
            seconds = {"all": task.seconds, **task.stages, "rest": task.seconds - sum(task.stages.values())}
            seconds |= profile.task(EXCHANGES).stages
            print(json.dumps({"rate": rate, "stages": {name: 1000 * value / steps for name, value in seconds.items()}}))


def median_stages(turns: list[list[Worker]]) -> list[float]:
    """Milliseconds of a step, and of its stages, in the first process."""
    return [statistics.median(workers[0]["stages"][stage] for workers in turns) for stage in turns[0][0]["stages"]]


if __name__ == "__main__":
    main()
