"""Metrics of the machine while a run lasts: processor, memory, disk, network and GPUs, as MLflow samples and names them.

MLflow's own monitor sends its samples straight to the server, so that an outage loses them. Here they go to the run's journal.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from mlflow.environment_variables import (
    MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING,
    MLFLOW_SYSTEM_METRICS_NODE_ID,
    MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING,
    MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL,
)

from fr_ps.errors import InputError
from fr_ps.tracking.run import Run

if TYPE_CHECKING:
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

_INTERVAL = 10.0


@contextmanager
def record_system_metrics(run: Run, enabled: bool = False) -> Iterator[None]:
    """Sample the machine during the block, if `wanted` or if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is true.

    Interval, samples a point and node are those of MLflow: MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL (10 s),
    MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING (1) and MLFLOW_SYSTEM_METRICS_NODE_ID.
    """
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
    """Add a point for every interval until `stop`, and one for the last, shorter one."""
    interval = MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or _INTERVAL
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
        except InputError:  # the disk is full or the folder gone, which ends the run by itself
            return
        for monitor in monitors:
            monitor.clear_metrics()
        step += 1


def _monitors() -> list["BaseMetricsMonitor"]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor  # imports psutil
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
    from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

    found = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    for kind in (GPUMonitor, ROCMMonitor):
        with suppress(Exception):  # no such GPU, driver or library, for which each library has an exception of its own
            found.append(kind())
    found[0].collect_metrics()  # psutil measures since its last call, and returns 0 for the first
    found[0].clear_metrics()
    return found
