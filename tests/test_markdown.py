"""Escaped text, read back by a Markdown parser."""

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from fr_ps.markdown import escape_markdown, markdown_lines
from tests.foreign import MARKUP_LIKE_TEXTS

PARSER = MarkdownIt("gfm-like", {"linkify": False})


def shown(markdown: str) -> list[str]:
    """The lines of the one paragraph that `markdown` is, which must hold nothing but text."""
    start, inline, end = PARSER.parse(markdown)
    assert (start.type, end.type) == ("paragraph_open", "paragraph_close")
    parts: list[Token] = inline.children or []
    assert {part.type for part in parts} <= {"text", "hardbreak", "text_special"}
    return "".join("\n" if part.type == "hardbreak" else part.content for part in parts).split("\n")


def test_the_parser_reads_most_unescaped_text_as_markup() -> None:
    assert PARSER.render("  \n".join(MARKUP_LIKE_TEXTS)).count("<") > 20


def test_escaped_text_is_shown_unchanged() -> None:
    assert shown(markdown_lines(MARKUP_LIKE_TEXTS)) == list(MARKUP_LIKE_TEXTS)
    for text in MARKUP_LIKE_TEXTS:
        assert shown(escape_markdown(text)) == [text]


@given(st.text(st.sampled_from("ab1 _*`<>[]()|~$&;#:!\\+-=.x"), min_size=1).map(str.strip).filter(bool))
def test_any_line_is_shown_unchanged(text: str) -> None:
    assert shown(escape_markdown(text)) == [text]


def test_plain_text_stays_readable() -> None:
    assert escape_markdown("test/identity/tar_at_far_0.01 0.98 [0.97, 0.99]") == "test/identity/tar_at_far_0.01 0.98 [0.97, 0.99]"
