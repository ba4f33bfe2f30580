"""The head of a report: its first sentence, verdicts in words, and the most important metrics."""

from collections.abc import Sequence

import numpy as np

from fr_ps.data.labels import Labels
from fr_ps.evaluation.evaluate_predictions import EvaluationResult
from fr_ps.evaluation.metrics import Metrics
from fr_ps.evaluation.pairwise.pairs import PairScores
from fr_ps.evaluation.pairwise.roc import OperatingPoint, compute_roc, operating_points
from fr_ps.report.html_page import KeyNumber, Lead, Verdict
from fr_ps.report.table import format_cell

FMR_IN_WORDS = 0.01
"""The first sentence is about this false match rate; about the lowest larger one if the pairs support no such rate."""
_KEY_METRICS = {"auc": "AUC", "eer": "equal error rate", "rank1": "rank-1 identification"}


def report_lead(
    subtitle: str, metrics: Metrics, part: str, result: EvaluationResult | None, verdicts: Sequence[Verdict] = ()
) -> Lead:
    """The head of the report of one model.

    Args:
        subtitle: model and data.
        metrics: with the metrics `PART/identity/...`.
        part: `test`, or another part of the split.
        result: the evaluation; None without test subjects.
        verdicts: results of comparisons.
    """
    found = [_key_number(metrics, f"{part}/identity/{name}", text) for name, text in _KEY_METRICS.items()]
    numbers = [number for number in found if number]
    if result is None:
        of_validation = "; the numbers are those of validation" if numbers else ""
        return Lead(subtitle, f"No subjects were tested{of_validation}.", "", verdicts, numbers)
    return Lead(subtitle, accepted_sentence(result), accepted_detail(result, metrics, part), verdicts, numbers)


def accepted_sentence(result: EvaluationResult) -> str:
    """How many genuine pairs are accepted at a false match rate, on how many subjects; or why this is undefined."""
    labels, pair_scores = result.tested.labels, result.pair_scores
    sample = _sample(labels)
    if pair_scores.undefined_reason:
        return f"Verification is undefined: {pair_scores.undefined_reason} {sample}."
    point = _point_in_words(pair_scores)
    if point is None:
        pairs = _count(pair_scores.impostor_count, "different-subject pair")
        return f"No false match rate can be set: {pairs} are too few {sample}."
    accepted = point.genuine_pairs - point.false_non_matches
    return (
        f"Of {_count(point.genuine_pairs, 'same-subject pair')}, {accepted:,} {'is' if accepted == 1 else 'are'} accepted at "
        f"{100 * point.target_fmr:g} % false matches {_sample(labels, point)}."
    )


def accepted_detail(result: EvaluationResult, metrics: Metrics, part: str) -> str:
    """The rate of `accepted_sentence` with its interval, its threshold, and a remark on low support; empty if undefined."""
    pair_scores = result.pair_scores
    if pair_scores.undefined_reason or (point := _point_in_words(pair_scores)) is None:
        return ""
    interval = metrics.intervals.get(f"{part}/identity/tar_at_far_{point.target_fmr:g}")
    bounds = f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""
    scale, accepted = pair_scores.scale, point.genuine_pairs - point.false_non_matches
    threshold = float(scale.scores(np.array(point.threshold)))
    measure = scale.measure if scale.measure == "cosine" else "minus distance"
    text = (
        f"The share accepted is {100 * accepted / point.genuine_pairs:.1f} %{bounds}. "
        f"The threshold ({measure} {threshold:.3f}) is chosen on these pairs and also accepts {point.false_matches:,} of "
        f"{point.impostor_pairs:,} different-subject pairs."
    )
    expected = point.target_fmr * point.impostor_pairs
    return text + (f" Low support: only {expected:.1f} false matches are expected." if point.low_support else "")


def accepted_by_both(names: tuple[str, str], results: Sequence[EvaluationResult]) -> str:
    """`accepted_sentence` of two models on the same pairs; why it is undefined, if it is for one of them."""
    points = [None if result.pair_scores.undefined_reason else _point_in_words(result.pair_scores) for result in results]
    for result, point in zip(results, points):
        if point is None:
            return accepted_sentence(result)
    first, second = (point.genuine_pairs - point.false_non_matches for point in points if point)
    labels, point = results[0].tested.labels, points[0]
    assert point is not None
    return (
        f"At {100 * point.target_fmr:g} % false matches, {names[0]} accepts {first:,} and {names[1]} {second:,} of "
        f"{_count(point.genuine_pairs, 'same-subject pair')} {_sample(labels, point)}."
    )


def describe_lead(lead: Lead, warnings: Sequence[str]) -> list[str]:
    """At most four lines of text: first sentence, first verdict, the key numbers, the warnings."""
    numbers = ", ".join(f"{number.name} {number.value} {number.interval}".rstrip() for number in lead.numbers)
    lines = [lead.sentence, *(verdict.text for verdict in lead.verdicts[:1]), numbers, "; ".join(warnings)]
    return [line for line in lines if line]


def _point_in_words(pair_scores: PairScores) -> OperatingPoint | None:
    points = [point for point in operating_points(pair_scores, compute_roc(pair_scores)) if point.target_fmr >= FMR_IN_WORDS]
    return points[-1] if points else None


def _key_number(metrics: Metrics, name: str, text: str) -> KeyNumber | None:
    value = metrics.values.get(name)
    if value is None:
        return None
    low, high = metrics.intervals.get(name, (None, None))
    return KeyNumber(text, format_cell(value), "" if low is None else f"[{low:.3f}, {high:.3f}]")


def _sample(labels: Labels, point: OperatingPoint | None = None) -> str:
    """The size of the sample in brackets, with a remark if it is too small for the false match rate of `point`."""
    support = "; low support" if point and point.low_support else ""
    return f"({_count(len(np.unique(labels.ids)), 'subject')}, {_count(len(labels), 'session')}{support})"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
