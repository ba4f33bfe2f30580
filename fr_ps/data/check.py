"""Reading every map of a data set, to list every file that a training would reject."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fr_ps.data.labels import Labels
from fr_ps.data.layout import CHANNELS, map_file, read_map, session_folder
from fr_ps.data.stored_pictures import pictures_file, read_stored_pictures
from fr_ps.errors import InputError
from fr_ps.photometric.orientation import NormalStatistics, axes_warning, normal_statistics
from fr_ps.progress import OnProgress, no_progress
from fr_ps.tables import SessionKey

Size = tuple[int, ...]
"""Height and width."""


@dataclass(frozen=True)
class MapCheck:
    """The result of `check_maps`.

    Attributes:
        files: number of expected files, one per row of the table and modality.
        modalities: of the data set.
        bad: path and error of each bad file, in the order of the table: of the maps, then of the stored pictures.
        warning: about normals whose axes are probably wrong; None if they look right.
    """

    files: int
    modalities: list[str]
    bad: list[tuple[Path, str]]
    warning: str | None = None


def _modalities_in_use(root: Path, labels: Labels) -> list[str]:
    """The modalities of which at least one session has a map; all modalities if there are no maps."""
    return [name for name in CHANNELS if any(_has_map(root, *key, name) for key in labels.row_keys())] or list(CHANNELS)


def _has_map(root: Path, subject: str, session: str, modality: str) -> bool:
    try:
        return map_file(root, subject, session, modality) is not None
    except InputError:
        return False


def check_maps(root: Path, labels: Labels, advance: OnProgress = no_progress) -> MapCheck:
    """Read every map of every row.

    A map is bad if it is missing while another session has that modality, unreadable or invalid, not square, or not of the
    most common size. The pictures that `prepare` stored with the maps are checked too, where there are any.

    Args:
        root: of the prepared data set, which is only read.
        labels: its whole table.
        advance: called once per row.
    """
    modalities = _modalities_in_use(root, labels)
    found: list[tuple[Path, Size | str]] = []
    pictures: list[tuple[Path, Size | str]] = []
    normals: list[NormalStatistics] = []
    for key in labels.row_keys():
        found += [_check_map(root, *key, modality, normals) for modality in modalities]
        pictures += _check_pictures(root, key)
        advance(1)
    squares = Counter(size for _, size in found if not isinstance(size, str) and size[0] == size[1])
    most_common = squares.most_common(1)[0][0] if squares else None
    reasons = [(path, size if isinstance(size, str) else _size_error(size, most_common)) for path, size in found + pictures]
    return MapCheck(len(found), modalities, [(path, reason) for path, reason in reasons if reason], axes_warning(normals))


def _check_map(root: Path, subject: str, session: str, modality: str, normals: list[NormalStatistics]) -> tuple[Path, Size | str]:
    """The file of a map, and its size or its error. Appends the statistics of a valid normal map to `normals`."""
    path = session_folder(root, subject, session) / f"{modality}.npy"
    try:
        found = map_file(root, subject, session, modality)
        if found is None:
            return path, "no such file"
        path = found
        array = read_map(path, modality)
        if modality == "normal":
            normals.append(normal_statistics(array))
        return path, array.shape[1:]
    except InputError as error:
        return path, str(error).removeprefix(f"{path}: ")


def _check_pictures(root: Path, key: SessionKey) -> list[tuple[Path, Size | str]]:
    """The file of the stored pictures, and their size or their error; empty if the session has none."""
    path = pictures_file(root, key)
    try:
        stored = read_stored_pictures(root, key)
        return [] if stored is None else [(path, stored.mask.shape)]
    except OSError:  # an inaccessible folder, which its maps report
        return []
    except InputError as error:
        return [(path, str(error).removeprefix(f"{path}: "))]


def _size_error(size: Size, most_common: Size | None) -> str:
    """The error of a map of this size; empty if there is none."""
    if size[0] != size[1]:
        return f"{size[1]} x {size[0]}; maps must be square"
    if most_common and size != most_common:
        return f"{size[1]} x {size[0]}, but most maps are {most_common[1]} x {most_common[0]}"
    return ""
