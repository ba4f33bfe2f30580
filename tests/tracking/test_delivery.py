"""The thread that carries a journal to MLflow: whatever happens there, only it waits."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from fr_ps.tracking import delivery
from fr_ps.tracking.delivery import DeliveryQueue, DeliveryThread
from fr_ps.tracking.journal import Event
from fr_ps.tracking.run import Run


class Taken:
    """A store that is a list, with a switch: it takes, refuses to answer, or hangs."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.batches = 0
        self.trouble: Exception | None = None
        self.answers = threading.Event()
        self.answers.set()

    def connect(self) -> str:
        self.answers.wait()
        if self.trouble:
            raise self.trouble
        return "the id"

    def send(self, events: Sequence[Event]) -> list[str]:
        self.events += events
        self.batches += 1
        return []


class Carried:
    """A run whose journal is being delivered to `store`."""

    def __init__(self, folder: Path) -> None:
        self.run, self.store = Run(folder), Taken()
        self.ids: list[str] = []
        self.lines: list[str] = []
        self.delivery = DeliveryThread(self.run.journal, DeliveryQueue(folder), self.store, self.ids.append, self.lines.append)

    def numbers(self) -> list[str]:
        return [event.data["number"] for event in self.store.events]


@pytest.fixture
def carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Carried]:
    for name, seconds in (("_BATCH_DELAY", 0.02), ("_MIN_BACKOFF", 0.02), ("_MAX_BACKOFF", 0.1), ("_CLOSING_BACKOFF", 0.02)):
        monkeypatch.setattr(delivery, name, seconds)
    one = Carried(tmp_path / "run")
    yield one
    one.store.trouble = None
    one.store.answers.set()
    if one.delivery.is_alive():
        one.delivery.finish(30)
    one.run.journal.close()


def until(true: Callable[[], bool]) -> None:
    """Wait until it is true, half a minute at most."""
    for _ in range(3000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError


def test_what_is_told_arrives_while_the_run_goes_on(carried):
    carried.delivery.start()
    for number in range(3):
        carried.run.set_tags({"number": str(number)})
        until(lambda number=number: len(carried.store.events) == number + 1)
    until(lambda: carried.ids[-1:] == ["the id"])
    assert carried.delivery.finish(30)
    assert carried.numbers() == ["0", "1", "2"]
    assert carried.lines == []


def test_the_end_waits_for_what_is_left(carried):
    for number in range(50):
        carried.run.set_tags({f"t{index}": "" for index in range(500)} | {"number": str(number)})
    carried.delivery.start()
    assert carried.delivery.finish(30)
    assert len(carried.store.events) == 50
    assert carried.delivery.queue.delivered_bytes == carried.run.journal.size


def test_the_end_is_prompt_where_everything_is_there_already(carried):
    carried.delivery.start()
    carried.run.set_tags({"number": "0"})
    until(lambda: carried.delivery.queue.delivered_bytes == carried.run.journal.size)
    time.sleep(0.2)  # it has nothing to do but to wait for more
    begun = time.monotonic()
    assert carried.delivery.finish(30)
    assert time.monotonic() - begun < 10


def test_what_is_told_step_by_step_goes_together(carried, monkeypatch):
    monkeypatch.setattr(delivery, "_BATCH_DELAY", 0.5)
    carried.delivery.start()
    for number in range(200):
        carried.run.set_tags({"number": str(number)})
        time.sleep(0.001)
    assert carried.delivery.finish(30)
    assert len(carried.store.events) == 200
    assert carried.store.batches < 20


def test_trouble_is_said_once_in_one_line_and_so_is_its_end(carried):
    carried.store.trouble = ConnectionError("nobody\nanswers")
    carried.run.set_tags({"number": "0"})
    carried.delivery.start()
    until(lambda: bool(carried.delivery.last_error))
    time.sleep(0.2)
    assert carried.lines == [f"tracking: MLflow unreachable (nobody answers); buffering in {carried.run.journal.path}"]
    carried.store.trouble = None
    until(lambda: len(carried.lines) == 2)
    assert carried.lines[1] == "tracking: MLflow reconnected"
    assert carried.delivery.finish(30)
    assert carried.numbers() == ["0"]
    assert carried.delivery.last_error == ""


@pytest.mark.parametrize("how", ["it refuses", "it hangs"])
def test_the_end_waits_no_longer_than_it_is_told(carried, how):
    carried.store.trouble = ConnectionError("no")
    if how == "it hangs":
        carried.store.answers.clear()
    carried.run.set_tags({"number": "0"})
    carried.delivery.start()
    begun = time.monotonic()
    assert not carried.delivery.finish(0.5)
    assert 0.4 < time.monotonic() - begun < 20
    assert DeliveryQueue(carried.run.folder).pending() == 1


def test_a_slow_store_that_goes_on_taking_is_waited_for(carried, monkeypatch):
    send = carried.store.send

    def slow(events: Sequence[Event]) -> list[str]:
        time.sleep(0.3)
        return send(events)

    monkeypatch.setattr(carried.store, "send", slow)
    for number in range(6):
        carried.run.log_artifact(Path(str(number)))  # a batch each
    carried.delivery.start()
    assert carried.delivery.finish(1.0)
    assert len(carried.store.events) == 6


def test_telling_does_not_wait_while_the_store_hangs(carried):
    carried.store.answers.clear()
    carried.delivery.start()
    begun = time.monotonic()
    for number in range(1000):
        carried.run.set_tags({"number": str(number)})
    assert time.monotonic() - begun < 10
    carried.store.answers.set()
    assert carried.delivery.finish(30)
    assert carried.numbers() == [str(number) for number in range(1000)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_is_not_taken_for_one_that_is_done(carried):
    def broken(line: str) -> None:
        raise RuntimeError

    carried.delivery.echo = broken
    carried.store.trouble = ConnectionError("no")
    carried.run.set_tags({"number": "0"})
    carried.delivery.start()
    carried.delivery.join(30)
    assert not carried.delivery.finish(0.1)
