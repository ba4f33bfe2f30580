"""Run the short benchmarks one after the other, and collect their numbers in one table; `make bench` calls it.

Each benchmark runs in a process of its own. One that fails is listed as failed, and the others still run; the exit code is then
1. The folder `--out` gets `benchmarks.json` (numbers, machine, commit), `benchmarks.md` (one table) and one log a benchmark. The
numbers, both files and the machine are also logged to a run of the MLflow experiment `fr-ps-benchmarks`, at MLFLOW_TRACKING_URI
or in `mlflow.db` of this folder.

    python benchmarks/run_all.py
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from common import Measurement
from tabulate import tabulate

EXPERIMENT = "fr-ps-benchmarks"
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Benchmark:
    """A script of this folder.

    Attributes:
        script: name of the file without `.py`.
        arguments: for a short run.
        tiny: for a run in seconds that only shows that the script works; the tests use it.
    """

    script: str
    arguments: tuple[str, ...]
    tiny: tuple[str, ...]

    @property
    def command(self) -> str:
        """What a user types."""
        return " ".join(["python", f"benchmarks/{self.script}.py", *self.arguments])


def _benchmark(script: str, arguments: str, tiny: str) -> Benchmark:
    return Benchmark(script, tuple(arguments.split()), tuple(tiny.split()))


BENCHMARKS = (
    _benchmark(
        "train_throughput",
        "--turns 4 --networks convnextv2_atto synthetic.yaml yale_fusion.yaml",
        "--turns 1 --steps 1 --networks timm:test_resnet",
    ),
    _benchmark(
        "whole_train", "", "--flags train.epochs=1 synthetic.people=10 synthetic.sessions=3 model.backbone=timm:test_resnet"
    ),
    _benchmark("train_processes", "--turns 2 --steps 4", "--turns 1 --steps 1 --backbones timm:test_resnet"),
    _benchmark("data_loader", "--turns 5", "--turns 1 --people 4 --steps 1"),
    _benchmark("lightning_loop", "--turns 6", "--turns 1 --steps 1 --backbone timm:test_resnet"),
    _benchmark("weighting_cost", "--turns 3 --backbones convnextv2_atto", "--turns 1 --backbones convnextv2_atto"),
    _benchmark("tracking_cost", "--turns 4", "--turns 1 --backbone timm:test_resnet"),
    _benchmark("checkpoint_cost", "--epochs 4 --backbones convnextv2_atto", "--epochs 2 --backbones timm:test_resnet"),
    _benchmark("photometric", "--people 4 --turns 2", "--people 2 --turns 1"),
    _benchmark("many_lights", "--lights 8 50", "--lights 8 --surfaces sphere --size 32"),
    _benchmark("verification", "--turns 2 --growth", "--count 400 --small 300 --turns 1 --growth"),
    _benchmark("growth", "--sessions 1000 10000 100000", "--sessions 100 200 --steps 1"),
    _benchmark("search_overhead", "--turns 2 --trials 2 --seeds 0", "--turns 1 --trials 1 --seeds 0"),
    _benchmark("serving", "--turns 4 --requests 64", "--backbone timm:test_resnet --turns 1 --requests 8"),
)


@dataclass
class Result:
    """What one benchmark measured.

    Attributes:
        command: that a user would type.
        seconds: of the process.
        cpu_seconds: of the process and its children.
        failure: the last line that it printed before it failed; empty if it did not fail.
        numbers: name to measurement.
    """

    command: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    failure: str = ""
    numbers: dict[str, Measurement] = field(default_factory=dict)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmark_results"), help="folder for the table, the JSON and the logs")
    names = [benchmark.script for benchmark in BENCHMARKS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="names of benchmarks; default: all")
    options = parser.parse_args()
    return run_benchmarks([benchmark for benchmark in BENCHMARKS if benchmark.script in options.only], options.out)


def run_benchmarks(benchmarks: Sequence[Benchmark], out: Path) -> int:
    """Run the benchmarks, write and log their numbers; returns the exit code: 1 if one failed."""
    out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Result] = {}
    for number, benchmark in enumerate(benchmarks, start=1):
        print(f"{number}/{len(benchmarks)}  {benchmark.command}", flush=True)
        result = results[benchmark.script] = run_benchmark(benchmark, out)
        end = f"FAILED: {result.failure}" if result.failure else f"{len(result.numbers)} numbers"
        print(f"{number}/{len(benchmarks)}  {end}, {result.seconds:.0f} s ({result.cpu_seconds:.0f} s of CPU time)", flush=True)
    machine = describe_machine()
    table = markdown_table(results)
    write_results(out, results, machine, table)
    print(f"\n{table}\n{out / 'benchmarks.md'}")
    log_results(out, results, machine)
    return int(any(result.failure for result in results.values()))


def run_benchmark(benchmark: Benchmark, out: Path) -> Result:
    """Run one benchmark in a process of its own; its output goes to a log in `out`."""
    numbers, log = out.resolve() / f"{benchmark.script}.json", out / f"{benchmark.script}.log"
    numbers.unlink(missing_ok=True)
    command = [sys.executable, str(FOLDER / f"{benchmark.script}.py"), *benchmark.arguments, "--json", str(numbers)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])}
    result = Result(benchmark.command)
    begun, cpu_begun = time.perf_counter(), _cpu_seconds_of_children()
    with log.open("w") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    result.seconds, result.cpu_seconds = time.perf_counter() - begun, _cpu_seconds_of_children() - cpu_begun
    if code or not numbers.is_file():
        lines = log.read_text(errors="replace").strip().splitlines()
        result.failure = lines[-1] if lines else f"exit code {code}"
    else:
        result.numbers = {name: Measurement(**values) for name, values in json.loads(numbers.read_text()).items()}
    numbers.unlink(missing_ok=True)
    return result


def _cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def describe_machine() -> dict[str, str]:
    """Commit, versions, processor, cores, memory, GPU, and the load before the benchmarks ended."""
    import psutil
    import torch

    from fr_ps.tracking.environment import code_versions

    models = [line.split(":")[1].strip() for line in _read(Path("/proc/cpuinfo")).splitlines() if line.startswith("model name")]
    return code_versions() | {
        "processor": models[0] if models else platform.processor() or "unknown",
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "threads": "2 (search_overhead: 1)",
    }


def _read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def markdown_table(results: dict[str, Result]) -> str:
    """One row a number; a benchmark that failed has one row."""
    rows: list[list[str]] = []
    for script, result in results.items():
        command = f"`{result.command}`"
        if result.failure:
            rows.append([script, "", "", "", "FAILED", result.failure, command])
        for name, number in result.numbers.items():
            met = "met" if number.met else "MISSED"
            sign = "≥" if number.better == "higher" else "≤"
            rows.append([script, name, f"{number.value:.4g}", f"{sign} {number.goal:g}", met, number.unit, command])
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return tabulate(
        rows, headers=["benchmark", "number", "value", "goal", "", "unit", "command"], tablefmt="github", disable_numparse=True
    )


def write_results(out: Path, results: dict[str, Result], machine: dict[str, str], table: str) -> None:
    """Write `benchmarks.json` and `benchmarks.md` into `out`."""
    from fr_ps.files import write_json, write_text

    write_json(out / "benchmarks.json", {"machine": machine, "benchmarks": {name: asdict(one) for name, one in results.items()}})
    facts = "\n".join(f"- {name}: {value}" for name, value in machine.items())
    seconds, cpu = (sum(values) for values in zip(*((one.seconds, one.cpu_seconds) for one in results.values())))
    write_text(
        out / "benchmarks.md", f"# Benchmarks\n\n{facts}\n- duration: {seconds:.0f} s ({cpu:.0f} s of CPU time)\n\n{table}\n"
    )


def log_results(out: Path, results: dict[str, Result], machine: dict[str, str]) -> None:
    """Log the numbers, both files and the machine to a run of the experiment `fr-ps-benchmarks`."""
    from mlflow.entities import Metric, RunTag

    from fr_ps.tracking.uris import open_client, tracking_uri

    # mlflow.set_experiment would set MLFLOW_EXPERIMENT_ID for the rest of the process.
    client = open_client(tracking_uri())
    known = client.get_experiment_by_name(EXPERIMENT)
    run = client.create_run(
        known.experiment_id if known else client.create_experiment(EXPERIMENT), run_name=machine["commit"][:7]
    ).info
    numbers = {f"{script}/{name}": one.value for script, result in results.items() for name, one in result.numbers.items()}
    numbers |= {f"{script}/seconds": result.seconds for script, result in results.items()}
    now = int(time.time() * 1000)
    tags = {f"fr_ps.bench.{name}": value for name, value in machine.items()}
    tags["fr_ps.bench.failed"] = " ".join(name for name, one in results.items() if one.failure)
    client.log_batch(
        run.run_id,
        metrics=[Metric(name, value, now, 0) for name, value in numbers.items()],
        tags=[RunTag(name, value) for name, value in tags.items()],
    )
    for name in ("benchmarks.json", "benchmarks.md"):
        client.log_artifact(run.run_id, str(out / name))
    client.set_terminated(run.run_id)
    print(f"MLflow run {run.run_id} of the experiment {EXPERIMENT}")


if __name__ == "__main__":
    sys.exit(main())
