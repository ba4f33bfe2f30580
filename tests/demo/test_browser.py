"""The page in a real browser, served by the command."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fr_ps.models.thresholds import Thresholds, ValidationThreshold, write_thresholds
from fr_ps.serving.gallery import Gallery

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.slow


@pytest.fixture
def served(both: Path, gallery: Gallery, captures: Path, tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The address of the page, and its process. At a rate of 10 % every score is a match, at 1 % none is."""
    pytest.importorskip("gradio", reason="no gradio; pip install 'fr-ps[demo]'")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    model = Path(shutil.copytree(both, tmp_path / "model"))
    points = (ValidationThreshold(0.1, -1.0, 16, 160, ""), ValidationThreshold(0.01, 1.1, 1, 160, "low support: few pairs"))
    write_thresholds(model, Thresholds(2, 8, points, {}))
    command = [sys.executable, "-m", "fr_ps", "demo", "--model", str(model), "--gallery", str(gallery.folder)]
    command += ["--captures", str(captures), "--port", str(port)]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        for _ in range(1200):
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, process.stdout and process.stdout.read()
                time.sleep(0.1)
        yield address, process
    finally:
        process.kill()
        process.wait()


def wait_for_text(browser: "Chrome", text: str) -> str:
    """The text of the page, once it contains `text`."""
    from selenium.webdriver.support.ui import WebDriverWait

    def shown(browser: "Chrome") -> str:
        found = str(browser.execute_script("return document.body.innerText")).replace("\u00a0", " ")
        return found if text in found else ""

    return str(WebDriverWait(browser, 60).until(shown, f"the page does not show {text!r}"))


def requested_urls(browser: "Chrome") -> list[str]:
    messages: list[dict[str, Any]] = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]


def test_the_page_shows_the_answers_and_sends_nothing_elsewhere(
    browser: "Chrome", served: tuple[str, "subprocess.Popen[str]"], gallery: Gallery, captures: Path, tmp_path: Path
) -> None:
    from selenium.webdriver.common.by import By

    address, process = served

    def click(label: str) -> None:
        browser.find_element(By.XPATH, f"//*[self::button or self::label][contains(., '{label}')]").click()

    def upload(files: list[Path]) -> None:
        browser.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys("\n".join(map(str, files)))
        wait_for_text(browser, files[-1].suffix)
        click("Analyse the upload")

    browser.get(address)
    first = wait_for_text(browser, "Lower is better")
    for part in (
        gallery.subjects[0],
        "This very session is enrolled",
        "Two sessions match at a score of",
        "gender",
        "integrability",
    ):
        assert part in first
    assert len(browser.find_elements(By.CSS_SELECTOR, ".fr_ps .cards img")) == 1 + len(gallery.subjects)
    assert all(browser.execute_script("return [...document.querySelectorAll('.fr_ps img')].map((one) => one.naturalWidth > 0)"))

    browser.switch_to.frame(browser.find_element(By.CSS_SELECTOR, ".fr_ps iframe"))
    pixels = "return document.getElementById('relit').toDataURL()"
    before = browser.execute_script(pixels)
    browser.execute_script(
        "const slider = document.getElementById('azimuth'); slider.value = -60; slider.dispatchEvent(new Event('input'))"
    )
    assert browser.execute_script(pixels) != before
    assert "light from the right" in browser.find_element(By.ID, "light").text
    browser.switch_to.default_content()

    assert "Identified as" in first
    click("1 % (low support)")
    strict = wait_for_text(browser, "is at most 1 %")
    assert "Unknown" in strict
    assert "Low support: few pairs" in strict

    session = sorted(captures.glob("*/*"))[-1]
    images = sorted(session.glob("*.png"))
    upload(images)
    wait_for_text(browser, "error: ")
    assert "Lower is better" not in browser.find_element(By.TAG_NAME, "body").text
    browser.refresh()
    wait_for_text(browser, "Lower is better")
    upload([*images, session / "lights.csv"])
    wait_for_text(browser, "upload\n")

    console = browser.get_log("browser")  # Gradio warns "Method not implemented." at an upload
    assert [entry for entry in console if entry["level"] == "SEVERE"] == []
    urls = requested_urls(browser)
    assert len(urls) > 10
    assert [url for url in urls if not url.startswith((f"{address}/", "data:", "blob:", "about:"))] == []

    request = urllib.request.Request(address, headers={"Host": "rebound.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)

    uploaded = list(tmp_path.glob("fr_ps_demo_*"))
    assert uploaded
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert output.splitlines() == [f"demo: {address} (Ctrl-C ends it)", "stopped by SIGINT"]
    assert not list(tmp_path.glob("fr_ps_demo_*"))
