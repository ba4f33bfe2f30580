"""What stands in the files of a report."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from fr_ps.data.labels import ATTRIBUTES, DEFAULT_CLASSES, Labels
from fr_ps.evaluation import report as module
from fr_ps.evaluation.evaluate_predictions import EvaluationResult, LabelledPredictions, evaluate_predictions
from fr_ps.evaluation.metrics import Metrics, ReportSection
from fr_ps.evaluation.report import describe_test_set, headline_lines, terminal_table, undefined_summary, write_report
from fr_ps.models.inference import Predictions
from fr_ps.report.table import Table, table_text
from tests.foreign import MARKUP_LIKE_TEXTS

EVIL = '<script>alert("x")</script> & <b>'


def example(people: int = 6, sessions: int = 4) -> EvaluationResult:
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
    return evaluate_predictions(
        LabelledPredictions(Predictions(embeddings, dict.fromkeys(ATTRIBUTES, probabilities)), labels), ATTRIBUTES, None
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = example()
    folder = tmp_path_factory.mktemp("report") / "of a model"
    extra = ReportSection(tables=[Table("extra", "An extra table", ["name", "value"], [["a", 0.25], ["b", None]])])
    extra.figures["losses"] = lambda: Figure(figsize=(1, 1))
    write_report(folder, EVIL, {EVIL: EVIL}, found.metrics.with_prefix("test"), found, {"Extra": extra}, ["mind <this>"])
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
    unknown = {name for name, value in content["metrics"].items() if value is None}
    assert {name for name in unknown if name.startswith("test/gender")} == {
        f"test/gender/{name}" for name in ("auc", "balanced_accuracy", "average_precision")
    }
    assert unknown <= set(content["reasons"])


def test_metrics_json_has_the_intervals_of_the_headlines(folder: Path) -> None:
    content = strict((folder / "metrics.json").read_text())
    for name in ("identity/auc", "identity/eer", "identity/rank1", "identity/tar_at_far_0.1", "facial_hair/auc"):
        low, high = content["intervals"][f"test/{name}"]
        assert low <= content["metrics"][f"test/{name}"] <= high
        assert low < high


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
    assert len(page.addresses) == page.tags.count("img") == len(list(folder.glob("*.png")))
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
        if name.split("/")[1] in ("identity", *ATTRIBUTES):
            assert f">{name.partition('/')[2]}</td>" in text
            assert value is None or f"{value:.4f}" in text
    assert "mind &lt;this&gt;" in text
    assert "only 6 test subjects: bootstrap intervals under-cover below 50" in text
    assert "male" in text


def test_there_is_a_picture_of_every_figure_and_a_file_of_every_table(folder: Path) -> None:
    found = example()
    figures = {name for section in found.sections.values() for name in section.figures}
    assert {"roc", "det", "scores", "cmc"} <= figures
    assert {file.stem for file in folder.glob("*.png")} == figures | {"losses"}
    for file in folder.glob("*.png"):
        assert file.read_bytes().startswith(b"\x89PNG")
    tables = {table.name for section in found.sections.values() for table in section.tables}
    assert {"operating_points", "identification", "attributes", "quality", "groups", "probes"} <= tables
    assert {file.stem for file in (folder / "tables").iterdir()} == tables | {"metrics", "extra"}
    assert (folder / "tables" / "extra.csv").read_text() == "name,value\na,0.25\nb,\n"


def test_scores_hold_every_pair_with_its_cosine(folder: Path) -> None:
    table = pd.read_parquet(folder / "scores.parquet")
    assert list(table.columns) == ["id_a", "session_a", "id_b", "session_b", "score", "genuine"]
    assert len(table) == 24 * 23 // 2
    found = example()
    labels, embeddings = found.tested.labels, found.tested.predictions.embeddings
    index = {key: row for row, key in enumerate(zip(labels.ids, labels.sessions))}
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    seen = set()
    for row in table.itertuples():
        a, b = index[row.id_a, row.session_a], index[row.id_b, row.session_b]
        seen.add(frozenset((a, b)))
        assert row.score == pytest.approx(float(unit[a] @ unit[b]), abs=1e-5)
        assert row.genuine == (row.id_a == row.id_b)
    assert len(seen) == len(table)


def test_a_report_of_nobody_has_metrics_and_a_page_and_no_scores(tmp_path: Path) -> None:
    write_report(tmp_path / "new", "t", {"tested": "nobody"}, Metrics(), None)
    assert {file.name for file in (tmp_path / "new").iterdir()} == {"metrics.json", "report.html", "tables"}
    assert strict((tmp_path / "new" / "metrics.json").read_text())["metrics"] == {}


def test_a_report_that_a_kill_left_has_no_metrics_and_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    metrics.add("test/identity/auc", 0.5)
    folder, real = tmp_path / "report", module.write_atomic
    assert not module.is_report(folder)
    paths = write_report(folder, "whole", {}, metrics, None)
    assert sorted(paths) == sorted(path for path in folder.rglob("*") if path.is_file())
    assert module.is_report(folder)
    for last in ("tables/metrics.csv", "report.html"):

        def dying(path: Path, write: Callable[[IO[bytes]], object], last: str = last) -> None:
            if path == folder / last:
                raise KeyboardInterrupt
            real(path, write)

        with monkeypatch.context() as patch:
            patch.setattr(module, "write_atomic", dying)
            with pytest.raises(KeyboardInterrupt):
                write_report(folder, "cut", {}, metrics, None)
        assert not (folder / "metrics.json").exists()
        assert module.is_report(folder)
    write_report(folder, "whole", {}, metrics, None)
    assert sorted(paths) == sorted(path for path in folder.rglob("*") if path.is_file())


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


def test_the_terminal_shows_foreign_text_as_it_is() -> None:
    lines = table_text(Table("", "", ["id"], [[name] for name in MARKUP_LIKE_TEXTS])).splitlines()
    assert [line.strip() for line in lines[2:]] == list(MARKUP_LIKE_TEXTS)


def test_population_and_headline_say_on_whom_and_how_well() -> None:
    found = example()
    assert describe_test_set(found) == "6 subjects, 24 sessions, 36 genuine and 240 impostor pairs"
    shown = headline_lines(found.metrics.with_prefix("test"), "test")
    low, high = found.metrics.intervals["identity/auc"]
    assert f"test/identity/auc {found.metrics.values['identity/auc']:.4f} [{low:.3f}, {high:.3f}]" in shown
    assert "test/gender/auc undefined" in shown
    assert headline_lines(found.metrics.with_prefix("test"), "val") == []


def test_what_is_undefined_is_said_in_a_line_by_reason() -> None:
    metrics = Metrics()
    metrics.add("test/pose/auc", None, "one class")
    metrics.add("test/pose/ece", None, "one class")
    metrics.add("test/emotion/auc", None, "one class")
    metrics.add("test/only_albedo/gender/auc", None, "another")
    metrics.add("val/gender/auc", None, "not of this part")
    metrics.add("test/identity/auc", 0.5)
    assert undefined_summary(metrics, "test") == {"undefined": "pose, emotion: one class"}
    assert undefined_summary(metrics, "train") == {}


def test_without_metrics_the_terminal_says_so() -> None:
    assert terminal_table(Metrics()) == "no metrics: no validation and no test subjects"
