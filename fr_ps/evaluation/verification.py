"""Verification over all pairs: are these two sessions of one person? Pure functions over arrays."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from fr_ps.errors import InputError
from fr_ps.evaluation.metrics import Metrics

FAR_POINTS = (0.1, 0.01, 0.001, 0.0001)
LOW_SUPPORT = 30


@dataclass(frozen=True)
class Pairs:
    """Every unordered pair of sessions, and how alike they are.

    Attributes:
        first: (m,) row of one session.
        second: (m,) row of the other.
        score: (m,) float32 cosine of the embeddings.
        genuine: (m,) bool, one person's.
        person: (m,) number of the person of `first`.
    """

    first: np.ndarray
    second: np.ndarray
    score: np.ndarray
    genuine: np.ndarray
    person: np.ndarray


def all_pairs(embeddings: np.ndarray, ids: np.ndarray) -> Pairs:
    """All n (n - 1) / 2 pairs of the (n, C) embeddings of the (n,) people.

    Raises:
        InputError: an embedding with NaN or infinity.
    """
    if not np.isfinite(embeddings).all():
        person = ids[np.argwhere(~np.isfinite(embeddings))[0][0]]
        raise InputError(f"the model's embedding of a session of {person} is NaN or infinite; train with a lower optim.lr")
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    first, second = np.triu_indices(len(ids), k=1)
    person = np.unique(ids, return_inverse=True)[1]
    return Pairs(first, second, (unit @ unit.T)[first, second], person[first] == person[second], person[first])


def verification(pairs: Pairs) -> Metrics:
    """AUC, person-balanced AUC, EER, and the true accept rate at each false accept rate of `FAR_POINTS`.

    A pair is accepted if its score is at least the threshold; the threshold of a FAR is the smallest whose false accept
    rate is at most it. A FAR point with fewer than one expected error (FAR x impostor pairs) is left out, one with fewer
    than 30 is marked. In the person-balanced AUC every person's genuine pairs weigh the same together.
    """
    metrics = Metrics()
    genuine, impostors = int(pairs.genuine.sum()), int((~pairs.genuine).sum())
    if not genuine or not impostors:
        reason = undefined_reason(pairs)
        for name in ("auc", "auc_person_balanced", "eer"):
            metrics.add(name, None, reason)
        return metrics
    metrics.add("auc", float(roc_auc_score(pairs.genuine, pairs.score)))
    metrics.add("auc_person_balanced", float(roc_auc_score(pairs.genuine, pairs.score, sample_weight=_person_weights(pairs))))
    far, tar, _ = roc_curve(pairs.genuine, pairs.score, drop_intermediate=False)
    metrics.add("eer", equal_error_rate(far, tar))
    for point in FAR_POINTS:
        expected = point * impostors
        if expected < 1:
            continue
        note = (
            f"low support: {expected:.1f} expected false accepts of {impostors} impostor pairs" if expected < LOW_SUPPORT else ""
        )
        metrics.add(f"tar_at_far_{point:g}", float(tar[far <= point].max()), note)
    return metrics


def undefined_reason(pairs: Pairs) -> str:
    """Why nothing can be verified among these pairs."""
    return "no impostor pair: there is one person only" if pairs.genuine.any() else "no genuine pair: nobody has two sessions"


def equal_error_rate(far: np.ndarray, tar: np.ndarray) -> float:
    """Where false accepts and false rejects are equally frequent, by linear interpolation along the ROC curve."""
    gap = far - (1 - tar)  # grows from -1 to 1
    after = int(np.argmax(gap >= 0))
    if after == 0 or gap[after] == gap[after - 1]:
        return float(far[after])
    share = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(far[after - 1] + share * (far[after] - far[after - 1]))


def rank1(pairs: Pairs, count: int) -> float | None:
    """Share of sessions whose nearest other session is of the same person; None where no session can be asked.

    Asked are the sessions whose person has another one and that could be taken for somebody else's; the others could not
    be right, or not be wrong. A tie with an impostor is an error.

    Args:
        pairs: of `count` sessions.
        count: n.
    """
    best = np.full((2, count), -np.inf)
    for kind, chosen in enumerate((pairs.genuine, ~pairs.genuine)):
        for end in (pairs.first, pairs.second):
            np.maximum.at(best[kind], end[chosen], pairs.score[chosen])
    asked = np.isfinite(best[0]) & np.isfinite(best[1])
    return float((best[0] > best[1])[asked].mean()) if asked.any() else None


def _person_weights(pairs: Pairs) -> np.ndarray:
    counts = np.bincount(pairs.person[pairs.genuine], minlength=pairs.person.max() + 1)
    return np.where(pairs.genuine, 1 / np.maximum(counts[pairs.person], 1), 1.0)
