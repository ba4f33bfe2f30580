"""The HTML of the answer: decisions, the meaning of a threshold, and escaped names."""

import base64
import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fr_ps.demo.candidates import Candidate, Picture
from fr_ps.demo.demonstrator import Demonstrator
from fr_ps.demo.page import answer, identity_html
from fr_ps.demo.sections import SEARCH_CAVEAT, details_section, error_section, identity_section, threshold_meaning
from fr_ps.errors import InputError
from fr_ps.models.thresholds import ValidationThreshold
from fr_ps.serving.gallery import Gallery

THRESHOLD = ValidationThreshold(0.01, 0.41, 15, 2000, "")


def text_of(content: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", content).split())


def test_the_meaning_of_a_threshold_has_its_counts_and_the_rate_of_a_search() -> None:
    text = threshold_meaning(THRESHOLD, subjects=20)
    for part in ("score of 0.4100 or above", "at most 1 %", "15 of 2,000 pairs", "0.75 %", "at most about 20 % of the cases"):
        assert part in text
    assert "compared 1,000 times: expect a false match in at most about 100 % of" in threshold_meaning(THRESHOLD, subjects=1000)
    galleries = " ".join((Path(__file__).parents[2] / "docs/how_to/galleries.md").read_text(encoding="utf-8").split())
    assert f"expect a false match in at most about N x FMR of the cases. {SEARCH_CAVEAT}" in galleries
    assert "stranger" not in threshold_meaning(THRESHOLD)
    assert threshold_meaning(replace(THRESHOLD, support="low support: few pairs")).endswith(" Low support: few pairs.")
    assert "without a validation set" in threshold_meaning(None)


def test_the_decision_follows_the_threshold(demonstrator: Demonstrator) -> None:
    analysis, gallery = demonstrator.analyse(list(demonstrator.sessions)[-1]), demonstrator.gallery
    candidates = [
        Candidate("A", 0.6, 2, "s1", Picture(None, "no picture: <why>")),
        Candidate("<B>", 0.2, 1, "s1", Picture(None, "")),
    ]
    content = identity_section(analysis, candidates, THRESHOLD, gallery)
    assert "Identified as A score 0.6000 reaches the threshold 0.4100" in text_of(content)
    assert re.findall(r"(no match|match)</span>", content) == ["match", "no match"]
    assert "no picture: &lt;why&gt;" in content
    assert "s1, 1 of 2 sessions" in content
    assert "<B>" not in content
    strict = identity_section(analysis, candidates, replace(THRESHOLD, threshold=0.7), gallery)
    assert "Unknown the highest score, 0.6000 of A, is below the threshold 0.7000" in text_of(strict)
    assert "Identified" not in strict
    lenient = identity_section(analysis, candidates, replace(THRESHOLD, fmr=0.5), gallery)
    assert "Unreliable match with A score 0.6000 reaches the threshold 0.4100, as up to 100 % of strangers would" in text_of(
        lenient
    )
    assert "Identified" not in lenient
    assert "Most similar: A" in text_of(identity_section(analysis, candidates, None, gallery))
    assert "--gallery" in identity_section(analysis, [], THRESHOLD, None)


def test_another_threshold_repeats_only_the_decision(demonstrator: Demonstrator, monkeypatch: pytest.MonkeyPatch) -> None:
    searched, lenient, _ = answer(demonstrator, lambda: demonstrator.analyse(next(iter(demonstrator.sessions))), None)
    assert searched

    def fail(*_arguments: object, **_named: object) -> None:
        raise AssertionError("searched or encoded again")

    monkeypatch.setattr("fr_ps.demo.candidates.png_bytes", fail)
    monkeypatch.setattr(Gallery, "search", fail)
    assert identity_html(demonstrator, searched, None) == lenient
    assert 'src="data:image/png' in lenient


def test_the_page_states_whether_the_gallery_has_the_picked_subject_and_session(demonstrator: Demonstrator) -> None:
    def note(name: str) -> str:
        return text_of(answer(demonstrator, lambda: demonstrator.analyse(name), 0.1)[1])

    assert demonstrator.gallery
    subjects = demonstrator.gallery.subjects
    names = list(demonstrator.sessions)
    enrolled = [name for name in names if name.split("/")[0] == subjects[0]]
    assert "This very session is enrolled" in note(enrolled[0])
    assert f"shows {subjects[0]}, an enrolled subject" in note(enrolled[-1])
    analysis = demonstrator.analyse(enrolled[0])
    other = replace(analysis, embedding=-analysis.embedding)
    content = text_of(identity_section(other, demonstrator.candidates(other), None, demonstrator.gallery))
    assert f"The enrolled session {enrolled[0]} has other pictures" in content
    assert "a subject that is not enrolled" in note(names[-1])


def test_the_details_have_all_pictures_probabilities_and_unusual_quality(demonstrator: Demonstrator) -> None:
    analysis = demonstrator.analyse(next(iter(demonstrator.sessions)))
    content = details_section(replace(analysis, quality=analysis.quality | {"residual": 9.0}), demonstrator.spread, None)
    pictures = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)">', content)
    assert [name.split(":")[0] for name, _ in pictures][:5] == ["light 1", "light 2", "light 3", "light 4", "albedo"]
    recorded = np.asarray(Image.open(BytesIO(base64.b64decode(pictures[0][1]))))
    assert recorded.shape == (48, 48, 3)
    for one in analysis.attributes:
        for probability in one.probabilities.values():
            assert f"{100 * probability:.1f} %" in content
    assert 'title="above the 95th percentile">9.0000' in content
    assert "srcdoc=" in content
    assert "95th percentile" not in details_section(analysis, {}, None)


def test_bad_input_is_an_error_in_place_of_the_answer(demonstrator: Demonstrator) -> None:
    def fail() -> None:
        raise InputError("a.png: <b>; choose another file")

    analysis, identity, details = answer(demonstrator, fail, None)  # type: ignore[arg-type]
    assert (analysis, details) == (None, "")
    assert identity == error_section("a.png: <b>; choose another file")
    assert "error: a.png: &lt;b&gt;" in identity
