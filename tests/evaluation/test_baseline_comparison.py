"""A network against baselines and against itself on warped maps: the headline, and the numbers of the tables."""

import re

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import roc_auc_score

from fr_ps.data.labels import DEFAULT_CLASSES, Labels
from fr_ps.evaluation.baseline_comparison import (
    attribute_aucs,
    attribute_baseline_section,
    baseline_section,
    identity_metrics,
    jitter_section,
)
from fr_ps.evaluation.baselines.embeddings import BaselineEmbeddings
from fr_ps.evaluation.evaluate_predictions import EvaluationResult, LabelledPredictions, evaluate_predictions
from fr_ps.evaluation.pairwise.pair_list import PairList
from fr_ps.evaluation.pairwise.similarity import Measure
from fr_ps.models.inference import Predictions
from fr_ps.report.table import Table

PEOPLE, SESSIONS = 12, 3
IDS = np.repeat([f"p{i:02d}" for i in range(PEOPLE)], SESSIONS)


def embeddings(noise: float, seed: int = 1) -> np.ndarray:
    """Embeddings of the subjects `IDS`; more noise is worse."""
    centres = np.repeat(np.random.default_rng(0).normal(size=(PEOPLE, 16)), SESSIONS, axis=0)
    return (centres + noise * np.random.default_rng(seed).normal(size=centres.shape)).astype(np.float32)


def scored(rows: np.ndarray, ids: np.ndarray = IDS) -> LabelledPredictions:
    sessions = np.array([f"s{i:02d}" for i in range(len(ids))])
    return LabelledPredictions(
        Predictions(rows, {}), Labels(ids, sessions, np.full((len(ids), 5), -1, np.int8), DEFAULT_CLASSES, "raw", {})
    )


def network(noise: float, listed: PairList | None = None, measure: Measure = "cosine") -> EvaluationResult:
    return evaluate_predictions(scored(embeddings(noise)), [], None, pair_list=listed, measure=measure)


@pytest.fixture(scope="module")
def fair() -> EvaluationResult:
    """A network with errors that is better than chance."""
    return network(1.5)


def auc(rows: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    unit = rows.astype(float) / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)
    return float(roc_auc_score(IDS[first] == IDS[second], (unit[first] * unit[second]).sum(axis=1)))


def auc_of_all(rows: np.ndarray) -> float:
    return auc(rows, *np.triu_indices(len(rows), k=1))


def named_rows(table: Table) -> list[dict]:
    return [dict(zip(table.header, row)) for row in table.rows]


NUMBERS = re.compile(
    r"AUC (?P<network>\S+) against (?P<baseline>\S+) of \w+, the best of \d+ baselines; "
    r"difference (?P<difference>\S+) \[(?P<low>\S+), (?P<high>\S+)\], p (?P<p>\S+)$"
)


def numbers_in(headline: str) -> dict[str, float]:
    """The numbers in the headline."""
    found = NUMBERS.search(headline)
    assert found, headline
    return {name: float(number) for name, number in found.groupdict().items()}


def test_a_better_network_beats_the_best_of_the_baselines() -> None:
    rows = {"pixels_albedo": embeddings(6, 2), "wccn_albedo": embeddings(3, 3), "normals_10x10": embeddings(8, 4)}
    headline = baseline_section(network(0.5), BaselineEmbeddings(rows))[1].text
    assert headline.startswith("the network beats the linear baselines: ")
    assert "of wccn_albedo, the best of 3 baselines" in headline
    numbers = numbers_in(headline)
    assert numbers["network"] == pytest.approx(auc_of_all(embeddings(0.5)), abs=6e-5)
    assert numbers["baseline"] == pytest.approx(auc_of_all(rows["wccn_albedo"]), abs=6e-5)
    assert numbers["difference"] == pytest.approx(numbers["network"] - numbers["baseline"], abs=1.1e-4)
    assert 0 < numbers["low"] < numbers["difference"] < numbers["high"]
    assert numbers["p"] < 0.05


def test_a_network_that_one_of_the_baselines_beats_is_worse(fair: EvaluationResult) -> None:
    rows = {"pixels_albedo": embeddings(8, 2), "wccn_albedo": embeddings(0.3, 3), "eigenfaces_albedo": embeddings(9, 4)}
    headline = baseline_section(fair, BaselineEmbeddings(rows))[1].text
    assert headline.startswith("the network loses to the linear baselines: ")
    assert "of wccn_albedo, the best of 3 baselines" in headline
    numbers = numbers_in(headline)
    assert numbers["low"] < numbers["difference"] < numbers["high"] < 0


def test_a_network_and_a_baseline_of_one_embedding_are_equally_good(fair: EvaluationResult) -> None:
    headline = baseline_section(fair, BaselineEmbeddings({"pixels_albedo": embeddings(1.5)}))[1].text
    assert headline.startswith("the network has the same AUC as the best of the linear baselines: AUC ")
    assert headline.endswith("difference +0.0000 [+0.0000, +0.0000], p 1.000")


def test_a_network_that_is_better_by_no_more_than_chance_does_not_beat_the_baseline(fair: EvaluationResult) -> None:
    headline = baseline_section(fair, BaselineEmbeddings({"pixels_albedo": embeddings(1.6, 7)}))[1].text
    numbers = numbers_in(headline)
    assert numbers["low"] < 0 < numbers["difference"]
    assert headline.startswith(
        "the network is above the linear baselines, but not significantly (the interval includes zero): AUC "
    )


def test_a_network_that_is_worse_by_no_more_than_chance_is_below_the_baseline(fair: EvaluationResult) -> None:
    headline = baseline_section(fair, BaselineEmbeddings({"pixels_albedo": embeddings(1.4, 7)}))[1].text
    numbers = numbers_in(headline)
    assert numbers["difference"] < 0 < numbers["high"]
    assert headline.startswith(
        "the network is below the linear baselines, but not significantly (the interval includes zero): AUC "
    )


def test_a_baseline_that_separates_all_pairs_cannot_be_beaten() -> None:
    headline = baseline_section(network(0.1), BaselineEmbeddings({"pixels_albedo": embeddings(0)}))[1].text
    assert headline.startswith(
        "the network has the same AUC as the best of the linear baselines, and no AUC exceeds 1: AUC 1.0000 "
    )


def test_every_baseline_has_metrics_and_rows_ordered_by_auc(fair: EvaluationResult) -> None:
    rows = {"pixels_albedo": embeddings(4, 2), "wccn_albedo": embeddings(2, 3), "eigenfaces_normal": embeddings(3, 4)}
    section, _ = baseline_section(fair, BaselineEmbeddings(rows, {"eigenfaces_albedo": "fewer than two training sessions"}))
    (table,) = section.tables
    assert table.name == "baselines"
    assert "eigenfaces_albedo: fewer than two training sessions" in table.note
    found = named_rows(table)
    best_first = sorted(rows, key=lambda name: -auc_of_all(rows[name]))
    expected = [(name, metric) for name in best_first for metric in ("identity/auc", "identity/eer")]
    assert [(row["against"], row["metric"]) for row in found] == expected
    for row in found:
        name = f"baseline_{row['against']}/{row['metric']}"
        assert row["baseline"] == section.metrics.values[name]
        assert row["network"] == fair.metrics.values[row["metric"]]
        assert row["difference"] == row["network"] - row["baseline"]
        drawn = fair.metrics.replicates[row["metric"]] - section.metrics.replicates[name]
        wide = scipy.stats.t.ppf(0.975, 11) * drawn.std(ddof=1) * np.sqrt(12 / 11)
        assert (row["low"], row["high"]) == pytest.approx((max(row["difference"] - wide, -1), min(row["difference"] + wide, 1)))
    for name, of in rows.items():
        assert section.metrics.values[f"baseline_{name}/identity/auc"] == pytest.approx(auc_of_all(of), abs=1e-5)
        assert f"baseline_{name}/identity/auc" in section.metrics.intervals
        assert section.metrics.values[f"baseline_{name}/identity/rank1"] is not None


def test_on_warped_maps_the_network_uses_its_predictions_on_warped_maps(fair: EvaluationResult) -> None:
    warped, rows = embeddings(4, 5), {"pixels_albedo": embeddings(3, 2)}
    section, headline = baseline_section(fair, BaselineEmbeddings(rows), warped)
    assert headline.text.startswith("on warped maps, the network is above the linear baselines, but not significantly (the ")
    assert numbers_in(headline.text)["network"] == pytest.approx(auc_of_all(warped), abs=6e-5)
    assert {name.split("/")[0] for name in section.metrics.values} == {"jittered_baseline_pixels_albedo"}
    (table,) = section.tables
    assert (table.name, "warped" in table.title) == ("jittered_baselines", True)
    assert named_rows(table)[0]["network"] == pytest.approx(auc_of_all(warped), abs=1e-5)


def test_without_a_baseline_the_reason_is_reported(fair: EvaluationResult) -> None:
    section, headline = baseline_section(fair, BaselineEmbeddings({}, {"pixels_albedo": "too large"}))
    assert headline.text == "no baseline has a defined identity AUC"
    assert section.metrics.values == {}
    (table,) = section.tables
    assert len(table.rows) == 0
    assert "pixels_albedo: too large" in table.note


@pytest.mark.parametrize("ids", [["a"] * 4, ["a", "b", "c", "d"]], ids=["one person", "one session each"])
def test_where_nothing_can_be_verified_no_baseline_is_beaten(ids: list[str]) -> None:
    rows = embeddings(1)[:4]
    section, headline = baseline_section(
        evaluate_predictions(scored(rows, np.array(ids)), [], None), BaselineEmbeddings({"pixels_albedo": rows})
    )
    assert headline.text == "no baseline has a defined identity AUC"
    assert section.metrics.values["baseline_pixels_albedo/identity/auc"] is None


def test_two_subjects_give_no_interval_and_no_winner() -> None:
    """A replicate of two subjects has impostor pairs only if it has both subjects."""
    ids = np.array(list("aaabbb"))
    rng = np.random.default_rng(0)
    good = (np.eye(2, 8)[[0, 0, 0, 1, 1, 1]] + 0.01 * rng.normal(size=(6, 8))).astype(np.float32)
    bad = rng.normal(size=(6, 8)).astype(np.float32)
    headline = baseline_section(evaluate_predictions(scored(good, ids), [], None), BaselineEmbeddings({"pixels_albedo": bad}))[
        1
    ].text
    assert headline.startswith(
        "the network is above the linear baselines, but not significantly (the difference has no interval): AUC 1.0000 "
    )
    assert headline.endswith("(no interval: too few subjects, or bootstrap replicates that are undefined or all equal)")


def test_the_jitter_table_has_both_numbers_and_their_difference(fair: EvaluationResult) -> None:
    warped = embeddings(4, 5)
    section = jitter_section(fair, warped)
    (table,) = section.tables
    rows = {row["metric"]: row for row in named_rows(table)}
    assert list(rows) == ["identity/auc", "identity/auc_person_balanced", "identity/eer", "identity/rank1"]
    for name, row in rows.items():
        assert row["original"] == fair.metrics.values[name]
        assert row["warped"] == section.metrics.values[f"jittered/{name}"]
    assert rows["identity/auc"]["original"] == pytest.approx(auc_of_all(embeddings(1.5)), abs=1e-5)
    assert rows["identity/auc"]["warped"] == pytest.approx(auc_of_all(warped), abs=1e-5)
    assert rows["identity/auc"]["low"] > 0
    assert rows["identity/eer"]["high"] < 0
    assert rows["identity/rank1"]["low"] > 0
    assert {row["better"] for row in rows.values()} == {"original"}


def test_equal_embeddings_of_warped_maps_give_differences_of_zero(fair: EvaluationResult) -> None:
    (table,) = jitter_section(fair, embeddings(1.5)).tables
    assert [row["difference"] for row in named_rows(table)] == [0, 0, 0, 0]


def test_with_a_gallery_rank_1_is_not_compared_because_no_gallery_is_warped() -> None:
    rows = embeddings(1.5)
    enrolled, probes = np.arange(0, 36, 3), np.setdiff1d(np.arange(36), np.arange(0, 36, 3))
    tested, gallery = scored(rows[probes], IDS[probes]), scored(rows[enrolled], IDS[enrolled])
    result = evaluate_predictions(tested, [], None, gallery=gallery)
    section = jitter_section(result, tested.predictions.embeddings)
    assert result.metrics.values["identity/rank1"] is not None
    assert [row["metric"] for row in named_rows(section.tables[0])][-1] == "identity/eer"
    assert not any("rank" in name for name in section.metrics.values)


def test_the_baselines_use_the_listed_pairs_too() -> None:
    rng = np.random.default_rng(3)
    first, second = np.triu_indices(len(IDS), k=1)
    chosen = np.sort(rng.permutation(len(first))[:300])
    listed = PairList(first[chosen], second[chosen], None)
    result, rows = network(1.5, listed), embeddings(3, 2)
    truth = auc(rows, first[chosen], second[chosen])
    assert truth != pytest.approx(auc_of_all(rows), abs=1e-3)
    assert identity_metrics(rows, result).values["identity/auc"] == pytest.approx(truth, abs=1e-5)
    assert jitter_section(result, rows).metrics.values["jittered/identity/auc"] == pytest.approx(truth, abs=1e-5)
    assert numbers_in(baseline_section(result, BaselineEmbeddings({"pixels_albedo": rows}))[1].text)["baseline"] == pytest.approx(
        truth, abs=6e-5
    )


def test_the_baselines_use_the_measure_of_the_evaluation() -> None:
    rows = embeddings(3, 2) * np.random.default_rng(0).uniform(1, 3, size=(36, 1)).astype(np.float32)
    first, second = np.triu_indices(len(IDS), k=1)
    distance = np.linalg.norm(rows[first].astype(float) - rows[second], axis=1)
    found = identity_metrics(rows, network(1.5, measure="euclidean")).values["identity/auc"]
    assert found == pytest.approx(roc_auc_score(IDS[first] == IDS[second], -distance), abs=1e-5)
    assert found != pytest.approx(auc_of_all(rows), abs=1e-3)


GENDER = np.repeat(np.arange(PEOPLE) % 2, SESSIONS)


def probabilities(noise: float, seed: int, truth: np.ndarray = GENDER) -> np.ndarray:
    """Of both classes; more noise is worse."""
    positive = 1 / (1 + np.exp(-(2 * truth - 1 + noise * np.random.default_rng(seed).normal(size=len(truth)))))
    return np.stack([1 - positive, positive], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def classified() -> EvaluationResult:
    """A network that predicts the gender well; pose is only frontal, facial hair of some sessions is unknown."""
    codes = np.full((len(IDS), 5), -1, dtype=np.int8)
    codes[:, 0], codes[6:, 2], codes[:, 3] = GENDER, np.roll(GENDER, 3)[6:], 0
    sessions = np.array([f"s{row:02d}" for row in range(len(IDS))])
    labels = Labels(IDS, sessions, codes, DEFAULT_CLASSES, "raw", {})
    found = {
        "gender": probabilities(0.5, 1),
        "facial_hair": probabilities(3, 2, np.roll(GENDER, 3)),
        "pose": probabilities(1, 3),
    }
    return evaluate_predictions(LabelledPredictions(Predictions(embeddings(1), found), labels), list(found), None)


def test_attributes_are_compared_with_each_probe_by_paired_differences(classified: EvaluationResult) -> None:
    hair = classified.tested.labels.codes[:, 2]
    known = hair >= 0
    probes = {
        "linear_probe_albedo": {"gender": probabilities(4, 4), "facial_hair": probabilities(0.3, 5, np.roll(GENDER, 3))},
        "linear_probe_albedo_normal": {"gender": probabilities(3, 6), "facial_hair": probabilities(2, 7)},
    }
    section, headlines = attribute_baseline_section(classified, probes, {})
    (table,) = section.tables
    rows = named_rows(table)
    assert [(row["against"], row["metric"]) for row in rows] == [
        (name, metric) for name in probes for metric in ("gender/auc", "facial_hair/auc")
    ]
    for row in rows:
        attribute = row["metric"].split("/")[0]
        truth, some = (GENDER, slice(None)) if attribute == "gender" else (hair[known], known)
        name = f"baseline_{row['against']}/{row['metric']}"
        assert row["probe"] == section.metrics.values[name]
        assert row["probe"] == pytest.approx(roc_auc_score(truth, probes[row["against"]][attribute][some, 1]))
        own = classified.tested.predictions.probabilities[attribute]
        assert row["network"] == pytest.approx(roc_auc_score(truth, own[some, 1]))
        assert name in section.metrics.intervals
        drawn = classified.metrics.replicates[row["metric"]] - section.metrics.replicates[name]
        fewest = 6 if attribute == "gender" else 5  # subjects of the rarer class
        drawn = drawn[np.isfinite(drawn)]
        wide = scipy.stats.t.ppf(0.975, fewest - 1) * drawn.std(ddof=1) * np.sqrt(fewest / (fewest - 1))
        assert (row["low"], row["high"]) == pytest.approx((max(row["difference"] - wide, -1), min(row["difference"] + wide, 1)))
    better, worse = ("{difference:+.4f} [{low:+.4f}, {high:+.4f}]".format(**row) for row in rows[:2])
    assert headlines[0] == (
        f"attributes: the network's AUC is above linear_probe_albedo in 1 of 2: gender {better}; BELOW: facial_hair {worse}"
    )


def test_attributes_without_a_probe_or_a_test_class_are_reasons(classified: EvaluationResult) -> None:
    probes = {"linear_probe_albedo": {"gender": probabilities(4, 4), "pose": probabilities(1, 5)}}
    omitted = {"linear_probe_albedo": {"facial_hair": "no training session is any"}}
    section, headlines = attribute_baseline_section(classified, probes, omitted)
    (table,) = section.tables
    assert [row["metric"] for row in named_rows(table)] == ["gender/auc"]
    for reason in (
        "linear_probe_albedo facial_hair: no training session is any",
        "linear_probe_albedo pose: the only class among the labels is frontal",
    ):
        assert reason in table.note
    assert section.metrics.values["baseline_linear_probe_albedo/facial_hair/auc"] is None
    assert section.metrics.values["baseline_linear_probe_albedo/pose/auc"] is None
    assert "in 1 of 1: gender +" in headlines[0]
    nothing = {"linear_probe_albedo": dict.fromkeys(["gender", "facial_hair", "pose"], "the training maps do not differ")}
    section, headlines = attribute_baseline_section(classified, {"linear_probe_albedo": {}}, nothing)
    assert headlines == ["attributes: linear_probe_albedo has no defined AUC"]
    assert section.tables[0].note.count("the training maps do not differ") == 3


def test_an_equal_probe_is_not_beaten(classified: EvaluationResult) -> None:
    own = {"gender": classified.tested.predictions.probabilities["gender"]}
    _, (headline,) = attribute_baseline_section(classified, {"linear_probe_albedo": own}, {})
    auc = classified.metrics.values["gender/auc"]
    assert headline == f"attributes: the network's AUC is above linear_probe_albedo in 0 of 1; equal: gender {auc:.4f}"


def test_a_test_class_of_one_subject_gives_no_interval(classified: EvaluationResult) -> None:
    rows = np.r_[0:6, 6:9, 12:15]  # p00, p02 and p04 are female, p01 is male
    labels, found = classified.tested.labels.subset(rows), {"gender": probabilities(1, 1)[rows]}
    result = evaluate_predictions(LabelledPredictions(Predictions(embeddings(1)[rows], found), labels), ["gender"], None)
    probes = {"linear_probe_albedo": {"gender": 1 - found["gender"]}}
    section, (headline,) = attribute_baseline_section(result, probes, {})
    (row,) = named_rows(section.tables[0])
    assert row["low"] is None
    assert re.fullmatch(r".* in 1 of 1: gender \+[\d.]+ \(no interval\)", headline)


def test_on_warped_maps_the_attributes_of_the_network_are_those_on_warped_maps(classified: EvaluationResult) -> None:
    warped, probe = {"gender": probabilities(2, 8)}, {"linear_probe_albedo": {"gender": probabilities(2.5, 9)}}
    section, (headline,) = attribute_baseline_section(classified, probe, {}, warped)
    assert headline.startswith("attributes, on warped maps: the network's AUC is above linear_probe_albedo in 1 of 1: gender +")
    (table,) = section.tables
    assert set(section.metrics.values) == {"jittered_baseline_linear_probe_albedo/gender/auc"}
    assert (table.name, "warped" in table.title) == ("jittered_attribute_baselines", True)
    assert named_rows(table)[0]["network"] == pytest.approx(roc_auc_score(GENDER, warped["gender"][:, 1]))
    jitter = jitter_section(classified, embeddings(2), attribute_aucs(warped, classified))
    assert jitter.metrics.values["jittered/gender/auc"] == pytest.approx(roc_auc_score(GENDER, warped["gender"][:, 1]))
    row = named_rows(jitter.tables[0])[-1]
    assert (row["metric"], row["original"]) == ("gender/auc", classified.metrics.values["gender/auc"])
    assert row["warped"] == jitter.metrics.values["jittered/gender/auc"]
