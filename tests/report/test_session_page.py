"""The page of one session: self-contained, and its script in a real browser."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fr_ps.report.session_page import MAX_SIDE, render_session_page
from fr_ps.report.table import Table
from tests.pages import HtmlPage
from tests.photometric.surfaces import directions, sphere

SIZE = 48
PNG = b"\x89PNG"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def page(size: int = SIZE, **changes: Any) -> str:
    settings: dict[str, Any] = {
        "title": "a/<s>",
        "facts": {"labels": "gender male"},
        "quality": Table("quality", "", ["measure", "this session"], [["residual", 0.25]]),
        "pictures": {"maps": [("albedo", PNG)]},
        "albedo": np.full((size, size), 0.4),
        "normal": sphere(size)[0],
        "white": 0.4,
    } | changes
    return render_session_page(**settings)


def surface_of(content: str) -> dict[str, Any]:
    return json.loads(re.findall(r"<script type=application/json id=surface>(.*?)</script>", content)[0])


def test_the_page_is_self_contained() -> None:
    content = page()
    found = HtmlPage(content)
    assert not re.search(r"https?://|//www|@import|url\(", content)
    for tag, attributes in found.tags:
        assert tag not in ("link", "iframe", "object")
        assert (attributes.get("src") or "data:").startswith("data:")
    assert ["residual", "0.2500"] in [row[:2] for row in found.cells(1)]
    assert found.text["h1"] == ["a/<s>"]
    assert {"Relight", "Quality", "maps"} <= set(found.text["h2"])
    assert "prefers-color-scheme:dark" in content
    assert "Quality" not in HtmlPage(page(quality=None)).text["h2"]


def test_large_maps_are_averaged_for_the_script() -> None:
    size = MAX_SIDE + 88
    surface = surface_of(page(size))
    assert (surface["width"], surface["height"]) == (size // 2, size // 2)
    assert surface["white"] == pytest.approx(1)


def in_browser(content: str, script: str, folder: Path) -> Any:
    """The value that `script`, a function body, returns in the page. Fails if the page logs to the console."""
    browser = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no chromium; install the Debian package chromium")
    wrapped = f"""<script>
      const result = document.createElement("pre");
      result.id = "result";
      result.textContent = JSON.stringify((() => {{ {script} }})());
      document.body.append(result);
    </script></html>"""
    path = folder / "page.html"
    path.write_text(content.replace("</html>", wrapped))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr"]
    run = subprocess.run([browser, *flags, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    messages = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    assert not messages
    return json.loads(re.findall(r'<pre id="result">(.*?)</pre>', run.stdout)[0])


_HELPERS = """
const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
const shown = () => {
  copy.drawImage(canvas, 0, 0);
  return copy.getImageData(0, 0, canvas.width, canvas.height);
};
const halves = () => {
  const { width, height, data } = shown();
  const sums = { left: 0, right: 0, top: 0, bottom: 0 };
  for (let row = 0; row < height; row++)
    for (let column = 0; column < width; column++) {
      const value = data[4 * (row * width + column)];
      sums[column < width / 2 ? "left" : "right"] += value;
      sums[row < height / 2 ? "top" : "bottom"] += value;
    }
  return sums;
};
const move = (id, value) => {
  element(id).value = value;
  element(id).dispatchEvent(new Event("input"));
};
"""


@pytest.mark.slow
def test_the_sliders_and_the_pointer_move_the_light(tmp_path: Path) -> None:
    script = """
    move("azimuth", 60); move("elevation", 0);
    const left = halves(), text = element("light").textContent;
    move("azimuth", -60);
    const right = halves();
    move("azimuth", 0); move("elevation", 60);
    const above = halves();
    const box = canvas.getBoundingClientRect();
    canvas.dispatchEvent(new PointerEvent("pointermove", {
      buttons: 1, clientX: box.left + 0.1 * box.width, clientY: box.top + 0.5 * box.height
    }));
    return { left, right, above, text, pointed: halves(), azimuth: Number(element("azimuth").value) };
    """
    found = in_browser(page(), _HELPERS + script, tmp_path)
    assert found["left"]["left"] > 1.5 * found["left"]["right"]
    assert found["right"]["right"] > 1.5 * found["right"]["left"]
    assert found["above"]["top"] > 1.5 * found["above"]["bottom"]
    assert found["text"] == "light from the left"
    assert found["pointed"]["left"] > 1.5 * found["pointed"]["right"]
    assert found["azimuth"] == pytest.approx(np.degrees(np.arcsin(0.8)), abs=1)


@pytest.mark.slow
def test_the_canvas_shows_lamberts_law(tmp_path: Path) -> None:
    albedo = np.linspace(0.1, 0.4, SIZE * SIZE).reshape(SIZE, SIZE)
    script = """
    move("azimuth", 70); move("elevation", -20);
    const read = () => Array.from(shown().data).filter((_, place) => place % 4 === 0);
    const shaded = read();
    element("shape").click();
    return [shaded, read()];
    """
    shaded, shape = in_browser(page(albedo=albedo), _HELPERS + script, tmp_path)
    cosine = np.maximum(sphere(SIZE)[0] @ directions([(70, -20)])[0], 0)
    assert (cosine == 0).any()
    np.testing.assert_allclose(np.reshape(shape, (SIZE, SIZE)), 255 * cosine, atol=0.6)
    np.testing.assert_allclose(np.reshape(shaded, (SIZE, SIZE)), 255 * cosine * albedo / 0.4, atol=0.6)
