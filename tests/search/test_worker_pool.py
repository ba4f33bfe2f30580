"""The worker pool with small programs as workers, which log their start and every signal to a file."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fr_ps.errors import InputError
from fr_ps.search.storage import with_database_retries
from fr_ps.search.worker_pool import run_workers

WORKER = """
import json, os, signal, sys, time
job = json.loads(sys.stdin.readline())

def log(event):
    with open(job["events"], "a") as file:
        file.write(event + "\\n")

def stop(number, frame):
    log(signal.Signals(number).name)
    if job["stubborn"]:
        return
    sys.exit(128 + number)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    log("ignores SIGINT")
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, stop)
log("started")
starts = open(job["events"]).read().count("started")
if job["codes"] and starts <= len(job["codes"]):
    sys.exit(job["codes"][starts - 1])
time.sleep(60)
time.sleep(60)
"""


class Pool:
    """A pool of one worker, and its events."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "events"
        self.file.touch()

    @property
    def events(self) -> list[str]:
        return self.file.read_text().splitlines()

    def run(
        self,
        codes: tuple[int, ...] = (),
        stubborn: bool = False,
        poll_finished: Callable[[], int] = lambda: 0,
    ) -> None:
        """Run a worker that exits with these codes, one for each start, and then sleeps until a signal."""
        job = {"events": str(self.file), "codes": codes, "stubborn": stubborn}
        run_workers({self.folder / "worker.log": job}, poll_finished)

    def signal_after(self, events: int, number: int = signal.SIGINT) -> None:
        """Send a signal to this process, from a thread, as soon as the worker has logged that many events."""

        def wait() -> None:
            while len(self.events) < events:
                time.sleep(0.01)
            signal.pthread_kill(threading.main_thread().ident or 0, number)

        threading.Thread(target=wait, daemon=True).start()


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    monkeypatch.setattr("fr_ps.search.worker_pool._COMMAND", [sys.executable, "-c", WORKER])
    monkeypatch.setattr("fr_ps.search.worker_pool._POLL_SECONDS", 0.02)
    return Pool(tmp_path)


@pytest.fixture
def ignored_sigint() -> Iterator[None]:
    """SIGINT is ignored, as in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_worker_that_crashes_is_restarted(pool, capsys):
    pool.run(codes=(1, 1, 0))
    assert pool.events == ["started"] * 3
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"worker exited (exit code 1), restarting; log: {pool.folder / 'worker.log'}"] * 2


def test_a_worker_that_crashes_repeatedly_is_an_error(pool):
    with pytest.raises(InputError, match=r"worker failed: empty log; see .*worker.log"):
        pool.run(codes=(1,) * 9)
    assert pool.events == ["started"] * 4


def test_a_finished_trial_resets_the_count_of_crashes(pool):
    pool.run(codes=(1,) * 6 + (0,), poll_finished=lambda: len(pool.events))
    assert pool.events == ["started"] * 7


def test_bad_input_of_a_worker_ends_the_search(pool):
    with pytest.raises(InputError, match="worker failed"):
        pool.run(codes=(2,))
    assert pool.events == ["started"]


def test_at_most_limit_workers_run_at_the_same_time(pool):
    jobs = {pool.folder / f"{n}.log": {"events": str(pool.file), "codes": [0] * 9, "stubborn": False} for n in range(3)}
    alive = []

    def poll_finished() -> int:
        alive.append(len(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()))
        return 0

    run_workers(jobs, poll_finished, limit=1)
    assert pool.events == ["started"] * 3
    assert max(alive) <= 1 + alive[0]


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_is_forwarded_and_no_worker_restarted(pool, number, kind):
    pool.signal_after(1, number)
    with pytest.raises(kind):
        pool.run()
    assert pool.events == ["started", signal.Signals(number).name]


def test_a_signal_during_a_read_of_the_database_is_forwarded_as_it_is(pool):
    """Signals are deferred there. The workers receive the same signal, not SIGTERM."""
    sent = []

    def read() -> int:
        if pool.events and not sent:
            sent.append(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return 0

    with pytest.raises(KeyboardInterrupt):
        pool.run(poll_finished=lambda: with_database_retries(read))
    assert pool.events == ["started", "SIGINT"]


_FINISH = "workers finish their step and write a checkpoint"


@pytest.mark.parametrize(
    ("number", "second"),
    [
        (signal.SIGINT, "workers stop at once"),
        (signal.SIGTERM, _FINISH + " (a third signal"),
    ],
)
def test_the_third_signal_kills_a_worker(pool, capfd, number, second):
    """Only a second SIGINT stops a training at once (`GracefulStop`)."""
    for events in (1, 2, 3):
        pool.signal_after(events, number)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        pool.run(stubborn=True)
    name = signal.Signals(number).name
    assert pool.events == ["started", name, name]
    actions = [line.partition(": stopping; ")[2] for line in capfd.readouterr().err.splitlines() if ": stopping; " in line]
    for action, expected in zip(actions, (_FINISH + " (Ctrl-C", second, "workers are killed"), strict=True):
        assert action.startswith(expected)


def test_a_signal_during_a_restart_reaches_the_new_worker(pool, monkeypatch):
    monkeypatch.setattr("fr_ps.search.worker_pool.echo", lambda _line: signal.raise_signal(signal.SIGINT))
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        pool.run(codes=(1,))
    assert time.monotonic() - started < 30
    assert pool.events.count("started") <= 2


def test_workers_receive_sigint_also_where_the_shell_ignores_it(pool, ignored_sigint):
    pool.signal_after(1)
    with pytest.raises(KeyboardInterrupt):
        pool.run()
    assert pool.events == ["started", "SIGINT"]
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
