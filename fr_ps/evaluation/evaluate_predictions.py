"""All analyses of a model's predictions, on the same bootstrap replicates of subjects."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fr_ps.data.labels import Labels
from fr_ps.evaluation.analyses.attributes import all_attribute_metrics, attributes_section
from fr_ps.evaluation.analyses.gallery_search import GallerySearch, search_gallery
from fr_ps.evaluation.analyses.groups import group_section
from fr_ps.evaluation.analyses.identification import identification_section, rank_metrics
from fr_ps.evaluation.analyses.linear_probes import linear_probe_section
from fr_ps.evaluation.analyses.projection import projection_section
from fr_ps.evaluation.analyses.quality import quality_section
from fr_ps.evaluation.bootstrap import FEW_SUBJECTS, BootstrapWeights, bootstrap_weights
from fr_ps.evaluation.calibrate_thresholds import global_threshold
from fr_ps.evaluation.metrics import Metrics, ReportSection
from fr_ps.evaluation.pairwise.pair_list import PairList
from fr_ps.evaluation.pairwise.pairs import CPU, AllPairs, ListedPairs, PairScores
from fr_ps.evaluation.pairwise.similarity import Measure, similarity_scorer
from fr_ps.evaluation.pairwise.ten_fold import METRIC_NAMES, draw_folds, folds_from_list, ten_fold_accuracy
from fr_ps.evaluation.pairwise.verification import RocBand, verification_metrics, verification_with_band
from fr_ps.evaluation.pairwise.verification_report import verification_section
from fr_ps.models.inference import Predictions
from fr_ps.models.thresholds import Thresholds

MIN_DISTINCT_SCORES = 1000
"""Fewer distinct scores than this, among ten times as many pairs, give coarse error rates and a warning."""


@dataclass(frozen=True)
class LabelledPredictions:
    """Predictions of n sessions with their labels."""

    predictions: Predictions
    labels: Labels


@dataclass(frozen=True)
class EvaluationResult:
    """Result of all analyses.

    Attributes:
        tested: predictions and labels of the test sessions.
        pair_scores: scores of all pairs, or of the pair list.
        pair_list: pairs from a file; None: all pairs.
        gallery_search: search of each probe; its rows are those of `tested`, then those of the gallery.
        bootstrap: bootstrap replicates of the test subjects.
        sections: section title to the result of one analysis.
        warnings: what limits the use of the metrics.
        roc_band: intervals of the ROC curve; None without any.
    """

    tested: LabelledPredictions
    pair_scores: PairScores
    pair_list: PairList | None
    gallery_search: GallerySearch
    bootstrap: BootstrapWeights
    sections: dict[str, ReportSection]
    warnings: tuple[str, ...]
    roc_band: RocBand | None = None

    @property
    def metrics(self) -> Metrics:
        """Metrics of all sections."""
        return Metrics().merge(*(section.metrics for section in self.sections.values()))


def evaluate_predictions(
    tested: LabelledPredictions,
    trained: Sequence[str],
    thresholds: Thresholds | None,
    *,
    gallery: LabelledPredictions | None = None,
    pair_list: PairList | None = None,
    measure: Measure = "cosine",
    device: torch.device = CPU,
) -> EvaluationResult:
    """Run all analyses on predictions.

    Args:
        tested: predictions of the test sessions.
        trained: attributes that the model was trained on.
        thresholds: thresholds from validation; None: the model has none.
        gallery: predictions of the enrolled sessions, if the split has a gallery.
        pair_list: pairs to verify; None: all pairs.
        measure: similarity measure of verification and quality; everything else uses the cosine.
        device: device that compares all pairs.

    Raises:
        InputError: a prediction with NaN or infinity.
    """
    predictions, labels = tested.predictions, tested.labels
    embeddings, bootstrap = predictions.embeddings, bootstrap_weights(labels.ids)
    pairs = make_pairs(embeddings, labels.ids, pair_list, measure, bootstrap, device)
    pair_scores, verification, band = verification_with_band(pairs, thresholds)
    verification = verification.merge(_ten_fold_metrics(embeddings, pair_scores, pair_list))
    search = _search(tested, gallery)
    identification = identification_section(search, _all_ids(tested, gallery), _extend_to_gallery(bootstrap, gallery))
    sections = {
        "Verification": verification_section(pair_scores, verification, thresholds, band),
        "Identification": replace(identification, metrics=identification.metrics.with_prefix("identity")),
        "Attributes": attributes_section(
            predictions.probabilities, labels, thresholds.attributes if thresholds else {}, trained, bootstrap
        ),
    }
    threshold, source = global_threshold(pair_scores, thresholds)
    norms, scores = np.linalg.norm(embeddings, axis=1), pair_scores.scale.scores(pair_scores.genuine_levels)
    sections["Quality"] = quality_section(
        norms, labels, pair_scores.genuine_first, pair_scores.genuine_second, scores, threshold, source, bootstrap
    )
    if measure != "cosine":
        threshold, source = None, "the threshold is a distance; groups are compared by cosine"
    sections["Groups"] = group_section(embeddings, labels, threshold, source, bootstrap)
    sections["Embeddings"] = projection_section(embeddings, labels)
    sections["Linear probes"] = linear_probe_section(embeddings, labels)
    warnings = _warnings(labels, pair_scores, measure, pair_list is not None)
    return EvaluationResult(tested, pair_scores, pair_list, search, bootstrap, sections, tuple(warnings), band)


def validation_metrics(predictions: Predictions, labels: Labels, trained: Sequence[str]) -> Metrics:
    """Identity and attribute metrics without intervals, as validation needs them: `identity/auc`, `gender/auc`, ...

    Args:
        predictions: predictions of n sessions.
        labels: labels of the same sessions, in the classes of the model.
        trained: attributes that the model was trained on; the others are undefined.

    Raises:
        InputError: a prediction with NaN or infinity.
    """
    identity = verification_metrics(AllPairs(predictions.embeddings, labels.ids).score())
    identity = identity.merge(rank_metrics(search_gallery(predictions.embeddings, labels.ids, None)))
    return identity.with_prefix("identity").merge(all_attribute_metrics(predictions.probabilities, labels, {}, trained))


def make_pairs(
    embeddings: np.ndarray,
    ids: np.ndarray,
    pair_list: PairList | None,
    measure: Measure,
    bootstrap: BootstrapWeights,
    device: torch.device = CPU,
) -> AllPairs | ListedPairs:
    """The pairs to verify: those of the list, or all, which `device` compares."""
    if pair_list is None:
        return AllPairs(embeddings, ids, measure, bootstrap, device)
    return ListedPairs(embeddings, ids, pair_list.first, pair_list.second, measure, bootstrap)


def _all_ids(tested: LabelledPredictions, gallery: LabelledPredictions | None) -> np.ndarray:
    return np.concatenate([tested.labels.ids, gallery.labels.ids]) if gallery else tested.labels.ids


def _search(tested: LabelledPredictions, gallery: LabelledPredictions | None) -> GallerySearch:
    if gallery is None:
        return search_gallery(tested.predictions.embeddings, tested.labels.ids, None)
    embeddings = np.concatenate([tested.predictions.embeddings, gallery.predictions.embeddings])
    return search_gallery(embeddings, _all_ids(tested, gallery), np.arange(len(tested.labels), len(embeddings)))


def _extend_to_gallery(bootstrap: BootstrapWeights, gallery: LabelledPredictions | None) -> BootstrapWeights:
    """The replicates for rows that end with those of the gallery; gallery rows are not resampled."""
    if gallery is None:
        return bootstrap
    return replace(bootstrap, unit=np.concatenate([bootstrap.unit, np.zeros(len(gallery.labels), dtype=bootstrap.unit.dtype)]))


def _ten_fold_metrics(embeddings: np.ndarray, pair_scores: PairScores, pair_list: PairList | None) -> Metrics:
    """LFW accuracy, with the folds of the pair list, or with sampled folds if all pairs are compared."""
    subject, metrics = pair_scores.subject, Metrics()
    folds = (
        folds_from_list(pair_list) if pair_list else draw_folds(subject, pair_scores.genuine_first, pair_scores.genuine_second)
    )
    if reason := pair_scores.undefined_reason or folds.undefined_reason:
        for name in METRIC_NAMES:
            metrics.add(name, None, reason)
        return metrics
    scorer = similarity_scorer(embeddings, subject, pair_scores.scale.measure)
    scores = scorer.scale.scores(scorer.pair_levels(folds.first, folds.second))
    return ten_fold_accuracy(scores, subject[folds.first] == subject[folds.second], folds.fold)


def _warnings(labels: Labels, pair_scores: PairScores, measure: Measure, listed: bool) -> list[str]:
    warnings = []
    subjects, mated = len(np.unique(labels.ids)), len(np.unique(pair_scores.subject[pair_scores.genuine_first]))
    effective = mated if mated and not pair_scores.undefined_reason else subjects
    if effective < FEW_SUBJECTS:
        with_pair = f"{effective} of {subjects} test subjects have a genuine pair"
        count = f"{subjects} test subjects" if effective == subjects else with_pair
        warnings.append(f"only {count}: bootstrap intervals under-cover below {FEW_SUBJECTS}")
    if listed:
        warnings.append("verification and quality use the listed pairs; everything else uses all scored sessions")
    if pair_scores.undefined_reason:
        warnings.append(f"verification is undefined: {pair_scores.undefined_reason}")
    pairs = pair_scores.impostor_count + len(pair_scores.genuine_levels)
    values = len(np.union1d(pair_scores.impostor_levels, pair_scores.genuine_levels))
    if values < MIN_DISTINCT_SCORES and pairs >= 10 * MIN_DISTINCT_SCORES:
        warnings.append(
            f"the {pairs} verification scores have only {values} distinct values: most embeddings are nearly the same, so AUC, "
            "error rates and thresholds are coarse"
        )
    if measure == "euclidean":
        warnings.append("verification and quality compare by Euclidean distance; everything else compares by cosine")
    return warnings
