"""What MLflow has not acknowledged is sent again, in its order, until it is."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fr_ps.tracking.delivery import DELIVERED_FILE, DeliveryQueue
from fr_ps.tracking.journal import Event
from fr_ps.tracking.run import Run


class Taken:
    """A store that is a list, and is down for the first so many calls of every so many."""

    def __init__(self, down: int = 0, of: int = 1) -> None:
        self.batches: list[list[Event]] = []
        self.down, self.of, self.calls = down, of, 0
        self.refusals: list[str] = []

    def connect(self) -> str:
        self.calls += 1
        if (self.calls - 1) % self.of < self.down:
            raise ConnectionError("nobody\nthere")
        return "id"

    def send(self, events: Sequence[Event]) -> list[str]:
        self.batches.append(list(events))
        return self.refusals

    @property
    def data(self) -> list[dict]:
        return [event.data for batch in self.batches for event in batch]


def deliver_all(outbox: DeliveryQueue, store: Taken) -> int:
    return sum(iter(lambda: outbox.send_batch(store), 0))


def run_with_tags(folder: Path, count: int) -> Run:
    run = Run(folder)
    for number in range(count):
        run.set_tags({"number": str(number)})
    return run


def test_everything_goes_once_and_that_is_remembered(tmp_path):
    run, store = run_with_tags(tmp_path, 3), Taken()
    outbox = DeliveryQueue(tmp_path)
    assert outbox.pending() == 3
    assert deliver_all(outbox, store) == 3
    assert [data["number"] for data in store.data] == ["0", "1", "2"]
    assert (outbox.pending(), outbox.delivered_bytes) == (0, run.journal.size)
    run.set_tags({"number": "3"})
    again = DeliveryQueue(tmp_path)
    assert again.pending() == 1
    assert deliver_all(again, store) == 1
    assert [data["number"] for data in store.data] == ["0", "1", "2", "3"]
    assert deliver_all(DeliveryQueue(tmp_path), store) == 0


def test_a_batch_holds_a_thousand_points_and_ends_with_what_takes_long_or_closes(tmp_path):
    run, store = Run(tmp_path), Taken()
    for step in range(1, 301):
        run.log_metrics({f"m{number}": step for number in range(10)}, step)
    run.log_artifact(tmp_path)
    run.set_tags({"a": "b"})
    run.set_status("FINISHED")
    run.set_tags({"c": "d"})
    deliver_all(DeliveryQueue(tmp_path), store)
    assert [[event.kind for event in batch] for batch in store.batches] == [
        *[["metrics"] * 100] * 3,
        ["artifact"],
        ["tags", "status"],
        ["tags"],
    ]


def test_what_was_not_taken_is_sent_again_and_nothing_of_it_counts_as_taken(tmp_path):
    run_with_tags(tmp_path, 2)
    outbox, store = DeliveryQueue(tmp_path), Taken(down=2, of=100)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            outbox.send_batch(store)
        assert (outbox.delivered_bytes, outbox.pending()) == (0, 2)
        assert not outbox.path.exists()
    assert deliver_all(outbox, store) == 2


def test_a_store_is_not_asked_while_there_is_nothing_to_send(tmp_path):
    Run(tmp_path)
    store = Taken(down=1)
    assert DeliveryQueue(tmp_path).send_batch(store) == 0
    assert DeliveryQueue(tmp_path / "no run").pending() == 0
    assert store.calls == 0


@pytest.mark.parametrize(
    "text",
    [None, "", "{", "[]", "null", '{"bytes": "x", "refused": []}', '{"bytes": 7}', '{"bytes": 1000000000, "refused": []}'],
    ids=["gone", "empty", "half", "list", "null", "text", "other", "beyond the end"],
)
def test_where_it_is_not_known_what_was_taken_everything_is_sent_again(tmp_path, text):
    run_with_tags(tmp_path, 3)
    deliver_all(DeliveryQueue(tmp_path), Taken())
    file = tmp_path / DELIVERED_FILE
    file.unlink() if text is None else file.write_text(text)
    outbox, store = DeliveryQueue(tmp_path), Taken()
    assert outbox.pending() == 3
    assert deliver_all(outbox, store) == 3
    assert len(store.data) == 3
    assert DeliveryQueue(tmp_path).pending() == 0


def test_a_line_that_its_user_removed_as_damaged_does_not_stop_the_rest(tmp_path, refused):
    """As the journal tells to do: what was acknowledged then ends in the middle of a line."""
    run = run_with_tags(tmp_path, 3)
    deliver_all(DeliveryQueue(tmp_path), Taken())
    run.set_tags({"number": "a later one, longer than those before"})
    run.journal.close()
    lines = run.journal.path.read_bytes().splitlines(keepends=True)
    run.journal.path.write_bytes(b"".join([lines[0], b"?" + lines[1][1:], *lines[2:]]))
    with refused(run.journal.path, "remove it"):
        Run(tmp_path)
    run.journal.path.write_bytes(b"".join([lines[0], *lines[2:]]))
    store = Taken()
    deliver_all(DeliveryQueue(tmp_path), store)
    assert store.data[-1] == {"number": "a later one, longer than those before"}
    assert DeliveryQueue(tmp_path).pending() == 0


def test_half_a_line_at_the_end_is_not_sent(tmp_path):
    run = run_with_tags(tmp_path, 2)
    with run.journal.path.open("ab") as file:
        file.write(b'{"kind": "tags", "ti')
    outbox = DeliveryQueue(tmp_path)
    assert deliver_all(outbox, Taken()) == 2
    assert outbox.delivered_bytes == run.journal.size


def test_refusals_are_remembered(tmp_path):
    run, store = run_with_tags(tmp_path, 1), Taken()
    store.refusals = ["a: for a reason"]
    deliver_all(DeliveryQueue(tmp_path), store)
    assert DeliveryQueue(tmp_path).rejected == ["a: for a reason"]
    store.refusals = []
    run.set_tags({"more": "text"})
    deliver_all(DeliveryQueue(tmp_path), store)
    assert DeliveryQueue(tmp_path).rejected == ["a: for a reason"]
    assert json.loads((tmp_path / DELIVERED_FILE).read_text())["refused"] == ["a: for a reason"]


def test_on_a_full_disk_what_was_sent_is_sent_again_at_worst(small_disk, fill):
    folder = small_disk / "run"
    run_with_tags(folder, 3).journal.close()
    fill(small_disk / "other")
    store = Taken()
    deliver_all(DeliveryQueue(folder), store)
    (small_disk / "other").unlink()
    deliver_all(DeliveryQueue(folder), store)
    assert [data["number"] for data in store.data] == ["0", "1", "2"] * 2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["tell", "tell much", "end", "deliver", "reopen", "forget"]), max_size=15), st.integers(0, 2))
def test_whatever_happens_every_event_arrives_and_none_before_those_that_were_told_before_it(acts, down):
    with tempfile.TemporaryDirectory() as name:
        folder, store = Path(name), Taken(down=down, of=3)
        run, outbox, count = Run(folder), DeliveryQueue(folder), 0
        for act in acts:
            if act == "tell":
                run.set_tags({"number": str(count)})
            elif act == "tell much":
                run.set_tags({"number": str(count)} | {f"t{index}": "" for index in range(1500)})
            elif act == "end":
                run.journal.append("artifact", {"path": str(count), "folder": ""})
            elif act == "reopen":
                outbox = DeliveryQueue(folder)
            elif act == "forget":
                (folder / DELIVERED_FILE).unlink(missing_ok=True)
            else:
                try:
                    outbox.send_batch(store)
                except ConnectionError:
                    continue
            count += act in ("tell", "tell much", "end")
        for _ in range(3 * (count + 1)):
            try:
                outbox.send_batch(store)
            except ConnectionError:
                continue
        run.journal.close()
        assert outbox.pending() == 0
    first = list(dict.fromkeys(data.get("number") or data["path"] for data in store.data))
    assert first == [str(number) for number in range(count)]
