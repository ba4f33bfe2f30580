"""A page of a report as its parts, for tests that look into it."""

from html.parser import HTMLParser


class HtmlPage(HTMLParser):
    """Tags with their attributes, tables as lists of rows of (cell, class), and text by the tag that it stands in."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[tuple[str, str | None]]]] = []
        self.text: dict[str, list[str]] = {}
        self.inside = ""
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag
        self.text.setdefault(tag, []).append("")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append(("", dict(attrs).get("class")))

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.text[self.inside][-1] += data
        if self.inside in ("td", "th"):
            text, kind = self.tables[-1][-1].pop()
            self.tables[-1][-1].append((text + data, kind))

    def cells(self, number: int) -> list[list[str]]:
        return [[text for text, _ in row] for row in self.tables[number]]

    def tags_of(self, name: str) -> list[tuple[str, dict[str, str | None]]]:
        """The tags of this name with their attributes."""
        return [(tag, attributes) for tag, attributes in self.tags if tag == name]
