"""The built-in data set: synthetic faces, rendered as raw captures and prepared like real ones. Nothing is downloaded."""

import json
import os
import sys
from pathlib import Path

from fr_ps.cache import cache_folder, checksum, remove
from fr_ps.config import SYNTHETIC_ROOT, PrepareConfig, SyntheticConfig
from fr_ps.data.layout import LABELS_FILE
from fr_ps.data.preparation import FORMAT
from fr_ps.data.prepare import prepare
from fr_ps.errors import one_line
from fr_ps.files import atomic_folder, remove_stale_temp, translate_write_errors, write_json
from fr_ps.locks import file_lock
from fr_ps.progress import echo, progress
from fr_ps.synthetic.captures import VERSION, write_synthetic_captures

_CHECKSUMS_FILE = "checksums.json"
_verified: set[Path] = set()
"""Folders whose checksums this process has compared."""


def resolve_root(root: str, synthetic: SyntheticConfig) -> Path:
    """The path of `data.root`; generates the built-in faces first if it names them and they are not in the cache."""
    return synthetic_dataset(synthetic) if root == SYNTHETIC_ROOT else Path(root)


def synthetic_dataset(config: SyntheticConfig) -> Path:
    """The cached folder of the prepared built-in faces of these settings; made if missing or damaged.

    The first call in a process compares the files with their checksums.
    """
    name = f"v{VERSION}.{FORMAT}-p{config.people}-s{config.sessions}-seed{config.seed}-{config.size}px"
    folder = cache_folder() / "synthetic" / name
    prepared, checksums_file = folder / "synthetic", folder / _CHECKSUMS_FILE
    with file_lock(folder), translate_write_errors(folder):
        if folder in _verified and all(path.is_file() for path in (checksums_file, prepared / LABELS_FILE)):
            return prepared
        if checksums_file.exists() and (damage := _find_damage(prepared, checksums_file)):
            echo(f"cache: {folder} is damaged ({damage}); making the built-in faces again", sys.stderr)
            for path in (checksums_file, folder / "raw"):
                remove(path)
        if not checksums_file.exists():
            remove_stale_temp(folder)
            remove(prepared)  # left by an interrupted or older run, without checksums
            _generate(config, folder / "raw", prepared)
            write_json(checksums_file, _checksums(prepared))
        _verified.add(folder)
    return prepared


def _checksums(prepared: Path) -> dict[str, int]:
    """The checksum of each file of a data set, by its path below the folder."""
    return {str(path.relative_to(prepared)): checksum(path) for path in [prepared / LABELS_FILE, *prepared.glob("data/*/*/*")]}


def _find_damage(prepared: Path, checksums_file: Path) -> str:
    """A description of the damage; empty if the files match the checksums."""
    try:
        expected, found = json.loads(checksums_file.read_text()), _checksums(prepared)
        names = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        return f"{checksums_file.name}: {one_line(error)}"
    return f"{names[0]} is missing or was changed; {len(names)} such files" if names else ""


def _generate(config: SyntheticConfig, raw: Path, prepared: Path) -> None:
    total = config.people * config.sessions
    if not raw.is_dir():
        with progress("make faces", total, "sessions") as advance, atomic_folder(raw) as temporary:
            write_synthetic_captures(
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
