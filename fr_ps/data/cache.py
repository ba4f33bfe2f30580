"""Where what can be made again is kept."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`FR_PS_CACHE`, or `fr_ps` in the user's cache folder."""
    given = os.environ.get("FR_PS_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fr_ps"
