"""Two processes that train together, relative to one process with two threads.

The processes are those of `fr-ps train --processes 2`: torchrun on this machine, gloo, one thread each, half of each batch each,
and batch norm over the whole batch. One process trains on the same batches with two threads. In every turn each way starts
anew, warms up for an epoch, and then times one; the order alternates. The starts do not count.

    python benchmarks/train_processes.py
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Measurement, argument_parser, interleave, limit_threads, make_trainer, report
from training_loops import training_settings, with_steps

WAYS = {"1 process, 2 threads": 1, "2 processes, 1 thread each": 2}


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4, help="of an epoch")
    parser.add_argument("--backbones", nargs="+", default=["convnextv2_atto", "resnet10_32"])
    parser.add_argument("--worker", help="backbone to train in this process; only for the processes that this script starts")
    options = parser.parse_args()
    if options.worker:
        limit_threads(options.threads)
        train_together(options.worker, options.steps, options.threads)
        return
    numbers, rows = {}, []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FR_PS_CACHE"] = f"{folder}/cache"
        for backbone in options.backbones:
            rates = measure(backbone, options.turns, options.steps)
            one, two = rates.values()
            ratio = statistics.median(b / a for a, b in zip(one, two))
            rows.append([backbone, statistics.median(one), statistics.median(two), ratio])
            name = f"{backbone}_two_processes".replace(":", "_")
            numbers[name] = Measurement(ratio, 0.9, "higher", "images/s of two processes over one with two threads")
    report(numbers, rows, ["backbone", *(f"{way}, images/s" for way in WAYS), "ratio (median of turns)"], options.json)


def measure(backbone: str, turns: int, steps: int) -> dict[str, list[float]]:
    """Images per second of each way, in each turn."""
    return interleave({way: lambda count=count: images_per_second(backbone, steps, count) for way, count in WAYS.items()}, turns)


def images_per_second(backbone: str, steps: int, processes: int) -> float:
    """Of new processes that train together, as their first one prints it."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    threads = 2 // processes
    command = [sys.executable, *launcher, str(Path(__file__).resolve()), "--worker", backbone, "--steps", str(steps)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    command += ["--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return float(done.stdout.splitlines()[-1])


def train_together(backbone: str, steps: int, threads: int) -> None:
    """Train two epochs, together with the processes that torchrun started; prints images per second of the second epoch."""
    import torch

    from fr_ps.distributed import is_main_process, process_group

    torch.set_num_threads(threads)
    with process_group():
        config = with_steps(training_settings(backbone), steps)
        trainer = make_trainer(config, config.synthetic.people * config.synthetic.sessions)
        images = sum(len(indices) for indices in trainer.loader.epoch_batches(0))
        for _ in range(2):
            begun = time.perf_counter()
            trainer.train_epoch()
            trainer.state.reset_epoch()
            rate = images / (time.perf_counter() - begun)
        if is_main_process():
            print(rate)


if __name__ == "__main__":
    main()
