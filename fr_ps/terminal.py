"""Lines that several commands print."""

import sys
from pathlib import Path

from fr_ps.progress import echo


def echo_loading(what: str, module: str = "torch") -> None:
    """Print to standard error what is being loaded, unless it is loaded already. Importing torch and MLflow takes seconds.

    Args:
        what: text after "loading".
        module: name of the Python module that takes longest.
    """
    if module not in sys.modules:
        echo(f"loading {what}", sys.stderr)


def echo_run_id(run_id: str) -> None:
    """Print the id of a run as the last two lines: for a reader, and alone, for `tail -n 1`."""
    echo(f"run id: {run_id}\n{run_id}")


def echo_model(label: str, model: str, folder: Path) -> None:
    """Print which run an argument MODEL was resolved to."""
    from fr_ps.models.folder import read_info

    info = read_info(folder)
    run = info.provenance.get("run") or "?"
    echo(f"{label}: {model} is the model of run {run} ({info.backbones} on {', '.join(info.modalities)})")
