"""Reading every map of a data set, to list every file that a training would refuse."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fr_ps.data.labels import Labels
from fr_ps.data.layout import CHANNELS, map_file, read_map, session_folder
from fr_ps.errors import InputError
from fr_ps.photometric.orientation import NormalStatistics, axes_warning, normal_statistics
from fr_ps.progress import OnProgress, no_progress

Size = tuple[int, ...]
"""Height and width."""


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        files: that were looked for: one a row of the table and modality.
        modalities: that the data set has.
        bad: path and reason of each bad one, in the order of the table.
        warning: about normals whose axes are probably wrong; None where they look right.
    """

    files: int
    modalities: list[str]
    bad: list[tuple[Path, str]]
    warning: str | None = None


def any_session_modalities(root: Path, labels: Labels) -> list[str]:
    """The modalities of which any session has a map; all, where none has any."""
    keys = list(zip(labels.ids, labels.sessions))
    return [name for name in CHANNELS if any(_has_map(root, *key, name) for key in keys)] or list(CHANNELS)


def _has_map(root: Path, subject: str, session: str, modality: str) -> bool:
    try:
        return map_file(root, subject, session, modality) is not None
    except InputError:
        return False


def check_maps(root: Path, labels: Labels, advance: OnProgress = no_progress) -> Check:
    """Read every map of every row; a map that some other session has and this one lacks is bad too.

    Also bad is a map that is not square, or not of the size that most are of.

    Args:
        root: of the prepared data set, which is only read.
        labels: its whole table.
        advance: called once a row.
    """
    modalities = any_session_modalities(root, labels)
    found: list[tuple[Path, Size | str]] = []
    normals: list[NormalStatistics] = []
    for person, session in zip(labels.ids, labels.sessions):
        found += [_check_map(root, person, session, modality, normals) for modality in modalities]
        advance(1)
    squares = Counter(size for _, size in found if not isinstance(size, str) and size[0] == size[1])
    usual = squares.most_common(1)[0][0] if squares else None
    reasons = [(path, size if isinstance(size, str) else _size_error(size, usual)) for path, size in found]
    return Check(len(found), modalities, [(path, reason) for path, reason in reasons if reason], axes_warning(normals))


def _check_map(root: Path, subject: str, session: str, modality: str, normals: list[NormalStatistics]) -> tuple[Path, Size | str]:
    """The file of a map, and its size, or why it is bad. The statistics of a good normal map are added to `normals`."""
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


def _size_error(size: Size, most_common: Size | None) -> str:
    """Why a map of this size is bad; empty where it is not."""
    if size[0] != size[1]:
        return f"{size[1]} x {size[0]}; maps must be square"
    return (
        f"{size[1]} x {size[0]}, but most maps are {most_common[1]} x {most_common[0]}"
        if most_common and size != most_common
        else ""
    )
