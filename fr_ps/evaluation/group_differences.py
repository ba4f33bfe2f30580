"""Whether one model recognises some groups worse than another does, though it is better on the whole."""

import numpy as np

from fr_ps.data.labels import ATTRIBUTES
from fr_ps.evaluation.bootstrap import bootstrap_weights
from fr_ps.evaluation.differences import Difference, paired_differences
from fr_ps.evaluation.evaluate_predictions import LabelledPredictions
from fr_ps.evaluation.metrics import Metrics
from fr_ps.evaluation.pairwise.pairs import AllPairs
from fr_ps.evaluation.pairwise.verification import verification_with_intervals

_METRIC = "auc"


def group_differences(first: LabelledPredictions, second: LabelledPredictions) -> list[Difference]:
    """Identity's AUC among the sessions of each class of each attribute, first minus second: `groups/gender/male/identity/auc`.

    Both are of the same sessions, whose classes are those of the first model. A class in which nobody can be verified, as it has
    one person or no genuine pair, is left out.
    """
    found: list[Difference] = []
    labels = first.labels
    for column, attribute in enumerate(ATTRIBUTES):
        for code, name in enumerate(labels.class_names(attribute)):
            rows = np.flatnonzero(labels.codes[:, column] == code)
            people = len(np.unique(labels.ids[rows]))
            if people < 2:
                continue
            prefix = f"groups/{attribute}/{name}/identity"
            one, other = (_identity_auc(scored, rows).with_prefix(prefix) for scored in (first, second))
            found += paired_differences(one, other, [f"{prefix}/{_METRIC}"], people)
    return found


def _identity_auc(labelled: LabelledPredictions, rows: np.ndarray) -> Metrics:
    ids = labelled.labels.ids[rows]
    pairs = AllPairs(labelled.predictions.embeddings[rows], ids, "cosine", bootstrap_weights(ids))
    return verification_with_intervals(pairs, None)[1].select({_METRIC})
