"""The table of pairs and their scores, for whoever wants to compute something else from them."""

import numpy as np
import pandas as pd

from fr_ps.evaluation.assess import Assessment
from fr_ps.evaluation.pairwise.similarity import similarity

MOST_PAIRS = 1_000_000


def score_table(assessment: Assessment, most: int = MOST_PAIRS, seed: int = 0) -> tuple[pd.DataFrame, str]:
    """The pairs with their scores, and a note: of more than `most` pairs, all genuine ones and a sample of impostors."""
    labels, comparisons = assessment.tested.labels, assessment.comparisons
    count, note = len(labels), ""
    if assessment.listed is not None:
        first, second = assessment.listed.first, assessment.listed.second
    elif count * (count - 1) // 2 <= most:
        first, second = np.triu_indices(count, k=1)
    else:
        one, other = _impostors(labels.ids, max(most - len(comparisons.first), 0), np.random.default_rng(seed))
        some = f"{len(one)} of {comparisons.impostors} impostor pairs (seed {seed})"
        note = f"scores.parquet holds all {len(comparisons.first)} genuine pairs and {some}"
        first, second = np.concatenate([comparisons.first, one]), np.concatenate([comparisons.second, other])
        order = np.lexsort((second, first))
        first, second = first[order], second[order]
    embeddings = similarity(assessment.tested.answers.embeddings, labels.ids, comparisons.scale.measure)
    columns = {
        "id_a": labels.ids[first],
        "session_a": labels.sessions[first],
        "id_b": labels.ids[second],
        "session_b": labels.sessions[second],
        "score": embeddings.scale.scores(embeddings.keys_of_pairs(first, second)),  # float32 has few values near 1
        "genuine": labels.ids[first] == labels.ids[second],
    }
    return pd.DataFrame(columns), note


def _impostors(ids: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """At most `count` different impostor pairs, each as likely as any other."""
    person = np.unique(ids, return_inverse=True)[1]
    drawn = np.empty(0, dtype=np.int64)
    for _ in range(20):
        one, other = np.sort(rng.integers(0, len(ids), size=(2, 2 * count)), axis=0)
        fresh = (one * len(ids) + other)[person[one] != person[other]]
        both = np.concatenate([drawn, fresh])
        _, place = np.unique(both, return_index=True)
        drawn = both[np.sort(place)][:count]
        if len(drawn) == count:
            break
    return drawn // len(ids), drawn % len(ids)
