"""The cache folder, and checksums that detect damaged cache files. Everything in the cache can be computed again."""

import os
import shutil
import zlib
from pathlib import Path

_CHUNK = 2**22


def cache_folder() -> Path:
    """`FR_PS_CACHE`, or `fr_ps` in the user's cache folder."""
    given = os.environ.get("FR_PS_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fr_ps"


def checksum(path: Path) -> int:
    """CRC-32 of a file's content, computed in chunks of 4 MiB.

    CRC-32 is the fastest checksum of the standard library. It detects damage, not forgery.

    Raises:
        OSError: the file is missing or cannot be read.
    """
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
