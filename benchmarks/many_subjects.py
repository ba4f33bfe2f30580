"""Time and memory of the identity head against the number of subjects, with all centres and with samples of them.

A step is what the trainer does with the head (MagFace): draw the sample, forward, backward, AdamW with the fused kernel. The
embeddings are random, and the network that would compute them is left out. Each row is a process of its own, because a process
keeps its peak. So the rows cannot alternate, and a time is that of the fastest step; on a CPU it is the CPU time of the process,
to which other load on the machine adds little. Memory is the increase of the peak resident size (on a GPU, the peak of the
allocated memory) from before the head is built. A row that would not fit into the free memory is skipped.

    python benchmarks/many_subjects.py
"""

import argparse
import json
import multiprocessing
import resource
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
        seconds: of the fastest step; None if skipped.
        memory: MB of the head and its steps; None if skipped.
        centres: MB of the centres and their moments, which every share needs.
    """

    subjects: int
    share: float
    seconds: float | None
    memory: float | None
    centres: float


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000], help="subjects")
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.1, 0.01], help="values of loss.sampled_subject_share")
    parser.add_argument("--steps", type=int, default=3, help="timed steps, after one to warm up")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    limit_threads(options.threads)
    rows = [measure_if_it_fits(count, share, options) for count in options.counts for share in options.shares]
    print(table(rows))
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def table(rows: list[Row]) -> str:
    """One line per row; ratios to the largest share with the same number of subjects."""
    lines = []
    for row in rows:
        exact = next(one for one in rows if one.subjects == row.subjects)
        if row.seconds is None:
            lines.append([row.subjects, row.share, "does not fit", None, None, row.centres, None])
            continue
        time_ratio, memory_ratio = (
            now / before if before else None for now, before in ((row.seconds, exact.seconds), (row.memory, exact.memory))
        )
        lines.append([row.subjects, row.share, 1000 * row.seconds, time_ratio, row.memory, row.centres, memory_ratio])
    headers = ["subjects", "share", "ms per step", "time ratio", "peak MB", "of it centres and moments", "memory ratio"]
    return tabulate(lines, headers=headers, floatfmt=("", "g", ".1f", ".3f", ".0f", ".0f", ".3f"))


def measure_if_it_fits(count: int, share: float, options: argparse.Namespace) -> Row:
    """The row of `count` subjects, measured in a new process."""
    array = 4 * count * CHANNELS / 2**20
    centres = (1 + MOMENTS) * array
    if options.device == "cpu" and centres + 3 * share * array > 0.9 * available_mb():
        return Row(count, share, None, None, centres)
    print(f"{count} subjects, share {share:g}", file=sys.stderr, flush=True)
    seconds, memory = in_new_process(measure, count, share, options.steps, options.threads, options.device)
    return Row(count, share, seconds, memory, centres)


def in_new_process(function: Callable[..., Values], *arguments: object) -> Values:
    """The values of `function`, which a new process calls."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def available_mb() -> float:
    """Memory in MB that processes can still take."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1024


def measure(count: int, share: float, steps: int, threads: int, device: str) -> tuple[float, float]:
    """Seconds of the fastest step of the head, and MB that it needs."""
    import torch

    from fr_ps.config import LossConfig, OptimConfig
    from fr_ps.losses import build_identity_loss
    from fr_ps.training.optim import build_optimizer
    from fr_ps.training.sampled_centres import sampled_centres

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    _step_of_a_tiny_head(device)  # what torch allocates once
    before = _peak(device)
    loss = build_identity_loss(LossConfig(), CHANNELS, count, None).to(device)
    optimizer = build_optimizer(OptimConfig(), [loss], torch.nn.Module())
    embeddings = 20 * torch.randn(BATCH, CHANNELS, device=device)
    clock = time.process_time if device == "cpu" else time.perf_counter
    times = []
    for step in range(steps + 1):
        subjects = torch.randint(count, (BATCH,)).to(device)
        _synchronise(device)
        started = clock()
        with sampled_centres([loss], optimizer, subjects, share, step) if share < 1 else nullcontext():
            optimizer.zero_grad(set_to_none=True)
            loss(embeddings.requires_grad_(), subjects).backward()
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
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
