"""Reading JSON that others may have changed: every file is checked against a type before anything uses it.

The type of a file is a dataclass, or a dict or list of them, that stands beside the function that writes the file. Keys that a
dataclass does not have are ignored, so that a file of a newer version, which may add some, is still read.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

from annotated_types import Ge, Interval

from fr_ps.errors import InputError, one_line
from fr_ps.files import read_bytes

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

MAX_BYTES = 4 << 20
"""Of a JSON file or of a line of the journal. The largest that the program writes, the state of a checkpoint, has 50 kB."""
NonNegativeInt = Annotated[int, Ge(0)]
"""A whole number from 0."""
PositiveInt = Annotated[int, Ge(1)]
"""A whole number from 1."""
Milliseconds = Annotated[int, Interval(ge=0, lt=253402300800000)]
"""Since 1970, up to the year 9999, where Python's dates end."""
T = TypeVar("T")

_INT64 = 1 << 63
_INT64_DIGITS = 20
"""Digits of -2^63 with its sign."""
_LONE_SURROGATE = re.compile(r"\\(?:u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w|(u[dD][89a-fA-F]\w\w)|.)", re.DOTALL)


class NewerFormatError(InputError):
    """A file of a format that only a newer version of this program reads. It is not damaged."""


@dataclass(frozen=True)
class _Versioned:
    format: NonNegativeInt


def read_json(
    path: Path, kind: type[T], remedy: str, formats: range | None = None, refine: Callable[[T], Any] | None = None
) -> T:
    """The JSON file `path` as a `kind`.

    Args:
        path: of the file.
        kind: a type; values are not converted, so that "3" is no number.
        remedy: what the user can do about a file that is refused; ends the message.
        formats: numbers that `kind` describes, where the file has one in `format`.
        also: from the value, a further type that the file must have, as where one key decides the type of another.

    Raises:
        InputError: the file is missing, unreadable, too large, no JSON, or no `kind`; names the file and the key.
    """
    return parse_json(read_bytes(path, MAX_BYTES, remedy), kind, str(path), remedy, formats, refine=refine)


def parse_json(
    content: str | bytes,
    kind: type[T],
    where: str,
    remedy: str,
    formats: range | None = None,
    finite: bool = True,
    refine: Callable[[T], Any] | None = None,
) -> T:
    """`read_json` of a text, or of the bytes of a UTF-8 text.

    Args:
        content: the text.
        kind: a type; values are not converted.
        where: what messages name in place of the path.
        remedy: ends the message.
        formats: as of `read_json`.
        finite: whether NaN and infinities, which Python's writer of JSON writes, are refused.
        also: as of `read_json`.

    Raises:
        InputError: as `read_json`.
    """
    from pydantic import ValidationError

    try:
        text = _check_text(content, finite)
        if formats:
            _check_format(_adapter(_Versioned).validate_json(text, strict=True).format, formats)
        value: T = _adapter(kind).validate_json(text, strict=True)  # type: ignore[arg-type]
        if refine:
            _adapter(refine(value)).validate_json(text, strict=True)
        return value
    except InputError as error:  # of the type's own checks, too
        raise type(error)(f"{where}: {one_line(error, 1000)}") from None
    except ValidationError as error:
        raise InputError(f"{where}: {_describe_error(error)}; {remedy}") from None
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error}); {remedy}") from None
    except RecursionError:
        raise InputError(f"{where}: is nested too deeply; {remedy}") from None


def _check_format(number: int, formats: range) -> None:
    if number > formats[-1]:
        raise NewerFormatError(f"format {number} is newer than this version of fr-ps reads ({formats[-1]}); update fr-ps")
    if number not in formats:
        raise InputError(f"format {number} is older than this version of fr-ps reads ({formats[0]}); make it again")


def _check_text(content: str | bytes, finite: bool) -> str:
    """The text of `content`, after everything that a type does not describe was checked.

    Python's writer of JSON stores bytes of a file name that are no UTF-8 as lone surrogates, which are no text anywhere else.
    They become U+FFFD.

    Raises:
        ValueError: no UTF-8, no JSON, a key that stands twice, a whole number that int64 cannot hold, or, if it is to be
            `finite`, NaN or a number that float64 cannot hold.
        RecursionError: nested too deeply.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "replace")
    try:
        text = content.decode("utf-8-sig")  # editors on Windows write a byte order mark
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is no UTF-8") from None
    _checking_decoder(finite).decode(text)
    if "\\u" in text:
        text = _LONE_SURROGATE.sub(lambda found: "\\ufffd" if found[1] else found[0], text)
    return text


@cache
def _checking_decoder(finite: bool) -> json.JSONDecoder:
    """Its result is of no use: objects are empty."""
    return json.JSONDecoder(
        object_pairs_hook=_reject_duplicates,
        parse_int=_parse_int64,
        parse_float=_parse_finite if finite else None,
        parse_constant=_reject_constant if finite else None,
    )


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"the key {_quote_short(Counter(names).most_common(1)[0][0])} stands twice")


def _parse_int64(digits: str) -> int:
    if len(digits) > _INT64_DIGITS or not -_INT64 <= int(digits) < _INT64:
        raise ValueError(f"the number {digits[:20]}... does not fit 64 bits")
    return int(digits)


def _parse_finite(digits: str) -> float:
    if math.isinf(number := float(digits)):
        raise ValueError(f"the number {digits[:20]} is too large")
    return number


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


@cache
def _adapter(kind: Any) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter  # a tenth of a second, which fr-ps --help does not need

    return TypeAdapter(kind)


def _describe_error(error: "ValidationError") -> str:
    """The first fault: where it is, what was expected there, and what was found."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":  # deeper than pydantic reads
        return f"not JSON ({first['msg'].removeprefix('Invalid JSON: ')})"
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{_format_key(part)}" for part in first["loc"]).lstrip(".")
    if first["type"] == "missing":
        return f"{place}: is missing"
    expected = first["msg"].replace("Input should be", "expected")
    return f"{place}: {expected}, found {_describe_value(first['input'])}".removeprefix(": ")


def _format_key(key: str) -> str:
    return key if key.isprintable() and len(key) <= 40 else _quote_short(key)


def _describe_value(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return _quote_short(value) if isinstance(value, str) else json.dumps(value)


def _quote_short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
