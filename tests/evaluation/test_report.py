"""The files of a report: content, scores, and the terminal table."""

import html
import itertools
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
from fr_ps.evaluation.analyses.gallery_search import search_gallery
from fr_ps.evaluation.bootstrap import bootstrap_weights
from fr_ps.evaluation.evaluate_predictions import EvaluationResult, LabelledPredictions, evaluate_predictions, make_pairs
from fr_ps.evaluation.metrics import Metrics, ReportSection
from fr_ps.evaluation.pairwise.pair_list import PairList
from fr_ps.evaluation.pairwise.similarity import Measure
from fr_ps.evaluation.report import (
    describe_test_set,
    headline_lines,
    score_table,
    terminal_table,
    undefined_summary,
    write_report,
)
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
    write_report(folder, EVIL, {EVIL: EVIL}, found.metrics.with_prefix("test"), found, {"Extra": extra}, ["a <warning>"])
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


def test_the_page_loads_no_external_resource(folder: Path) -> None:
    content = (folder / "report.html").read_text()
    page = Page()
    page.feed(content)
    pictures = [address for address in page.addresses if not address.startswith("#")]
    assert len(pictures) == page.tags.count("img") == len(list(folder.glob("*.png")))
    assert all(address.startswith("data:image/png;base64,") for address in pictures)
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
            assert value is None or (f">{name.partition('/')[2]}</td>" in text and f"{value:.4f}" in text)
            assert value is not None or html.escape(content["reasons"][name]) in text
    assert "a &lt;warning&gt;" in text
    assert "only 6 test subjects: bootstrap intervals under-cover below 50" in text
    assert "male" in text


def test_every_figure_has_a_png_and_every_table_a_csv(folder: Path) -> None:
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


def test_a_report_without_test_subjects_has_metrics_and_a_page_but_no_scores(tmp_path: Path) -> None:
    write_report(tmp_path / "new", "t", {"tested": "no subject"}, Metrics(), None)
    assert {file.name for file in (tmp_path / "new").iterdir()} == {"metrics.json", "report.html", "tables"}
    assert strict((tmp_path / "new" / "metrics.json").read_text())["metrics"] == {}


def test_an_interrupted_report_has_no_metrics_json_and_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_terminal_shows_a_dash_for_an_undefined_metric_and_the_reason_below() -> None:
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


def test_the_terminal_shows_markup_like_text_unchanged() -> None:
    lines = table_text(Table("", "", ["id"], [[name] for name in MARKUP_LIKE_TEXTS])).splitlines()
    assert [line.strip() for line in lines[2:]] == list(MARKUP_LIKE_TEXTS)


def test_the_test_set_and_the_headline_are_described() -> None:
    found = example()
    assert describe_test_set(found) == "6 subjects, 24 sessions, 36 genuine and 240 impostor pairs"
    shown = headline_lines(found.metrics.with_prefix("test"), "test")
    low, high = found.metrics.intervals["identity/auc"]
    assert f"test/identity/auc {found.metrics.values['identity/auc']:.4f} [{low:.3f}, {high:.3f}]" in shown
    assert "test/gender/auc undefined" in shown
    assert headline_lines(found.metrics.with_prefix("test"), "val") == []


def test_the_summary_groups_undefined_metrics_by_reason() -> None:
    metrics = Metrics()
    metrics.add("test/pose/auc", None, "one class")
    metrics.add("test/pose/ece", None, "one class")
    metrics.add("test/emotion/auc", None, "one class")
    metrics.add("test/only_albedo/gender/auc", None, "another")
    metrics.add("val/gender/auc", None, "not of this part")
    metrics.add("test/identity/auc", 0.5)
    assert undefined_summary(metrics, "test") == {"undefined": "pose, emotion: one class"}
    assert undefined_summary(metrics, "train") == {}


def test_without_metrics_the_terminal_table_is_one_line() -> None:
    assert terminal_table(Metrics()) == "no metrics: no validation and no test subjects"


COLUMNS = ["id_a", "session_a", "id_b", "session_b", "score", "genuine"]


def scored_example(ids: list[str], listed: PairList | None = None, measure: Measure = "cosine") -> EvaluationResult:
    """A minimal evaluation of random embeddings of the given subjects."""
    names, count = np.array(ids), len(ids)
    embeddings = (5 * np.random.default_rng(0).normal(size=(count, 24)) + 1).astype(np.float32)
    labels = Labels(names, np.array([f"s{i}" for i in range(count)]), np.zeros((count, 5), np.int8), DEFAULT_CLASSES, "raw", {})
    draws = bootstrap_weights(names, replicates=2)
    pair_scores = make_pairs(embeddings, names, listed, measure, draws).score()
    found = search_gallery(embeddings, names, None)
    return EvaluationResult(LabelledPredictions(Predictions(embeddings, {}), labels), pair_scores, listed, found, draws, {}, ())


def rows_of(table: pd.DataFrame) -> list[tuple[int, int]]:
    """Pairs of rows, from the session names."""
    return [(int(a[1:]), int(b[1:])) for a, b in zip(table.session_a, table.session_b)]


def check(table: pd.DataFrame, result: EvaluationResult) -> None:
    """Check every row against float64."""
    assert list(table.columns) == COLUMNS
    assert table.score.dtype == np.float64
    assert table.genuine.dtype == bool
    embeddings, ids = result.tested.predictions.embeddings.astype(float), result.tested.labels.ids
    for row, (one, other) in zip(table.itertuples(), rows_of(table)):
        a, b = embeddings[one], embeddings[other]
        if result.pair_scores.scale.measure == "cosine":
            assert row.score == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)), abs=1e-5)
        else:
            assert row.score == pytest.approx(-np.linalg.norm(a - b), rel=1e-4)
        assert (row.id_a, row.id_b) == (ids[one], ids[other])
        assert row.genuine == (ids[one] == ids[other])


@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
def test_the_scores_have_every_pair_once(measure: Measure) -> None:
    result = scored_example(list("abcabcabbd"), measure=measure)
    table, note = score_table(result)
    assert note == ""
    assert sorted(rows_of(table)) == list(itertools.combinations(range(10), 2))
    check(table, result)


def test_as_many_pairs_as_the_limit_are_all_kept() -> None:
    result = scored_example(list("abcabcabbd"))
    assert len(score_table(result, max_pairs=45)[0]) == 45
    assert score_table(result, max_pairs=45)[1] == ""
    assert score_table(result, max_pairs=44)[1] != ""


def test_beyond_the_limit_the_scores_have_all_genuine_pairs_and_a_sample_of_impostor_pairs_once() -> None:
    ids = list("aabbccdd" * 4)
    result = scored_example(ids)
    genuine = {pair for pair in itertools.combinations(range(32), 2) if ids[pair[0]] == ids[pair[1]]}
    for most in (len(genuine) + 1, 200, 400, 495):
        table, note = score_table(result, max_pairs=most)
        pairs = rows_of(table)
        assert len(pairs) == len(set(pairs)) == most
        assert all(one < other for one, other in pairs)
        assert {pair for pair, own in zip(pairs, table.genuine) if own} == genuine
        assert note.startswith("scores.parquet holds all 112 genuine pairs")
        assert f"{most - 112} of 384 impostor pairs" in note
        check(table, result)


def test_genuine_pairs_may_exceed_the_limit() -> None:
    table, note = score_table(scored_example(list("aaaaabbb")), max_pairs=5)
    assert len(table) == 13
    assert table.genuine.all()
    assert " 0 of 15 impostor pairs" in note


def test_the_sample_is_a_function_of_the_seed() -> None:
    result = scored_example(list("abcdef" * 4))
    one, again, other = (score_table(result, max_pairs=100, seed=seed)[0] for seed in (1, 1, 2))
    assert one.equals(again)
    assert not one.equals(other)


def test_every_impostor_pair_is_equally_likely() -> None:
    """20 of 49 impostor pairs in each of 150 samples; the subjects have 1 to 5 sessions."""
    ids = list("aaaaabbbbccd")
    result = scored_example(ids)
    impostors = [pair for pair in itertools.combinations(range(12), 2) if ids[pair[0]] != ids[pair[1]]]
    seen = dict.fromkeys(impostors, 0)
    for seed in range(150):
        table, _ = score_table(result, max_pairs=17 + 20, seed=seed)
        for pair, own in zip(rows_of(table), table.genuine):
            if not own:
                seen[pair] += 1
    share = 20 / len(impostors)
    away = (np.array(list(seen.values())) - 150 * share) / np.sqrt(150 * share * (1 - share))
    assert np.abs(away).max() < 4
    assert away.std() == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("most", [2, 1000])
def test_a_pair_list_is_complete_and_in_order_for_every_limit(most: int) -> None:
    listed = PairList(np.array([5, 0, 3, 1]), np.array([2, 4, 0, 6]), None)
    result = scored_example(list("aabbaba"), listed)
    table, note = score_table(result, max_pairs=most)
    assert rows_of(table) == [(5, 2), (0, 4), (3, 0), (1, 6)]
    assert note == ""
    assert table.genuine.tolist() == [True, True, False, True]
    check(table, result)


def test_one_session_has_a_table_without_rows() -> None:
    table, note = score_table(scored_example(["a"]))
    assert list(table.columns) == COLUMNS
    assert len(table) == 0
    assert note == ""
