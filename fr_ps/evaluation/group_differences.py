"""Whether one model recognises some groups worse than another does, though it is better on the whole."""

import numpy as np

from fr_ps.data.labels import ATTRIBUTES
from fr_ps.evaluation.assess import Scored
from fr_ps.evaluation.differences import Difference, differences
from fr_ps.evaluation.numbers.metrics import Metrics
from fr_ps.evaluation.numbers.resample import resample
from fr_ps.evaluation.pairwise.pairs import AllPairs
from fr_ps.evaluation.pairwise.verification import verification_with_intervals

_METRIC = "auc"


def group_differences(first: Scored, second: Scored) -> list[Difference]:
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
            one, other = (_verified(scored, rows).under(prefix) for scored in (first, second))
            found += differences(one, other, [f"{prefix}/{_METRIC}"], people)
    return found


def _verified(scored: Scored, rows: np.ndarray) -> Metrics:
    ids = scored.labels.ids[rows]
    pairs = AllPairs(scored.answers.embeddings[rows], ids, "cosine", resample(ids))
    return verification_with_intervals(pairs, None)[1].only({_METRIC})
