"""Arrays in .npy files. The header is parsed with regular expressions and never evaluated, as a file may be untrusted."""

import io
import math
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BytesIO
from pathlib import Path

import numpy as np

from fr_ps.errors import InputError, one_line
from fr_ps.files import open_regular, sync_file

_MAGIC = b"\x93NUMPY"
_LENGTH_FORMATS = {1: "<H", 2: "<I", 3: "<I"}
"""Format version to the `struct` format of the header length."""
_MAX_HEADER = 10_000
_MAX_AXES = 8
_MAX_BYTES = 2**62
_KEY = re.compile(r"""\s*(['"])(descr|fortran_order|shape)\1\s*:\s*""")
_VALUE = re.compile(r"""(?:'(?P<text>[^'"]*)'|"(?P<other>[^'"]*)"|(?P<order>True|False)|\((?P<shape>[\dL,\s]*)\))\s*""")
_TYPE = re.compile(r"[<>|=]?[biufcSUO]\d{0,4}", re.ASCII)


class NpyError(ValueError):
    """The content is not a .npy file of a plain array; the message gives the reason."""


def read_array(path: Path) -> np.ndarray:
    """Read the array in the .npy file `path`; arrays of Python objects, which run code on loading, are rejected.

    Raises:
        InputError: the file is missing, not regular, truncated, not .npy, or holds Python objects.
    """
    with _open_npy(path) as file:
        return read_npy(file, os.fstat(file.fileno()).st_size)


def map_array(path: Path) -> np.ndarray:
    """`read_array`, but read-only and mapped from the file: only the parts that are used are read, and no memory is allocated."""
    with _open_npy(path) as file:
        dtype, fortran, shape = _read_header(file, os.fstat(file.fileno()).st_size)
        if not math.prod(shape):  # an empty array cannot be mapped
            return np.zeros(shape, dtype)
        return np.memmap(file, dtype, "r", file.tell(), shape, "F" if fortran else "C").view(np.ndarray)


@contextmanager
def _open_npy(path: Path) -> Iterator[io.BufferedReader]:
    """Open the .npy file `path`; errors of the block are converted to an `InputError` that names it."""
    try:
        with open_regular(path) as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run prepare again to write it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions or copy it again") from None
    except (NpyError, MemoryError) as error:
        raise InputError(f"{path}: not a readable .npy file ({one_line(error)}); prepare or copy it again") from None


def write_array(path: Path, array: np.ndarray) -> None:
    """Write `array` as .npy and sync it. Not atomic: for files inside `atomic_folder`."""
    with path.open("wb") as file:
        file.write(array_bytes(array))
        sync_file(file)


def array_bytes(array: np.ndarray) -> bytes:
    """`array` as the content of a .npy file. It is built in memory, as `numpy.save` to a file does not report a full disk."""
    stored = BytesIO()
    np.save(stored, array, allow_pickle=False)
    return stored.getvalue()


def array_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """The start of a .npy file, to be followed by the bytes of an array in C order."""
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    return header.getvalue()


def read_npy(file: BufferedIOBase, size: int) -> np.ndarray:
    """Read a .npy file (numpy's format, versions 1 to 3). Memory is allocated only after the size is checked.

    Args:
        file: open at its start.
        size: file size in bytes.

    Raises:
        NpyError: not a .npy file; an invalid or too long header; a data type other than numbers or strings; more or fewer bytes
            of data than the header states.
    """
    dtype, fortran, shape = _read_header(file, size)
    data = bytearray(math.prod(shape) * dtype.itemsize)
    if file.readinto(data) != len(data):
        raise NpyError("truncated while it was read")
    return np.ndarray(shape, dtype, data, order="F" if fortran else "C")


def _read_header(file: BufferedIOBase, size: int) -> tuple[np.dtype, bool, tuple[int, ...]]:
    """Data type, Fortran order and shape of the file, whose position is then that of the data; raises as `read_npy`."""
    if file.read(6) != _MAGIC:
        raise NpyError("no .npy signature")
    version = file.read(2)
    length_format = _LENGTH_FORMATS.get(version[0]) if len(version) == 2 else None
    if length_format is None:
        raise NpyError("unknown format version")
    packed = file.read(struct.calcsize(length_format))
    if len(packed) < struct.calcsize(length_format):
        raise NpyError("truncated header")
    (length,) = struct.unpack(length_format, packed)
    if length > _MAX_HEADER:
        raise NpyError(f"header of {length} bytes; expected at most {_MAX_HEADER}")
    dtype, fortran, shape = _parse_header(file.read(length).decode("latin-1"))
    if math.prod(axis or 1 for axis in shape) * dtype.itemsize > _MAX_BYTES:
        raise NpyError(f"shape {shape} is too large")
    needed = math.prod(shape) * dtype.itemsize
    stored = size - 6 - 2 - len(packed) - length
    if stored != needed:
        raise NpyError(f"{stored} bytes of data; the header states {needed}")
    return dtype, fortran, shape


def _parse_header(header: str) -> tuple[np.dtype, bool, tuple[int, ...]]:
    """Data type, Fortran order and shape from a header."""
    found = _parse_dict(header.strip())
    descr, order, shape = (found.get(key) for key in ("descr", "fortran_order", "shape"))
    if not isinstance(descr, str) or not isinstance(order, bool) or not isinstance(shape, tuple):
        raise NpyError("expected a header with descr, fortran_order and shape")
    if not _TYPE.fullmatch(descr):
        raise NpyError(f"items of type {descr[:20]!r}; expected numbers")
    try:
        dtype = np.dtype(descr)
    except TypeError:
        raise NpyError(f"items of type {descr[:20]!r}; expected numbers") from None
    if dtype.hasobject:
        raise NpyError("it holds Python objects; store a float32 array")
    if not dtype.itemsize:
        raise NpyError("items without size")
    return dtype, order, shape


def _parse_dict(text: str) -> dict[str, str | bool | tuple[int, ...]]:
    """Parse `{'key': value, ...}`, whose values are texts, booleans and shapes."""
    found: dict[str, str | bool | tuple[int, ...]] = {}
    if not text.startswith("{"):
        raise NpyError("the header is not a dictionary")
    place = 1
    while text[place:].strip() != "}":
        key = _KEY.match(text, place)
        value = _VALUE.match(text, key.end()) if key else None
        if key is None or value is None or key[2] in found:
            raise NpyError(f"invalid header at {text[place : place + 30].strip()!r}")
        found[key[2]] = _parse_value(value)
        place = value.end()
        if text[place : place + 1] == ",":
            place += 1
        elif text[place : place + 1] != "}":
            raise NpyError(f"invalid header at {text[place : place + 30].strip()!r}")
    return found


def _parse_value(match: re.Match[str]) -> str | bool | tuple[int, ...]:
    if match["order"]:
        return match["order"] == "True"
    if match["shape"] is None:
        return match["text"] if match["text"] is not None else match["other"]
    axes = [axis.strip() for axis in match["shape"].split(",")]
    axes = axes[:-1] if not axes[-1] else axes
    if len(axes) > _MAX_AXES:
        raise NpyError(f"{len(axes)} axes; expected at most {_MAX_AXES}")
    if not all(re.fullmatch(r"\d{1,18}L?", axis, re.ASCII) for axis in axes):
        raise NpyError(f"shape ({match['shape'].strip()[:30]}); expected integers")
    return tuple(int(axis.rstrip("L")) for axis in axes)
