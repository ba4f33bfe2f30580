"""Attribute metrics: does the score of the positive class rank the positive sessions first?"""

import numpy as np
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from fr_ps.evaluation.metrics import Metrics

NAMES = ("auc", "balanced_accuracy", "average_precision")


def attribute_metrics(probabilities: np.ndarray, codes: np.ndarray, class_names: list[str]) -> Metrics:
    """AUC, balanced accuracy of the most probable class, and average precision.

    With two classes the AUC and the average precision are of the second class's probability against the label; with
    more they are one-vs-rest, averaged over the classes (macro).

    Args:
        probabilities: (n, classes).
        codes: (n,) true classes; -1 is unknown and left out.
        class_names: for the reasons.
    """
    metrics = Metrics()
    known = codes >= 0
    codes, probabilities = codes[known], probabilities[known]
    present = np.unique(codes)
    if len(present) < 2 or len(present) < len(class_names):
        for name in NAMES:
            metrics.add(name, None, _undefined(present, class_names))
        return metrics
    chosen = probabilities.argmax(axis=1)
    if len(class_names) == 2:
        auc = roc_auc_score(codes, probabilities[:, 1])
        precision = average_precision_score(codes, probabilities[:, 1])
    else:
        onehot = np.eye(len(class_names))[codes]
        auc = roc_auc_score(onehot, probabilities, average="macro")
        precision = average_precision_score(onehot, probabilities, average="macro")
    metrics.add("auc", float(auc))
    metrics.add("balanced_accuracy", float(balanced_accuracy_score(codes, chosen)))
    metrics.add("average_precision", float(precision))
    return metrics


def _undefined(present: np.ndarray, class_names: list[str]) -> str:
    if not len(present):
        return "no labels"
    have = ", ".join(class_names[code] for code in present)
    return f"the only class among the labels is {have}" if len(present) == 1 else f"the only classes among the labels are {have}"
