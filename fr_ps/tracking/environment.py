"""What a run records about its environment: commit, versions, command line, and system metrics.

MLflow's own monitor sends its samples directly to the server, so that an outage loses them. Here they go to the run's journal.
"""

import platform
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import distributions, version
from pathlib import Path
from typing import TYPE_CHECKING

from fr_ps.errors import InputError
from fr_ps.redaction import redact
from fr_ps.tracking.run import Run

if TYPE_CHECKING:
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

_SAMPLING_INTERVAL = 10.0
"""Seconds; MLflow's default."""


def git_commit() -> str:
    """The commit of the current folder, with `-dirty` for uncommitted changes; "unknown" without git."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return "unknown"
    return commit + ("-dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")


@cache
def code_versions() -> dict[str, str]:
    """Commit, versions and machine architecture: a difference in them may change the trained weights in the last bits.

    Read once per process: git is slow, and the running code does not change.
    """
    known = {name: version(name) for name in ("torch", "numpy", "timm", "torchjd")}
    return {"commit": git_commit(), "python": platform.python_version(), "machine": platform.machine()} | known


def command_line() -> str:
    """The command line of this process, with the credentials in URLs redacted."""
    program = Path(sys.argv[0]).name
    return " ".join(["fr-ps" if program == "__main__.py" else program, *map(redact, sys.argv[1:])])


def environment_text() -> str:
    """Python, platform, command line, and each installed distribution with its version, one per line."""
    head = [f"# python {platform.python_version()}", f"# platform {platform.platform()}", f"# command {command_line()}"]
    return "\n".join([*head, *_installed_packages()]) + "\n"


@cache
def _installed_packages() -> tuple[str, ...]:
    """Installed distributions as `NAME==VERSION`, sorted. Cached, as listing them takes half a second."""
    return tuple(sorted({f"{item.metadata['Name']}=={item.version}" for item in distributions()}, key=str.lower))


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@contextmanager
def record_system_metrics(run: Run, enabled: bool = False) -> Iterator[None]:
    """Sample CPU, memory, disk, network and GPUs during the block, under MLflow's metric names.

    On with `enabled` or MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=true. MLflow's variables apply:
    MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL (10 s), MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING (1) and
    MLFLOW_SYSTEM_METRICS_NODE_ID.
    """
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

    if not (enabled or MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get()):
        yield
        return
    monitors = _monitors()
    stop = threading.Event()
    sampler = threading.Thread(target=_sample, args=(run, monitors, stop), name="system metrics", daemon=True)
    sampler.start()
    try:
        yield
    finally:
        stop.set()
        sampler.join()


def _sample(run: Run, monitors: Sequence["BaseMetricsMonitor"], stop: threading.Event) -> None:
    """Log one aggregated point for each group of samples until `stop` is set. The last group may be smaller."""
    from mlflow.environment_variables import (
        MLFLOW_SYSTEM_METRICS_NODE_ID,
        MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING,
        MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL,
    )

    interval = MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or _SAMPLING_INTERVAL
    samples = MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING.get() or 1
    node = MLFLOW_SYSTEM_METRICS_NODE_ID.get()
    step, stopped = run.system_samples, False
    while not stopped:
        for _ in range(samples):
            stopped = stop.wait(interval)
            for monitor in monitors:
                monitor.collect_metrics()
            if stopped:
                break
        values = {key: float(value) for monitor in monitors for key, value in monitor.aggregate_metrics().items()}
        try:
            run.log_system_metrics({f"{node}/{key}" if node else key: value for key, value in values.items()}, step)
        except InputError:  # a full disk or a removed folder, which also ends the training
            return
        for monitor in monitors:
            monitor.clear_metrics()
        step += 1


def _monitors() -> list["BaseMetricsMonitor"]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
    from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

    found = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    for kind in (GPUMonitor, ROCMMonitor):
        with suppress(Exception):  # without the GPU, driver or library; each library raises its own exception
            found.append(kind())
    found[0].collect_metrics()  # psutil measures since its last call, and returns 0 at the first
    found[0].clear_metrics()
    return found
