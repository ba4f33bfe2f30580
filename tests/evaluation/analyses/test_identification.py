"""Identification against loops, against models with known rates, and undefined searches."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.evaluation.analyses.gallery_search import GallerySearch, search_gallery
from fr_ps.evaluation.analyses.identification import OpenSet, cmc_figure, fnir_at, identification_section, open_set, rank_metrics
from fr_ps.evaluation.bootstrap import bootstrap_weights
from tests.evaluation.analyses.test_gallery_search import SHARES, faces, signs, some_rows

NAMES = ("rank1", "rank5", "rank1_mean", "rank5_mean")


def test_rank_1_is_the_share_of_sessions_whose_nearest_session_is_of_the_same_subject() -> None:
    embeddings, ids = faces(3, 12, 4, 1.5)
    embeddings, ids = embeddings[2:-3], ids[2:-3]  # 2, 4, ..., 4 and 1 sessions
    right = []
    for probe in range(len(ids)):
        length = np.linalg.norm(embeddings, axis=1) * np.linalg.norm(embeddings[probe])
        cosine = embeddings @ embeddings[probe] / length
        cosine[probe] = -2
        if (ids == ids[probe]).sum() > 1:
            right.append(ids[np.argmax(cosine)] == ids[probe])
    found = rank_metrics(search_gallery(embeddings, ids, None))
    assert 0.2 < np.mean(right) < 0.95
    assert found.values["rank1"] == pytest.approx(np.mean(right))


@pytest.mark.parametrize("value", [0.0, 0.37])
def test_a_constant_embedding_has_identification_rates_of_zero(value: float) -> None:
    ids = np.repeat(list("abcdefg"), [1, 2, 3, 5, 7, 11, 13])
    found = identification_section(search_gallery(np.full((len(ids), 24), value, dtype=np.float32), ids, None), ids, None).metrics
    assert [found.values[name] for name in NAMES] == [0, 0, 0, 0]
    assert found.values["fnir_at_fpir_0.1"] == 1


def test_a_perfect_model_makes_no_error_and_its_bounds_come_from_subjects() -> None:
    ids = np.repeat([f"p{person}" for person in range(20)], 3)
    embeddings = np.repeat(np.eye(20, dtype=np.float32), 3, axis=0)
    found = identification_section(search_gallery(embeddings, ids, None), ids, bootstrap_weights(ids)).metrics
    assert [found.values[name] for name in (*NAMES, "fnir_at_fpir_0.1")] == [1, 1, 1, 1, 0]
    assert found.intervals["rank1"] == pytest.approx((0.05 ** (1 / 20), 1))
    assert found.intervals["fnir_at_fpir_0.1"] == pytest.approx((0, 1 - 0.05 ** (1 / 20)))


def test_an_inverted_model_is_always_wrong() -> None:
    axes = np.eye(8, dtype=np.float32)
    # The two sessions of a subject are opposite, and another subject is nearest.
    ids = np.repeat([f"p{person}" for person in range(8)], 2)
    embeddings = np.stack([axes, -np.roll(axes, 1, axis=0)], axis=1).reshape(16, 8) + 0.1
    embeddings[1::2] = -embeddings[::2]
    found = identification_section(search_gallery(embeddings, ids, None), ids, None).metrics
    assert [found.values[name] for name in (*NAMES[:3], "fnir_at_fpir_0.1")] == [0, 0, 0, 1]


def test_a_random_model_is_right_as_often_as_chance() -> None:
    ids = np.repeat([f"p{person}" for person in range(10)], 100)
    gallery = np.arange(0, 1000, 100)
    found = rank_metrics(search_gallery(np.random.default_rng(0).standard_normal((1000, 64)), ids, gallery))
    assert found.values["rank1"] == pytest.approx(0.1, abs=0.04)
    assert found.values["rank5"] == pytest.approx(0.5, abs=0.07)


def fnir_by_loop(search: GallerySearch, only_not_enrolled: bool, rate: float, weights: np.ndarray) -> float:
    """FNIR at the smallest threshold with at most this FPIR, by trying every threshold."""
    mated_score, nonmated_score, rank = search.by_maximum.mated, search.by_maximum.nonmated, search.by_maximum.rank
    nonmated = [
        probe for probe in range(len(rank)) if not np.isnan(nonmated_score[probe]) and not (only_not_enrolled and rank[probe])
    ]
    mated = [probe for probe in range(len(rank)) if rank[probe]]
    if not sum(weights[nonmated]) or not sum(weights[mated]):
        return np.nan
    scores = [*mated_score[~np.isnan(mated_score)], *nonmated_score[~np.isnan(nonmated_score)]]
    for threshold in sorted([-2, *scores, *(score + 1e-9 for score in scores)]):
        positives = sum(weights[probe] for probe in nonmated if nonmated_score[probe] >= threshold)
        if positives / sum(weights[nonmated]) <= rate:
            misses = sum(weights[probe] for probe in mated if rank[probe] != 1 or mated_score[probe] < threshold)
            return misses / sum(weights[mated])
    raise AssertionError


@given(
    seed=st.integers(0, 10**6),
    count=st.integers(2, 30),
    people=st.integers(2, 8),
    share=SHARES,
    rate=st.sampled_from([0, 0.1, 0.5]),
)
def test_fnir_of_each_replicate_is_that_of_a_loop_over_thresholds(
    seed: int, count: int, people: int, share: float | None, rate: float
) -> None:
    embeddings, ids = signs(seed, count, people)
    found = search_gallery(embeddings, ids, some_rows(seed, count, share))
    searches = open_set(found)
    if not len(searches.nonmated):
        return
    draws = bootstrap_weights(ids, 20, seed).select(found.probes)
    by_loop = [fnir_by_loop(found, not searches.leave_own_out, rate, weights) for weights in draws.weights[:, draws.unit]]
    assert fnir_at(searches, [rate], draws)[0][:, 0] == pytest.approx(np.array(by_loop), nan_ok=True)


def open_set_of(best: list[float], own: list[float]) -> OpenSet:
    count = len(best)
    hits = np.arange(count, count + len(own))
    return OpenSet(np.arange(count), np.array(best), hits, hits, np.array(own), False)


@pytest.mark.parametrize(
    ("rate", "threshold", "fnir"),
    [
        (0, 0.9, 0.75),  # at 0.9 a non-mated search is accepted: the threshold is just above
        (0.2, 0.5, 0.25),
        (0.4, 0.5, 0.25),  # the two at 0.5 are accepted together
        (0.6, 0.3, 0.25),
        (0.8, 0.1, 0),
    ],
)
def test_the_threshold_lies_just_above_the_score_that_exceeds_the_fpir(rate: float, threshold: float, fnir: float) -> None:
    found = open_set_of([0.9, 0.5, 0.5, 0.3, 0.1], [0.95, 0.9, 0.6, 0.2])
    draws = bootstrap_weights(np.arange(9), 1)
    once = type(draws)(draws.unit, np.ones_like(draws.weights), 9)
    got, at = fnir_at(found, [rate], once)
    assert at[0, 0] == threshold
    assert got[0, 0] == pytest.approx(fnir)


def test_memory_holds_a_block_of_replicates_at_a_time() -> None:
    rng = np.random.default_rng(0)
    found = open_set_of(sorted(rng.random(10_000), reverse=True), sorted(rng.random(10_000), reverse=True))
    draws = bootstrap_weights(np.arange(20_000) // 20, 1000)
    tracemalloc.start()
    fnir_at(found, [0.1, 0.01], draws)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_probes_of_subjects_not_enrolled_are_the_non_mated_searches() -> None:
    embeddings, ids = faces(0, 10, 4, 0.5)
    first = np.arange(0, 40, 4)
    with_strangers = search_gallery(embeddings, ids, first[:7])
    found = open_set(with_strangers)
    assert not found.leave_own_out
    assert (np.sort(with_strangers.probes[found.nonmated]) == [*range(28, 40)]).all()
    for gallery in (None, first):
        everyone = search_gallery(embeddings, ids, gallery)
        assert open_set(everyone).leave_own_out
        assert len(open_set(everyone).nonmated) == len(everyone.probes)


def test_the_gallery_is_not_resampled() -> None:
    embeddings, ids = faces(1, 15, 3, 1.5)
    searched = search_gallery(embeddings, ids, None)
    draws = bootstrap_weights(ids, 30)
    found = identification_section(searched, ids, draws).metrics
    right = searched.mean.rank == 1
    by_loop = [np.average(right, weights=weights) for weights in draws.weights[:, draws.unit]]
    assert found.replicates["rank1_mean"] == pytest.approx(np.array(by_loop))


@pytest.mark.parametrize(
    ("count", "points"), [(9, []), (10, ["0.1"]), (99, ["0.1"]), (100, ["0.1", "0.01"]), (1000, ["0.1", "0.01", "0.001"])]
)
def test_a_point_with_fewer_than_one_expected_false_positive_is_left_out(count: int, points: list[str]) -> None:
    ids = np.array([f"p{row // 2}" for row in range(count)])
    found = identification_section(
        search_gallery(np.random.default_rng(0).standard_normal((count, 8)), ids, None), ids, None
    ).metrics
    assert [name for name in found.values if "fnir" in name] == [f"fnir_at_fpir_{point}" for point in points]
    low = {name for name, reason in found.reasons.items() if reason.startswith("low support: ")}
    assert low == {f"fnir_at_fpir_{point}" for point in points if float(point) * count < 30}


@pytest.mark.parametrize(
    ("ids", "gallery", "reason"),
    [
        (["a"] * 12, None, "only one subject is enrolled"),
        (list("abcdefghijkl"), None, "no mated search: no subject has two sessions"),
        (["a"] * 6 + ["b"] * 6, [0, 1], "only one subject is enrolled"),
        (["a"] * 2 + ["b"] * 10, [0, 1], "no mated search: no subject of a probe is enrolled"),
        (["a"] * 6 + ["b"] * 6, [], "no mated search: no subject of a probe is enrolled"),
        (["a"] * 6 + ["b"] * 6, list(range(12)), "no probe: no session, or all are enrolled"),
        ([], None, "no probe: no session, or all are enrolled"),
    ],
)
def test_undefined_metrics_have_a_reason(ids: list[str], gallery: list[int] | None, reason: str) -> None:
    people = np.array(ids, dtype=str)
    embeddings = np.random.default_rng(0).standard_normal((len(ids), 8)).astype(np.float32)
    searched = search_gallery(embeddings, people, None if gallery is None else np.array(gallery, dtype=int))
    draws = bootstrap_weights(people) if ids else None
    found = identification_section(searched, people, draws)
    for name in NAMES:
        assert found.metrics.values[name] is None
        assert found.metrics.reasons[name] == reason
    assert "cmc" not in found.figures
    mated = bool(searched.by_maximum.rank.any())
    assert all((value is not None) == mated for name, value in found.metrics.values.items() if "fnir" in name)
    assert [row[1] for row in found.tables[0].rows[:4]] == [None] * 4


@pytest.mark.parametrize(("people", "defined"), [(5, False), (6, True)])
def test_rank_5_needs_six_subjects(people: int, defined: bool) -> None:
    embeddings, ids = faces(0, people, 3, 1.0)
    found = rank_metrics(search_gallery(embeddings, ids, None))
    assert found.values["rank1"] is not None
    assert (found.values["rank5"] is not None) == (found.values["rank5_mean"] is not None) == defined
    assert (found.reasons.get("rank5") == "fewer than six subjects are enrolled") != defined


def test_the_table_counts_searches_errors_and_subjects() -> None:
    embeddings, ids = faces(2, 20, 3, 1.0)
    embeddings, ids = embeddings[:-2], ids[:-2]  # the last subject has a single session
    found = identification_section(search_gallery(embeddings, ids, None), ids, bootstrap_weights(ids))
    (table,) = found.tables
    assert [row[0] for row in table.rows] == [
        "rank 1, maximum",
        "rank 5, maximum",
        "rank 1, mean",
        "rank 5, mean",
        "FNIR at FPIR 0.1",
    ]
    for name, (_, value, low, high, errors, searches, people, threshold) in zip((*NAMES, "fnir_at_fpir_0.1"), table.rows):
        assert (
            value == found.metrics.values[name] == pytest.approx(errors / searches if "fnir" in name else 1 - errors / searches)
        )
        assert low <= value <= high
        assert (searches, people) == (57, 19)
        assert (threshold is not None) == ("fnir" in name)
    assert "58 non-mated searches are those of all probes" in table.note


def test_the_curves_show_the_metrics() -> None:
    embeddings, ids = faces(2, 30, 4, 1.2)
    searched = search_gallery(embeddings, ids, None)
    found = identification_section(searched, ids, None)
    maximum, mean = found.figures["cmc"]().axes[0].lines
    assert maximum.get_xdata()[[0, 4, -1]].tolist() == [1, 5, 20]
    for line, suffix in ((maximum, ""), (mean, "_mean")):
        assert line.get_ydata()[[0, 4]].tolist() == [found.metrics.values[f"rank{rank}{suffix}"] for rank in (1, 5)]
    assert cmc_figure(searched).axes[0].get_ylim()[0] == pytest.approx(min(maximum.get_ydata()[0], mean.get_ydata()[0]), abs=0.05)
    curve, points = found.figures["open_set"]().axes[0].lines
    for rate, fnir in zip(*points.get_data()):
        steps = np.flatnonzero(curve.get_xdata() <= rate)
        assert fnir == found.metrics.values[f"fnir_at_fpir_{rate:g}"] == pytest.approx(curve.get_ydata()[steps[-1]])
    assert curve.get_ydata()[-1] == pytest.approx(1 - found.metrics.values["rank1"])
