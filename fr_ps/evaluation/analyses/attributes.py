"""Attribute metrics: ranking (AUC, average precision), decisions (balanced accuracy) and calibration (ECE)."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from fr_ps.data.labels import ATTRIBUTES, Labels
from fr_ps.errors import InputError
from fr_ps.evaluation.analyses.reliability import BINS, expected_calibration_error, reliability_diagram, reliability_figure
from fr_ps.evaluation.bootstrap import BootstrapWeights, auc_and_average_precision, balanced_accuracy, unweighted
from fr_ps.evaluation.metrics import Metrics, ReportSection
from fr_ps.report.figures import empty_figure
from fr_ps.report.table import Cell, Table

METRIC_NAMES = ("auc", "balanced_accuracy", "average_precision", "ece")
NOT_TRAINED = "not trained: fewer than two classes in the training part"


def attribute_metrics(
    probabilities: np.ndarray,
    codes: np.ndarray,
    class_names: Sequence[str],
    threshold: float | None = None,
    bootstrap: BootstrapWeights | None = None,
) -> Metrics:
    """AUC, balanced accuracy, average precision and expected calibration error (ECE), under the names `METRIC_NAMES`.

    With two classes AUC, average precision and ECE are those of the second class's probability against the label. With more,
    AUC and average precision are one-vs-rest, averaged over the classes (macro), and the ECE is that of the predicted class's
    probability. If a class is missing among the labels only the ECE is defined. The ECE has no interval.

    Args:
        probabilities: (n, classes).
        codes: (n,) true classes; -1 is a missing label and left out.
        class_names: class names, for the reasons.
        threshold: with two classes, the second is predicted at this probability or above; None, or more classes: the most
            probable class is predicted.
        bootstrap: replicates of the subjects of these n sessions; None: no intervals.

    Raises:
        InputError: a probability that is NaN or infinite.
    """
    _require_finite(probabilities, " or ".join(class_names))
    known = codes >= 0
    codes, probabilities = codes[known], probabilities[known]
    metrics = Metrics()
    if not len(codes):
        for name in METRIC_NAMES:
            metrics.add(name, None, "no labels")
        return metrics
    present = np.unique(codes)
    values = _bootstrap_values(probabilities, codes, threshold, unweighted(len(codes)))
    replicates, subjects = {}, 0
    if bootstrap is not None:
        bootstrap = bootstrap.select(known)
        replicates = _bootstrap_values(probabilities, codes, threshold, bootstrap)
        # Resampling adds noise that the ECE counts as error: its interval could lie above its value.
        del replicates["ece"]
        # No error in one class proves nothing about another: the bound uses the subjects of the rarest class.
        subjects = min(len(np.unique(bootstrap.unit[codes == code])) for code in present)
    for name in METRIC_NAMES:
        if name != "ece" and len(present) < len(class_names):
            metrics.add(name, None, _undefined_reason(present, class_names))
        else:
            metrics.add(name, float(values[name][0]), replicates=replicates.get(name), subjects=subjects)
    return metrics


def best_threshold(probabilities: np.ndarray, codes: np.ndarray) -> float | None:
    """The threshold of the highest balanced accuracy; a probability at or above it is positive.

    It has the highest J = sensitivity + specificity - 1 (Youden, "Index for rating diagnostic tests", Cancer 1950) and is midway
    between two neighbouring probabilities. Ties go to the threshold nearest to 0.5, then to the lower one. None if a class is
    missing or all probabilities are the same.

    Args:
        probabilities: (n,) probability of the positive class.
        codes: (n,) true classes, 1 is positive; -1 is a missing label and left out.

    Raises:
        InputError: a probability that is NaN or infinite.
    """
    _require_finite(probabilities[:, None], "the positive class")
    known = codes >= 0
    scores, index = np.unique(probabilities[known].astype(np.float64), return_inverse=True)
    positive = codes[known] == 1
    positives, negatives = (np.bincount(index[of_class], minlength=len(scores)) for of_class in (positive, ~positive))
    if len(scores) < 2 or not positives.any() or not negatives.any():
        return None
    # J x positives x negatives, in whole numbers, so that ties are exact.
    youden = (negatives.cumsum() * positives.sum() - positives.cumsum() * negatives.sum())[:-1]
    lower, upper = scores[:-1], scores[1:]
    middle = (lower + upper) / 2
    middle = np.where(middle > lower, middle, upper)  # neighbouring floats have no midpoint
    best = middle[youden == youden.max()]
    return float(best[np.abs(best - 0.5).argmin()])


def all_attribute_metrics(
    probabilities: Mapping[str, np.ndarray],
    labels: Labels,
    thresholds: Mapping[str, float],
    trained: Sequence[str],
    bootstrap: BootstrapWeights | None = None,
) -> Metrics:
    """`attribute_metrics` of every attribute, named `gender/auc`, ...; undefined for an untrained attribute.

    Args:
        probabilities: attribute to (n, classes).
        labels: labels of the same n sessions.
        thresholds: attribute to its threshold from validation; without one, the most probable class is predicted.
        trained: attributes that the model was trained on.
        bootstrap: replicates of the subjects of these sessions; None: no intervals.

    Raises:
        InputError: a probability of a trained attribute that is NaN or infinite.
    """
    metrics = Metrics()
    for column, attribute in enumerate(ATTRIBUTES):
        one_attribute = Metrics()
        if attribute in trained:
            names, threshold = labels.class_names(attribute), thresholds.get(attribute)
            one_attribute = attribute_metrics(probabilities[attribute], labels.codes[:, column], names, threshold, bootstrap)
        else:
            for name in METRIC_NAMES:
                one_attribute.add(name, None, NOT_TRAINED)
        metrics = metrics.merge(one_attribute.with_prefix(attribute))
    return metrics


def attributes_section(
    probabilities: Mapping[str, np.ndarray],
    labels: Labels,
    thresholds: Mapping[str, float],
    trained: Sequence[str],
    bootstrap: BootstrapWeights | None = None,
) -> ReportSection:
    """Metrics and their table, and a confusion matrix and reliability diagram of each trained attribute with labels.

    Args and errors are those of `all_attribute_metrics`. The tables are `attributes`, `confusion_gender`, ...; the figures
    `confusion_gender`, ... and `reliability_gender`, ...
    """
    section = ReportSection(all_attribute_metrics(probabilities, labels, thresholds, trained, bootstrap))
    section.tables.append(_attribute_table(section.metrics, labels, thresholds, trained))
    for column, attribute in enumerate(ATTRIBUTES):
        known = labels.codes[:, column] >= 0
        if attribute not in trained or not known.any():
            continue
        names, threshold = labels.class_names(attribute), thresholds.get(attribute)
        scores, codes = probabilities[attribute][known], labels.codes[known, column]
        counts = _confusion(codes, _predicted(scores, threshold), len(names))
        section.tables.append(_confusion_table(attribute, counts, names))
        title = f"Confusion matrix of {_display_name(attribute)}"
        section.figures[f"confusion_{attribute}"] = partial(confusion_figure, counts, names, title)
        binary = len(names) == 2
        section.figures[f"reliability_{attribute}"] = partial(
            reliability_figure,
            reliability_diagram(*_confidence_and_correctness(scores, codes)),
            f"Reliability of {_display_name(attribute)}",
            f"predicted probability of {names[1]}" if binary else "probability of the predicted class",
            f"observed frequency of {names[1]}" if binary else "observed share of correct predictions",
        )
    return section


def _require_finite(probabilities: np.ndarray, what: str) -> None:
    if bad := int((~np.isfinite(probabilities)).any(axis=1).sum()):
        raise InputError(
            f"the predicted probability of {what} is NaN or infinite in {bad} of {len(probabilities)} sessions; "
            "train with a lower optim.lr"
        )


def _bootstrap_values(
    probabilities: np.ndarray, codes: np.ndarray, threshold: float | None, bootstrap: BootstrapWeights
) -> dict[str, np.ndarray]:
    """Metric name to (B,) values."""
    classes = probabilities.shape[1]
    ranked = [
        auc_and_average_precision(probabilities[:, code], codes == code, bootstrap)
        for code in ([1] if classes == 2 else range(classes))
    ]
    auc, precision = np.mean(ranked, axis=0)
    return {
        "auc": auc,
        "balanced_accuracy": balanced_accuracy(codes, _predicted(probabilities, threshold), classes, bootstrap),
        "average_precision": precision,
        "ece": expected_calibration_error(*_confidence_and_correctness(probabilities, codes), bootstrap),
    }


def _predicted(probabilities: np.ndarray, threshold: float | None) -> np.ndarray:
    if threshold is None or probabilities.shape[1] > 2:
        return probabilities.argmax(axis=1)
    # In float64: float32 would round a threshold midway between neighbouring probabilities to one of them.
    return (probabilities[:, 1].astype(np.float64) >= threshold).astype(int)


def _confidence_and_correctness(probabilities: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For calibration: (n,) probability of the second or the predicted class, and (n,) whether the session has that class."""
    predicted = np.ones(len(codes), dtype=int) if probabilities.shape[1] == 2 else probabilities.argmax(axis=1)
    return probabilities[np.arange(len(codes)), predicted].astype(np.float64), codes == predicted


def _attribute_table(metrics: Metrics, labels: Labels, thresholds: Mapping[str, float], trained: Sequence[str]) -> Table:
    rows: list[list[Cell]] = []
    for column, attribute in enumerate(ATTRIBUTES):
        codes, names = labels.codes[:, column], labels.class_names(attribute)
        subjects = ", ".join(f"{name} {len(np.unique(labels.ids[codes == code]))}" for code, name in enumerate(names))
        threshold = thresholds.get(attribute) if attribute in trained and len(names) == 2 else None
        source = "validation" if threshold is not None else "most probable class" if attribute in trained else None
        values = [metrics.values[f"{attribute}/{name}"] for name in ("auc", "average_precision", "balanced_accuracy", "ece")]
        rows.append([_display_name(attribute), int((codes >= 0).sum()), subjects, threshold, source, *values])
    header = [
        "attribute",
        "sessions",
        "subjects",
        "threshold",
        "threshold from",
        "AUC",
        "average precision",
        "balanced accuracy",
        "ECE",
    ]
    note = (
        "Sessions without a label are left out. With two classes, AUC, average precision, threshold and ECE are those of the "
        "second class; with more, AUC and average precision are one-vs-rest means. Balanced accuracy uses the threshold, or the "
        f"most probable class. ECE: expected calibration error over {BINS} bins; it is above 0 even for a calibrated model, more "
        "so with few sessions."
    )
    reasons = {_display_name(attribute): metrics.reasons.get(f"{attribute}/auc", "") for attribute in ATTRIBUTES}
    return Table("attributes", "Metrics of the attributes", header, rows, note, label_columns=5, reasons=reasons)


def confusion_figure(counts: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Sessions by true and predicted class; the colour is the share of the true class.

    Args:
        counts: (k, k) sessions, true classes in rows.
        names: class names.
        title: figure title.
    """
    figure = empty_figure(6.6, 3.8)
    axes = figure.add_axes((0.2, 0.2, 0.55, 0.7), title=title, xlabel="predicted class", ylabel="true class")
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, cax=figure.add_axes((0.78, 0.2, 0.025, 0.7)), label="share of the true class")
    for (row, column), count in np.ndenumerate(counts):
        share = f"\n{shares[row, column]:.0%}" if totals[row] else ""
        colour = "white" if shares[row, column] > 0.6 else "black"
        axes.text(column, row, f"{count}{share}", ha="center", va="center", color=colour, fontsize=10)
    labels = [name if len(name) <= 14 else f"{name[:13]}…" for name in names]
    axes.set_xticks(range(len(names)), labels)
    axes.set_yticks(range(len(names)), labels)
    axes.spines[:].set_visible(False)
    return figure


def _confusion(codes: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(k, k) sessions by true class (rows) and predicted class."""
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (codes, predicted), 1)
    return counts


def _confusion_table(attribute: str, counts: np.ndarray, names: Sequence[str]) -> Table:
    rows: list[list[Cell]] = []
    for name, row in zip(names, counts.tolist()):
        rows.append([name, *row, *(count / sum(row) if any(row) else None for count in row)])
    header = ["true class", *(f"predicted {name}" for name in names), *(f"share {name}" for name in names)]
    title = f"Confusion matrix of {_display_name(attribute)}"
    return Table(f"confusion_{attribute}", title, header, rows, "Counts are sessions; shares are of the true class.")


def _undefined_reason(present: np.ndarray, class_names: Sequence[str]) -> str:
    names = ", ".join(class_names[code] for code in present)
    return (
        f"the only class among the labels is {names}" if len(present) == 1 else f"the only classes among the labels are {names}"
    )


def _display_name(attribute: str) -> str:
    return attribute.replace("_", " ")
