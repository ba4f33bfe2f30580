"""The whole evaluation of a model's answers: every analysis, one after the other, on the same draws of people."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fr_ps.data.labels import Labels
from fr_ps.evaluation.analyses.attributes import all_attribute_metrics, attributes_section
from fr_ps.evaluation.analyses.gallery_search import GallerySearch, search_gallery
from fr_ps.evaluation.analyses.groups import group_section
from fr_ps.evaluation.analyses.identification import identification_section, rank_metrics
from fr_ps.evaluation.analyses.linear_probes import linear_probe_section
from fr_ps.evaluation.analyses.quality import quality_section
from fr_ps.evaluation.bootstrap import FEW_SUBJECTS, BootstrapWeights, bootstrap_weights
from fr_ps.evaluation.metrics import Metrics, ReportSection
from fr_ps.evaluation.pairwise.pair_list import PairList
from fr_ps.evaluation.pairwise.pairs import AllPairs, ListedPairs, PairScores
from fr_ps.evaluation.pairwise.roc import compute_roc, default_operating_point
from fr_ps.evaluation.pairwise.similarity import Measure, similarity
from fr_ps.evaluation.pairwise.ten_fold import NAMES, draw_folds, folds_from_list, ten_fold_accuracy
from fr_ps.evaluation.pairwise.verification import verification_metrics, verification_section, verification_with_intervals
from fr_ps.models.inference import Predictions
from fr_ps.models.thresholds import Thresholds

MIN_DISTINCT_SCORES = 1000
"""Of the scores of ten times as many pairs: with fewer, error rates are read off a coarse curve."""


@dataclass(frozen=True)
class LabelledPredictions:
    """A model's answers about n sessions, and what is known of these."""

    predictions: Predictions
    labels: Labels


@dataclass(frozen=True)
class EvaluationResult:
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

    tested: LabelledPredictions
    pair_scores: PairScores
    pair_list: PairList | None
    gallery_search: GallerySearch
    bootstrap: BootstrapWeights
    sections: dict[str, ReportSection]
    warnings: tuple[str, ...]

    @property
    def metrics(self) -> Metrics:
        """Of all sections."""
        found = Metrics()
        for section in self.sections.values():
            found = found.merge(section.metrics)
        return found


def evaluate_predictions(
    tested: LabelledPredictions,
    trained: Sequence[str],
    thresholds: Thresholds | None,
    *,
    gallery: LabelledPredictions | None = None,
    listed: PairList | None = None,
    measure: Measure = "cosine",
) -> EvaluationResult:
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
    answers, labels = tested.predictions, tested.labels
    embeddings, draws = answers.embeddings, bootstrap_weights(labels.ids)
    pairs = make_pairs(embeddings, labels.ids, listed, measure, draws)
    comparisons, verified = verification_with_intervals(pairs, thresholds)
    verified = verified.merge(_ten_fold_metrics(embeddings, comparisons, listed))
    searched = _search(tested, gallery)
    sections = {
        "Verification": verification_section(comparisons, verified, thresholds),
        "Identification": _prefixed(
            "identity", identification_section(searched, _all_ids(tested, gallery), _extend_to_gallery(draws, gallery))
        ),
        "Attributes": attributes_section(
            answers.probabilities, labels, thresholds.attributes if thresholds else {}, trained, draws
        ),
    }
    threshold, source = _global_threshold(comparisons, thresholds)
    norms, scores = np.linalg.norm(embeddings, axis=1), comparisons.scale.scores(comparisons.genuine_levels)
    sections["Quality"] = quality_section(
        norms, labels, comparisons.genuine_first, comparisons.genuine_second, scores, threshold, source, draws
    )
    if measure != "cosine":
        threshold, source = None, "the threshold is a distance, and groups are compared by cosine"
    sections["Groups"] = group_section(embeddings, labels, threshold, source, draws)
    sections["What the identity embedding betrays"] = linear_probe_section(embeddings, labels)
    return EvaluationResult(
        tested, comparisons, listed, searched, draws, sections, tuple(_warnings(labels, comparisons, measure, listed is not None))
    )


def _prefixed(prefix: str, findings: ReportSection) -> ReportSection:
    return replace(findings, metrics=findings.metrics.with_prefix(prefix))


def _all_ids(tested: LabelledPredictions, gallery: LabelledPredictions | None) -> np.ndarray:
    return np.concatenate([tested.labels.ids, gallery.labels.ids]) if gallery else tested.labels.ids


def _search(tested: LabelledPredictions, gallery: LabelledPredictions | None) -> GallerySearch:
    if gallery is None:
        return search_gallery(tested.predictions.embeddings, tested.labels.ids, None)
    embeddings = np.concatenate([tested.predictions.embeddings, gallery.predictions.embeddings])
    return search_gallery(embeddings, _all_ids(tested, gallery), np.arange(len(tested.labels), len(embeddings)))


def _extend_to_gallery(bootstrap: BootstrapWeights, gallery: LabelledPredictions | None) -> BootstrapWeights:
    """Draws of the people tested, for rows among which the gallery's come last; those are not drawn."""
    if gallery is None:
        return bootstrap
    return replace(bootstrap, unit=np.concatenate([bootstrap.unit, np.zeros(len(gallery.labels), dtype=bootstrap.unit.dtype)]))


def _ten_fold_metrics(embeddings: np.ndarray, pair_scores: PairScores, pair_list: PairList | None) -> Metrics:
    """LFW's accuracy, by the folds of the list, or by drawn ones where all pairs are compared."""
    person, metrics = pair_scores.subject, Metrics()
    folds = folds_from_list(pair_list) if pair_list else draw_folds(person, pair_scores.genuine_first, pair_scores.genuine_second)
    if why := pair_scores.undefined_reason or folds.undefined_reason:
        for name in NAMES:
            metrics.add(name, None, why)
        return metrics
    compared = similarity(embeddings, person, pair_scores.scale.measure)
    scores = compared.scale.scores(compared.pair_levels(folds.first, folds.second))
    return ten_fold_accuracy(scores, person[folds.first] == person[folds.second], folds.fold)


def _global_threshold(pair_scores: PairScores, thresholds: Thresholds | None) -> tuple[float | None, str]:
    """The one threshold of quality and groups, and where it comes from, or why there is none."""
    if thresholds and thresholds.strictest and pair_scores.scale.measure == "cosine":
        point = thresholds.strictest
        return point.threshold, f"chosen on validation for FMR {point.fmr:g}"
    if pair_scores.undefined_reason:
        return None, pair_scores.undefined_reason
    own = default_operating_point(pair_scores, compute_roc(pair_scores))
    score = float(pair_scores.scale.scores(np.array(own.threshold)))
    why = "validation has no threshold with support" if thresholds else "the model has no thresholds from validation"
    if thresholds and thresholds.strictest:
        why = "those of validation are cosines"
    return score, f"chosen on these sessions for FMR {own.target_fmr:.3g}, as {why}"


def _warnings(labels: Labels, pair_scores: PairScores, measure: Measure, listed: bool) -> list[str]:
    found = []
    people, paired = len(np.unique(labels.ids)), len(np.unique(pair_scores.subject[pair_scores.genuine_first]))
    fewer = paired if paired and not pair_scores.undefined_reason else people
    if fewer < FEW_SUBJECTS:
        who = f"{people} people were tested" if fewer == people else f"{fewer} of {people} people have a genuine pair"
        found.append(
            f"{who}: with fewer than {FEW_SUBJECTS}, intervals from drawing people hold the truth less often than they say"
        )
    if listed:
        found.append("verification and quality are of the listed pairs, everything else is of all sessions that are scored")
    if pair_scores.undefined_reason:
        found.append(f"nothing can be verified: {pair_scores.undefined_reason}")
    pairs = pair_scores.impostor_count + len(pair_scores.genuine_levels)
    values = len(np.union1d(pair_scores.impostor_levels, pair_scores.genuine_levels))
    if values < MIN_DISTINCT_SCORES and pairs >= 10 * MIN_DISTINCT_SCORES:
        found.append(
            f"the {pairs} scores of verification have only {values} different values: most embeddings are the same or nearly so, "
            "and AUC, error rates and thresholds are coarse"
        )
    if measure == "euclidean":
        found.append("verification and quality compare by Euclidean distance, everything else by cosine")
    return found


def make_pairs(
    embeddings: np.ndarray, ids: np.ndarray, pair_list: PairList | None, measure: Measure, bootstrap: BootstrapWeights
) -> AllPairs | ListedPairs:
    """The pairs to verify: those of the list, or all."""
    if pair_list is None:
        return AllPairs(embeddings, ids, measure, bootstrap)
    return ListedPairs(embeddings, ids, pair_list.first, pair_list.second, measure, bootstrap)


def validation_metrics(predictions: Predictions, labels: Labels, trained: Sequence[str]) -> Metrics:
    """The numbers of a model's answers without intervals, as a validation needs them: `identity/auc`, `gender/auc`, ...

    Args:
        answers: of n sessions.
        labels: of the same sessions, coded with the model's classes.
        trained: the attributes that the model was trained on; those of others are undefined.

    Raises:
        InputError: an answer with NaN or infinity.
    """
    identity = verification_metrics(AllPairs(predictions.embeddings, labels.ids).score())
    identity = identity.merge(rank_metrics(search_gallery(predictions.embeddings, labels.ids, None)))
    return identity.with_prefix("identity").merge(all_attribute_metrics(predictions.probabilities, labels, {}, trained))
