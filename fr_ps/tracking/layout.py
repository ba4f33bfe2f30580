"""What a run's folder holds besides the journal and what belongs to it; every path but the first is in the run's folder."""

from pathlib import Path

RUNS_FOLDER = Path("runs")
CONFIG_FILE = "config.yaml"
CHECKPOINTS_FOLDER = Path("checkpoints")
LAST_CHECKPOINT, BEST_CHECKPOINT = CHECKPOINTS_FOLDER / "last", CHECKPOINTS_FOLDER / "best"
RESUME_CHECKPOINTS = CHECKPOINTS_FOLDER / "resume"
"""Of the checkpoints to go on from, numbered as they were written."""
MODEL_FOLDER = "model"
"""In such a checkpoint's folder, that of the model."""
MODEL_CARD_FILE = "README.md"
"""In a model's folder."""


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints to go on from of the run in `folder`, as far as their names tell, the newest first."""
    return sorted((path for path in (folder / RESUME_CHECKPOINTS).glob("*") if path.name.isdigit()), reverse=True)
