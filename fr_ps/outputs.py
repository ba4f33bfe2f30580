"""What a command may write: nothing that it reads, and nothing that fr-ps did not make.

A file counts as made by a command if the cache has a record of its content, which `write_file` leaves there. A file that
somebody has edited since has no such record, and one whose record is lost is treated as somebody else's: it is replaced only
with `--overwrite true`.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from fr_ps.cache import cache_folder
from fr_ps.errors import InputError
from fr_ps.files import translate_write_errors, write_atomic

_SYSTEM_FILES = (".DS_Store", "Thumbs.db", "desktop.ini", "._*")
"""Patterns of files that operating systems leave in every folder that a user looks at."""
Inputs = Mapping[str, str | Path | None]
"""Flag or setting to the file or folder that it names."""


def check_output_file(out: Path, kind: str, inputs: Inputs, overwrite: bool = False) -> None:
    """Refuse to write the file `out` where that would destroy something.

    Args:
        out: that `write_file` is going to write or replace.
        kind: of output, as `write_file` gets it.
        inputs: of the command.
        overwrite: whether a file that fr-ps did not make may be replaced; one of the inputs never is.

    Raises:
        InputError: `out` is an input, or another file that stands there.
    """
    check_not_input(out, inputs)
    with translate_write_errors(out):  # a name that is too long
        if not _exists(out) or (out.is_file() and not out.stat().st_size):
            return
    if not out.is_file():
        raise InputError(f"{out}: is no file; choose another output")
    made_by = _recorded_kinds(out)
    if kind in made_by:
        return
    for flag, source in _input_paths(inputs).items():
        if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
            raise InputError(f"{out}: would replace a file of the input {flag} {source}; choose another output")
    if not overwrite:
        whose = "another command of fr-ps wrote it" if made_by else "fr-ps did not write it (or it was changed since)"
        raise InputError(f"{out}: is there already, and {whose}; choose another output, or replace it by --overwrite true")


def check_not_input(out: Path, inputs: Inputs) -> None:
    """Refuse an output that is one of the inputs, through links of any kind.

    Raises:
        InputError: names the input.
    """
    for flag, source in _input_paths(inputs).items():
        if _is_same_file(out, source):
            raise InputError(f"{out}: would replace the input {flag} {source}; choose another output")


def write_output(out: Path, kind: str, content: bytes) -> None:
    """Write `content` to `out`, whole or not at all, and record that fr-ps made it.

    Raises:
        InputError: the disk is full, or the folder may not be written.
    """
    with suppress(OSError):  # without a record, the next run asks for --overwrite true
        record = _record_path(kind, hashlib.sha256(content).hexdigest())
        record.parent.mkdir(parents=True, exist_ok=True)
        record.touch()
    write_atomic(out, lambda file: file.write(content))


def check_output_folder(
    out: Path, inputs: Inputs, is_previous_output: Callable[[Path], bool], names: Sequence[str], overwrite: bool = False
) -> None:
    """Refuse to write into the folder `out` where that would destroy something.

    Args:
        out: folder to write; it need not exist.
        inputs: of the command.
        is_own: whether an existing folder is an earlier output of the same command.
        names: patterns of the files and folders that are written into it.
        overwrite: whether files of these names that fr-ps did not make may be replaced; an input never is.

    Raises:
        InputError: `out` is or holds an input, is no folder, or holds something of these names that is not ours.
    """
    check_contains_no_input(out, inputs, names)
    if not _exists(out):
        return
    if not out.is_dir():
        raise InputError(f"{out}: is no folder; choose another output folder")
    taken = sorted(path.name for path in out.iterdir() if any(fnmatch(path.name, name) for name in names))
    if taken and not overwrite and not is_previous_output(out):
        raise InputError(
            f"{out / taken[0]}: is there already, and fr-ps did not write it; choose another output folder, "
            "or replace what is in it by --overwrite true"
        )


def check_contains_no_input(out: Path, inputs: Inputs, names: Sequence[str] = ("*",)) -> None:
    """Refuse an output folder that is an input, or holds an input folder, or an input file that has one of the `names`.

    Raises:
        InputError: names the input.
    """
    for flag, source in _input_paths(inputs).items():
        if source.resolve().is_relative_to(out.resolve()):
            inside = source.resolve().relative_to(out.resolve()).parts
            if source.is_dir() or any(fnmatch(inside[0], name) for name in names):
                raise InputError(f"{out}: {'holds' if inside else 'is'} the input {flag} {source}; choose another output folder")


def check_replaceable(folder: Path, marker: str, names: Sequence[str] | None) -> None:
    """Refuse to replace a folder as a whole, unless all in it is ours. Files of the operating system do not count.

    Args:
        folder: that is going to be replaced; it need not exist.
        marker: name of a file that only fr-ps writes.
        names: of the other files that fr-ps writes into it; None: further files are not looked for.

    Raises:
        InputError: it has no `marker`, or holds another file.
    """
    if not _exists(folder):
        return
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else {""}
    found = {name for name in found if not any(fnmatch(name, pattern) for pattern in _SYSTEM_FILES)}
    if found and marker not in found:
        raise InputError(f"{folder}: is there already, and fr-ps did not make it (it has no {marker}); move it away")
    if foreign := sorted(found - {marker, *names} if names is not None else ()):
        raise InputError(f"{folder / foreign[0]}: fr-ps did not write it, and would remove it; move it away")


def _is_same_file(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return first.resolve() == second.resolve()


def _input_paths(inputs: Inputs) -> dict[str, Path]:
    return {flag: Path(path) for flag, path in inputs.items() if path}


def _exists(path: Path) -> bool:
    """True too of a link to nothing."""
    return path.exists() or path.is_symlink()


def _recorded_kinds(path: Path) -> set[str]:
    """The kinds of output under which this content is recorded."""
    with suppress(OSError), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {record.name.removesuffix(f"-{digest}") for record in _records_folder().glob(f"*-{digest}")}
    return set()


def _record_path(kind: str, digest: str) -> Path:
    return _records_folder() / f"{kind}-{digest}"


def _records_folder() -> Path:
    return cache_folder() / "outputs"
