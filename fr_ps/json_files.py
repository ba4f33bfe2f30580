"""Reads JSON files, which users may have edited, and checks them against a type.

The type is a dataclass, or a dict or list of dataclasses, defined beside the function that writes the file. Unknown keys are
ignored, so that files of newer versions with additional keys are still read.
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
"""Largest size of a JSON file or journal line. The largest written file, the state of a checkpoint, has 50 kB."""
NonNegativeInt = Annotated[int, Ge(0)]
"""An integer >= 0."""
PositiveInt = Annotated[int, Ge(1)]
"""An integer >= 1."""
Milliseconds = Annotated[int, Interval(ge=0, lt=253402300800000)]
"""Milliseconds since 1970, up to the year 9999, the last year of `datetime`."""
T = TypeVar("T")

_INT64 = 1 << 63
_INT64_DIGITS = 20
"""Number of characters of -2^63."""
_LONE_SURROGATE = re.compile(r"\\(?:u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w|(u[dD][89a-fA-F]\w\w)|.)", re.DOTALL)


class NewerFormatError(InputError):
    """A valid file of a format that needs a newer version of fr-ps."""


@dataclass(frozen=True)
class _Versioned:
    format: NonNegativeInt


def read_json(
    path: Path, kind: type[T], remedy: str, formats: range | None = None, refine: Callable[[T], Any] | None = None
) -> T:
    """Read the JSON file `path` as a value of type `kind`.

    Args:
        path: of the file.
        kind: expected type; values are not converted, so that "3" is not a number.
        remedy: what the user can do about an invalid file; ends the error message.
        formats: supported numbers in the key `format`; None: not checked.
        refine: returns, for the parsed value, a second type that the file must match too: for files in which one key
            determines the type of another.

    Raises:
        InputError: the file is missing, unreadable, too large, not JSON, or not a `kind`; names the file and the key.
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
    """`read_json` for a text, or for the bytes of a UTF-8 text.

    Args:
        content: the text.
        kind: expected type.
        where: name of the text in error messages.
        remedy: ends the error message.
        formats: as in `read_json`.
        finite: reject NaN and infinities, which Python's JSON writer allows.
        refine: as in `read_json`.

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
    except InputError as error:  # also from checks of the type itself
        raise type(error)(f"{where}: {one_line(error, 1000)}") from None
    except ValidationError as error:
        raise InputError(f"{where}: {_describe_error(error)}; {remedy}") from None
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error}); {remedy}") from None
    except RecursionError:
        raise InputError(f"{where}: nested too deeply; {remedy}") from None


def _check_format(number: int, formats: range) -> None:
    if number > formats[-1]:
        raise NewerFormatError(f"format {number} is newer than this version of fr-ps supports ({formats[-1]}); update fr-ps")
    if number not in formats:
        raise InputError(f"format {number} is older than this version of fr-ps supports ({formats[0]}); create the file again")


def _check_text(content: str | bytes, finite: bool) -> str:
    """Decode `content` and check what a type cannot express.

    Lone surrogates, with which Python's JSON writer stores file names that are not UTF-8, are replaced by U+FFFD.

    Raises:
        ValueError: not UTF-8, not JSON, a repeated key, an integer beyond int64, or, with `finite`, NaN or a number beyond
            float64.
        RecursionError: nested too deeply.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "replace")
    try:
        text = content.decode("utf-8-sig")  # editors on Windows write a byte order mark
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
    _checking_decoder(finite).decode(text)
    if "\\u" in text:
        text = _LONE_SURROGATE.sub(lambda found: "\\ufffd" if found[1] else found[0], text)
    return text


@cache
def _checking_decoder(finite: bool) -> json.JSONDecoder:
    """A decoder that only checks: its hooks raise errors, and its result is discarded."""
    return json.JSONDecoder(
        object_pairs_hook=_reject_duplicates,
        parse_int=_parse_int64,
        parse_float=_parse_finite if finite else None,
        parse_constant=_reject_constant if finite else None,
    )


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"the key {_quote_short(Counter(names).most_common(1)[0][0])} is repeated")


def _parse_int64(digits: str) -> int:
    if len(digits) > _INT64_DIGITS or not -_INT64 <= int(digits) < _INT64:
        raise ValueError(f"the number {digits[:20]}... does not fit 64 bits")
    return int(digits)


def _parse_finite(digits: str) -> float:
    if math.isinf(number := float(digits)):
        raise ValueError(f"the number {digits[:20]} is too large")
    return number


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


@cache
def _adapter(kind: Any) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter  # takes 0.1 s, which fr-ps --help does not need

    return TypeAdapter(kind)


def _describe_error(error: "ValidationError") -> str:
    """Describe the first error: the place, the expected value and the value found."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":  # nested deeper than pydantic supports
        return f"not JSON ({first['msg'].removeprefix('Invalid JSON: ')})"
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{_format_key(part)}" for part in first["loc"]).lstrip(".")
    if first["type"] == "missing":
        return f"{place}: missing"
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
