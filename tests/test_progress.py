"""Progress with and without a terminal."""

import io
import os
import pty
import re
import subprocess
import sys

import pytest

import fr_ps.progress
from fr_ps.progress import progress
from tests.foreign import MARKUP_LIKE_TEXTS

CODE = "import time\nfrom fr_ps.progress import progress\nwith progress('count', 20, 'beans') as a:\n"
CODE += "    for _ in range(20):\n        a(1)\n        time.sleep(0.05)\n"


def test_without_a_terminal_there_are_plain_lines(capsys, monkeypatch):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(fr_ps.progress.time, "perf_counter", lambda: float(next(clock)))
    with progress("count", 10, "beans") as advance:
        for _ in range(10):
            advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "count: 3/10 beans, 0.2 beans/s, 28 s left",
        "count: 6/10 beans, 0.2 beans/s, 16 s left",
        "count: 9/10 beans, 0.2 beans/s, 4 s left",
        "count: 10/10 beans, 0.2 beans/s",
    ]


def test_short_work_without_a_terminal_prints_nothing(capsys):
    with progress("count", 10, "beans") as advance:
        advance(10)
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_a_bar_with_the_rate():
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", CODE], stderr=theirs, env=os.environ | {"TERM": "xterm", "COLUMNS": "100"})
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # raised on Linux when the other side of a pseudo-terminal is closed
        pass
    os.close(ours)
    assert process.wait(10) == 0
    text = shown.decode()
    assert "count" in text
    assert "20/20" in text
    assert "beans/s" in text


@pytest.mark.parametrize("name", MARKUP_LIKE_TEXTS)
def test_a_bar_shows_markup_unchanged(name, monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    for variable, value in {"COLUMNS": "200", "FORCE_COLOR": "1", "TERM": "xterm"}.items():
        monkeypatch.setenv(variable, value)
    with fr_ps.progress._bar(name, 1, "beans") as advance:
        advance(1)
    assert f"{name} " in re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", shown.getvalue())
