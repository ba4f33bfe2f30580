"""Workers that are small programs, of which each line of `told` says that one started or was told to stop."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fr_ps.errors import InputError
from fr_ps.search.worker_pool import run_workers

WORKER = """
import json, os, signal, sys, time
order = json.loads(sys.stdin.readline())

def say(word):
    with open(order["told"], "a") as file:
        file.write(word + "\\n")

def stop(number, frame):
    say(signal.Signals(number).name)
    if order["stubborn"]:
        return
    sys.exit(128 + number)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    say("ignores SIGINT")
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, stop)
say("started")
if order["codes"] and open(order["told"]).read().count("started") <= len(order["codes"]):
    sys.exit(order["codes"][open(order["told"]).read().count("started") - 1])
time.sleep(60)
time.sleep(60)
"""


class Crew:
    """One worker, and what it says."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file, self.lost = folder, folder / "told", list[str]()
        self.file.touch()

    @property
    def told(self) -> list[str]:
        return self.file.read_text().splitlines()

    def work(
        self,
        codes: tuple[int, ...] = (),
        stubborn: bool = False,
        lost: Callable[[], None] = lambda: None,
        ended: Callable[[], int] = lambda: 0,
    ) -> None:
        """Do the order: end with these codes, one a start, and then sleep until told to stop."""

        def say(line: str) -> None:
            self.lost.append(line)
            lost()

        order = {"told": str(self.file), "codes": codes, "stubborn": stubborn}
        run_workers({self.folder / "worker.log": order}, ended, say)

    def signalled(self, words: int, number: int = signal.SIGINT) -> None:
        """Give this process a signal as soon as that many words were said, from a thread."""

        def wait() -> None:
            while len(self.told) < words:
                time.sleep(0.01)
            signal.pthread_kill(threading.main_thread().ident or 0, number)

        threading.Thread(target=wait, daemon=True).start()


@pytest.fixture
def crew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Crew:
    monkeypatch.setattr("fr_ps.search.worker_pool._COMMAND", [sys.executable, "-c", WORKER])
    monkeypatch.setattr("fr_ps.search.worker_pool._POLL_SECONDS", 0.05)
    return Crew(tmp_path)


@pytest.fixture
def ignored() -> Iterator[None]:
    """SIGINT is ignored, as in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_worker_that_dies_is_replaced(crew):
    crew.work(codes=(1, 1, 0))
    assert crew.told == ["started"] * 3
    assert len(crew.lost) == 2
    assert all("exit code 1" in line for line in crew.lost)


def test_a_worker_that_dies_again_and_again_is_given_up(crew):
    with pytest.raises(InputError, match="it said nothing"):
        crew.work(codes=(1,) * 9)
    assert crew.told == ["started"] * 4


def test_a_worker_whose_trials_end_may_die_more_often(crew):
    crew.work(codes=(1,) * 6 + (0,), ended=lambda: len(crew.told))
    assert crew.told == ["started"] * 7


def test_bad_input_of_a_worker_ends_the_search(crew):
    with pytest.raises(InputError, match="a worker ended"):
        crew.work(codes=(2,))
    assert crew.told == ["started"]


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_is_passed_on_and_nobody_replaced(crew, number, kind):
    crew.signalled(1, number)
    with pytest.raises(kind):
        crew.work()
    assert crew.told == ["started", signal.Signals(number).name]


def test_by_the_third_signal_a_worker_ends_whatever_it_does(crew):
    for words in (1, 2, 3):
        crew.signalled(words)
    with pytest.raises(KeyboardInterrupt):
        crew.work(stubborn=True)
    assert crew.told == ["started", "SIGINT", "SIGINT"]


def test_a_signal_that_comes_while_a_worker_is_replaced_comes_to_the_new_one(crew):
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        crew.work(codes=(1,), lost=lambda: signal.raise_signal(signal.SIGINT))
    assert time.monotonic() - begun < 30
    assert crew.told.count("started") <= 2


def test_workers_hear_sigint_from_their_start_though_the_shell_had_it_ignored(crew, ignored):
    crew.signalled(1)
    with pytest.raises(KeyboardInterrupt):
        crew.work()
    assert crew.told == ["started", "SIGINT"]
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
