"""The report in a real browser: no error in the console, no sideways scrolling, light and dark, printed with its tables open."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fr_ps.data.labels import ATTRIBUTES, DEFAULT_CLASSES, Labels
from fr_ps.evaluation.evaluate_predictions import LabelledPredictions, evaluate_predictions
from fr_ps.evaluation.report import write_report
from fr_ps.evaluation.report_lead import report_lead
from fr_ps.models.inference import Predictions
from fr_ps.report.html_page import Verdict

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with all sections that need no maps, and a long name without spaces."""
    rng = np.random.default_rng(0)
    ids = np.repeat([f"person_with_a_long_name_{i:02d}" for i in range(8)], 6)
    embeddings = (np.repeat(rng.normal(size=(8, 8)), 6, axis=0) + rng.normal(size=(48, 8))).astype(np.float32)
    codes = rng.integers(0, 2, size=(48, len(ATTRIBUTES))).astype(np.int8)
    codes[:, 3] = 0  # one pose only
    labels = Labels(ids, np.arange(48).astype(str), codes, DEFAULT_CLASSES, "raw", {})
    predictions = Predictions(embeddings, dict.fromkeys(ATTRIBUTES, rng.dirichlet([1, 1], size=48).astype(np.float32)))
    found = evaluate_predictions(LabelledPredictions(predictions, labels), ATTRIBUTES, None)
    metrics, folder = found.metrics.with_prefix("test"), tmp_path_factory.mktemp("report")
    verdict = Verdict("worse", "the network loses to the linear baselines: AUC 0.7 against 0.8; difference -0.1 [-0.2, -0.05]")
    lead = report_lead("run 1", metrics, "test", found, [verdict])
    write_report(folder, "Evaluation_of_" + "x" * 80, {"model": "m" * 200}, metrics, found, warnings=["few"], lead=lead)
    return folder / "report.html"


def shown(browser: Any, page: Path, width: int, scheme: str = "light") -> None:
    scheme_feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen", "features": [scheme_feature]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())


@pytest.mark.parametrize("width", [1400, 420])
def test_the_page_has_no_console_error_and_fits_the_window(browser: Any, page: Path, width: int) -> None:
    shown(browser, page, width)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return [...document.images].every(image => image.naturalWidth > 0)")
    browser.execute_script("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_sentence_verdict_and_first_picture_are_on_the_first_screen(browser: Any, page: Path) -> None:
    shown(browser, page, 1400)
    tops = browser.execute_script(
        "return ['.lead', '.verdict', 'img'].map(what => document.querySelector(what).getBoundingClientRect().top)"
    )
    assert tops == sorted(tops)
    assert tops[-1] < 900


def test_every_link_of_the_contents_reaches_a_heading(browser: Any, page: Path) -> None:
    shown(browser, page, 1400)
    found = browser.execute_script(
        "return [...document.querySelectorAll('nav a')].map(a => document.querySelector(a.hash).tagName)"
    )
    assert len(found) > 5
    assert set(found) == {"H2"}


def test_a_dark_scheme_gives_light_text_on_dark_paper(browser: Any, page: Path) -> None:
    colours = []
    for scheme in ("light", "dark"):
        shown(browser, page, 1400, scheme)
        style = "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]"
        colours.append([sum(map(int, colour[4:-1].split(","))) for colour in browser.execute_script(style)])
    (light_paper, light_ink), (dark_paper, dark_ink) = colours
    assert light_paper > light_ink
    assert dark_paper < dark_ink


def test_the_printed_page_has_the_folded_tables(browser: Any, page: Path) -> None:
    shown(browser, page, 1400)
    visible = "return [...document.querySelectorAll('details table')].map(table => table.checkVisibility())"
    assert set(browser.execute_script(visible)) == {False}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert set(browser.execute_script(visible)) == {True}
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert printed.startswith(b"%PDF")
