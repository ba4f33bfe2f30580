"""Escapes text for Markdown: model cards, and the notes of MLflow runs."""

import re
from collections.abc import Iterable

_SPECIAL = re.compile(
    r"[\\`*<>|~$]"  # code, emphasis, tags, tables, strikethrough, formulas
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis; not inside a word
    r"|\](?=[(\[:])"  # links
    r"|&(?=#|\w)"  # entities
    r"|^[#=+-]"  # headings, lists, rules
)
_NUMBERED = re.compile(r"^(\d{1,9})([.)])")


def escape_markdown(text: str) -> str:
    """One line of text, escaped so that Markdown shows it unchanged."""
    return _NUMBERED.sub(r"\1\\\2", _SPECIAL.sub(r"\\\g<0>", text))


def markdown_lines(lines: Iterable[str]) -> str:
    """Lines of text as Markdown with line breaks between them."""
    return "  \n".join(map(escape_markdown, lines))
