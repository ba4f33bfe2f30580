"""The description of captures, and which differences from the training data give a warning."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fr_ps.photometric.acquisition import (
    Acquisition,
    acquisition_differences,
    acquisition_warning,
    describe_acquisition,
    summarize_acquisitions,
)
from fr_ps.photometric.captures import Capture

FEW = Acquisition(4, 1.5, (0.0, 0.0, 1.0), 4095)
MANY = Acquisition(12, 2.0, (0.0, 0.0, 1.0), 65535)


def tilted(degrees: float) -> tuple[float, float, float]:
    angle = np.radians(degrees)
    return 0.0, float(np.sin(angle)), float(np.cos(angle))


def test_a_ring_of_lights_is_described_by_its_geometry() -> None:
    """k lights at zenith t around z: the singular values are sqrt(k) cos t, and twice sqrt(k / 2) sin t."""
    zenith, azimuth = np.radians(30), np.arange(6) * np.pi / 3
    x, y = np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth)
    lights = np.column_stack([x, y, np.full(6, np.cos(zenith))])
    found = describe_acquisition(Capture(np.zeros((6, 2, 2), np.float32), lights, white_level=4095))
    assert (found.lights, found.bits) == (6, 12)
    assert found.condition == pytest.approx(np.sqrt(2) / np.tan(zenith))
    assert found.direction == pytest.approx((0, 0, 1), abs=1e-12)


def test_the_range_has_the_extremes_and_the_spread_of_the_directions() -> None:
    captures = [replace(FEW, direction=tilted(10)), replace(MANY, direction=tilted(-10)), replace(FEW, white_level=255)]
    known = summarize_acquisitions(captures)
    assert (known.lights, known.condition, known.bits) == ((4, 12), (1.5, 2.0), (8, 16))
    assert known.direction == pytest.approx((0, 0, 1), abs=1e-12)
    assert known.spread_deg == pytest.approx(10)
    assert known.summary() == "4 to 12 lights, a condition number of 1.5 to 2.0, 8 to 16 bits"
    assert summarize_acquisitions([FEW, replace(FEW, white_level=None)]).bits is None


@pytest.mark.parametrize(
    ("training", "change", "words"),
    [
        ([FEW], {}, []),
        ([FEW], {"lights": 7}, []),
        ([FEW], {"lights": 8}, ["8 lights (training: 4)"]),
        ([FEW, MANY], {"lights": 8}, []),
        ([MANY], {"lights": 8}, []),
        ([MANY], {"lights": 7}, ["7 lights (training: 12)"]),
        ([replace(FEW, lights=6), replace(FEW, lights=7)], {"lights": 3}, ["3 lights (training: 6 to 7)"]),
        ([MANY], {"lights": 96}, []),
        ([FEW], {"condition": 2.2}, []),
        ([FEW], {"condition": 2.3}, ["condition number 2.3 (training: 1.5)"]),
        ([MANY, replace(MANY, condition=4.0)], {"condition": 1.2}, ["condition number 1.2 (training: 2.0 to 4.0)"]),
        ([FEW], {"direction": tilted(14)}, []),
        ([FEW], {"direction": tilted(20)}, ["mean light direction 20 degrees from that of the training (training: within 0 deg"]),
        ([replace(FEW, direction=tilted(10)), replace(FEW, direction=tilted(-10))], {"direction": tilted(20)}, []),
        ([FEW], {"white_level": 255}, ["8 bits (training: 12)"]),
        ([FEW], {"white_level": 1023}, []),
        ([FEW, MANY], {"white_level": 255}, ["8 bits (training: 12 to 16)"]),
        ([FEW], {"white_level": None}, []),
        ([replace(FEW, white_level=1023)], {"white_level": 255}, []),
        ([replace(FEW, white_level=255)], {"white_level": 4095}, []),
        ([FEW], {"lights": 3, "failed": 1}, ["1 of 4 lights failed (almost black image)"]),
        ([FEW], {"white_level": 255, "condition": 9.0}, ["condition number 9.0 (training: 1.5)", "8 bits (training: 12)"]),
    ],
)
def test_only_a_clear_difference_is_reported(training: list[Acquisition], change: dict[str, Any], words: list[str]) -> None:
    found = acquisition_differences(summarize_acquisitions(training), replace(training[0], **change))
    assert len(found) == len(words)
    for text, word in zip(found, words):
        assert word in text


def test_one_line_counts_the_captures_and_names_the_first() -> None:
    found = [("a/1", FEW), ("a/2", replace(FEW, white_level=255)), ("b/1", replace(FEW, lights=9))]
    text = str(acquisition_warning(summarize_acquisitions([FEW]), found))
    assert text.startswith("warning: 2 of 3 captures are unlike those of the training data, e.g. a/2: 8 bits (training: 12); ")
    assert "\n" not in text
    assert acquisition_warning(summarize_acquisitions([FEW]), found[:1]) is None
    assert acquisition_warning(None, found) is None
