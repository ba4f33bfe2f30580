"""Foreign text in Markdown: model cards, and the notes that MLflow shows of a run."""

import re
from collections.abc import Iterable

_SPECIAL = re.compile(
    r"[\\`*<>|~$]"  # code, emphasis, tags, tables, strikethrough, formulas
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis; inside a word an underscore is none
    r"|\](?=[(\[:])"  # links
    r"|&(?=#|\w)"  # entities
    r"|^[#=+-]"  # headings, lists, rules
)
_NUMBERED = re.compile(r"^(\d{1,9})([.)])")


def escape_markdown(text: str) -> str:
    """One line of text, such that Markdown shows it as it is."""
    return _NUMBERED.sub(r"\1\\\2", _SPECIAL.sub(r"\\\g<0>", text))


def markdown_lines(lines: Iterable[str]) -> str:
    """Lines of text as Markdown that shows each on a line of its own."""
    return "  \n".join(map(escape_markdown, lines))
