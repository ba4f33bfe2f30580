"""The embeddings in two dimensions, for a look at which subjects and sessions lie close together.

t-SNE (van der Maaten and Hinton, "Visualizing data using t-SNE", JMLR 2008) keeps neighbours together. Distances between groups
and sizes of groups have no meaning in it, so that the page gives no number from it.
"""

from functools import partial

import numpy as np
from matplotlib.figure import Figure

from fr_ps.data.labels import Labels
from fr_ps.evaluation.metrics import ReportSection
from fr_ps.report.figures import COLOURS, legend_beside, new_figure

MIN_SESSIONS = 8
MAX_SESSIONS = 600
"""More sessions than this are sampled: t-SNE is slow."""
_MAX_PER_SUBJECT = 12
"""In a sample, so that it has many subjects."""
_PERPLEXITY = 15.0
_MARKERS = "osD^v<>PX*hp"
"""Of the subjects, beside their colours, for colour-blind readers."""


def projection_section(embeddings: np.ndarray, labels: Labels, seed: int = 0) -> ReportSection:
    """The figure `projection`; without it for fewer than `MIN_SESSIONS` sessions or for equal embeddings.

    Args:
        embeddings: (n, C) of any length; compared by cosine.
        labels: labels of the same sessions.
        seed: random seed of the sample and of t-SNE.
    """
    rows = _sample(labels.ids, seed)
    unit = embeddings[rows].astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    if len(rows) < MIN_SESSIONS or np.ptp(unit, axis=0).max() < 1e-9:
        return ReportSection()
    sampled = ""
    if len(rows) < len(labels):
        sampled = (
            f" A random sample of {len(rows)} of {len(labels)} sessions, at most {_MAX_PER_SUBJECT} of each of "
            f"{len(np.unique(labels.ids[rows]))} subjects."
        )
    caption = (
        "A point is a session; sessions of one subject should lie together. Neighbours are meaningful, distances between groups "
        f"are not.{sampled}"
    )
    return ReportSection(
        figures={"projection": partial(projection_figure, unit, labels.ids[rows], seed)}, captions={"projection": caption}
    )


def project(unit: np.ndarray, seed: int) -> np.ndarray:
    """(n, 2) t-SNE of (n, C) vectors."""
    from sklearn.manifold import TSNE  # here: slow to import

    perplexity = min(_PERPLEXITY, (len(unit) - 1) / 3)
    return TSNE(init="pca", perplexity=perplexity, max_iter=500, random_state=seed, n_jobs=1).fit_transform(unit)


def projection_figure(unit: np.ndarray, ids: np.ndarray, seed: int) -> Figure:
    """The points of as many subjects as there are colours, and those of all others in grey."""
    points = project(unit, seed)
    figure, axes = new_figure("Embeddings, t-SNE", "", "", legend=True)
    subjects, counts = np.unique(ids, return_counts=True)
    shown = np.sort(subjects[np.argsort(-counts, kind="stable")[: len(COLOURS)]])
    others = ~np.isin(ids, shown)
    if others.any():
        label = f"{len(subjects) - len(shown)} other subjects"
        axes.plot(*points[others].T, ".", color="#c4c9d0", markersize=5, label=label)
    for subject, colour, marker in zip(shown, COLOURS, _MARKERS):
        of_subject = points[ids == subject]
        name = str(subject)[:24]
        name = f" {name}" if name.startswith("_") else name  # else matplotlib leaves it out of the legend
        axes.plot(*of_subject.T, marker, color=colour, markersize=5, label=name)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    legend_beside(axes)
    return figure


def _sample(ids: np.ndarray, seed: int) -> np.ndarray:
    """All rows, or those of at most `MAX_SESSIONS` sessions, at most `_MAX_PER_SUBJECT` of each of random subjects."""
    if len(ids) <= MAX_SESSIONS:
        return np.arange(len(ids))
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(ids))
    subject_of = np.unique(ids[rows], return_inverse=True)[1]
    by_subject = np.argsort(rng.permutation(subject_of.max() + 1)[subject_of], kind="stable")
    sorted_subjects = subject_of[by_subject]
    starts = np.flatnonzero(np.r_[True, sorted_subjects[1:] != sorted_subjects[:-1]])
    rank = np.arange(len(ids)) - np.repeat(starts, np.diff(np.r_[starts, len(ids)]))
    return np.sort(rows[by_subject[rank < _MAX_PER_SUBJECT][:MAX_SESSIONS]])
