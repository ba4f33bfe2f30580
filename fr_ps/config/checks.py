"""Checks of settings. An error names the setting, its value and the expected values."""

import math
from typing import Literal, get_args, get_origin, get_type_hints

from fr_ps.errors import InputError

MAX_SEED = 2**32 - 1
"""Largest seed of all random generators in use."""
MAX_STEPS = 1_000_000
"""Largest number of epochs, steps, trials or sessions."""
MAX_BATCH = 65_536
"""Largest batch, in sessions."""
MAX_PROCESSES = 1024
"""Largest number of threads or processes."""
MAX_WEIGHT = 1e6
"""Largest loss weight or other factor."""
_MAX_SHOWN = 200


def check_setting(condition: bool, key: str, value: object, expected: str) -> None:
    """Raise an InputError that names the setting `key`, its value and the expected values, unless `condition` holds."""
    if not condition:
        raise InputError(f"{key} is {_format_value(value)}; expected {expected}")


def check_display_name(key: str, name: str, max_length: int = 250, forbidden: str = "") -> None:
    """Check a name that is shown in tables and logs, and used in folders of MLflow.

    Args:
        key: name of the setting, for the message.
        name: value of the setting.
        max_length: largest number of characters.
        forbidden: characters that are not allowed, beside control characters.
    """
    valid = 0 < len(name) <= max_length and name == name.strip() and not any(c in forbidden or not c.isprintable() for c in name)
    without = f"without {' '.join(forbidden)}, " if forbidden else ""
    check_setting(valid, key, name, f"a name of 1 to {max_length} characters on one line, {without}no spaces at its ends")


def check_registered_name(key: str, name: str) -> None:
    """Check the name of a registered model, which `models:/NAME/VERSION` and `models:/NAME@ALIAS` must be able to name."""
    check_display_name(key, name, forbidden="/:@?#\\")
    check_setting(not name.startswith("."), key, name, "a name that does not start with a dot")


def _format_value(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python formats no integer of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def check_types(config: object, group: str) -> None:
    """Check the types of the settings of `config`: choices, finite numbers, integers, booleans.

    jsonargparse has already checked the types in a command line or a config file, but not that numbers are finite. Settings from
    JSON, such as those of a search worker, and from Python are checked only here. `group` is the prefix of the names in messages,
    with its dot: `optim.`.
    """
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        key = f"{group}{name}"
        if get_origin(hint) is Literal:
            check_setting(value in get_args(hint), key, value, f"one of {', '.join(get_args(hint))}")
        elif hint is float:
            check_setting(is_finite_number(value), key, value, "a finite number")
        elif hint is int:
            check_setting(isinstance(value, int) and not isinstance(value, bool), key, value, "a whole number")
        elif hint is bool:
            check_setting(isinstance(value, bool), key, value, "true or false")


def is_finite_number(value: object) -> bool:
    """Whether `value` is a number that a float can hold. A boolean does not count as a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the range of float
        return False


def check_share_or_count(key: str, value: float) -> None:
    """Check for a share below 1 or a whole number up to `MAX_STEPS`."""
    valid = 0 <= value < 1 or (1 <= value <= MAX_STEPS and value == int(value))
    check_setting(valid, key, value, f"a share below 1 (0.2) or a whole number up to {MAX_STEPS} (12); 0 for none")


def check_range(config: object, group: str, minimum: float, maximum: float, *names: str) -> None:
    """Check that the settings `names` lie between `minimum` and `maximum`; `group` is their prefix, as in `check_types`."""
    for name in names:
        value = getattr(config, name)
        check_setting(minimum <= value <= maximum, f"{group}{name}", value, f"{minimum:.15g} to {maximum:.15g}")
