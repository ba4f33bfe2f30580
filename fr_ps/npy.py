"""Reading .npy files of others: the header is matched against its documented form, and never evaluated."""

import math
import re
import struct
from io import BufferedIOBase

import numpy as np

_MAGIC = b"\x93NUMPY"
_LENGTH = {1: "<H", 2: "<I", 3: "<I"}
"""Of the header, by the version of the format."""
_MAX_HEADER = 10_000
_MAX_AXES = 8
_MAX_BYTES = 2**62
_KEY = re.compile(r"""\s*(['"])(descr|fortran_order|shape)\1\s*:\s*""")
_VALUE = re.compile(r"""(?:'(?P<text>[^'"]*)'|"(?P<other>[^'"]*)"|(?P<order>True|False)|\((?P<shape>[\dL,\s]*)\))\s*""")
_TYPE = re.compile(r"[<>|=]?[biufcSUO]\d{0,4}", re.ASCII)


class NpyError(ValueError):
    """The content is no .npy file of a plain array; the message says why."""


def read_npy(file: BufferedIOBase, size: int) -> np.ndarray:
    """The array in a .npy file (numpy's format, versions 1 to 3). Nothing is allocated before its size is known to fit.

    Args:
        file: open at its beginning.
        size: of the file in bytes.

    Raises:
        NpyError: no .npy file; a header that is too long, or not of the documented form; Python objects, records, or items
            without size; another number of bytes than the header states.
    """
    if file.read(6) != _MAGIC:
        raise NpyError("it does not begin as a .npy file")
    version = file.read(2)
    form = _LENGTH.get(version[0]) if len(version) == 2 else None
    if form is None:
        raise NpyError("the version of its format is unknown")
    packed = file.read(struct.calcsize(form))
    if len(packed) < struct.calcsize(form):
        raise NpyError("it ends in its header")
    (length,) = struct.unpack(form, packed)
    if length > _MAX_HEADER:
        raise NpyError(f"its header has {length} bytes; at most {_MAX_HEADER} are read")
    dtype, fortran, shape = _parse_header(file.read(length).decode("latin-1"))
    if math.prod(axis or 1 for axis in shape) * dtype.itemsize > _MAX_BYTES:
        raise NpyError(f"its shape {shape} is too large")
    needed = math.prod(shape) * dtype.itemsize
    stored = size - 6 - 2 - len(packed) - length
    if stored != needed:
        raise NpyError(f"its header states {needed} bytes of data, and {stored} follow")
    data = bytearray(needed)
    if file.readinto(data) != needed:
        raise NpyError("it became shorter while it was read")
    return np.ndarray(shape, dtype, data, order="F" if fortran else "C")


def _parse_header(header: str) -> tuple[np.dtype, bool, tuple[int, ...]]:
    """Item type, whether the first axis varies fastest, and shape of a header."""
    found = _parse_dict(header.strip())
    descr, order, shape = (found.get(key) for key in ("descr", "fortran_order", "shape"))
    if not isinstance(descr, str) or not isinstance(order, bool) or not isinstance(shape, tuple):
        raise NpyError("its header must have descr, fortran_order and shape")
    if not _TYPE.fullmatch(descr):
        raise NpyError(f"its items are {descr[:20]!r}; numbers are read")
    try:
        dtype = np.dtype(descr)
    except TypeError:
        raise NpyError(f"its items are {descr[:20]!r}; numbers are read") from None
    if dtype.hasobject:
        raise NpyError("it holds Python objects, which are never loaded; store a float32 array")
    if not dtype.itemsize:
        raise NpyError("its items have no size")
    return dtype, order, shape


def _parse_dict(text: str) -> dict[str, str | bool | tuple[int, ...]]:
    """Key to value of `{'key': value, ...}` with texts, truth values, and shapes; of another text, what came before it."""
    found: dict[str, str | bool | tuple[int, ...]] = {}
    if not text.startswith("{"):
        raise NpyError("its header is no dictionary")
    place = 1
    while text[place:].strip() != "}":
        key = _KEY.match(text, place)
        value = _VALUE.match(text, key.end()) if key else None
        if key is None or value is None or key[2] in found:
            raise NpyError(f"its header cannot be read from {text[place : place + 30].strip()!r} on")
        found[key[2]] = _parse_value(value)
        place = value.end()
        if text[place : place + 1] == ",":
            place += 1
        elif text[place : place + 1] != "}":
            raise NpyError(f"its header cannot be read from {text[place : place + 30].strip()!r} on")
    return found


def _parse_value(match: re.Match[str]) -> str | bool | tuple[int, ...]:
    if match["order"]:
        return match["order"] == "True"
    if match["shape"] is None:
        return match["text"] if match["text"] is not None else match["other"]
    axes = [axis.strip() for axis in match["shape"].split(",")]
    axes = axes[:-1] if not axes[-1] else axes
    if len(axes) > _MAX_AXES:
        raise NpyError(f"it has {len(axes)} axes; at most {_MAX_AXES} are read")
    if not all(re.fullmatch(r"\d{1,18}L?", axis, re.ASCII) for axis in axes):
        raise NpyError(f"its shape is ({match['shape'].strip()[:30]}); expected whole numbers")
    return tuple(int(axis.rstrip("L")) for axis in axes)
