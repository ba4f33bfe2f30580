"""Foreign content: text that looks like markup, a formula or a number, and an object whose unpickling runs code."""

from pathlib import Path
from typing import Any

MARKUP_LIKE_TEXTS = (
    "a$b$c",
    r"$\frac{$",
    r"\frac",
    "<script>alert(1)</script>",
    "<b>x</b>",
    "&lt;",
    "[red]x[/]",
    "[x](http://e.example)",
    "001",
    "1e5",
    "inf",
    "_x_",
    "__x__",
    "*x*",
    "|",
    "`x`",
    "# x",
    "- x",
    "1. x",
    "%{y}",
    "{x}",
    "~~x~~",
)


class Bomb:
    """Creates the file `trace` when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)
