"""The thresholds of a model, chosen on validation."""

from collections.abc import Sequence

import numpy as np

from fr_ps.data.labels import ATTRIBUTES, Labels
from fr_ps.evaluation.analyses.attributes import best_threshold
from fr_ps.evaluation.pairwise.pairs import AllPairs, PairScores
from fr_ps.evaluation.pairwise.roc import compute_roc, operating_points
from fr_ps.models.inference import Predictions
from fr_ps.models.thresholds import Thresholds, ValidationThreshold


def calibrate_thresholds(predictions: Predictions, labels: Labels, trained: Sequence[str]) -> Thresholds:
    """Of identity for every FMR that these sessions can tell, and of each attribute of two classes that was trained.

    Args:
        answers: of the sessions of validation.
        labels: of the same.
        trained: the attributes that the model was trained on.

    Raises:
        InputError: an answer with NaN or infinity.
    """
    attributes: dict[str, float] = {}
    for column, attribute in enumerate(ATTRIBUTES):
        if attribute in trained and len(labels.class_names(attribute)) == 2:
            threshold = best_threshold(predictions.probabilities[attribute][:, 1], labels.codes[:, column])
            if threshold is not None:
                attributes[attribute] = threshold
    identity = _identity_thresholds(AllPairs(predictions.embeddings, labels.ids).score())
    return Thresholds(len(np.unique(labels.ids)), len(labels), identity, attributes)


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
