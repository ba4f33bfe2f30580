"""Removal of secrets from text: the user information and the whole query of every address in it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

_MASK = "***"
"""Stands for an address of which it is unclear where the secret ends."""
_START = re.compile(r"://|(?<=with url: )(?=/)")
"""What comes before an address. urllib3 names an address without its scheme and host, as ``with url: /path?query``."""
_ADDRESS = re.compile(r"[^\s\"'<>`|\\]*")
_PUNCTUATION = ")]},.;:"
"""Characters at the end of an address that belong to the sentence around it."""
_QUERY = re.compile(r"\?(?=[\w.-]+=)")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]*\]?|[^:\[\]]*)(:\d{0,5})?")


def redact(text: str) -> str:
    """`text` without user information, query and fragment in every address (``scheme://...``).

    Everything between ``://`` and the last ``@`` before the host is user information, as a user's name may be a token.
    Where it is unclear whether a password contains ``/``, ``?``, ``#``, a quote or a space, the whole address becomes
    ``***``. An address without a host, as ``sqlite:///a#b.db``, is a path, which has no fragment. Text without an address
    does not change; neither does text that is redacted already.
    """
    pieces: list[str] = []
    position = 0
    while found := _START.search(text, position):
        pieces.append(text[position : found.end()])
        end = _end_of_address(text, found.end())
        pieces.append(_redact_address(text[found.end() : end]))
        position = end
    return "".join([*pieces, text[position:]]) if pieces else text


def redact_tree(value: Any) -> Any:
    """`value`, of mappings, sequences and scalars as JSON has them, with every text in it redacted; keys stay."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: redact_tree(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [redact_tree(inner) for inner in value]
    return value


class RedactedStream:
    """A text stream that redacts what is written to `stream`; all else is that stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text` without its secrets; returns how many characters it has."""
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        """Write `lines` without their secrets."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _end_of_address(text: str, start: int) -> int:
    """Where the address that begins at `start` ends; past the password, if that contains a quote or a space."""
    found = _ADDRESS.match(text, start)
    end = found.end() if found else start
    address = text[start:end].rstrip(_PUNCTUATION)
    if "@" in address or _is_host(_authority(address)):
        return end
    line_end = text.find("\n", end)
    at = text.rfind("@", end, line_end if line_end >= 0 else len(text))
    after = _ADDRESS.match(text, at) if at >= 0 else None
    return after.end() if after else end


def _redact_address(address: str) -> str:
    """What stands after ``://``, without secrets."""
    kept = address.rstrip(_PUNCTUATION)
    punctuation = address[len(kept) :]
    authority = _authority(kept)
    rest = kept[len(authority) :]
    _, at, host = authority.rpartition("@")
    if not _is_host(host) or (at and "@" in _QUERY.split(rest, maxsplit=1)[0]):
        return _MASK + punctuation
    path = re.split(r"[?#]" if authority else r"\?", rest, maxsplit=1)[0]
    return host + redact(path) + punctuation


def _authority(address: str) -> str:
    return re.split(r"[/?#]", address, maxsplit=1)[0]


def _is_host(text: str) -> bool:
    return _HOST.fullmatch(text) is not None
