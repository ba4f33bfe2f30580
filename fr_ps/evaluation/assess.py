"""The whole evaluation of a model's answers: every analysis, one after the other, on the same draws of people."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fr_ps.data.labels import Labels
from fr_ps.evaluation.analyses.attributes import attributes_findings
from fr_ps.evaluation.analyses.gallery_search import Search, search
from fr_ps.evaluation.analyses.groups import group_findings
from fr_ps.evaluation.analyses.identification import identification
from fr_ps.evaluation.analyses.probes import probe_findings
from fr_ps.evaluation.analyses.quality import quality_findings
from fr_ps.evaluation.numbers.findings import Findings
from fr_ps.evaluation.numbers.metrics import Metrics
from fr_ps.evaluation.numbers.resample import FEW_PEOPLE, Resample, resample
from fr_ps.evaluation.pairwise.operating import Thresholds
from fr_ps.evaluation.pairwise.pairs import AllPairs, Comparisons, ListedPairs
from fr_ps.evaluation.pairwise.pairs_file import PairList
from fr_ps.evaluation.pairwise.roc import operating_point, roc
from fr_ps.evaluation.pairwise.similarity import Measure, similarity
from fr_ps.evaluation.pairwise.ten_fold import NAMES, draw_folds, folds_of, ten_fold_accuracy
from fr_ps.evaluation.pairwise.verification import verification_findings, verification_with_intervals
from fr_ps.evaluation.score import Answers

FEW_VALUES = 1000
"""Of the scores of ten times as many pairs: with fewer, error rates are read off a coarse curve."""


@dataclass(frozen=True)
class Scored:
    """A model's answers about n sessions, and what is known of these."""

    answers: Answers
    labels: Labels


@dataclass(frozen=True)
class Assessment:
    """All that was found.

    Attributes:
        tested: who.
        comparisons: of all pairs, or the listed ones.
        listed: the pairs, where a file named them.
        search: of every probe; its rows are those of `tested`, then those of the gallery.
        draws: of the people tested.
        sections: title to what one analysis found.
        warnings: what a reader has to know before any number.
    """

    tested: Scored
    comparisons: Comparisons
    listed: PairList | None
    search: Search
    draws: Resample
    sections: dict[str, Findings]
    warnings: tuple[str, ...]

    @property
    def metrics(self) -> Metrics:
        """Of all sections."""
        found = Metrics()
        for section in self.sections.values():
            found = found.joined(section.metrics)
        return found


def assess(
    tested: Scored,
    trained: Sequence[str],
    thresholds: Thresholds | None,
    *,
    gallery: Scored | None = None,
    listed: PairList | None = None,
    measure: Measure = "cosine",
) -> Assessment:
    """Everything about a model's answers.

    Args:
        tested: the sessions that are verified, searched for and described.
        trained: the attributes that the model was trained on.
        thresholds: that validation chose; None: there are none.
        gallery: who is enrolled, where that is a part of its own.
        listed: the pairs to verify; None: all.
        measure: that verification compares embeddings by; all else is by cosine.

    Raises:
        InputError: an answer with NaN or infinity.
    """
    answers, labels = tested.answers, tested.labels
    embeddings, draws = answers.embeddings, resample(labels.ids)
    pairs = make_pairs(embeddings, labels.ids, listed, measure, draws)
    comparisons, verified = verification_with_intervals(pairs, thresholds)
    verified = verified.joined(_ten_folds(embeddings, comparisons, listed))
    searched = _search(tested, gallery)
    sections = {
        "Verification": verification_findings(comparisons, verified, thresholds),
        "Identification": _under("identity", identification(searched, _ids(tested, gallery), _of_all(draws, gallery))),
        "Attributes": attributes_findings(
            answers.probabilities, labels, thresholds.attributes if thresholds else {}, trained, draws
        ),
    }
    threshold, source = _global_threshold(comparisons, thresholds)
    norms, scores = np.linalg.norm(embeddings, axis=1), comparisons.scale.scores(comparisons.genuine_keys)
    sections["Quality"] = quality_findings(norms, labels, comparisons.first, comparisons.second, scores, threshold, source, draws)
    if measure != "cosine":
        threshold, source = None, "the threshold is a distance, and groups are compared by cosine"
    sections["Groups"] = group_findings(embeddings, labels, threshold, source, draws)
    sections["What the identity embedding betrays"] = probe_findings(embeddings, labels)
    return Assessment(
        tested, comparisons, listed, searched, draws, sections, tuple(_warnings(labels, comparisons, measure, listed is not None))
    )


def _under(prefix: str, findings: Findings) -> Findings:
    return replace(findings, metrics=findings.metrics.under(prefix))


def _ids(tested: Scored, gallery: Scored | None) -> np.ndarray:
    return np.concatenate([tested.labels.ids, gallery.labels.ids]) if gallery else tested.labels.ids


def _search(tested: Scored, gallery: Scored | None) -> Search:
    if gallery is None:
        return search(tested.answers.embeddings, tested.labels.ids, None)
    embeddings = np.concatenate([tested.answers.embeddings, gallery.answers.embeddings])
    return search(embeddings, _ids(tested, gallery), np.arange(len(tested.labels), len(embeddings)))


def _of_all(draws: Resample, gallery: Scored | None) -> Resample:
    """Draws of the people tested, for rows among which the gallery's come last; those are not drawn."""
    if gallery is None:
        return draws
    return replace(draws, unit=np.concatenate([draws.unit, np.zeros(len(gallery.labels), dtype=draws.unit.dtype)]))


def _ten_folds(embeddings: np.ndarray, comparisons: Comparisons, listed: PairList | None) -> Metrics:
    """LFW's accuracy, by the folds of the list, or by drawn ones where all pairs are compared."""
    person, metrics = comparisons.person, Metrics()
    folds = folds_of(listed) if listed else draw_folds(person, comparisons.first, comparisons.second)
    if why := comparisons.undefined or folds.why_not:
        for name in NAMES:
            metrics.add(name, None, why)
        return metrics
    compared = similarity(embeddings, person, comparisons.scale.measure)
    scores = compared.scale.scores(compared.keys_of_pairs(folds.first, folds.second))
    return ten_fold_accuracy(scores, person[folds.first] == person[folds.second], folds.fold)


def _global_threshold(comparisons: Comparisons, thresholds: Thresholds | None) -> tuple[float | None, str]:
    """The one threshold of quality and groups, and where it comes from, or why there is none."""
    if thresholds and thresholds.strictest and comparisons.scale.measure == "cosine":
        point = thresholds.strictest
        return point.threshold, f"chosen on validation for FMR {point.fmr:g}"
    if comparisons.undefined:
        return None, comparisons.undefined
    own = operating_point(comparisons, roc(comparisons))
    score = float(comparisons.scale.scores(np.array(own.key)))
    why = "validation has no threshold with support" if thresholds else "the model has no thresholds from validation"
    if thresholds and thresholds.strictest:
        why = "those of validation are cosines"
    return score, f"chosen on these sessions for FMR {own.target:.3g}, as {why}"


def _warnings(labels: Labels, comparisons: Comparisons, measure: Measure, listed: bool) -> list[str]:
    found = []
    people, paired = len(np.unique(labels.ids)), len(np.unique(comparisons.person[comparisons.first]))
    fewer = paired if paired and not comparisons.undefined else people
    if fewer < FEW_PEOPLE:
        who = f"{people} people were tested" if fewer == people else f"{fewer} of {people} people have a genuine pair"
        found.append(
            f"{who}: with fewer than {FEW_PEOPLE}, intervals from drawing people hold the truth less often than they say"
        )
    if listed:
        found.append("verification and quality are of the listed pairs, everything else is of all sessions that are scored")
    if comparisons.undefined:
        found.append(f"nothing can be verified: {comparisons.undefined}")
    pairs = comparisons.impostors + len(comparisons.genuine_keys)
    values = len(np.union1d(comparisons.impostor_keys, comparisons.genuine_keys))
    if values < FEW_VALUES and pairs >= 10 * FEW_VALUES:
        found.append(
            f"the {pairs} scores of verification have only {values} different values: most embeddings are the same or nearly so, "
            "and AUC, error rates and thresholds are coarse"
        )
    if measure == "euclidean":
        found.append("verification and quality compare by Euclidean distance, everything else by cosine")
    return found


def make_pairs(
    embeddings: np.ndarray, ids: np.ndarray, listed: PairList | None, measure: Measure, draws: Resample
) -> AllPairs | ListedPairs:
    """The pairs to verify: those of the list, or all."""
    if listed is None:
        return AllPairs(embeddings, ids, measure, draws)
    return ListedPairs(embeddings, ids, listed.first, listed.second, measure, draws)
