"""Names in the folders of captures."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fr_ps.errors import InputError
from fr_ps.files import check_path_component
from fr_ps.tables import to_nfc


def list_names(folder: Path, only_folders: bool = False) -> list[str]:
    """The names in a folder, sorted.

    Raises:
        InputError: it is missing or unreadable.
    """
    with _readable(folder):
        return sorted(child.name for child in folder.iterdir() if not only_folders or child.is_dir())


def list_files(folder: Path) -> list[str]:
    """The names in a folder that are no folders, sorted.

    Raises:
        InputError: it is missing or unreadable.
    """
    with _readable(folder), os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.is_dir())


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Convert an OSError of the block, which lists `folder`, to an InputError."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder}: no such folder; name a folder of {{id}}/{{session}}/ with images and their lights") from None
    except OSError as error:
        raise InputError(f"{folder}: unreadable folder ({error.strerror}); make it readable or move it away") from None


def find_name(wanted: str, names: Iterable[str]) -> str | None:
    """`wanted` among the names of files, else one that differs only in case; None if there is none."""
    return wanted if wanted in names else next((name for name in names if name.casefold() == wanted.casefold()), None)


def visible_subfolders(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The names of the usable visible folders in `folder`, sorted; and the unusable ones with the reason."""
    names = [name for name in list_names(folder, only_folders=True) if not name.startswith(".")]
    wrong: dict[str, str] = {}
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(to_nfc(name.strip().casefold()), name)
        if other != name:
            differ = "differ only in case, white space or Unicode form"
            wrong[other] = wrong[name] = f"{folder}: {other!r} and {name!r} {differ}; rename or remove one of them"
        elif name != name.strip():
            wrong[name] = f"{folder}: {name!r} begins or ends with white space, which tables do not preserve; rename it"
        else:
            try:
                check_path_component(name, str(folder))
            except InputError as error:
                wrong[name] = str(error)
    return [name for name in names if name not in wrong], wrong


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """A key for sorting: numbers in the names by value, so that `im2` stands before `im10`."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part.casefold()) for part in re.findall(r"[0-9]+|[^0-9]+", name)]
