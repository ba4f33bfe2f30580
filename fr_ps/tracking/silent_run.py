"""The run of a training in its processes beside the main one."""

from collections.abc import Mapping
from pathlib import Path

from fr_ps.tracking.run import Run


class SilentRun(Run):
    """Has the id and the folder of the run, and logs nothing: the main process logs for all. There is no journal.

    Attributes:
        metric_history: empty.
    """

    def __init__(self, folder: Path) -> None:
        self.id, self.folder = folder.name, folder
        self.metric_history = {}

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Do nothing."""

    def set_tags(self, values: Mapping[str, str]) -> None:
        """Do nothing."""
