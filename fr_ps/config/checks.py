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
_MAX_SHOWN = 200


def check_setting(condition: bool, key: str, value: object, expected: str) -> None:
    if not condition:
        raise InputError(f"{key} is {_format_value(value)}; expected {expected}")


def check_display_name(key: str, name: str, max_length: int = 250, forbidden: str = "") -> None:
    """Refuse a name that stands badly in a table, a log or a folder of MLflow.

    Args:
        key: of the setting.
        name: what it is.
        most: characters, at most.
        without: characters that it may not have, beside line ends and other control characters.
    """
    good = 0 < len(name) <= max_length and name == name.strip() and not any(c in forbidden or not c.isprintable() for c in name)
    kind = f"without {' '.join(forbidden)}, " if forbidden else ""
    check_setting(good, key, name, f"a name of 1 to {max_length} characters on one line, {kind}no space at its ends")


def check_registered_name(key: str, name: str) -> None:
    """Refuse a name of a registered model that `models:/NAME/VERSION` and `models:/NAME@ALIAS` cannot name."""
    check_display_name(key, name, forbidden="/:@?#\\")
    check_setting(not name.startswith("."), key, name, "a name that does not begin with a dot")


def _format_value(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def check_types(config: object, group: str) -> None:
    """Refuse names that are no choice and numbers that are not finite, as settings may also come from Python or JSON."""
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        key = f"{group}{name}"
        if get_origin(kind) is Literal:
            check_setting(value in get_args(kind), key, value, f"one of {', '.join(get_args(kind))}")
        elif kind is float:
            check_setting(_is_finite(value), key, value, "a finite number")
        elif kind is int:
            check_setting(isinstance(value, int) and not isinstance(value, bool), key, value, "a whole number")
        elif kind is bool:
            check_setting(isinstance(value, bool), key, value, "true or false")


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of float
        return False


def check_share_or_count(key: str, value: float) -> None:
    """Refuse what is neither a share below 1 nor a whole number up to `MAX_STEPS`."""
    good = 0 <= value < 1 or (1 <= value <= MAX_STEPS and value == int(value))
    check_setting(good, key, value, f"a share below 1 (0.2) or a whole number up to {MAX_STEPS} (12); 0 for none")


def check_range(config: object, group: str, minimum: float, maximum: float, *names: str) -> None:
    """Refuse settings among `names` that are below `least` or above `most`."""
    for name in names:
        value = getattr(config, name)
        check_setting(minimum <= value <= maximum, f"{group}{name}", value, f"{minimum:.15g} to {maximum:.15g}")
