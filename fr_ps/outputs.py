"""Protects inputs and foreign files from being overwritten by the output of a command.

`write_output` records the digest of each written file in the cache. A file without such a record was written by another
program or edited since: it is replaced only with `--overwrite true`.
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
"""Patterns of files that operating systems create in viewed folders."""
Inputs = Mapping[str, str | Path | None]
"""Flag or setting to its file or folder."""


def check_output_file(out: Path, kind: str, inputs: Inputs, overwrite: bool = False) -> None:
    """Check that writing the file `out` destroys nothing.

    Args:
        out: file for `write_output`.
        kind: kind of output, as for `write_output`.
        inputs: of the command; they are never replaced.
        overwrite: allow replacing a file that fr-ps did not write.

    Raises:
        InputError: `out` is an input, or a file that may not be replaced.
    """
    check_not_input(out, inputs)
    with translate_write_errors(out):  # a name that is too long
        if not _exists(out) or (out.is_file() and not out.stat().st_size):
            return
    if not out.is_file():
        raise InputError(f"{out}: not a file; choose another output")
    made_by = _recorded_kinds(out)
    if kind in made_by:
        return
    for flag, source in _input_paths(inputs).items():
        if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
            raise InputError(f"{out}: would replace a file of the input {flag} {source}; choose another output")
    if not overwrite:
        owner = "another command of fr-ps wrote it" if made_by else "fr-ps did not write it (or it was changed since)"
        raise InputError(f"{out}: already exists, and {owner}; choose another output, or replace it with --overwrite true")


def check_not_input(out: Path, inputs: Inputs) -> None:
    """Check that the output is none of the inputs, also through links.

    Raises:
        InputError: names the input.
    """
    for flag, source in _input_paths(inputs).items():
        if _is_same_file(out, source):
            raise InputError(f"{out}: would replace the input {flag} {source}; choose another output")


def check_outside(out: Path, inputs: Inputs) -> None:
    """Check that an output folder is neither an input folder nor inside one, also through links.

    Raises:
        InputError: names the input.
    """
    for flag, source in _input_paths(inputs).items():
        if out.resolve().is_relative_to(source.resolve()):
            raise InputError(f"{out}: inside the input {flag} {source}; choose an output folder outside of it")


def is_output(path: Path, kind: str) -> bool:
    """Whether `write_output` wrote the content of the file `path` as this `kind`, here or elsewhere."""
    return kind in _recorded_kinds(path)


def write_output(out: Path, kind: str, content: bytes) -> None:
    """Write `content` to `out` atomically, and record its digest.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    with suppress(OSError):  # without a record, the next run needs --overwrite true
        record = _record_path(kind, hashlib.sha256(content).hexdigest())
        record.parent.mkdir(parents=True, exist_ok=True)
        record.touch()
    write_atomic(out, lambda file: file.write(content))


def check_output_folder(
    out: Path, inputs: Inputs, is_previous_output: Callable[[Path], bool], names: Sequence[str], overwrite: bool = False
) -> None:
    """Check that writing into the folder `out` destroys nothing.

    Args:
        out: output folder; need not exist.
        inputs: of the command; they are never replaced.
        is_previous_output: whether an existing folder is an earlier output of the same command.
        names: patterns of the files and folders that the command writes.
        overwrite: allow replacing files of these names that fr-ps did not write.

    Raises:
        InputError: `out` is or contains an input, is not a folder, or contains foreign files of these names.
    """
    check_contains_no_input(out, inputs, names)
    if not _exists(out):
        return
    if not out.is_dir():
        raise InputError(f"{out}: not a folder; choose another output folder")
    taken = sorted(path.name for path in out.iterdir() if any(fnmatch(path.name, name) for name in names))
    if taken and not overwrite and not is_previous_output(out):
        raise InputError(
            f"{out / taken[0]}: already exists, and fr-ps did not write it; choose another output folder, "
            "or replace its files with --overwrite true"
        )


def check_contains_no_input(out: Path, inputs: Inputs, names: Sequence[str] = ("*",)) -> None:
    """Check that an output folder contains no input folder, and no input file with one of the `names`.

    Raises:
        InputError: names the input.
    """
    for flag, source in _input_paths(inputs).items():
        if source.resolve().is_relative_to(out.resolve()):
            inside = source.resolve().relative_to(out.resolve()).parts
            if source.is_dir() or any(fnmatch(inside[0], name) for name in names):
                raise InputError(
                    f"{out}: {'contains' if inside else 'is'} the input {flag} {source}; choose another output folder"
                )


def check_replaceable(folder: Path, marker: str, names: Sequence[str] | None) -> None:
    """Check that a folder holds only files of fr-ps and of the operating system, before it is replaced as a whole.

    Args:
        folder: folder to replace; need not exist.
        marker: name of a file that only fr-ps writes.
        names: the other files that fr-ps writes into it; None: not checked.

    Raises:
        InputError: it has no `marker`, or holds another file.
    """
    if not _exists(folder):
        return
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else {""}
    found = {name for name in found if not any(fnmatch(name, pattern) for pattern in _SYSTEM_FILES)}
    if found and marker not in found:
        raise InputError(f"{folder}: already exists, and fr-ps did not write it (no {marker}); move it away")
    if foreign := sorted(found - {marker, *names} if names is not None else ()):
        raise InputError(f"{folder / foreign[0]}: not written by fr-ps, and would be removed; move it away")


def _is_same_file(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return first.resolve() == second.resolve()


def _input_paths(inputs: Inputs) -> dict[str, Path]:
    return {flag: Path(path) for flag, path in inputs.items() if path}


def _exists(path: Path) -> bool:
    """Whether `path` exists, or is a broken link."""
    return path.exists() or path.is_symlink()


def _recorded_kinds(path: Path) -> set[str]:
    """The kinds of output with a record of the content of `path`."""
    with suppress(OSError), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {record.name.removesuffix(f"-{digest}") for record in _records_folder().glob(f"*-{digest}")}
    return set()


def _record_path(kind: str, digest: str) -> Path:
    return _records_folder() / f"{kind}-{digest}"


def _records_folder() -> Path:
    return cache_folder() / "outputs"
