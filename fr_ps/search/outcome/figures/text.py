"""Names and numbers as they stand in a figure, short enough not to run into each other."""

from collections.abc import Mapping, Sequence
from itertools import takewhile

_LONGEST = 18
"""Characters of a choice on an axis. Longer ones run into the neighbouring axis."""


def cut(text: str, most: int) -> str:
    """At most so many characters, with the end kept: the last part of a dotted name says what it is."""
    return text if len(text) <= most else f"…{text[1 - most :]}"


def two_lines(name: str) -> list[str]:
    """A dotted name on two lines of at most 20 characters, the last part on the second; a name without a dot on one."""
    first, dot, last = name.rpartition(".")
    return [cut(part, 20) for part in (first + dot, last) if part]


def share_text(share: float) -> str:
    """A share of importance, as it stands beside its bar."""
    return f"{share:.2f}" if share >= 0.01 else "<0.01"


def choice_names(choices: Mapping[str, object]) -> tuple[str, ...]:
    """The text of each choice; in quotes only where another one's would be the same ("1" and 1).

    Args:
        choices: by their repr.
    """
    plain = [choice if isinstance(choice, str) else key for key, choice in choices.items()]
    return tuple(text if plain.count(text) == 1 else key for text, key in zip(plain, choices))


def shortened(choices: Sequence[str]) -> tuple[str, ...]:
    """The choices, long ones cut to where they begin to differ, which in JSON is seldom the first character.

    No two of them are the same.
    """
    long = [choice for choice in choices if len(choice) > _LONGEST]
    shared = len(list(takewhile(lambda letters: len(set(letters)) == 1, zip(*long)))) if len(long) > 1 else 0
    begin = max(0, shared - _LONGEST // 2)
    end = begin + _LONGEST - 2
    pieces = [
        choice if len(choice) <= _LONGEST else f"{'…' * (begin > 0)}{choice[begin:end]}{'…' * (end < len(choice))}"
        for choice in choices
    ]
    return tuple(f"{piece} #{index}" if pieces.count(piece) > 1 else piece for index, piece in enumerate(pieces, start=1))
