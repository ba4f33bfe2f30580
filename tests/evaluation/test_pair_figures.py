"""The pairs that the figures show, against a loop over all pairs."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from fr_ps.data.labels import DEFAULT_CLASSES, Labels
from fr_ps.data.store import MapStore
from fr_ps.evaluation.analyses.gallery_search import search_gallery
from fr_ps.evaluation.bootstrap import bootstrap_weights
from fr_ps.evaluation.evaluate_predictions import EvaluationResult, LabelledPredictions, make_pairs
from fr_ps.evaluation.metrics import ReportSection
from fr_ps.evaluation.pair_figures import PAIRS_SHOWN, pair_section
from fr_ps.evaluation.pairwise.pair_list import PairList
from fr_ps.evaluation.pairwise.similarity import Measure
from fr_ps.models.inference import Predictions
from fr_ps.report.figures import to_png
from tests.foreign import MARKUP_LIKE_TEXTS

SIDE = 8
ALL = ("worst_genuine", "best_genuine", "worst_impostor")
Shown = list[tuple[float, int, int]]
"""Score and the two rows of the labels."""


@dataclass(frozen=True)
class Example:
    """A result, and labels and embeddings of the test sessions, then of the gallery sessions."""

    result: EvaluationResult
    labels: Labels
    embeddings: np.ndarray


def example_of(ids: str, enrolled: str = "", listed: PairList | None = None, measure: Measure = "cosine") -> Example:
    """A minimal evaluation of subjects with one-letter names; `enrolled` are the gallery."""
    names = np.array(list(ids + enrolled))
    sessions = np.array([f"s{i:02d}" for i in range(len(names))])
    labels = Labels(names, sessions, np.full((len(names), 5), -1, np.int8), DEFAULT_CLASSES, "raw", {})
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(26, 12))[[ord(name) - ord("a") for name in names]]
    embeddings = (centres + 1.5 * rng.normal(size=centres.shape)).astype(np.float32)
    tested_rows = np.arange(len(ids))
    draws = bootstrap_weights(names[tested_rows], replicates=2)
    pair_scores = make_pairs(embeddings[tested_rows], names[tested_rows], listed, measure, draws).score()
    searched = search_gallery(embeddings, names, np.arange(len(ids), len(names)) if enrolled else None)
    tested = LabelledPredictions(Predictions(embeddings[tested_rows], {}), labels.subset(tested_rows))
    return Example(EvaluationResult(tested, pair_scores, listed, searched, draws, {}, ()), labels, embeddings)


def section_of(example: Example, maps: tuple[str, ...] = ("albedo",)) -> ReportSection:
    """The section with a store that has the map of labels row r in its row 63 - r; that map is dark in pixel r only."""
    pixels = np.ones((SIDE * SIDE, 1, SIDE, SIDE), np.float32)
    for row in range(SIDE * SIDE):
        pixels[SIDE * SIDE - 1 - row, 0, row // SIDE, row % SIDE] = 0
    arrays = {name: np.repeat(pixels, 3 if name == "normal" else 1, axis=1) for name in maps}
    store = MapStore(arrays, np.arange(len(pixels)), "digest")
    return pair_section(example.result, store, SIDE * SIDE - 1 - np.arange(len(example.labels)), example.labels)


def groups_of(section: ReportSection) -> list[str]:
    """The groups of pictures, in order."""
    return list(dict.fromkeys(name.rpartition("_")[0] for name in section.figures))


def shown_pairs(section: ReportSection, group: str, labels: Labels) -> Shown:
    """The pairs in a group of pictures; checks that the images are those of the named sessions."""
    names = {f"{person}/{session}": row for row, (person, session) in enumerate(zip(labels.ids, labels.sessions))}
    found: Shown = []
    for name, draw in section.figures.items():
        if name.startswith(group):
            figure = draw()
            first, second = (names[text.get_text()] for text in figure.texts)
            assert [int(axes.images[0].get_array()[..., 0].argmin()) for axes in figure.axes] == [first, second]
            found.append((float(section.captions[name].split()[-1]), first, second))
    return found


def cosine(embeddings: np.ndarray, one: int, other: int) -> float:
    a, b = embeddings[one].astype(float), embeddings[other].astype(float)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def check(shown: Shown, expected: Sequence[tuple[int, int]], embeddings: np.ndarray) -> None:
    """Check the pairs in their order, either session first, each with its score."""
    assert [{one, other} for _, one, other in shown] == [set(pair) for pair in expected]
    assert [score for score, *_ in shown] == pytest.approx([cosine(embeddings, *pair) for pair in expected], abs=6e-4)


def worst_impostors(embeddings: np.ndarray, ids: np.ndarray, probes: Sequence[int], gallery: Sequence[int]) -> list[tuple]:
    """The pairs of a probe with its top impostor that have the highest scores, each once."""
    impostors = set()
    for probe in probes:
        others = [row for row in gallery if ids[row] != ids[probe]]
        if others:
            best = max(others, key=lambda row: cosine(embeddings, probe, row))
            impostors.add((min(probe, best), max(probe, best)))
    return sorted(impostors, key=lambda pair: -cosine(embeddings, *pair))[:PAIRS_SHOWN]


def genuine_pairs(ids: np.ndarray) -> list[tuple[int, int]]:
    return [pair for pair in itertools.combinations(range(len(ids)), 2) if ids[pair[0]] == ids[pair[1]]]


def test_the_pairs_with_the_lowest_and_highest_scores_are_shown() -> None:
    example = example_of("abcabcabcdaabbce")
    embeddings, ids = example.embeddings, example.labels.ids
    found = section_of(example)
    assert tuple(groups_of(found)) == ALL
    genuine = sorted(genuine_pairs(ids), key=lambda pair: cosine(embeddings, *pair))
    check(shown_pairs(found, "worst_genuine", example.labels), genuine[:PAIRS_SHOWN], embeddings)
    check(shown_pairs(found, "best_genuine", example.labels), genuine[::-1][:PAIRS_SHOWN], embeddings)
    check(
        shown_pairs(found, "worst_impostor", example.labels), worst_impostors(embeddings, ids, range(16), range(16)), embeddings
    )


def test_ids_and_sessions_are_drawn_unchanged() -> None:
    """Matplotlib would parse two dollar signs in an id as a formula and fail."""
    example = example_of("aabbccddee")  # five genuine pairs: a group shows all names
    for start in range(0, len(MARKUP_LIKE_TEXTS), 5):
        names = np.resize(MARKUP_LIKE_TEXTS[start : start + 5], 5)
        labels = replace(example.labels, ids=np.repeat(names, 2), sessions=np.repeat(names, 2))
        section = section_of(replace(example, labels=labels))
        figures = [draw() for name, draw in section.figures.items() if name.startswith("best_genuine")]
        assert {figure.texts[0].get_text() for figure in figures} == {f"{name}/{name}" for name in names}
        assert to_png(figures[0]).startswith(b"\x89PNG")


def test_all_maps_of_the_model_are_side_by_side() -> None:
    figure = section_of(example_of("aabb"), ("albedo", "normal", "depth")).figures["worst_genuine_1"]()
    lefts = sorted({round(axes.get_position().x0, 6) for axes in figure.axes})
    assert (len(figure.axes), len(lefts)) == (6, 3)


def test_with_fewer_pairs_than_are_shown_there_are_fewer_pictures() -> None:
    example = example_of("aabbc")
    found = section_of(example)
    worst, best = (shown_pairs(found, name, example.labels) for name in ("worst_genuine", "best_genuine"))
    assert len(worst) == 2
    assert worst == best[::-1]


def test_without_genuine_pairs_only_impostors_are_shown() -> None:
    example = example_of("abcdefgh")
    found = section_of(example)
    assert groups_of(found) == ["worst_impostor"]
    impostors = worst_impostors(example.embeddings, example.labels.ids, range(8), range(8))
    check(shown_pairs(found, "worst_impostor", example.labels), impostors, example.embeddings)


def test_with_one_subject_only_genuine_pairs_are_shown() -> None:
    assert groups_of(section_of(example_of("aaa"))) == ["worst_genuine", "best_genuine"]


def test_one_session_gives_no_figure() -> None:
    assert section_of(example_of("a")).figures == {}


@pytest.mark.parametrize("enrolled", ["aabbcd", "aax", "a"], ids=["many", "two", "one"])
def test_impostors_of_a_gallery_are_enrolled_sessions(enrolled: str) -> None:
    example = example_of("abcabc", enrolled)
    shown = shown_pairs(section_of(example), "worst_impostor", example.labels)
    impostors = worst_impostors(example.embeddings, example.labels.ids, range(6), range(6, len(example.labels)))
    check(shown, impostors, example.embeddings)
    assert all(min(pair) < 6 <= max(pair) for _, *pair in shown)


def test_without_other_enrolled_subjects_no_impostor_is_shown() -> None:
    assert groups_of(section_of(example_of("aa", "a"))) == ["worst_genuine", "best_genuine"]


def test_a_pair_list_shows_only_its_own_genuine_pairs() -> None:
    example = example_of("aaabbbcc", listed=PairList(np.array([2, 0, 3, 0]), np.array([0, 3, 5, 1]), None))
    genuine = sorted([(0, 2), (3, 5), (0, 1)], key=lambda pair: cosine(example.embeddings, *pair))
    check(shown_pairs(section_of(example), "worst_genuine", example.labels), genuine, example.embeddings)


def test_euclidean_scores_are_negative_distances_the_largest_distance_first() -> None:
    example = example_of("abcabcaabb", measure="euclidean")
    rows = example.embeddings.astype(float)
    distance = {pair: float(np.linalg.norm(rows[pair[0]] - rows[pair[1]])) for pair in genuine_pairs(example.labels.ids)}
    expected = sorted(distance, key=lambda pair: -distance[pair])[:PAIRS_SHOWN]
    shown = shown_pairs(section_of(example), "worst_genuine", example.labels)
    assert [tuple(sorted(pair)) for _, *pair in shown] == expected
    assert [score for score, *_ in shown] == pytest.approx([-distance[pair] for pair in expected], abs=1e-3)
