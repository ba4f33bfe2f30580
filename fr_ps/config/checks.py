"""How settings are refused: by name, with what was expected."""

import math
from typing import Literal, get_args, get_origin, get_type_hints

from fr_ps.errors import InputError


def require(good: bool, key: str, value: object, expected: str) -> None:
    if not good:
        raise InputError(f"{key} is {value!r}; expected {expected}")


def require_types(config: object, group: str) -> None:
    """Refuse names that are no choice and numbers that are not finite, as settings may also come from Python or JSON."""
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        key = f"{group}{name}"
        if get_origin(kind) is Literal:
            require(value in get_args(kind), key, value, f"one of {', '.join(get_args(kind))}")
        elif kind is float:
            require(isinstance(value, (int, float)) and math.isfinite(value), key, value, "a finite number")
        elif kind is int:
            require(isinstance(value, int), key, value, "a whole number")
        elif kind is bool:
            require(isinstance(value, bool), key, value, "true or false")


def require_share(key: str, value: float) -> None:
    good = 0 <= value < 1 or (value >= 1 and value == int(value))
    require(good, key, value, "a share below 1 (0.2) or a whole number (12); 0 for none")


def require_least(config: object, group: str, least: int, *names: str) -> None:
    """Refuse settings among `names` that are below `least`."""
    for name in names:
        value = getattr(config, name)
        require(value >= least, f"{group}{name}", value, f"{least} or more")
