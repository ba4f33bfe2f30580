"""Verification errors of the classes of each attribute at one global threshold.

A deployed system has one threshold. A group is affected by the false matches among its own impostor pairs, which are the most
frequent ones, and by the false non-matches of its subjects. Impostor pairs of two groups are easier and have their own table.

ISO/IEC 19795-10:2024, "Quantifying biometric system performance variation across demographic groups"; Grother, Ngan and Hanaoka,
"FRVT part 3: demographic effects", NIST IR 8280, 2019; Howard et al., "Evaluating proposed fairness models for face recognition
algorithms", 2022.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from scipy import sparse

from fr_ps.data.labels import ATTRIBUTES, Labels
from fr_ps.evaluation.bootstrap import BootstrapWeights, confidence_interval
from fr_ps.evaluation.metrics import LOW_SUPPORT, LOW_SUPPORT_REASON, Metrics, ReportSection
from fr_ps.evaluation.pairwise.similarity import Similarity, similarity
from fr_ps.report.figures import empty_figure, use_plain_tick_labels
from fr_ps.report.table import Cell, Table

BLOCK_COLUMNS = 4096
"""Sessions that a block is compared with at a time."""
_RATIOS = (("fmr_ratio", "false match", "impostor pair"), ("fnmr_ratio", "false non-match", "genuine pair"))
_FMR = ("FMR", "FMR low", "FMR high", "false matches", "of impostor pairs")
_FNMR = ("FNMR", "FNMR low", "FNMR high", "false non-matches", "of genuine pairs")
_WITHIN = (
    "Both sessions of a pair are of the class. Low, high: 95 % bootstrap confidence interval over subjects. "
    f"Rates with fewer than {LOW_SUPPORT} errors are uncertain."
)


@dataclass(frozen=True)
class GroupCounts:
    """Counts of pairs by the k classes of one attribute, over the labelled sessions; every unordered pair counts once.

    A cell of a symmetric matrix and its mirror image are the same pairs. There are U resampling units (see `BootstrapWeights`).

    Attributes:
        sessions: (k,) sessions per class.
        subjects: (k,) subjects with a session of the class.
        mated_subjects: (k,) subjects with two sessions of the class.
        impostors: (k, k) symmetric, impostor pairs by the classes of their sessions.
        false_matches: (k, k) symmetric, accepted impostor pairs.
        genuine: (k, k) symmetric, genuine pairs.
        false_non_matches: (k, k) symmetric, rejected genuine pairs.
        unit_sessions: (U, k) sessions per unit and class.
        unit_squares: (U, k) sum over the subjects of a unit of the squared number of sessions.
        unit_false_matches: (k, U, U) float32, false matches within a class by the units of the two sessions; each once.
        unit_false_non_matches: (U, k) false non-matches within a class.
    """

    sessions: np.ndarray
    subjects: np.ndarray
    mated_subjects: np.ndarray
    impostors: np.ndarray
    false_matches: np.ndarray
    genuine: np.ndarray
    false_non_matches: np.ndarray
    unit_sessions: np.ndarray
    unit_squares: np.ndarray
    unit_false_matches: np.ndarray
    unit_false_non_matches: np.ndarray

    def rates(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, k) FMR and (B, k) FNMR within each class in B replicates, NaN without such pairs.

        A genuine pair of subject i weighs w_i, an impostor pair of i and j w_i w_j; copies of a subject are no impostors.

        Args:
            weights: (B, U) how often each unit was drawn.
        """
        sessions = weights @ self.unit_sessions
        impostors = (sessions**2 - weights**2 @ self.unit_squares) / 2
        genuine = weights @ (self.unit_squares - self.unit_sessions) / 2
        matched = [np.sum((weights @ of_class) * weights, axis=1, dtype=np.float64) for of_class in self.unit_false_matches]
        with np.errstate(invalid="ignore"):
            return np.stack(matched, axis=1) / impostors, weights @ self.unit_false_non_matches / genuine


def group_counts(
    embeddings: np.ndarray,
    ids: np.ndarray,
    codes: np.ndarray,
    class_counts: Sequence[int],
    threshold: float,
    bootstrap: BootstrapWeights | None = None,
    block: int = 512,
) -> list[GroupCounts]:
    """The counts of each attribute. Time grows with n^2; memory with n, the block, and units^2 x classes.

    Args:
        embeddings: (n, C).
        ids: (n,) subject of each session.
        codes: (n, attributes) classes; a session with -1 is left out of that attribute.
        class_counts: number of classes of each attribute.
        threshold: the lowest accepted cosine, rounded as in `similarity`.
        bootstrap: replicates of these n sessions; None: all subjects are one unit.
        block: sessions per block.

    Raises:
        InputError: an embedding with NaN or infinity.
    """
    subject_of = np.unique(ids, return_inverse=True)[1]
    unit = bootstrap.unit if bootstrap else np.zeros(len(ids), dtype=int)
    units = bootstrap.weights.shape[1] if bootstrap else 1
    order = np.lexsort((subject_of, unit))  # so that a block has few subjects and units
    first_row = np.flatnonzero(np.diff(subject_of[order], prepend=-1))
    subject_of, unit = np.repeat(np.arange(len(first_row)), np.diff(first_row, append=len(ids))), unit[order]
    onehot = np.hstack([codes[order, i, None] == np.arange(k) for i, k in enumerate(class_counts)]).astype(np.float32)
    compared = similarity(embeddings, ids).select(order)
    matched, missed, unit_matched, unit_missed = _count_errors(compared, threshold, subject_of, unit, units, onehot, block)
    by_subject = np.add.reduceat(onehot, first_row, axis=0, dtype=np.float64)
    unit_sessions, unit_squares = np.zeros((2, units, onehot.shape[1]))
    np.add.at(unit_sessions, unit[first_row], by_subject)
    np.add.at(unit_squares, unit[first_row], by_subject**2)
    found = []
    for part in (slice(end - k, end) for k, end in zip(class_counts, np.cumsum(class_counts))):
        counts = by_subject[:, part]  # (subjects, k) sessions
        sessions, genuine = counts.sum(axis=0), counts.T @ counts
        found.append(
            GroupCounts(
                sessions=sessions.astype(np.int64),
                subjects=(counts > 0).sum(axis=0),
                mated_subjects=(counts > 1).sum(axis=0),
                impostors=_unordered(np.outer(sessions, sessions) - genuine),
                false_matches=_unordered(matched[part, part] + matched[part, part].T),
                genuine=_unordered(genuine - np.diag(sessions)),
                false_non_matches=_unordered(missed[part, part] + missed[part, part].T),
                unit_sessions=unit_sessions[:, part],
                unit_squares=unit_squares[:, part],
                unit_false_matches=unit_matched[part],
                unit_false_non_matches=unit_missed[:, part],
            )
        )
    return found


def group_section(
    embeddings: np.ndarray, labels: Labels, threshold: float | None, source: str, bootstrap: BootstrapWeights | None
) -> ReportSection:
    """FMR and FNMR of each class, their ratio of the worst class to the best, and the FMR across classes.

    Metrics: `groups/{attribute}/fmr_ratio` and `groups/{attribute}/fnmr_ratio`. All replicates use the worst and the best class
    of the original data: an interval that contains 1 means that the order of the two is uncertain. Replicates in which the best
    class has no error are left out; if there are many, the upper bound is too low.

    Args:
        embeddings: (n, C).
        labels: labels of the n sessions.
        threshold: the lowest accepted cosine; None: undefined.
        source: where the threshold comes from, or why it is undefined.
        bootstrap: replicates of the subjects; None: no intervals.

    Raises:
        InputError: an embedding with NaN or infinity.
    """
    section = ReportSection()
    if threshold is None:
        for attribute in ATTRIBUTES:
            for name, _, _ in _RATIOS:
                section.metrics.add(f"groups/{attribute}/{name}", None, source)
        return section
    class_counts = [len(labels.class_names(attribute)) for attribute in ATTRIBUTES]
    groups: list[list[Cell]] = []
    across: list[list[Cell]] = []
    for attribute, counts in zip(
        ATTRIBUTES, group_counts(embeddings, labels.ids, labels.codes, class_counts, threshold, bootstrap)
    ):
        names = labels.class_names(attribute)
        drawn = counts.rates(bootstrap.weights) if bootstrap else (None, None)
        errors = (counts.false_matches.diagonal(), counts.false_non_matches.diagonal())
        trials = (counts.impostors.diagonal(), counts.genuine.diagonal())
        for rate, ratio in enumerate(_RATIOS):
            _add_ratio(section.metrics, f"groups/{attribute}/", ratio, names, errors[rate], trials[rate], drawn[rate])
        for code in np.flatnonzero(counts.sessions):
            row: list[Cell] = [attribute, names[code], int(counts.subjects[code]), int(counts.sessions[code])]
            for rate, subjects in enumerate((counts.subjects, counts.mated_subjects)):
                replicates = None if (rates := drawn[rate]) is None else rates[:, code]
                row += _rate(int(errors[rate][code]), int(trials[rate][code]), replicates, int(subjects[code]))
            groups.append(row)
        for one, other in zip(*np.triu_indices(len(names), 1)):
            if trial := int(counts.impostors[one, other]):
                matches = int(counts.false_matches[one, other])
                across.append([attribute, names[one], names[other], matches / trial, matches, trial])
    note = f"One threshold for all: cosine {threshold:.4f} ({source})."
    header = ("attribute", "class", "subjects", "sessions", *_FMR, *_FNMR)
    section.tables.append(Table("groups", "Errors by class at one threshold", header, groups, f"{note} {_WITHIN}"))
    other_header = ("attribute", "class", "other class", "FMR", *_FMR[3:])
    section.tables.append(Table("cross_groups", "False matches across classes", other_header, across, note))
    if any(row[4] is not None or row[9] is not None for row in groups):
        section.figures["groups"] = partial(_figure, groups)
    return section


def _count_errors(
    compared: Similarity, threshold: float, subject_of: np.ndarray, unit: np.ndarray, units: int, onehot: np.ndarray, block: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """False matches and false non-matches by class, and by class and unit; the classes of all attributes are concatenated.

    The sessions are sorted by unit, then by subject.
    """
    count, classes = onehot.shape
    level = compared.scale.threshold_level(threshold)
    row, code = np.nonzero(onehot)
    place = sparse.csr_array((np.ones(len(row), np.float32), (row, code * units + unit[row])), (count, classes * units))
    matched, missed = np.zeros((classes, classes)), np.zeros((classes, classes))
    unit_matched, unit_missed = np.zeros((classes, units, units), np.float32), np.zeros((units, classes))
    for start in range(0, count, block):
        mine = slice(start, min(start + block, count))
        by_place = np.zeros((classes * units, mine.stop - start), np.float32)
        for at in range(start, count, BLOCK_COLUMNS):
            others = slice(at, min(at + BLOCK_COLUMNS, count))
            accepted = (compared.levels(others, mine) >= level).numpy()
            errors = _extract_false_non_matches(accepted, subject_of, others, mine)
            by_class = errors.T @ onehot[at : at + len(errors)]
            missed += by_class.T @ onehot[mine]
            np.add.at(unit_missed, unit[mine], by_class * onehot[mine])
            by_place += place[others].T @ accepted.astype(np.float32)
        by_unit = by_place.reshape(classes, units, -1)
        matched += by_unit.sum(axis=1, dtype=np.float64) @ onehot[mine]
        few = np.arange(unit[start], unit[mine.stop - 1] + 1)
        unit_matched[:, :, few[0] : few[-1] + 1] += by_unit @ ((unit[mine, None] == few) * onehot[mine].T[:, :, None])
    return matched, missed, unit_matched, unit_missed


def _extract_false_non_matches(accepted: np.ndarray, subject_of: np.ndarray, others: slice, mine: slice) -> np.ndarray:
    """Float32 false non-matches in the first rows of a block (others, mine); keeps impostor pairs only in `accepted`."""
    band = int(np.searchsorted(subject_of[others], subject_of[mine.stop - 1], side="right"))
    same = subject_of[others][:band, None] == subject_of[mine]
    pair = np.arange(others.start, others.start + band)[:, None] > np.arange(mine.start, mine.stop)
    missed = same & pair & ~accepted[:band]
    accepted[:band] &= ~same & pair
    return missed.astype(np.float32)


def _unordered(ordered: np.ndarray) -> np.ndarray:
    """Counts of unordered pairs from those of ordered ones: within a class each pair was counted twice."""
    return (ordered / (1 + np.eye(len(ordered)))).round().astype(np.int64)


def _rate(errors: int, trials: int, replicates: np.ndarray | None, subjects: int) -> list[Cell]:
    """Rate, low, high, errors and trials of one class."""
    value = errors / trials if trials else None
    low, high = (None if value is None or replicates is None else confidence_interval(value, replicates, subjects)) or (
        None,
        None,
    )
    return [value, low, high, errors, trials]


def _add_ratio(
    metrics: Metrics,
    prefix: str,
    ratio: tuple[str, str, str],
    names: Sequence[str],
    errors: np.ndarray,
    trials: np.ndarray,
    bootstrap_rates: np.ndarray | None,
) -> None:
    name, error, trial = ratio
    valid = np.flatnonzero(trials)
    if len(valid) < 2:
        only = f"only class {names[valid[0]]!r} has {trial}s" if len(valid) else f"no class has {trial}s"
        return metrics.add(prefix + name, None, only)
    rates = errors[valid] / trials[valid]
    worst, best = valid[rates.argmax()], valid[::-1][rates[::-1].argmin()]  # two different classes even if all rates are equal

    def counted(code: int) -> str:
        return f"{errors[code]} of {trials[code]} {trial}s of {names[code]!r}"

    if not errors[best]:
        return metrics.add(prefix + name, None, f"the best class has no {error}: {counted(best)}, {counted(worst)}")
    few = min(errors[worst], errors[best]) < LOW_SUPPORT
    replicates = None
    if bootstrap_rates is not None and rates.min() < 1:  # if all pairs are errors the replicates have no spread
        above, below = bootstrap_rates[:, worst], bootstrap_rates[:, best]
        replicates = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
    reason = f"{LOW_SUPPORT_REASON}: {error}es in {counted(worst)}, {counted(best)}" if few else ""
    return metrics.add(prefix + name, float(rates.max() / rates.min()), reason, replicates)


def _figure(rows: Sequence[Sequence[Cell]]) -> Figure:
    """FMR and FNMR of the rows of the table, with bars from low to high."""
    height = 1.2 + 0.28 * len(rows)
    figure = empty_figure(7.5, height)
    panels = figure.subplots(1, 2, sharey=True)
    figure.subplots_adjust(left=0.24, right=0.97, bottom=0.55 / height, top=1 - 0.4 / height, wspace=0.08)
    for axes, column, title in zip(panels, (4, 9), ("FMR", "FNMR")):
        found = [(y, *row[column : column + 3]) for y, row in enumerate(rows) if row[column] is not None]
        for y, value, low, high in found:
            if low is not None:
                axes.plot([low, high], [y, y], color="tab:blue", linewidth=2, alpha=0.5)
            axes.plot(value, y, "o", color="tab:blue", markersize=4)
        if column == 4 and any(value for _, value, _, _ in found):
            least = min(edge for _, *edges in found for edge in edges if edge)
            axes.set_xscale("symlog", linthresh=10 ** np.floor(np.log10(least)))  # symlog, because a rate may be 0
            use_plain_tick_labels(axes.xaxis)
        axes.set_xlim(left=0)
        axes.set_xlabel(title)
        axes.grid(alpha=0.3)
    panels[0].set_yticks(range(len(rows)), [f"{row[0]}: {row[1]}" for row in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    figure.suptitle("Errors by class at one threshold")
    return figure
