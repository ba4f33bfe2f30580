"""Thresholds: calibration on validation, and the one threshold of the analyses of quality and groups."""

from collections.abc import Sequence

import numpy as np

from fr_ps.data.labels import ATTRIBUTES, Labels
from fr_ps.evaluation.analyses.attributes import best_threshold
from fr_ps.evaluation.pairwise.pairs import AllPairs, PairScores
from fr_ps.evaluation.pairwise.roc import compute_roc, default_operating_point, operating_points
from fr_ps.models.inference import Predictions
from fr_ps.models.thresholds import Thresholds, ValidationThreshold


def calibrate_thresholds(predictions: Predictions, labels: Labels, trained: Sequence[str]) -> Thresholds:
    """Thresholds of identity at each FMR that the validation set supports, and of each trained attribute with two classes.

    Args:
        predictions: predictions of the validation sessions.
        labels: labels of the same sessions.
        trained: attributes that the model was trained on.

    Raises:
        InputError: a prediction with NaN or infinity.
    """
    attributes: dict[str, float] = {}
    for column, attribute in enumerate(ATTRIBUTES):
        if attribute in trained and len(labels.class_names(attribute)) == 2:
            threshold = best_threshold(predictions.probabilities[attribute][:, 1], labels.codes[:, column])
            if threshold is not None:
                attributes[attribute] = threshold
    identity = _identity_thresholds(AllPairs(predictions.embeddings, labels.ids).score())
    return Thresholds(len(np.unique(labels.ids)), len(labels), identity, attributes)


def global_threshold(pair_scores: PairScores, thresholds: Thresholds | None) -> tuple[float | None, str]:
    """The threshold of the analyses of quality and groups with its origin, or None with the reason."""
    if thresholds and thresholds.strictest and pair_scores.scale.measure == "cosine":
        point = thresholds.strictest
        return point.threshold, f"from validation at FMR {point.fmr:g}"
    if pair_scores.undefined_reason:
        return None, pair_scores.undefined_reason
    test_point = default_operating_point(pair_scores, compute_roc(pair_scores))
    score = float(pair_scores.scale.scores(np.array(test_point.threshold)))
    why = "validation has no threshold with support" if thresholds else "the model has no thresholds from validation"
    if thresholds and thresholds.strictest:
        why = "the thresholds from validation are cosines"
    return score, f"from these test sessions at FMR {test_point.target_fmr:.3g}, because {why}"


def _identity_thresholds(pair_scores: PairScores) -> tuple[ValidationThreshold, ...]:
    if pair_scores.undefined_reason:
        return ()
    return tuple(
        ValidationThreshold(
            point.target_fmr,
            float(pair_scores.scale.scores(np.array(point.threshold))),
            point.false_matches,
            point.impostor_pairs,
            point.low_support,
        )
        for point in operating_points(pair_scores, compute_roc(pair_scores))
    )
