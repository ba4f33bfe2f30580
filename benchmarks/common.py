"""What every benchmark does with its numbers: a table for people, JSON for machines."""

import argparse
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from tabulate import tabulate


@dataclass(frozen=True)
class Measurement:
    """One measured value, and what it should be."""

    value: float
    goal: float
    better: str
    unit: str


def argument_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the flags that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch and BLAS")
    return parser


def limit_threads(threads: int) -> None:
    """Let BLAS and torch, which are not imported yet, use so many CPU threads."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)


def report(numbers: dict[str, Measurement], rows: list[list[object]], headers: list[str], path: Path | None) -> None:
    """Print the table of `rows`, then each number beside its goal; write the numbers to `path` if it is given."""
    print(tabulate(rows, headers=headers, floatfmt=".3f"))
    print()
    verdicts = []
    for name, number in numbers.items():
        met = number.value >= number.goal if number.better == "higher" else number.value <= number.goal
        verdicts.append([name, number.value, number.goal, number.unit, "met" if met else "MISSED"])
    print(tabulate(verdicts, headers=["number", "value", "goal", "unit", ""], floatfmt=".3f"))
    if path:
        path.write_text(json.dumps({name: asdict(number) for name, number in numbers.items()}, indent=1) + "\n")
