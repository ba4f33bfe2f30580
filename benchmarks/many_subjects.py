"""Time and memory of the identity head against the number of subjects, with all centres and with samples of them.

A step is what the trainer does with the head (MagFace): draw the sample, forward, backward, AdamW with the fused kernel. The
embeddings are random, and the network that would compute them is left out. Each row is a process of its own, because a process
keeps its peak. So the rows cannot alternate, and a time is that of the fastest step; on a CPU it is the CPU time of the process,
to which other load on the machine adds little. Memory is the increase of the peak resident size (on a GPU, the peak of the
allocated memory) from before the head is built. A row that would not fit into the free memory is skipped.

With `--processes N`, each row is measured with one process and with N that train together (gloo), over which the centres of a
sampled head are sharded. Time is then that of the clock, as processes wait for each other, and memory that of each process.

    python benchmarks/many_subjects.py
    python benchmarks/many_subjects.py --processes 2 --shares 0.1 0.01 --threads 1
"""

import argparse
import json
import multiprocessing
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from common import argument_parser, limit_threads
from tabulate import tabulate

Values = TypeVar("Values")

CHANNELS, BATCH = 512, 64
MOMENTS = 2
"""Of AdamW: arrays of the size of the centres."""


@dataclass(frozen=True)
class Row:
    """The head with one number of subjects and one share.

    Attributes:
        subjects: number of centres.
        share: `loss.sampled_subject_share`.
        processes: number of processes.
        seconds: of the fastest step; None if skipped.
        memory: MB of the head and its steps, of a process; None if skipped.
        centres: MB of the centres and their moments in a process, which every share needs.
    """

    subjects: int
    share: float
    processes: int
    seconds: float | None
    memory: float | None
    centres: float


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000], help="subjects")
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.1, 0.01], help="values of loss.sampled_subject_share")
    parser.add_argument("--steps", type=int, default=3, help="timed steps, after one to warm up")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--processes", type=int, default=1, help="compare this number of processes with one; on the CPU")
    options = parser.parse_args()
    if options.processes > 1 and options.device == "cuda":
        parser.error("--processes measures on the CPU; leave out --device cuda")
    if BATCH % options.processes:
        parser.error(f"--processes is {options.processes}; expected a divisor of the batch of {BATCH}")
    limit_threads(options.threads)
    rows = [
        measure_if_it_fits(count, share, processes, options)
        for count in options.counts
        for share in options.shares
        for processes in sorted({1, options.processes})
    ]
    print(table(rows))
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def table(rows: list[Row]) -> str:
    """One line per row.

    Ratios are to the first share with the same number of subjects; with several processes, to one process with the same share.
    """
    several = any(row.processes > 1 for row in rows)
    lines = []
    for row in rows:
        first = next(one for one in rows if one.subjects == row.subjects and (one.share == row.share or not several))
        setting = [row.subjects, row.share, *([row.processes] if several else [])]
        if row.seconds is None:
            lines.append([*setting, "does not fit", None, None, row.centres, None])
            continue
        time_ratio, memory_ratio = (
            now / before if before else None for now, before in ((row.seconds, first.seconds), (row.memory, first.memory))
        )
        lines.append([*setting, 1000 * row.seconds, time_ratio, row.memory, row.centres, memory_ratio])
    headers = ["subjects", "share", *(["processes"] if several else [])]
    headers += ["ms per step", "time ratio", "peak MB", "of it centres and moments", "memory ratio"]
    formats = ("", "g", *([""] if several else []), ".1f", ".3f", ".0f", ".0f", ".3f")
    return tabulate(lines, headers=headers, floatfmt=formats)


def measure_if_it_fits(count: int, share: float, processes: int, options: argparse.Namespace) -> Row:
    """The row of `count` subjects, measured in new processes."""
    array = 4 * count * CHANNELS / 2**20 / (processes if share < 1 else 1)  # in each process
    centres = (1 + MOMENTS) * array
    if options.device == "cpu" and processes * (centres + 3 * share * array) > 0.9 * available_mb():
        return Row(count, share, processes, None, None, centres)
    print(f"{count} subjects, share {share:g}, processes {processes}", file=sys.stderr, flush=True)
    by_clock = options.device == "cuda" or options.processes > 1
    arguments = (count, share, options.steps, options.threads, options.device, by_clock)
    measured = in_new_processes(processes, measure, *arguments)
    return Row(count, share, processes, max(seconds for seconds, _ in measured), max(memory for _, memory in measured), centres)


def in_new_processes(number: int, function: Callable[..., Values], *arguments: object) -> list[Values]:
    """The values of `function`, which each of `number` new processes calls; they are one process group."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with ProcessPoolExecutor(number, multiprocessing.get_context("spawn")) as pool:
        calls = [pool.submit(in_process_group, rank, number, port, function, *arguments) for rank in range(number)]
        return [call.result() for call in calls]


def in_process_group(rank: int, number: int, port: int, function: Callable[..., Values], *arguments: object) -> Values:
    """The value of `function`, called by this process as one of several that train together, as under torchrun."""
    from fr_ps.distributed import process_group

    os.environ |= {"WORLD_SIZE": str(number), "RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with process_group():
        return function(*arguments)


def available_mb() -> float:
    """Memory in MB that processes can still take."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1024


def measure(count: int, share: float, steps: int, threads: int, device: str, by_clock: bool) -> tuple[float, float]:
    """Seconds of the fastest step of the head, and MB that it needs in this process."""
    import torch

    from fr_ps.config import LossConfig, OptimConfig
    from fr_ps.distributed import gather_rows, own_part, world_size
    from fr_ps.losses import build_identity_loss
    from fr_ps.training.optim import build_optimizer
    from fr_ps.training.sampled_centres import sampled_centres

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    _step_of_a_tiny_head(device)  # what torch allocates once
    before = _peak(device)
    part = own_part(count) if world_size() > 1 and share < 1 else None
    loss = build_identity_loss(LossConfig(), CHANNELS, count, None, part).to(device)
    optimizer = build_optimizer(OptimConfig(), [loss], torch.nn.Module())
    embeddings = 20 * torch.randn(BATCH // world_size(), CHANNELS, device=device)
    clock = time.perf_counter if by_clock else time.process_time
    times = []
    for step in range(steps + 1):
        subjects = torch.randint(count, (BATCH,)).to(device)
        _synchronise(device)
        started = clock()
        with sampled_centres([loss], optimizer, subjects, share, step) if share < 1 else nullcontext():
            optimizer.zero_grad(set_to_none=True)
            loss(gather_rows(embeddings.requires_grad_()), subjects).backward()
            optimizer.step()
        _synchronise(device)
        times.append(clock() - started)
    return min(times[1:]), _peak(device) - before


def _step_of_a_tiny_head(device: str) -> None:
    import torch

    weight = torch.nn.Parameter(torch.ones(8, CHANNELS, device=device))
    optimizer = torch.optim.AdamW([weight], fused=True)
    torch.nn.functional.cross_entropy(
        torch.ones(BATCH, CHANNELS, device=device) @ weight.T, torch.zeros(BATCH).long().to(device)
    ).backward()
    optimizer.step()


def _synchronise(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def _peak(device: str) -> float:
    """Peak memory of this process in MB: resident, or allocated on the GPU."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    # Not ru_maxrss, which a new process takes over from the one that started it.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


if __name__ == "__main__":
    main()
