"""Removes secrets from text: the user information (user and password), query and fragment of every URL."""

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

_MASK = "***"
"""Replaces a URL if the end of its secret is unclear."""
_PASSES = 10
_ELLIPSIS = " [...] "
"""Replaces the middle of a shortened text."""
_START = re.compile(r"://|(?<=with url: )(?=/)")
"""Start of a URL. urllib3 prints URLs without scheme and host, as ``with url: /path?query``."""
_NEXT = re.compile(r"(?<![\w+./-])(?:[a-z][a-z0-9+.-]+://(?=[\w/\[:*])|(?:models|runs):/|with url: /)")
"""Start of another URL, before which a secret of the previous URL ends. Not after ``/``: ``http://ann://x@h`` is one URL."""
_BREAK = re.compile(r"[\s\"'<>`|\\]")
"""A character that ends a URL, unless it is in a password."""
_PUNCTUATION = ")]},.;:"
"""Characters at the end of a URL that belong to the sentence around it."""
_QUERY = re.compile(r"\?(?=[\w.-]+=)")
_PATH_AND_ROUTE = re.compile(r"[^?#]*(?:#/[^?#=&;]*)?")
"""A path with the route of a web page, as MLflow's ``/#/experiments/1``."""
_ONE_HOST = r"(?:\[[0-9A-Fa-f:.]*\]?|[^:\[\],]*)(?::(?:\d{0,5}|port|[A-Z][A-Z_]*))?"
_HOSTS = re.compile(f"{_ONE_HOST}(?:,{_ONE_HOST})*")
"""Hosts in PostgreSQL's form, with ports; a port may be a placeholder (``HOST:PORT``)."""
_NO_USER = re.compile(r"(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9A-Fa-f:.]+\]?)(?::\d{0,5})?")
"""A host that cannot be a user name: its colon precedes a port, not a password."""
_OF_A_FILE = re.compile(r"(?:sqlite|file)[a-z0-9+]{0,20}://$")
_QUERY_OR_FRAGMENT = re.compile("[?#]")
_PASSWORD = re.compile(r":(?!\s)")
"""A colon that may precede a password."""


def redact(text: str) -> str:
    """`text` without user information, query and fragment in every URL (``scheme://...``).

    - User information is everything between ``://`` and the last ``@`` before the host; a user name alone may be a token.
    - Ambiguous URLs: ``http://name:12/x@y`` may have a port and a path, or a password with a slash. If a password may continue
      after ``/``, ``?``, ``#``, a quote or a space, the text up to the last ``@`` before the next URL or the end of the line
      is replaced by ``***``, together with the rest of the word after that ``@``.
    - A URL without a host, as ``sqlite:///a#b.db``, is a path and has no fragment.
    - A fragment that starts with ``#/`` is a route of a web page and is kept.

    Text without URLs is unchanged, redaction is idempotent, and the time is linear in the length of `text`.
    """
    return "\n".join(map(_redact_line, text.split("\n"))) if _START.search(text) else text


def redact_tree(value: Any) -> Any:
    """A JSON value with all its texts redacted; keys stay."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: redact_tree(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [redact_tree(inner) for inner in value]
    return value


def shorten(text: str, max_length: int) -> str:
    """Shorten one line of unredacted text to about `max_length` characters by removing its middle.

    A URL that is cut could expose a part of its secret. So a URL at the end of the first half, and the possible end of a URL
    at the start of the second half, are removed too.
    """
    if len(text) <= max_length:
        return text
    head, tail = text[: max_length // 2], text[-(max_length // 2) :]
    last = max((found.start() for found in _NEXT.finditer(head)), default=0)
    if cut := _START.search(head, last):
        head = head[: cut.end()]
    if _START.search(text, 0, len(text) - len(tail) + 3):
        tail = _after_word(tail, 0)
        following = _NEXT.search(tail)
        at = tail.rfind("@", 0, following.start() if following else len(tail))
        tail = _after_word(tail, at) if at >= 0 else tail
    return head + _ELLIPSIS + tail


class RedactedStream:
    """A text stream that redacts text on its way to `stream`; other attributes are those of `stream`."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write `text` without its secrets; returns the length of `text`."""
        self.stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        """Write `lines` without their secrets."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _redact_line(line: str) -> str:
    """Redact `line` repeatedly until it does not change, as a URL may become ambiguous when its query is removed."""
    for _ in range(_PASSES):
        before, line = line, _redact_once(line)
        if line == before:
            return line
    return _MASK


def _redact_once(line: str) -> str:
    breaks, nexts = ([found.start() for found in pattern.finditer(line)] for pattern in (_BREAK, _NEXT))
    at_signs = [index for index, character in enumerate(line) if character == "@"]
    pieces: list[str] = []
    position = 0
    while found := _START.search(line, position):
        start = found.end()
        following = _first_from(nexts, start, len(line))
        word_end = _first_from(breaks, start, len(line))
        end = min(following, word_end)
        if _QUERY_OR_FRAGMENT.search(line, start, end):
            end = word_end  # another URL at this place is part of the query
        at = at_signs[place - 1] if (place := bisect_left(at_signs, max(following, end))) else -1
        if at >= start and _is_ambiguous(line, start, end, at):
            end = _first_from(breaks, at, len(line))
            shown = _MASK + _punctuation(line[at:end])
        else:
            shown = _strip_secrets(line[start:end])
        pieces += [line[position:start], shown]
        position = end
    return "".join([*pieces, line[position:]])


def _is_ambiguous(line: str, start: int, end: int, at: int) -> bool:
    """Whether the ``@`` at `at`, the last before the next URL, may end a secret of the URL at `start` to `end`."""
    address = line[start:end]
    authority = _authority(address)
    user, sign, _ = authority.rpartition("@")
    if sign:
        path = _QUERY.split(address[len(authority) :], maxsplit=1)[0]
        return "@" in path or (":" in user and at >= end)
    if ":" in authority:
        return not _NO_USER.fullmatch(authority.rstrip(_PUNCTUATION))
    if not authority and _OF_A_FILE.search(line[max(0, start - 30) : start]):
        return False
    path = _QUERY_OR_FRAGMENT.split(address, maxsplit=1)[0]
    region_end = at if path == address else start + path.rfind("@") if "@" in path else start
    return _PASSWORD.search(line, start, region_end) is not None


def _strip_secrets(address: str) -> str:
    """The URL after ``://`` without its secrets, if these are clear."""
    kept = address.rstrip(_PUNCTUATION)
    authority = _authority(kept)
    host = authority.rpartition("@")[2]
    if not _HOSTS.fullmatch(host):
        return _MASK + _punctuation(address)
    rest = kept[len(authority) :]
    found = _PATH_AND_ROUTE.match(rest)
    path = found[0] if authority and found else rest.partition("?")[0]
    return host + path + _punctuation(address)


def _authority(address: str) -> str:
    return re.split(r"[/?#]", address, maxsplit=1)[0]


def _punctuation(address: str) -> str:
    return address[len(address.rstrip(_PUNCTUATION)) :]


def _first_from(positions: Sequence[int], start: int, default: int) -> int:
    """The first of the sorted `positions` at or after `start`."""
    place = bisect_left(positions, start)
    return positions[place] if place < len(positions) else default


def _after_word(text: str, start: int) -> str:
    """`text` from the first character at or after `start` that ends a URL."""
    found = _BREAK.search(text, start)
    return text[found.start() :] if found else ""
