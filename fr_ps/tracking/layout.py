"""What a run's folder holds besides the journal and what belongs to it; every path but the first is in the run's folder."""

from pathlib import Path

RUNS_FOLDER = Path("runs")
CONFIG_FILE = "config.yaml"
CHECKPOINTS = Path("checkpoints")
LAST, BEST = CHECKPOINTS / "last", CHECKPOINTS / "best"
RESUME = CHECKPOINTS / "resume"
"""Of the checkpoints to go on from, numbered as they were written."""
MODEL = "model"
"""In such a checkpoint's folder, that of the model."""
MODEL_CARD = "README.md"
"""In a model's folder."""


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints to go on from of the run in `folder`, as far as their names tell, the newest first."""
    return sorted((path for path in (folder / RESUME).glob("*") if path.name.isdigit()), reverse=True)
