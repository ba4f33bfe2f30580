"""The thresholds of a model, chosen on validation."""

from collections.abc import Sequence

import numpy as np

from fr_ps.data.labels import ATTRIBUTES, Labels
from fr_ps.evaluation.analyses.attributes import best_threshold
from fr_ps.evaluation.pairwise.operating import Operating, Thresholds
from fr_ps.evaluation.pairwise.pairs import AllPairs, Comparisons
from fr_ps.evaluation.pairwise.roc import points, roc
from fr_ps.evaluation.score import Answers


def choose_thresholds(answers: Answers, labels: Labels, trained: Sequence[str]) -> Thresholds:
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
            threshold = best_threshold(answers.probabilities[attribute][:, 1], labels.codes[:, column])
            if threshold is not None:
                attributes[attribute] = threshold
    identity = _of_identity(AllPairs(answers.embeddings, labels.ids).compare())
    return Thresholds(len(np.unique(labels.ids)), len(labels), identity, attributes)


def _of_identity(comparisons: Comparisons) -> tuple[Operating, ...]:
    if comparisons.undefined:
        return ()
    return tuple(
        Operating(
            point.target,
            float(comparisons.scale.scores(np.array(point.key))),
            point.false_matches,
            point.impostors,
            point.support,
        )
        for point in points(comparisons, roc(comparisons))
    )
