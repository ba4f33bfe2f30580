"""The built-in data set: synthetic faces, made as raw captures and then prepared like real ones. Nothing is downloaded."""

import os
from pathlib import Path

from fr_ps.config import SYNTHETIC, PrepareConfig, SyntheticConfig
from fr_ps.data.cache import cache_folder
from fr_ps.data.layout import LABELS_FILE
from fr_ps.data.maps_of import FORMAT
from fr_ps.data.prepare import prepare
from fr_ps.files import locked, new_folder
from fr_ps.progress import progress
from fr_ps.synthetic.captures import VERSION, write_captures


def data_root(root: str, synthetic: SyntheticConfig) -> Path:
    """Where `data.root` is; the built-in faces are made first where it names them and they are not there yet."""
    return synthetic_dataset(synthetic) if root == SYNTHETIC else Path(root)


def synthetic_dataset(config: SyntheticConfig) -> Path:
    """The folder of the prepared built-in faces of these settings, in the cache; made where it is not there yet."""
    name = f"v{VERSION}.{FORMAT}-p{config.people}-s{config.sessions}-seed{config.seed}-{config.size}px"
    folder = cache_folder() / "synthetic" / name
    prepared = folder / "synthetic"
    with locked(folder):
        if not (prepared / LABELS_FILE).is_file():
            _make(config, folder / "raw", prepared)
    return prepared


def _make(config: SyntheticConfig, raw: Path, prepared: Path) -> None:
    total = config.people * config.sessions
    if not raw.is_dir():
        with progress("make faces", total, "sessions") as advance, new_folder(raw) as temporary:
            write_captures(
                temporary, people=config.people, sessions=config.sessions, seed=config.seed, size=config.size, advance=advance
            )
    settings = PrepareConfig(
        captures=str(raw / "captures"),
        out=str(prepared),
        labels=str(raw / LABELS_FILE),
        size=config.size,
        workers=os.cpu_count() or 1,
    )
    with progress("prepare", total, "sessions") as advance:
        prepare(settings, advance)
