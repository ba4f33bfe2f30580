"""Lines of text files with names and numbers."""

from pathlib import Path

from fr_ps.errors import InputError
from fr_ps.files import check_path_component, read_bytes

_MAX_BYTES = 16_000_000


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of each line that is not empty, without white space around it.

    Raises:
        InputError: the file is missing or unreadable, or has a null character.
    """
    content = read_bytes(path, _MAX_BYTES, "copy it from the data set as distributed")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")  # names of a Windows program
    if "\0" in text:
        raise InputError(f"{path}: not a text file; save it as text in UTF-8")
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]


def base_name(stated: str, where: str) -> str:
    """The name of a file whose path is stated in the form of Windows or Linux, with or without quotes.

    Raises:
        InputError: no valid name of a file; the message begins with `where`.
    """
    return check_path_component(stated.strip("\"'").replace("\\", "/").rpartition("/")[2], where)
