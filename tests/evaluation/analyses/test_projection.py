"""The projection of embeddings: neighbours, colours, and what has no figure."""

import numpy as np
import pytest

from fr_ps.data.labels import DEFAULT_CLASSES, Labels
from fr_ps.evaluation.analyses import projection
from fr_ps.evaluation.analyses.projection import project, projection_figure, projection_section


def example(subjects: int, sessions: int) -> tuple[np.ndarray, Labels]:
    rng = np.random.default_rng(0)
    ids = np.repeat([f"p{i:02d}" for i in range(subjects)], sessions)
    embeddings = np.repeat(rng.normal(size=(subjects, 16)), sessions, axis=0) + 0.05 * rng.normal(size=(len(ids), 16))
    return embeddings, Labels(
        ids, np.arange(len(ids)).astype(str), np.full((len(ids), 5), -1, np.int8), DEFAULT_CLASSES, "raw", {}
    )


def test_the_nearest_neighbour_of_a_session_is_of_the_same_subject() -> None:
    embeddings, labels = example(5, 6)
    points = project(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), seed=0)
    distance = np.linalg.norm(points[:, None] - points, axis=2) + np.diag(np.full(30, np.inf))
    assert (labels.ids[distance.argmin(axis=1)] == labels.ids).all()
    np.testing.assert_array_equal(points, project(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), seed=0))


def test_each_subject_has_its_own_colour_and_those_beyond_the_colours_are_grey() -> None:
    embeddings, labels = example(15, 3)
    axes = projection_figure(embeddings, labels.ids, 0).axes[0]
    others, *named = axes.lines
    assert (others.get_label(), len(others.get_xdata())) == ("3 other subjects", 9)  # type: ignore[arg-type]
    assert [line.get_label() for line in named] == [f"p{i:02d}" for i in range(12)]
    assert len({line.get_color() for line in axes.lines}) == 13


@pytest.mark.parametrize(("subjects", "sessions", "scale"), [(1, 7, 1), (4, 4, 0)], ids=["few sessions", "equal embeddings"])
def test_without_anything_to_see_there_is_no_figure(subjects: int, sessions: int, scale: int) -> None:
    embeddings, labels = example(subjects, sessions)
    assert projection_section(scale * embeddings + 1, labels).figures == {}


def test_a_sample_of_many_sessions_has_many_subjects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "MAX_SESSIONS", 30)
    embeddings, labels = example(3, 20)
    section = projection_section(embeddings, labels)
    assert "30 of 60 sessions, at most 12 of each of 3 subjects" in section.captions["projection"]
    assert sorted(len(line.get_xdata()) for line in section.figures["projection"]().axes[0].lines) == [6, 12, 12]  # type: ignore[arg-type]


def test_a_subject_whose_name_begins_with_an_underscore_is_in_the_legend() -> None:
    embeddings, labels = example(2, 5)
    legend = projection_figure(embeddings, np.char.add("_", labels.ids), 0).axes[0].get_legend()
    assert legend is not None
    assert [text.get_text().strip() for text in legend.get_texts()] == ["_p00", "_p01"]
