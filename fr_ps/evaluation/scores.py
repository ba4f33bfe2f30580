"""The table of pairs and their scores, for whoever wants to compute something else from them."""

import numpy as np
import pandas as pd

from fr_ps.evaluation.evaluate_predictions import EvaluationResult
from fr_ps.evaluation.pairwise.similarity import similarity

MAX_PAIRS = 1_000_000


def score_table(result: EvaluationResult, max_pairs: int = MAX_PAIRS, seed: int = 0) -> tuple[pd.DataFrame, str]:
    """The pairs with their scores, and a note: of more than `most` pairs, all genuine ones and a sample of impostors."""
    labels, comparisons = result.tested.labels, result.pair_scores
    count, note = len(labels), ""
    if result.pair_list is not None:
        first, second = result.pair_list.first, result.pair_list.second
    elif count * (count - 1) // 2 <= max_pairs:
        first, second = np.triu_indices(count, k=1)
    else:
        one, other = _sample_impostors(
            labels.ids, max(max_pairs - len(comparisons.genuine_first), 0), np.random.default_rng(seed)
        )
        some = f"{len(one)} of {comparisons.impostor_count} impostor pairs (seed {seed})"
        note = f"scores.parquet holds all {len(comparisons.genuine_first)} genuine pairs and {some}"
        first, second = np.concatenate([comparisons.genuine_first, one]), np.concatenate([comparisons.genuine_second, other])
        order = np.lexsort((second, first))
        first, second = first[order], second[order]
    embeddings = similarity(result.tested.predictions.embeddings, labels.ids, comparisons.scale.measure)
    columns = {
        "id_a": labels.ids[first],
        "session_a": labels.sessions[first],
        "id_b": labels.ids[second],
        "session_b": labels.sessions[second],
        "score": embeddings.scale.scores(embeddings.pair_levels(first, second)),  # float32 has few values near 1
        "genuine": labels.ids[first] == labels.ids[second],
    }
    return pd.DataFrame(columns), note


def _sample_impostors(ids: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
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
