"""The thread that sends a journal to MLflow; only this thread waits."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from fr_ps.errors import InputError
from fr_ps.tracking import delivery
from fr_ps.tracking.delivery import DeliveryQueue, DeliveryThread, failure_reason
from fr_ps.tracking.journal import Event
from fr_ps.tracking.run import Run
from fr_ps.tracking.uris import open_client
from tests.tracking import servers


class ListSink:
    """A sink that is a list, and that can fail or hang."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.batches = 0
        self.error: Exception | None = None
        self.answers = threading.Event()
        self.answers.set()

    def ensure_run(self) -> str:
        self.answers.wait()
        if self.error:
            raise self.error
        return "the id"

    def send(self, events: Sequence[Event]) -> list[str]:
        self.events += events
        self.batches += 1
        return []


class DeliveredRun:
    """A run whose journal is being delivered to `sink`."""

    def __init__(self, folder: Path) -> None:
        self.run, self.sink = Run(folder), ListSink()
        self.ids: list[str] = []
        self.lines: list[str] = []
        self.delivery = DeliveryThread(self.run.journal, DeliveryQueue(folder), self.sink, self.ids.append, self.lines.append)

    def numbers(self) -> list[str]:
        return [event.data["number"] for event in self.sink.events]


@pytest.fixture
def delivering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeliveredRun]:
    for name, seconds in (("_BATCH_DELAY", 0.02), ("_MIN_BACKOFF", 0.02), ("_MAX_BACKOFF", 0.1), ("_CLOSING_BACKOFF", 0.02)):
        monkeypatch.setattr(delivery, name, seconds)
    one = DeliveredRun(tmp_path / "run")
    yield one
    one.sink.error = None
    one.sink.answers.set()
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


def test_events_are_delivered_during_the_run(delivering):
    delivering.delivery.start()
    for number in range(3):
        delivering.run.set_tags({"number": str(number)})
        until(lambda number=number: len(delivering.sink.events) == number + 1)
    until(lambda: delivering.ids[-1:] == ["the id"])
    assert delivering.delivery.finish(30)
    assert delivering.numbers() == ["0", "1", "2"]
    assert delivering.lines == []


def test_finish_waits_for_the_remaining_events(delivering):
    for number in range(50):
        delivering.run.set_tags({f"t{index}": "" for index in range(500)} | {"number": str(number)})
    delivering.delivery.start()
    assert delivering.delivery.finish(30)
    assert len(delivering.sink.events) == 50
    assert delivering.delivery.queue.delivered_bytes == delivering.run.journal.size


def test_finish_returns_at_once_when_all_is_delivered(delivering):
    delivering.delivery.start()
    delivering.run.set_tags({"number": "0"})
    until(lambda: delivering.delivery.queue.delivered_bytes == delivering.run.journal.size)
    time.sleep(0.2)  # it has nothing to do but to wait for more
    started = time.monotonic()
    assert delivering.delivery.finish(30)
    assert time.monotonic() - started < 10


def test_events_of_several_steps_are_sent_in_one_batch(delivering, monkeypatch):
    monkeypatch.setattr(delivery, "_BATCH_DELAY", 0.5)
    delivering.delivery.start()
    for number in range(200):
        delivering.run.set_tags({"number": str(number)})
        time.sleep(0.001)
    assert delivering.delivery.finish(30)
    assert len(delivering.sink.events) == 200
    assert delivering.sink.batches < 20


def test_a_lost_connection_and_its_return_are_reported_once_each(delivering):
    delivering.sink.error = ConnectionError("no\nanswer")
    delivering.run.set_tags({"number": "0"})
    delivering.delivery.start()
    until(lambda: bool(delivering.delivery.last_error))
    time.sleep(0.2)
    assert delivering.lines == [f"tracking: MLflow unreachable (no answer); buffering in {delivering.run.journal.path}"]
    delivering.sink.error = None
    until(lambda: len(delivering.lines) == 2)
    assert delivering.lines[1] == "tracking: MLflow reconnected"
    assert delivering.delivery.finish(30)
    assert delivering.numbers() == ["0"]
    assert delivering.delivery.last_error == ""


@pytest.mark.parametrize("how", ["it refuses", "it hangs"])
def test_finish_waits_at_most_its_timeout(delivering, how):
    delivering.sink.error = ConnectionError("no")
    if how == "it hangs":
        delivering.sink.answers.clear()
    delivering.run.set_tags({"number": "0"})
    delivering.delivery.start()
    started = time.monotonic()
    assert not delivering.delivery.finish(0.5)
    assert 0.4 < time.monotonic() - started < 20
    assert DeliveryQueue(delivering.run.folder).pending() == 1


def test_each_acknowledgement_restarts_the_timeout_of_finish(delivering, monkeypatch):
    send = delivering.sink.send

    def slow(events: Sequence[Event]) -> list[str]:
        time.sleep(0.3)
        return send(events)

    monkeypatch.setattr(delivering.sink, "send", slow)
    for number in range(6):
        delivering.run.log_artifact(Path(str(number)))  # a batch each
    delivering.delivery.start()
    assert delivering.delivery.finish(1.0)
    assert len(delivering.sink.events) == 6


def test_logging_does_not_block_while_the_sink_hangs(delivering):
    delivering.sink.answers.clear()
    delivering.delivery.start()
    started = time.monotonic()
    for number in range(1000):
        delivering.run.set_tags({"number": str(number)})
    assert time.monotonic() - started < 10
    delivering.sink.answers.set()
    assert delivering.delivery.finish(30)
    assert delivering.numbers() == [str(number) for number in range(1000)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_finish_fails_after_the_death_of_the_thread(delivering):
    def broken(line: str) -> None:
        raise RuntimeError

    delivering.delivery.echo = broken
    delivering.sink.error = ConnectionError("no")
    delivering.run.set_tags({"number": "0"})
    delivering.delivery.start()
    delivering.delivery.join(30)
    assert not delivering.delivery.finish(0.1)


def test_the_reason_of_a_failed_connection_is_its_cause() -> None:
    with pytest.raises(MlflowException) as caught:
        open_client(servers.refusing()).search_experiments()
    assert failure_reason(caught.value) == "Connection refused"
    assert failure_reason(ValueError("two\nlines")) == "two lines"
    assert failure_reason(InputError("x" * 1000)) == "x" * 1000
