"""Linear probes: how well each attribute can be predicted from the identity embedding, on subjects not used for the fit.

An attribute that an adversary no longer predicts may still be there: a probe fitted afterwards often predicts it (Elazar and
Goldberg, "Adversarial removal of demographic attributes from text data", EMNLP 2018; linear probes: Alain and Bengio,
"Understanding intermediate layers using linear classifier probes", 2016).

The probe is ridge regression of each class indicator on unit-length embeddings, every channel standardised on the training
subjects of the fold. The penalty is the one of `PENALTIES` with the smallest leave-one-subject-out squared error, which is
computed without further fits (An, Liu and Venkatesh, "Fast cross-validation algorithms for least squares support vector machine
and kernel ridge regression", Pattern Recognition 2007). The test subjects of the fold are not used for the fit.

Only scores of the same fold are compared: the AUC is the share of correctly ordered (positive, negative) pairs of sessions
within a fold, ties counting half, i.e. the mean of the folds' AUC weighted by their pairs. Pooling all scores biases the AUC of
useless scores below 0.5, because a fold with many positives leaves few to fit (Parker, Guenter and Bedo, "Stratification bias in
low signal microarray studies", BMC Bioinformatics 2007).

Chance is the same probe on permuted labels. The sessions of a subject are alike, so whole subjects are permuted within each fold:
each gets the labels of another one in random order, cut or repeated to its number of sessions. This keeps how labels cluster in
subjects and which classes a fold has. The permutation test is exact if the subjects of a fold have equally many sessions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import rankdata
from sklearn.model_selection import StratifiedGroupKFold

from fr_ps.data.labels import ATTRIBUTES, Labels
from fr_ps.evaluation.metrics import ReportSection
from fr_ps.evaluation.pairwise.similarity import check_finite
from fr_ps.report.table import Cell, Table

FOLDS = 5
PERMUTATIONS = 100
MAX_SESSIONS = 5000
PENALTIES = 10.0 ** np.arange(2, -4, -1)
"""Multiples of the number of training sessions, which is the mean eigenvalue of their (C, C) product; ties go to the first."""
_CONSTANT = 1e-7
"""A channel of unit-length float32 embeddings with a smaller standard deviation is rounding error."""
_DIGITS = 9
"""Scores are about 1 in size; rounding makes the scores of equal embeddings tie in any summation order of BLAS."""

_NOTE = (
    "AUC of a linear probe (ridge regression) of the attribute on the identity embedding, fitted and tested on different "
    f"subjects. Chance: mean and 95th percentile of the same probe on {PERMUTATIONS} label permutations between subjects; "
    "p: share of permutations at least as good. Above the 95th percentile the identity embedding contains the attribute; lower "
    "is better separated. A probe at chance does not prove that the attribute is absent."
)


@dataclass(frozen=True)
class LinearProbeResult:
    """Result of the linear probe of one attribute.

    Attributes:
        subjects: subjects per class.
        auc: AUC on the test subjects of the folds, one-vs-rest and macro-averaged beyond two classes; None: undefined.
        chance: (permutations,) AUC with permuted labels, without undefined ones.
        reason: why the AUC is undefined.
    """

    subjects: tuple[int, ...]
    auc: float | None = None
    chance: np.ndarray = field(default_factory=lambda: np.empty(0))
    reason: str = ""

    @property
    def chance_mean(self) -> float | None:
        """Mean over the permutations."""
        return None if self.auc is None else float(self.chance.mean())

    @property
    def chance_95(self) -> float | None:
        """95th percentile of the permutations."""
        return None if self.auc is None else float(np.quantile(self.chance, 0.95))

    @property
    def p_value(self) -> float | None:
        """Permutation p-value: (permutations at least as good + 1) / (permutations + 1).

        Phipson and Smyth, "Permutation p-values should never be zero", 2010.
        """
        return None if self.auc is None else float((np.sum(self.chance >= self.auc) + 1) / (len(self.chance) + 1))


def linear_probe_section(embeddings: np.ndarray, labels: Labels, seed: int = 0) -> ReportSection:
    """Metrics `probe/gender/auc` and `probe/gender/chance_auc_95` of each attribute, and the table `probes`.

    Args:
        embeddings: (n, C) identity embeddings of any length.
        labels: labels of the same sessions; the order of the rows does not matter.
        seed: random seed of folds, permutations, and the sample of subjects beyond `MAX_SESSIONS`.

    Raises:
        InputError: an embedding with NaN or infinity.
    """
    order = labels.sorted_rows()
    embeddings, labels = embeddings[order], labels.subset(order)
    section, rows = ReportSection(), list[Sequence[Cell]]()
    for column, attribute in enumerate(ATTRIBUTES):
        names = labels.class_names(attribute)
        result = linear_probe(embeddings, labels.codes[:, column], labels.ids, names, seed)
        section.metrics.add(f"probe/{attribute}/auc", result.auc, result.reason)
        section.metrics.add(f"probe/{attribute}/chance_auc_95", result.chance_95, result.reason)
        subjects = ", ".join(f"{name} {count}" for name, count in zip(names, result.subjects))
        rows.append([attribute, subjects, result.auc, result.chance_mean, result.chance_95, result.p_value])
    note = _NOTE
    if (labelled := int((labels.codes >= 0).sum(axis=0).max())) > MAX_SESSIONS:
        note += f" A random sample of {MAX_SESSIONS} of up to {labelled} labelled sessions, by subject, is used."
    header = ["attribute", "subjects", "probe AUC", "chance mean", "chance 95 %", "p"]
    reasons = {str(attribute): section.metrics.reasons.get(f"probe/{attribute}/auc", "") for attribute in ATTRIBUTES}
    title = "Attributes in the identity embedding"
    section.tables.append(Table("probes", title, header, rows, note, label_columns=2, reasons=reasons))
    return section


def linear_probe(
    embeddings: np.ndarray, codes: np.ndarray, ids: np.ndarray, class_names: Sequence[str], seed: int = 0
) -> LinearProbeResult:
    """Cross-validated linear probe of one attribute, with subject-disjoint folds.

    There are `FOLDS` folds, stratified by class, or as many as the rarest class has subjects.

    Args:
        embeddings: (n, C) of any length.
        codes: (n,) classes; -1 is a missing label and left out.
        ids: (n,) subject of each session.
        class_names: class names in the order of the codes.
        seed: random seed of folds, permutations, and the sample of subjects beyond `MAX_SESSIONS`.

    Raises:
        InputError: an embedding with NaN or infinity.
    """
    check_finite(embeddings, ids)
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(codes >= 0)
    rows = rows[_sample_subjects(ids[rows], rng)]
    codes, subject_of = codes[rows], np.unique(ids[rows], return_inverse=True)[1]
    subjects = tuple(len(np.unique(subject_of[codes == code])) for code in range(len(class_names)))
    if reason := _undefined_reason(subjects, class_names):
        return LinearProbeResult(subjects, reason=reason)
    unit = embeddings[rows].astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)

    fold = _folds(codes, subject_of, min(FOLDS, *subjects), seed)
    all_codes = np.column_stack([codes, _permuted(codes, subject_of, fold, rng)])
    positive = [1] if len(class_names) == 2 else range(len(class_names))
    problems = np.concatenate([all_codes == code for code in positive], axis=1)  # one binary problem per column
    aucs = _auc_within(_cross_validated_scores(unit, problems, subject_of, fold), problems, fold)
    auc, *chance = aucs.reshape(len(positive), -1).mean(axis=0)
    chance = np.array(chance)[np.isfinite(chance)]
    if np.isnan(auc) or not len(chance):
        return LinearProbeResult(
            subjects, reason="the subjects cannot be split so that each fold and its complement have every class"
        )
    return LinearProbeResult(subjects, float(auc), chance)


def _undefined_reason(subjects: Sequence[int], class_names: Sequence[str]) -> str:
    if not any(subjects):
        return "no labels"
    few = ", ".join(f"{name} has {count}" for name, count in zip(class_names, subjects) if count < 2)
    return few and f"each class needs two subjects, one to fit and one to test: {few}"


def _sample_subjects(ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sorted rows of a random sample of subjects, up to `MAX_SESSIONS`; the last subject may be cut."""
    names, subject_of = np.unique(ids, return_inverse=True)
    order = np.lexsort((rng.random(len(ids)), rng.permutation(len(names))[subject_of]))
    return np.sort(order[:MAX_SESSIONS])


def _folds(codes: np.ndarray, subject_of: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(n,) fold of each session."""
    fold = np.empty(len(codes), dtype=int)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    for number, (_, scored) in enumerate(splitter.split(codes, codes, subject_of)):
        fold[scored] = number
    return fold


def _permuted(codes: np.ndarray, subject_of: np.ndarray, fold: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, permutations) codes: each subject gets those of a random one of its fold, cut or repeated to its number of sessions."""
    counts = np.bincount(subject_of)
    starts = np.cumsum(counts) - counts
    by_subject = np.argsort(subject_of, kind="stable")
    nth = np.empty(len(codes), dtype=int)  # index among the sessions of its subject
    nth[by_subject] = np.arange(len(codes)) - starts[subject_of[by_subject]]
    fold_of = fold[by_subject[starts]]
    donor = np.empty(len(counts), dtype=int)
    drawn = np.empty((len(codes), PERMUTATIONS), dtype=codes.dtype)
    for column in drawn.T:
        donor[np.argsort(fold_of, kind="stable")] = np.lexsort((rng.random(len(counts)), fold_of))
        donor_of = donor[subject_of]
        shuffled = np.lexsort((rng.random(len(codes)), subject_of))
        column[:] = codes[shuffled[starts[donor_of] + nth % counts[donor_of]]]
    return drawn


def _cross_validated_scores(unit: np.ndarray, problems: np.ndarray, subject_of: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """(n, Q) score of each session in each of the (n, Q) bool problems, from the probe fitted on the other folds."""
    scores = np.empty(problems.shape)
    for number in np.unique(fold):
        fitted, scored = fold != number, fold == number
        mean, spread = unit[fitted].mean(axis=0), unit[fitted].std(axis=0)
        scale = np.where(spread > _CONSTANT, 1 / np.maximum(spread, _CONSTANT), 0)
        standardised = (unit - mean) * scale
        scores[scored] = _ridge(
            standardised[fitted], standardised[scored], problems[fitted].astype(np.float64), subject_of[fitted]
        )
    return scores.round(_DIGITS)


def _ridge(fitted: np.ndarray, scored: np.ndarray, targets: np.ndarray, subject_of: np.ndarray) -> np.ndarray:
    """(m, Q) centred predictions for the (m, C) `scored`, by ridge regression of (n, Q) targets on the (n, C) `fitted`.

    One eigendecomposition, of the smaller of the (n, n) and the (C, C) products, serves all problems and penalties.
    """
    targets = targets - targets.mean(axis=0)
    dual = fitted.shape[0] < fitted.shape[1]
    values, axes = np.linalg.eigh(fitted @ fitted.T if dual else fitted.T @ fitted)
    kept = values > 1e-10 * values[-1]
    values, axes = values[kept], axes[:, kept]
    if dual:
        axes = fitted.T @ axes / np.sqrt(values)
    basis = fitted @ axes  # (n, r), with orthogonal columns of squared length `values`
    moments = basis.T @ targets
    penalties = PENALTIES * len(fitted)
    groups = _rows_by_session_count(subject_of)
    errors = np.stack(
        [_leave_subject_out_error(basis, 1 / (values + penalty), targets, moments, groups) for penalty in penalties]
    )
    chosen = np.argmax(errors <= errors.min(axis=0) * (1 + 1e-9), axis=0)
    return scored @ axes @ (moments / (values[:, None] + penalties[chosen]))


def _leave_subject_out_error(
    basis: np.ndarray, weights: np.ndarray, targets: np.ndarray, moments: np.ndarray, groups: Sequence[np.ndarray]
) -> np.ndarray:
    """(Q,) leave-one-subject-out sum of squared errors; those of subject g are (I - H_gg)^-1 residual_g, H is the hat matrix."""
    residual = targets - basis @ (weights[:, None] * moments)
    error = np.zeros(targets.shape[1])
    for rows in groups:
        of_subject = basis[rows]  # (subjects, sessions, r)
        hat = (of_subject * weights) @ of_subject.transpose(0, 2, 1)
        error += (np.linalg.solve(np.eye(rows.shape[1]) - hat, residual[rows]) ** 2).sum(axis=(0, 1))
    return error


def _rows_by_session_count(subject_of: np.ndarray) -> list[np.ndarray]:
    """One (subjects, sessions) array of rows for each number of sessions per subject."""
    counts = np.unique(subject_of, return_counts=True)[1]
    starts, by_subject = np.cumsum(counts) - counts, np.argsort(subject_of, kind="stable")
    return [by_subject[starts[counts == count][:, None] + np.arange(count)] for count in np.unique(counts)]


def _auc_within(scores: np.ndarray, problems: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """(Q,) AUC over the pairs within a fold, for folds whose complement has both classes; NaN without such pairs."""
    won, pairs = np.zeros(problems.shape[1]), np.zeros(problems.shape[1])
    for number in np.unique(fold):
        tested, fitted = problems[fold == number], problems[fold != number]
        usable = fitted.any(axis=0) & ~fitted.all(axis=0)
        positives = tested.sum(axis=0)
        ranks = rankdata(scores[fold == number], axis=0)
        won += usable * ((ranks * tested).sum(axis=0) - positives * (positives + 1) / 2)
        pairs += usable * positives * (len(tested) - positives)
    return np.divide(won, pairs, out=np.full(len(won), np.nan), where=pairs > 0)
