"""The search for sessions in a folder of captures."""

from dataclasses import dataclass
from pathlib import Path

from fr_ps.errors import InputError
from fr_ps.photometric.images import is_image_name
from fr_ps.photometric.layouts import EXPECTED_LIGHTS, find_lights, read_lights_file
from fr_ps.photometric.layouts.folders import list_files, list_names, visible_subfolders
from fr_ps.tables import to_nfc

SINGLE_SESSION = "0"
"""Name of the session of a subject whose images are in the folder of the subject itself."""


@dataclass(frozen=True)
class CaptureSource:
    """The folder of one session's capture.

    Attributes:
        id, session: the names of the folders in Unicode's composed form, as in tables.
        folder: with the images.
        root: of all captures. A file of lights in a folder above the session, up to `root`, is shared by the sessions below it.
    """

    id: str
    session: str
    folder: Path
    root: Path


def list_sources(captures: Path, unusable: dict[tuple[str, str], str] | None = None) -> list[CaptureSource]:
    """Every session under `captures`, sorted by name; hidden folders are skipped.

    A session is a folder `{id}/{session}`. A folder `{id}` with images, in which no subfolder has images or whose file of lights
    lists its own images, is a session itself, with the name `SINGLE_SESSION`; so is `captures`.

    Args:
        captures: the root.
        unusable: receives the reason why a folder is unusable, by (id, session); the session is empty for the folder of a
            subject. None: the first unusable folder raises.

    Raises:
        InputError: the root is missing or unreadable, or contains no session. Without `unusable` also: a folder is
            unreadable, its name is not allowed in a table, or two folders of one parent differ only by case, surrounding
            white space or Unicode form.
    """
    if _is_single_session(captures, unusable is not None):
        return [CaptureSource(to_nfc(captures.resolve().name), SINGLE_SESSION, captures, captures)]

    def usable_subfolders(folder: Path, subject: str = "") -> list[Path]:
        names, wrong = visible_subfolders(folder)
        for name, reason in wrong.items():
            if unusable is None:
                raise InputError(reason)
            unusable[(to_nfc(subject), to_nfc(name)) if subject else (to_nfc(name), "")] = reason
        return [folder / name for name in names]

    found = []
    for subject in usable_subfolders(captures):
        name = to_nfc(subject.name)
        try:
            if _is_session(subject, levels=1):
                found.append(CaptureSource(name, SINGLE_SESSION, subject, captures))
                continue
            sessions = usable_subfolders(subject, subject.name)
            found += [CaptureSource(name, to_nfc(session.name), session, captures) for session in sessions]
        except InputError as error:
            if unusable is None:
                raise
            unusable[name, ""] = str(error)
    if not found:
        raise InputError(
            f"{captures}: contains no session; expected {{id}}/{{session}}/ with images and their lights: {EXPECTED_LIGHTS}"
        )
    return found


def _is_single_session(captures: Path, skip_unusable: bool) -> bool:
    """Whether the images are in `captures` itself."""
    try:
        return _is_session(captures, levels=2)
    except InputError:
        list_names(captures)  # the root itself must be readable
        if skip_unusable:
            return False  # a folder below it is unusable
        raise


def _is_session(folder: Path, levels: int) -> bool:
    """Whether `folder`, of which sessions are `levels` below it, is a session itself.

    It is if it has images, and either its subfolders have none or its own file of lights lists its images.
    """
    if not _has_images(folder):
        return False
    if not any(_contains_images(subfolder, levels - 1) for subfolder in _subfolders(folder)):
        return True
    try:
        names = list_files(folder)
        stated = read_lights_file(find_lights(folder), names, "xy")
        return not stated.paired_by_order and not set(stated.images).isdisjoint(names)
    except InputError:
        return False


def _contains_images(folder: Path, levels: int) -> bool:
    return _has_images(folder) or (
        levels > 0 and any(_contains_images(subfolder, levels - 1) for subfolder in _subfolders(folder))
    )


def _has_images(folder: Path) -> bool:
    return any(map(is_image_name, list_files(folder)))


def _subfolders(folder: Path) -> list[Path]:
    return [folder / name for name in list_names(folder, only_folders=True) if not name.startswith(".")]
