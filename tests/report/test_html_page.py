"""The report page, parsed: its content, its escapes, and no external resources."""

import base64

import pytest

from fr_ps.report.html_page import WIDE_FIGURES, render_page, table_html
from fr_ps.report.table import Table, format_cell
from tests.pages import HtmlPage

EVIL = '</td></table><script src="https://evil.example/x.js">alert("x")</script><img onerror=\'x\' src=x> & &amp; <b>'
PNG = b"\x89PNG\r\n\x1a\n any bytes"
EMPTY = {"facts": {}, "warnings": [], "numbers": Table("metrics", "", ["metric"], []), "footnotes": [], "sections": {}}


def table(*rows: list, header: tuple[str, ...] = ("name", "value"), title: str = "", note: str = "") -> Table:
    return Table("file", title, header, rows, note)


def page_with(text: str) -> str:
    """A page with `text` in every place where there is text."""
    own = table([text, 0.5], header=(text, "value"), title=text, note=text)
    return render_page(text, {text: text}, [text], own, [text, text], {text: ([own], {text: PNG})})


def test_names_are_escaped() -> None:
    plain, evil = HtmlPage(page_with("plain")), HtmlPage(page_with(EVIL))
    assert [tag for tag, _ in evil.tags] == [tag for tag, _ in plain.tags]
    assert [list(attributes) for _, attributes in evil.tags] == [list(attributes) for _, attributes in plain.tags]
    assert evil.text == {tag: [text.replace("plain", EVIL) for text in texts] for tag, texts in plain.text.items()}
    assert [attributes["alt"] for tag, attributes in evil.tags if tag == "img"] == [EVIL]
    count = sum(text.count(EVIL) for texts in evil.text.values() for text in texts)
    # Title, heading, a fact's name and text, warning, two remarks, section; and of two tables caption, header, cell and note.
    assert count == 8 + 2 * 4


def test_the_page_loads_no_external_resource() -> None:
    content = page_with("plain")
    reader = HtmlPage(content)
    assert not {"script", "link", "iframe", "object", "embed", "base", "a", "form"} & {tag for tag, _ in reader.tags}
    for _, attributes in reader.tags:
        assert all((value or "").startswith("data:image/png;base64,") for name, value in attributes.items() if name == "src")
        assert not {"href", "srcset", "action", "data", "poster", "background", "style"} & set(attributes)
    assert not any(word in content for word in ("http:", "https:", "//", "url(", "@import"))


def test_figures_are_in_their_section_of_the_page_byte_for_byte() -> None:
    content = render_page(
        "t", **EMPTY | {"sections": {"A": ([], {"roc": PNG, WIDE_FIGURES[0]: PNG[::-1]}), "B": ([], {"cmc": b""})}}
    )
    images = [attributes for tag, attributes in HtmlPage(content).tags if tag == "img"]
    assert [image["alt"] for image in images] == ["roc", WIDE_FIGURES[0], "cmc"]
    found = [base64.b64decode((image["src"] or "").split(",")[1], validate=True) for image in images]
    assert found == [PNG, PNG[::-1], b""]
    assert [image.get("class") for image in images] == [None, "wide", None]
    assert content.index("<h2>A") < content.index('alt="roc"') < content.index("<h2>B") < content.index('alt="cmc"')


def test_a_section_without_anything_is_left_out() -> None:
    reader = HtmlPage(render_page("t", **EMPTY | {"sections": {"Nothing": ([], {}), "Something": ([table(["a", 1])], {})}}))
    assert reader.text["h2"] == ["Metrics", "Something"]


def test_the_order_is_facts_warnings_metrics_footnotes_sections() -> None:
    sections = {"Verification": ([table(["b", 2], note="of the table")], {})}
    numbers = Table("metrics", "", ["metric", "test"], [["identity/auc", "0.9"]])
    content = render_page("Title", {"tested": "6 people", "headline": "auc"}, ["few"], numbers, ["because", "so"], sections)
    reader = HtmlPage(content)
    assert reader.text["title"] == reader.text["h1"] == ["Title"]
    assert reader.cells(0) == [["tested", "6 people"], ["headline", "auc"], ["warning", "few"]]
    assert [attributes.get("class") for tag, attributes in reader.tags if tag == "tr"][:3] == [None, None, "warn"]
    assert reader.cells(1) == [["metric", "test"], ["identity/auc", "0.9"]]
    assert reader.cells(2) == [["name", "value"], ["b", "2"]]
    assert reader.text["p"] == ["because", "so", "of the table"]
    places = [content.index(word) for word in ("6 people", "few", "identity/auc", "because", "Verification", "of the table")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, "-"),
        ("", ""),
        ("text", "text"),
        (12345, "12345"),
        (0, "0"),
        (0.0, "0.0000"),
        (1.0, "1.0000"),
        (0.98765432, "0.9877"),
        (-0.25, "-0.2500"),
        (1234.5, "1234.5000"),
        (0.001, "0.0010"),
        (0.00099, "9.90e-04"),
        (-1.5e-7, "-1.50e-07"),
    ],
)
def test_an_undefined_metric_is_a_dash_and_small_numbers_keep_their_digits(cell: str | float | None, text: str) -> None:
    assert format_cell(cell) == text
    assert HtmlPage(table_html(table(["a", cell]))).cells(0)[1] == ["a", text]


def test_a_note_is_below_its_table_and_a_title_above() -> None:
    with_both = HtmlPage(table_html(table(["a", 1], title="The title", note="The note")))
    assert (with_both.text["caption"], with_both.text["p"]) == (["The title"], ["The note"])
    assert [tag for tag, _ in with_both.tags][:2] == ["table", "caption"]
    assert with_both.tags[-1][0] == "p"
    assert not {"caption", "p"} & set(HtmlPage(table_html(table(["a", 1]))).text)


def test_text_columns_are_left_aligned_and_number_columns_right_aligned() -> None:
    rows = (["a", 1, None, "b"], [None, "low", 0.5, "c"])
    (head, *body) = HtmlPage(table_html(table(*rows, header=("w", "mixed", "n", "x")))).tables[0]
    for row in (head, *body):
        assert [kind for _, kind in row] == ["text", None, None, "text"]


def test_a_table_without_rows_has_its_header() -> None:
    assert HtmlPage(table_html(table())).cells(0) == [["name", "value"]]
