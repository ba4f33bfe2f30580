"""Events are sent in order, again and again until they are acknowledged."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.tracking.delivery import DELIVERED_FILE, DeliveryQueue
from fr_ps.tracking.journal import Event
from fr_ps.tracking.run import Run


class ListSink:
    """A sink that is a list, and fails for the first `down` of every `of` calls."""

    def __init__(self, down: int = 0, of: int = 1) -> None:
        self.batches: list[list[Event]] = []
        self.down, self.of, self.calls = down, of, 0
        self.rejects: list[str] = []

    def ensure_run(self) -> str:
        self.calls += 1
        if (self.calls - 1) % self.of < self.down:
            raise ConnectionError("no\nanswer")
        return "id"

    def send(self, events: Sequence[Event]) -> list[str]:
        self.batches.append(list(events))
        return self.rejects

    @property
    def data(self) -> list[dict]:
        return [event.data for batch in self.batches for event in batch]


def deliver_all(queue: DeliveryQueue, sink: ListSink) -> int:
    return sum(iter(lambda: queue.send_batch(sink), 0))


def run_with_tags(folder: Path, count: int) -> Run:
    run = Run(folder)
    for number in range(count):
        run.set_tags({"number": str(number)})
    return run


def test_every_event_is_sent_once_and_the_acknowledgement_is_stored(tmp_path):
    run, sink = run_with_tags(tmp_path, 3), ListSink()
    queue = DeliveryQueue(tmp_path)
    assert queue.pending() == 3
    assert deliver_all(queue, sink) == 3
    assert [data["number"] for data in sink.data] == ["0", "1", "2"]
    assert (queue.pending(), queue.delivered_bytes) == (0, run.journal.size)
    run.set_tags({"number": "3"})
    again = DeliveryQueue(tmp_path)
    assert again.pending() == 1
    assert deliver_all(again, sink) == 1
    assert [data["number"] for data in sink.data] == ["0", "1", "2", "3"]
    assert deliver_all(DeliveryQueue(tmp_path), sink) == 0


def test_a_batch_holds_a_thousand_points_and_ends_with_an_upload_or_a_status(tmp_path):
    run, sink = Run(tmp_path), ListSink()
    for step in range(1, 301):
        run.log_metrics({f"m{number}": step for number in range(10)}, step)
    run.log_artifact(tmp_path)
    run.log_model(tmp_path, step=1)
    run.set_tags({"a": "b"})
    run.set_status("FINISHED")
    run.set_tags({"c": "d"})
    deliver_all(DeliveryQueue(tmp_path), sink)
    assert [[event.kind for event in batch] for batch in sink.batches] == [
        *[["metrics"] * 100] * 3,
        ["artifact"],
        ["model"],
        ["tags", "status"],
        ["tags"],
    ]


def test_a_failed_batch_is_sent_again(tmp_path):
    run_with_tags(tmp_path, 2)
    queue, sink = DeliveryQueue(tmp_path), ListSink(down=2, of=100)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            queue.send_batch(sink)
        assert (queue.delivered_bytes, queue.pending()) == (0, 2)
        assert not queue.path.exists()
    assert deliver_all(queue, sink) == 2


def test_an_empty_queue_does_not_connect(tmp_path):
    Run(tmp_path)
    sink = ListSink(down=1)
    assert DeliveryQueue(tmp_path).send_batch(sink) == 0
    assert DeliveryQueue(tmp_path / "no run").pending() == 0
    assert sink.calls == 0


@pytest.mark.parametrize(
    "text",
    [None, "", "{", "[]", "null", '{"bytes": "x", "refused": []}', '{"bytes": 7}', '{"bytes": 1000000000, "refused": []}'],
    ids=["gone", "empty", "half", "list", "null", "text", "other", "beyond the end"],
)
def test_without_a_valid_record_of_acknowledgements_everything_is_sent_again(tmp_path, text):
    run_with_tags(tmp_path, 3)
    deliver_all(DeliveryQueue(tmp_path), ListSink())
    file = tmp_path / DELIVERED_FILE
    file.unlink() if text is None else file.write_text(text)
    queue, sink = DeliveryQueue(tmp_path), ListSink()
    assert queue.pending() == 3
    assert deliver_all(queue, sink) == 3
    assert len(sink.data) == 3
    assert DeliveryQueue(tmp_path).pending() == 0


def test_after_the_user_removed_a_damaged_line_the_other_events_are_sent(tmp_path, rejected):
    """The remedy of the journal's error message. The acknowledged part then ends within a line."""
    run = run_with_tags(tmp_path, 3)
    deliver_all(DeliveryQueue(tmp_path), ListSink())
    run.set_tags({"number": "a later one, longer than those before"})
    run.journal.close()
    lines = run.journal.path.read_bytes().splitlines(keepends=True)
    run.journal.path.write_bytes(b"".join([lines[0], b"?" + lines[1][1:], *lines[2:]]))
    with rejected(run.journal.path, "remove it"):
        Run(tmp_path)
    run.journal.path.write_bytes(b"".join([lines[0], *lines[2:]]))
    sink = ListSink()
    deliver_all(DeliveryQueue(tmp_path), sink)
    assert sink.data[-1] == {"number": "a later one, longer than those before"}
    assert DeliveryQueue(tmp_path).pending() == 0


def test_an_incomplete_last_line_is_not_sent(tmp_path):
    run = run_with_tags(tmp_path, 2)
    with run.journal.path.open("ab") as file:
        file.write(b'{"kind": "tags", "ti')
    queue = DeliveryQueue(tmp_path)
    assert deliver_all(queue, ListSink()) == 2
    assert queue.delivered_bytes == run.journal.size


def test_rejected_items_are_stored(tmp_path):
    run, sink = run_with_tags(tmp_path, 1), ListSink()
    sink.rejects = ["a: for a reason"]
    deliver_all(DeliveryQueue(tmp_path), sink)
    assert DeliveryQueue(tmp_path).rejected == ["a: for a reason"]
    sink.rejects = []
    run.set_tags({"more": "text"})
    deliver_all(DeliveryQueue(tmp_path), sink)
    assert DeliveryQueue(tmp_path).rejected == ["a: for a reason"]
    assert json.loads((tmp_path / DELIVERED_FILE).read_text())["refused"] == ["a: for a reason"]


def test_on_a_full_disk_sent_events_are_sent_again(small_disk, fill):
    folder = small_disk / "run"
    run_with_tags(folder, 3).journal.close()
    fill(small_disk / "other")
    sink = ListSink()
    deliver_all(DeliveryQueue(folder), sink)
    (small_disk / "other").unlink()
    deliver_all(DeliveryQueue(folder), sink)
    assert [data["number"] for data in sink.data] == ["0", "1", "2"] * 2


@given(st.lists(st.sampled_from(["log", "log much", "end", "deliver", "reopen", "forget"]), max_size=15), st.integers(0, 2))
def test_every_event_arrives_in_order_through_any_sequence_of_failures(acts, down):
    with tempfile.TemporaryDirectory() as name:
        folder, sink = Path(name), ListSink(down=down, of=3)
        run, queue, count = Run(folder), DeliveryQueue(folder), 0
        for act in acts:
            if act == "log":
                run.set_tags({"number": str(count)})
            elif act == "log much":
                run.set_tags({"number": str(count)} | {f"t{index}": "" for index in range(1500)})
            elif act == "end":
                run.journal.append("artifact", {"path": str(count), "folder": ""})
            elif act == "reopen":
                queue = DeliveryQueue(folder)
            elif act == "forget":
                (folder / DELIVERED_FILE).unlink(missing_ok=True)
            else:
                try:
                    queue.send_batch(sink)
                except ConnectionError:
                    continue
            count += act in ("log", "log much", "end")
        for _ in range(3 * (count + 1)):
            try:
                queue.send_batch(sink)
            except ConnectionError:
                continue
        run.journal.close()
        assert queue.pending() == 0
    first = list(dict.fromkeys(data.get("number") or data["path"] for data in sink.data))
    assert first == [str(number) for number in range(count)]
