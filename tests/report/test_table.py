"""Tables for the terminal."""

from fr_ps.report.table import Table, table_text


def test_a_wide_table_has_the_common_beginning_of_its_names_in_the_header():
    names = [f"groups/{attribute}/identity/auc" for attribute in ("facial_hair/none", "emotion/blankstare")]
    numbers = [0.8392, 0.9989, -0.1597, -0.2715, -0.0479, 0.0118]
    header = ["metric", "A", "B", "difference", "low", "high", "p", "better"]
    text = table_text(Table("a", "", header, [[name, *numbers, "B"] for name in names]))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith("metric of groups ")
    assert lines[3].split() == ["emotion/blankstare/identity/auc", *(f"{number:.4f}" for number in numbers), "B"]
    narrow = table_text(Table("a", "", ["metric", "A"], [[name, 0.5] for name in names]))
    assert narrow.splitlines()[2].startswith("groups/")


def test_a_wide_table_of_mixed_names_keeps_them():
    names = ["val/identity/tar_at_far_0.001", "optim.lr"]
    text = table_text(
        Table("a", "", ["setting", *(f"a long column {k}" for k in range(6))], [[name, *[1.0] * 6] for name in names])
    )
    assert text.startswith("setting  ")
    assert "val/identity/tar_at_far_0.001" in text
