"""What stands in the files of a report."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from fr_ps.data.labels import ATTRIBUTES, DEFAULT_CLASSES, Labels
from fr_ps.evaluation.metrics import Metrics
from fr_ps.evaluation.report import headline, population, score_table, terminal_table, write_report
from fr_ps.evaluation.score import Answers, Evaluation, evaluate

EVIL = '<script>alert("x")</script> & <b>'


def example(people: int = 6, sessions: int = 4) -> Evaluation:
    rng = np.random.default_rng(0)
    count = people * sessions
    ids = np.repeat([f"p{i}" for i in range(people)], sessions)
    names = np.array([f"s{i % sessions}" for i in range(count)])
    codes = rng.integers(0, 2, size=(count, len(ATTRIBUTES))).astype(np.int8)
    codes[:, 0] = 1  # one gender only
    labels = Labels(ids, names, codes, DEFAULT_CLASSES, "raw", {})
    centres = np.repeat(rng.normal(size=(people, 8)), sessions, axis=0)
    probabilities = rng.dirichlet([1, 1], size=count).astype(np.float32)
    embeddings = (centres + rng.normal(size=centres.shape)).astype(np.float32)
    return evaluate(Answers(embeddings, dict.fromkeys(ATTRIBUTES, probabilities)), labels, ATTRIBUTES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = example()
    folder = tmp_path_factory.mktemp("report") / "of a model"
    extra = Figure(figsize=(1, 1))
    write_report(folder, EVIL, {EVIL: EVIL}, found.metrics.under("test"), found, {"losses": extra})
    return folder


def strict(text: str) -> dict[str, dict]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_metrics_json_is_flat_and_strict(folder: Path) -> None:
    content = strict((folder / "metrics.json").read_text())
    assert set(content) == {"metrics", "reasons", "intervals"}
    assert content["metrics"]["test/gender/auc"] is None
    assert "male" in content["reasons"]["test/gender/auc"]
    assert all(value is None or isinstance(value, float) for value in content["metrics"].values())
    assert all(isinstance(reason, str) for reason in content["reasons"].values())
    undefined = {name for name, value in content["metrics"].items() if value is None}
    assert undefined == {f"test/gender/{name}" for name in ("auc", "balanced_accuracy", "average_precision")}
    assert undefined <= set(content["reasons"])


def test_a_metric_that_is_nan_is_not_written(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.add("test/identity/auc", float("nan"))
    with pytest.raises(ValueError, match="JSON"):
        write_report(tmp_path, "t", {}, metrics, None)
    assert not (tmp_path / "metrics.json").exists()


class Page(HTMLParser):
    """Collects tags, the addresses they point to, and the text of cells."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data", "poster")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_from_elsewhere(folder: Path) -> None:
    content = (folder / "report.html").read_text()
    page = Page()
    page.feed(content)
    assert len(page.addresses) == page.tags.count("img") == 3
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not any(word in content for word in ("http:", "https:", "url(", "@import", "src=//"))


def test_names_are_escaped(folder: Path) -> None:
    content = (folder / "report.html").read_text()
    page = Page()
    page.feed(content)
    assert "<script" not in content
    assert "<b>" not in content
    assert page.text.count(EVIL) == 4  # title, heading, and the fact's name and text


def test_the_page_holds_the_metrics_and_the_reasons(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    content = strict((folder / "metrics.json").read_text())
    for name, value in content["metrics"].items():
        assert f"<td>{name.partition('/')[2]}</td>" in text
        assert value is None or f"{value:.4f}" in text
    assert "male" in text


def test_there_is_a_picture_of_every_figure(folder: Path) -> None:
    assert {file.name for file in folder.iterdir()} == {
        "metrics.json",
        "report.html",
        "scores.parquet",
        "roc.png",
        "scores.png",
        "losses.png",
    }
    for file in folder.glob("*.png"):
        assert file.read_bytes().startswith(b"\x89PNG")


def test_scores_hold_every_pair_with_its_cosine(folder: Path) -> None:
    table = pd.read_parquet(folder / "scores.parquet")
    assert list(table.columns) == ["id_a", "session_a", "id_b", "session_b", "score", "genuine"]
    assert len(table) == 24 * 23 // 2
    found = example()
    index = {key: row for row, key in enumerate(zip(found.labels.ids, found.labels.sessions))}
    unit = found.answers.embeddings / np.linalg.norm(found.answers.embeddings, axis=1, keepdims=True)
    seen = set()
    for row in table.itertuples():
        a, b = index[row.id_a, row.session_a], index[row.id_b, row.session_b]
        seen.add(frozenset((a, b)))
        assert row.score == pytest.approx(float(unit[a] @ unit[b]), abs=1e-5)
        assert row.genuine == (row.id_a == row.id_b)
    assert len(seen) == len(table)


def test_beyond_the_limit_all_genuine_pairs_and_a_seeded_sample_of_impostors_are_kept() -> None:
    found = example()
    everything, note = score_table(found)
    assert note == ""
    assert len(everything) == 276
    some, note = score_table(found, most=100, seed=3)
    assert len(some) == 100
    assert int(some.genuine.sum()) == int(everything.genuine.sum()) == 36
    assert "36 genuine" in note
    assert "64 of 240 impostor" in note
    assert some.merge(everything, how="inner").shape == some.shape
    assert not some.duplicated().any()
    assert some.equals(score_table(found, most=100, seed=3)[0])
    assert not some.equals(score_table(found, most=100, seed=4)[0])


def test_genuine_pairs_are_kept_even_if_they_alone_are_beyond_the_limit() -> None:
    some, note = score_table(example(), most=10)
    assert len(some) == 36
    assert some.genuine.all()
    assert "0 of 240" in note
    assert score_table(example(), most=276)[1] == ""


def test_a_report_of_nobody_has_metrics_and_a_page_and_no_scores(tmp_path: Path) -> None:
    write_report(tmp_path / "new", "t", {"tested": "nobody"}, Metrics(), None)
    assert {file.name for file in (tmp_path / "new").iterdir()} == {"metrics.json", "report.html"}
    assert strict((tmp_path / "new" / "metrics.json").read_text())["metrics"] == {}


def test_the_terminal_shows_a_dash_for_what_is_undefined_and_why_below() -> None:
    metrics = Metrics()
    for part in ("val", "test"):
        metrics.add(f"{part}/identity/auc", 0.91234)
        metrics.add(f"{part}/pose/auc", None, "the only class is frontal")
    metrics.add("test/identity/tar_at_far_0.01", 0.5, "low support: 2.4 expected")
    lines = terminal_table(metrics).splitlines()
    cells = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert lines[0].split() == ["metric", "val", "test"]
    assert cells["identity/auc"] == ["0.9123", "0.9123"]
    assert cells["pose/auc"] == ["-", "-"]
    assert cells["identity/tar_at_far_0.01"] == ["-", "0.5000*"]
    below = lines[lines.index("") :]
    assert sum("the only class is frontal" in line for line in below) == 1
    assert any("*" in line and "low support: 2.4 expected" in line and "test/identity/tar_at_far_0.01" in line for line in below)


def test_population_and_headline_say_on_whom_and_how_well() -> None:
    found = example()
    assert population(found) == "6 people, 24 sessions, 36 genuine and 240 impostor pairs"
    shown = headline(found.metrics.under("test"), "test")
    assert f"test/identity/auc {found.metrics.values['identity/auc']:.4f}" in shown
    assert "test/gender/auc undefined" in shown
    assert headline(found.metrics.under("test"), "val") == []


def test_without_metrics_the_terminal_says_so() -> None:
    assert terminal_table(Metrics()) == "no metrics: nobody was validated or tested on"
