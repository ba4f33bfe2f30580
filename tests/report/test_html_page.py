"""The report page, parsed: its content, its escapes, and no external resources."""

import base64

import pytest

from fr_ps.report.html_page import NO_LEAD, KeyNumber, Lead, Picture, Verdict, render_page, table_html
from fr_ps.report.table import Table, format_cell
from tests.pages import HtmlPage

EVIL = '</td></table><script src="https://evil.example/x.js">alert("x")</script><img onerror=\'x\' src=x> & &amp; <b>'
PNG = b"\x89PNG\r\n\x1a\n any bytes"
NUMBERS = Table("metrics", "", ["metric", "test"], [["identity/auc", "0.9"]])


def table(*rows: list, header: tuple[str, ...] = ("name", "value"), title: str = "", note: str = "") -> Table:
    return Table("file", title, header, rows, note)


def page(
    sections: dict | None = None, lead: Lead = NO_LEAD, warnings: tuple[str, ...] = (), numbers: Table = NUMBERS, title: str = "t"
) -> str:
    return render_page(title, lead, warnings, sections or {}, numbers, [], {})


def page_with(text: str) -> str:
    """A page with `text` in every place where there is text."""
    own = table([text, 0.5], header=(text, "value"), title=text, note=text)
    lead = Lead(text, text, text, [Verdict("better", text)], [KeyNumber(text, text, text)])
    photo = Picture(text, PNG, text, text, "photo")
    return render_page(text, lead, [text], {text: ([own], [photo])}, own, [text, text], {text: text})


def test_names_are_escaped() -> None:
    plain, evil = HtmlPage(page_with("Plain")), HtmlPage(page_with(EVIL))
    assert [tag for tag, _ in evil.tags] == [tag for tag, _ in plain.tags]
    assert [list(attributes) for _, attributes in evil.tags] == [list(attributes) for _, attributes in plain.tags]
    assert evil.text == {tag: [text.replace("Plain", EVIL) for text in texts] for tag, texts in plain.text.items()}
    assert [attributes["alt"] for tag, attributes in evil.tags if tag == "img"] == [EVIL]
    count = sum(text.count(EVIL) for texts in evil.text.values() for text in texts)
    # Two titles, subtitle, sentence, detail, verdict, warning; key number (3); contents; of the section heading, group, caption
    # and summary; caption of the metrics; of two tables header, cell and note; two footnotes; a fact's name and text.
    assert count == 7 + 3 + 1 + 4 + 1 + 2 * 3 + 2 + 2


def test_the_page_loads_nothing_and_runs_no_script() -> None:
    content = page_with("plain")
    reader = HtmlPage(content)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in reader.tags}
    for tag, attributes in reader.tags:
        assert all((value or "").startswith("data:image/png;base64,") for name, value in attributes.items() if name == "src")
        assert not {"srcset", "action", "data", "poster", "background", "style"} & set(attributes)
        assert all(tag == "a" and (value or "").startswith("#") for name, value in attributes.items() if name == "href")
    assert not any(word in content for word in ("http:", "https:", "//", "url(", "@import"))


def test_pictures_are_in_their_section_byte_for_byte_with_their_captions() -> None:
    pictures = [Picture("roc", PNG, "a curve"), Picture("one", PNG[::-1], "0.3", "Least similar", "photo")]
    content = page({"A": ([], pictures), "B": ([], [Picture("wide", b"", kind="wide")])})
    reader = HtmlPage(content)
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert [image["alt"] for image in images] == ["roc", "one", "wide"]
    found = [base64.b64decode((image["src"] or "").split(",")[1], validate=True) for image in images]
    assert found == [PNG, PNG[::-1], b""]
    assert [attributes["class"] for tag, attributes in reader.tags if tag == "figure"] == ["plot", "photo", "wide"]
    assert (reader.text["figcaption"], reader.text["h3"]) == (["a curve", "0.3"], ["Least similar"])
    assert content.index(">A</h2>") < content.index('alt="roc"') < content.index(">B</h2>") < content.index('alt="wide"')


def test_the_head_comes_first_then_pictures_then_folded_tables() -> None:
    lead = Lead("of a model", "Of 2 pairs, 1 is accepted.", "at 0.4", [Verdict("worse", "it loses")], [KeyNumber("AUC", "0.9")])
    sections = {"Verification": ([table(["b", 2], title="Points", note="of the table")], [Picture("roc", PNG)])}
    content = page(sections, lead, ("few subjects",), title="Title")
    reader = HtmlPage(content)
    assert reader.text["title"] == reader.text["h1"] == ["Title"]
    words = [
        "of a model",
        "Of 2 pairs",
        "it loses",
        "at 0.4",
        "few subjects",
        ">AUC<",
        "<img",
        "Points",
        "of the table",
        "identity/auc",
    ]
    places = [content.index(word) for word in words]
    assert places == sorted(places)
    assert [attributes["class"] for tag, attributes in reader.tags if "verdict" in (attributes.get("class") or "")] == [
        "verdict worse"
    ]
    assert reader.text["summary"] == ["Points", "Table of 1 metrics"]
    assert content.index("<details>") > content.index("<img")
    assert "open" not in {name for tag, attributes in reader.tags if tag == "details" for name in attributes}


def test_the_contents_link_to_every_section_that_has_something() -> None:
    reader = HtmlPage(page({"Nothing": ([], []), "Something": ([table(["a", 1])], [])}))
    links = [(attributes["href"] or "")[1:] for tag, attributes in reader.tags if tag == "a"]
    assert links == [attributes["id"] for tag, attributes in reader.tags if tag == "h2"]
    assert reader.text["a"] == reader.text["h2"] == ["Something", "All metrics", "About this report"]


def test_rows_without_a_value_are_folded_into_a_line_with_the_reasons() -> None:
    rows = [["identity/auc", "0.9", None], ["pose/auc", None, None], ["pose/ece", None, None], ["gender/auc", None, None]]
    reasons = {"pose/auc": "one class", "pose/ece": "one class", "gender/auc": "no labels"}
    reader = HtmlPage(page(numbers=Table("metrics", "", ["metric", "val", "test"], rows, reasons=reasons)))
    assert reader.cells(0) == [["metric", "val", "test"], ["identity/auc", "0.9", "-"]]
    assert reader.text["p"] == ["Undefined: pose/... (one class); gender/... (no labels)."]


def test_a_folded_row_is_named_by_all_its_labels() -> None:
    rows = [["test", "normal", 0.9], ["test", "albedo", None], ["val", "albedo", None]]
    reader = HtmlPage(page(numbers=Table("fewer_maps", "", ["part", "maps", "AUC"], rows, label_columns=2)))
    assert reader.text["p"] == ["Undefined: test albedo, val albedo."]


def test_a_number_does_not_break_over_lines() -> None:
    lead = Lead(sentence="at 1 % of 20, AUC 0.5 [0.4, 0.6] or -0.1 [-0.2, +0.1], p 0.01, a list [x, 1]")
    (sentence,) = (text for text in HtmlPage(page(lead=lead)).text["p"])
    hard = sentence.replace("\N{NO-BREAK SPACE}", "_")
    assert hard == "at 1_% of 20, AUC 0.5_[0.4,_0.6] or -0.1_[-0.2,_+0.1], p_0.01, a list [x, 1]"


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
