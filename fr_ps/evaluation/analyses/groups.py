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
from fr_ps.evaluation.pairwise.similarity import SimilarityScorer, similarity_scorer
from fr_ps.report.figures import empty_figure, use_plain_tick_labels
from fr_ps.report.table import Cell, Table

BLOCK_COLUMNS = 4096
"""Sessions that a block is compared with at a time."""
_RATIOS = (("fmr_ratio", "false match", "impostor pair"), ("fnmr_ratio", "false non-match", "genuine pair"))
_FMR = ("FMR", "FMR low", "FMR high", "false matches", "of impostor pairs")
_FNMR = ("FNMR", "FNMR low", "FNMR high", "false non-matches", "of genuine pairs")
_HEADER = ("attribute", "class", "subjects", "sessions", *_FMR, *_FNMR)
_FMR_COLUMN, _FNMR_COLUMN = _HEADER.index("FMR"), _HEADER.index("FNMR")
_CLASS_NOTE = (
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
        threshold: the lowest accepted cosine, rounded to a level (see `ScoreScale.threshold_level`).
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
    one_hot = np.hstack([codes[order, i, None] == np.arange(k) for i, k in enumerate(class_counts)]).astype(np.float32)
    scorer = similarity_scorer(embeddings, ids).select(order)
    matched, missed, unit_matched, unit_missed = _count_errors(scorer, threshold, subject_of, unit, units, one_hot, block)
    by_subject = np.add.reduceat(one_hot, first_row, axis=0, dtype=np.float64)
    unit_sessions, unit_squares = np.zeros((2, units, one_hot.shape[1]))
    np.add.at(unit_sessions, unit[first_row], by_subject)
    np.add.at(unit_squares, unit[first_row], by_subject**2)
    result = []
    for classes in (slice(end - k, end) for k, end in zip(class_counts, np.cumsum(class_counts))):  # of one attribute
        counts = by_subject[:, classes]  # (subjects, k) sessions
        sessions, genuine = counts.sum(axis=0), counts.T @ counts
        result.append(
            GroupCounts(
                sessions=sessions.astype(np.int64),
                subjects=(counts > 0).sum(axis=0),
                mated_subjects=(counts > 1).sum(axis=0),
                impostors=_unordered(np.outer(sessions, sessions) - genuine),
                false_matches=_unordered(matched[classes, classes] + matched[classes, classes].T),
                genuine=_unordered(genuine - np.diag(sessions)),
                false_non_matches=_unordered(missed[classes, classes] + missed[classes, classes].T),
                unit_sessions=unit_sessions[:, classes],
                unit_squares=unit_squares[:, classes],
                unit_false_matches=unit_matched[classes],
                unit_false_non_matches=unit_missed[:, classes],
            )
        )
    return result


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
        replicate_rates = counts.rates(bootstrap.weights) if bootstrap else (None, None)
        errors = (counts.false_matches.diagonal(), counts.false_non_matches.diagonal())
        trials = (counts.impostors.diagonal(), counts.genuine.diagonal())
        for rate, ratio in enumerate(_RATIOS):
            _add_ratio(section.metrics, f"groups/{attribute}/", ratio, names, errors[rate], trials[rate], replicate_rates[rate])
        for code in np.flatnonzero(counts.sessions):
            row: list[Cell] = [attribute, names[code], int(counts.subjects[code]), int(counts.sessions[code])]
            for rate, subjects in enumerate((counts.subjects, counts.mated_subjects)):
                replicates = None if (rates := replicate_rates[rate]) is None else rates[:, code]
                row += _rate(int(errors[rate][code]), int(trials[rate][code]), replicates, int(subjects[code]))
            groups.append(row)
        for code_a, code_b in zip(*np.triu_indices(len(names), 1)):
            if pairs := int(counts.impostors[code_a, code_b]):
                matches = int(counts.false_matches[code_a, code_b])
                across.append([attribute, names[code_a], names[code_b], matches / pairs, matches, pairs])
    note = f"One threshold for all: cosine {threshold:.4f} ({source})."
    section.tables.append(Table("groups", "Errors by class at one threshold", _HEADER, groups, f"{note} {_CLASS_NOTE}"))
    other_header = ("attribute", "class", "other class", "FMR", *_FMR[3:])
    section.tables.append(Table("cross_groups", "False matches across classes", other_header, across, note))
    if any(row[_FMR_COLUMN] is not None or row[_FNMR_COLUMN] is not None for row in groups):
        section.figures["groups"] = partial(_figure, groups)
    return section


def _count_errors(
    scorer: SimilarityScorer,
    threshold: float,
    subject_of: np.ndarray,
    unit: np.ndarray,
    units: int,
    one_hot: np.ndarray,
    block: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """False matches and false non-matches by class, and by class and unit; the classes of all attributes are concatenated.

    The sessions are sorted by unit, then by subject.
    """
    count, classes = one_hot.shape
    level = scorer.scale.threshold_level(threshold)
    session, code = np.nonzero(one_hot)
    class_unit = sparse.csr_array(
        (np.ones(len(session), np.float32), (session, code * units + unit[session])), (count, classes * units)
    )
    matched, missed = np.zeros((classes, classes)), np.zeros((classes, classes))
    unit_matched, unit_missed = np.zeros((classes, units, units), np.float32), np.zeros((units, classes))
    for first_column in range(0, count, block):
        columns = slice(first_column, min(first_column + block, count))
        by_class_unit = np.zeros((classes * units, columns.stop - first_column), np.float32)
        for first_row in range(first_column, count, BLOCK_COLUMNS):
            rows = slice(first_row, min(first_row + BLOCK_COLUMNS, count))
            accepted = (scorer.levels(rows, columns) >= level).numpy()
            errors = _extract_false_non_matches(accepted, subject_of, rows, columns)
            by_class = errors.T @ one_hot[first_row : first_row + len(errors)]
            missed += by_class.T @ one_hot[columns]
            np.add.at(unit_missed, unit[columns], by_class * one_hot[columns])
            by_class_unit += class_unit[rows].T @ accepted.astype(np.float32)
        by_unit = by_class_unit.reshape(classes, units, -1)
        matched += by_unit.sum(axis=1, dtype=np.float64) @ one_hot[columns]
        block_units = np.arange(unit[first_column], unit[columns.stop - 1] + 1)
        unit_matched[:, :, block_units[0] : block_units[-1] + 1] += by_unit @ (
            (unit[columns, None] == block_units) * one_hot[columns].T[:, :, None]
        )
    return matched, missed, unit_matched, unit_missed


def _extract_false_non_matches(accepted: np.ndarray, subject_of: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    """Float32 false non-matches in the first rows of a block, which include all genuine pairs of the block.

    Genuine pairs, and pairs that another cell of the block counts, are removed from `accepted`.
    """
    band = int(np.searchsorted(subject_of[rows], subject_of[columns.stop - 1], side="right"))
    same = subject_of[rows][:band, None] == subject_of[columns]
    pair = np.arange(rows.start, rows.start + band)[:, None] > np.arange(columns.start, columns.stop)
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
    name, error, pair = ratio
    valid = np.flatnonzero(trials)
    if len(valid) < 2:
        reason = f"only class {names[valid[0]]!r} has {pair}s" if len(valid) else f"no class has {pair}s"
        return metrics.add(prefix + name, None, reason)
    rates = errors[valid] / trials[valid]
    worst, best = valid[rates.argmax()], valid[::-1][rates[::-1].argmin()]  # differ even if all rates are equal

    def counted(code: int) -> str:
        return f"{errors[code]} of {trials[code]} {pair}s of {names[code]!r}"

    if not errors[best]:
        return metrics.add(prefix + name, None, f"the best class has no {error}: {counted(best)}, {counted(worst)}")
    replicates = None
    if bootstrap_rates is not None and rates.min() < 1:  # if all pairs are errors the replicates have no spread
        above, below = bootstrap_rates[:, worst], bootstrap_rates[:, best]
        replicates = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
    low_support = min(errors[worst], errors[best]) < LOW_SUPPORT
    reason = f"{LOW_SUPPORT_REASON}: {error}es in {counted(worst)}, {counted(best)}" if low_support else ""
    return metrics.add(prefix + name, float(rates.max() / rates.min()), reason, replicates)


def _figure(rows: Sequence[Sequence[Cell]]) -> Figure:
    """FMR and FNMR of the rows of the table, with bars from low to high."""
    height = 1.2 + 0.28 * len(rows)
    figure = empty_figure(7.5, height)
    panels = figure.subplots(1, 2, sharey=True)
    figure.subplots_adjust(left=0.24, right=0.97, bottom=0.55 / height, top=1 - 0.4 / height, wspace=0.08)
    for axes, column, title in zip(panels, (_FMR_COLUMN, _FNMR_COLUMN), ("FMR", "FNMR")):
        points = [(y, *row[column : column + 3]) for y, row in enumerate(rows) if row[column] is not None]
        for y, value, low, high in points:
            if low is not None:
                axes.plot([low, high], [y, y], color="tab:blue", linewidth=2, alpha=0.5)
            axes.plot(value, y, "o", color="tab:blue", markersize=4)
        if column == _FMR_COLUMN and any(value for _, value, _, _ in points):
            least = min(edge for _, *edges in points for edge in edges if edge)
            axes.set_xscale("symlog", linthresh=10 ** np.floor(np.log10(least)))  # symlog, because a rate may be 0
            use_plain_tick_labels(axes.xaxis)
        axes.set_xlim(left=0)
        axes.set_xlabel(title)
        axes.grid(alpha=0.3)
    panels[0].set_yticks(range(len(rows)), [f"{row[0]}: {row[1]}" for row in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    figure.suptitle("Errors by class at one threshold")
    return figure
