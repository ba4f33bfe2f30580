"""How settings are refused: by name, with what was expected."""

import math
from typing import Literal, get_args, get_origin, get_type_hints

from fr_ps.errors import InputError

MAX_SEED = 2**32 - 1
"""What every random generator in use takes."""
MAX_STEPS = 1_000_000
"""Of anything that is counted: epochs, trials, sessions."""
MAX_BATCH = 65_536
"""Sessions of a batch."""
MAX_PROCESSES = 1024
"""Threads, or worker processes."""
MAX_WEIGHT = 1e6
"""Of a loss, and of other factors."""
_SHOWN = 200


def require(good: bool, key: str, value: object, expected: str) -> None:
    if not good:
        raise InputError(f"{key} is {_shown(value)}; expected {expected}")


def require_name(key: str, name: str, most: int = 250, without: str = "") -> None:
    """Refuse a name that stands badly in a table, a log or a folder of MLflow.

    Args:
        key: of the setting.
        name: what it is.
        most: characters, at most.
        without: characters that it may not have, beside line ends and other control characters.
    """
    good = 0 < len(name) <= most and name == name.strip() and not any(c in without or not c.isprintable() for c in name)
    kind = f"without {' '.join(without)}, " if without else ""
    require(good, key, name, f"a name of 1 to {most} characters on one line, {kind}no space at its ends")


def require_registered_name(key: str, name: str) -> None:
    """Refuse a name of a registered model that `models:/NAME/VERSION` and `models:/NAME@ALIAS` cannot name."""
    require_name(key, name, without="/:@?#\\")
    require(not name.startswith("."), key, name, "a name that does not begin with a dot")


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def require_types(config: object, group: str) -> None:
    """Refuse names that are no choice and numbers that are not finite, as settings may also come from Python or JSON."""
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        key = f"{group}{name}"
        if get_origin(kind) is Literal:
            require(value in get_args(kind), key, value, f"one of {', '.join(get_args(kind))}")
        elif kind is float:
            require(_is_finite(value), key, value, "a finite number")
        elif kind is int:
            require(isinstance(value, int) and not isinstance(value, bool), key, value, "a whole number")
        elif kind is bool:
            require(isinstance(value, bool), key, value, "true or false")


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of float
        return False


def require_share(key: str, value: float) -> None:
    """Refuse what is neither a share below 1 nor a whole number up to `MAX_STEPS`."""
    good = 0 <= value < 1 or (1 <= value <= MAX_STEPS and value == int(value))
    require(good, key, value, f"a share below 1 (0.2) or a whole number up to {MAX_STEPS} (12); 0 for none")


def require_range(config: object, group: str, least: float, most: float, *names: str) -> None:
    """Refuse settings among `names` that are below `least` or above `most`."""
    for name in names:
        value = getattr(config, name)
        require(least <= value <= most, f"{group}{name}", value, f"{least:.15g} to {most:.15g}")
