"""Progress with and without a terminal."""

import io
import multiprocessing
import os
import pty
import re
import subprocess
import sys

import pytest

import fr_ps.progress
from fr_ps.progress import progress, share_progress
from tests.foreign import MARKUP_LIKE_TEXTS

CODE = "import time\nfrom fr_ps.progress import progress\nwith progress('count', 20, 'beans') as a:\n"
CODE += "    for _ in range(20):\n        a(1)\n        time.sleep(0.05)\n    print('a result')\n"


def test_without_a_terminal_there_are_plain_lines(capsys, monkeypatch):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(fr_ps.progress.time, "perf_counter", lambda: float(next(clock)))
    with progress("count", 10, "beans") as advance:
        for _ in range(10):
            advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "count: 3/10 beans, 4.0 s/bean, 28 s left",
        "count: 6/10 beans, 4.0 s/bean, 16 s left",
        "count: 9/10 beans, 4.0 s/bean, 4 s left",
        "count: 10/10 beans, 4.0 s/bean",
    ]


def test_parts_of_an_item_count_toward_the_time_left(capsys, monkeypatch):
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(fr_ps.progress.time, "perf_counter", lambda: float(next(clock)))
    with progress("count", 2, "batches") as advance:
        for _ in range(6):
            advance(1 / 3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "count: 0/2 batches, 60.0 s/batch, 100 s left"
    assert lines[2] == "count: 1/2 batches, 60.0 s/batch, 60 s left"
    assert lines[5] == "count: 2/2 batches, 60.0 s/batch"


def _add_quarters(done):
    for _ in range(4):
        with done.get_lock():
            done.value += 0.25


def test_progress_of_other_processes_arrives_in_full():
    calls = []
    with share_progress(calls.append) as done:
        workers = [multiprocessing.Process(target=_add_quarters, args=(done,)) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert sum(calls) == 3


def test_progress_of_a_process_killed_while_it_counts_does_not_block():
    with share_progress(fr_ps.progress.no_progress) as done:
        done.get_lock().acquire()


def test_short_work_without_a_terminal_prints_nothing(capsys):
    with progress("count", 10, "beans") as advance:
        advance(10)
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_a_bar_with_the_rate():
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", CODE],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
        text=True,
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # raised on Linux when the other side of a pseudo-terminal is closed
        pass
    os.close(ours)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert output == "a result\n"  # a line printed meanwhile, as into a pipe
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
