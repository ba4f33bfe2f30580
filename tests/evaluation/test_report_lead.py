"""The head of a report, against counts in a loop over all pairs."""

import itertools

import numpy as np
import pytest

from fr_ps.data.labels import DEFAULT_CLASSES, Labels
from fr_ps.evaluation.evaluate_predictions import EvaluationResult, LabelledPredictions, evaluate_predictions
from fr_ps.evaluation.report_lead import accepted_by_both, accepted_sentence, describe_lead, report_lead
from fr_ps.models.inference import Predictions
from fr_ps.report.html_page import Lead, Verdict

pytestmark = pytest.mark.usefixtures("few_replicates")


def result_of(subjects: int, sessions: int, noise: float = 1.0) -> EvaluationResult:
    rng = np.random.default_rng(0)
    ids = np.repeat([f"p{i:02d}" for i in range(subjects)], sessions)
    embeddings = np.repeat(rng.normal(size=(subjects, 8)), sessions, axis=0) + noise * rng.normal(size=(len(ids), 8))
    labels = Labels(ids, np.arange(len(ids)).astype(str), np.full((len(ids), 5), -1, np.int8), DEFAULT_CLASSES, "raw", {})
    return evaluate_predictions(LabelledPredictions(Predictions(embeddings.astype(np.float32), {}), labels), [], None)


def accepted(result: EvaluationResult, fmr: float) -> tuple[int, int]:
    """Genuine pairs above every impostor score but the highest share `fmr` of them, and all genuine pairs."""
    embeddings, ids = result.tested.predictions.embeddings.astype(float), result.tested.labels.ids
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    pairs = list(itertools.combinations(range(len(ids)), 2))
    genuine = [unit[a] @ unit[b] for a, b in pairs if ids[a] == ids[b]]
    impostor = sorted((unit[a] @ unit[b] for a, b in pairs if ids[a] != ids[b]), reverse=True)
    first_rejected = impostor[int(fmr * len(impostor))]
    return sum(score > first_rejected for score in genuine), len(genuine)


def test_the_first_sentence_counts_the_accepted_pairs() -> None:
    found = result_of(20, 8)  # 12,160 impostor pairs
    right, pairs = accepted(found, 0.01)
    assert 0 < right < pairs == 560
    assert accepted_sentence(found) == (
        f"Of 560 same-subject pairs, {right} are accepted at 1 % false matches (20 subjects, 160 sessions)."
    )
    lead = report_lead("x", found.metrics.with_prefix("test"), "test", found)
    low, high = found.metrics.intervals["identity/tar_at_far_0.01"]
    assert f"{100 * right / pairs:.1f} % [{100 * low:.1f}, {100 * high:.1f}]" in lead.detail
    assert "Low support" not in lead.detail
    assert [number.name for number in lead.numbers] == ["AUC", "equal error rate", "rank-1 identification"]


def test_few_impostor_pairs_give_a_larger_rate_and_a_remark() -> None:
    found = result_of(5, 3)  # 90 impostor pairs: less than one expected false match at 1 %
    right, _ = accepted(found, 0.1)
    assert accepted_sentence(found).startswith(f"Of 15 same-subject pairs, {right} are accepted at 10 % false matches")
    assert accepted_sentence(found).endswith("(5 subjects, 15 sessions; low support).")
    assert accepted_by_both(("a", "b"), [found, found]).endswith("(5 subjects, 15 sessions; low support).")
    detail = report_lead("", found.metrics.with_prefix("test"), "test", found).detail
    assert "Low support: only 9.0 false matches are expected." in detail


@pytest.mark.parametrize(
    ("subjects", "sessions", "text"),
    [
        (1, 4, "Verification is undefined: "),
        (4, 1, "Verification is undefined: "),
        (2, 2, "No false match rate can be set: 4 different-subject pairs are too few (2 subjects, 4 sessions)."),
    ],
)
def test_without_an_operating_point_the_sentence_has_the_reason(subjects: int, sessions: int, text: str) -> None:
    found = result_of(subjects, sessions)
    assert accepted_sentence(found).startswith(text)
    assert report_lead("", found.metrics.with_prefix("test"), "test", found).detail == ""
    assert accepted_by_both(("a", "b"), [found, found]).startswith(text)


def test_two_models_are_counted_by_name() -> None:
    good, bad = result_of(20, 8), result_of(20, 8, noise=3.0)
    assert accepted_by_both(("albedo", "normal"), [good, bad]) == (
        f"At 1 % false matches, albedo accepts {accepted(good, 0.01)[0]} and normal {accepted(bad, 0.01)[0]} of "
        "560 same-subject pairs (20 subjects, 160 sessions)."
    )


def test_a_description_has_at_most_four_lines_with_the_verdict_early() -> None:
    lead = Lead("sub", "Of 2 pairs, 1 is accepted.", "detail", [Verdict("worse", "it loses"), Verdict("better", "x")], [])
    assert describe_lead(lead, ["few subjects", "few pairs"]) == [
        "Of 2 pairs, 1 is accepted.",
        "it loses",
        "few subjects; few pairs",
    ]
    assert describe_lead(Lead(), []) == []
