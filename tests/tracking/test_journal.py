"""The journal survives crashes and full disks, and reports losses."""

import json
import math
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.tracking.journal import JOURNAL_FILE, Event, Journal, read_events

TEXT = st.text(max_size=9)
TEXTS = st.dictionaries(TEXT, st.text(max_size=20), max_size=3)
STEPS = st.integers(0, 10**6)
DATA = {
    "params": TEXTS,
    "tags": TEXTS,
    "metrics": st.fixed_dictionaries(
        {"step": STEPS, "values": st.dictionaries(TEXT, st.floats(allow_nan=False) | st.just(math.inf), max_size=3)}
    ),
    "dataset": st.fixed_dictionaries(
        dict.fromkeys(("name", "source", "digest", "context"), TEXT) | {"profile": st.dictionaries(TEXT, STEPS, max_size=3)}
    ),
    "artifact": st.fixed_dictionaries({"path": TEXT, "folder": TEXT}),
    "model": st.fixed_dictionaries({"path": TEXT, "name": TEXT, "step": STEPS}),
    "status": st.fixed_dictionaries({"status": st.sampled_from(["RUNNING", "FINISHED", "FAILED", "KILLED"])}),
    "elsewhere": st.fixed_dictionaries({"run": TEXT, "tags": TEXTS}),
}
"""Kind of an event to its data, drawn."""
EVENTS = st.lists(st.sampled_from(sorted(DATA)).flatmap(lambda kind: st.tuples(st.just(kind), DATA[kind])), max_size=6)


def logged(folder: Path) -> list[tuple[str, dict]]:
    return [(event.kind, event.data) for _, event in read_events(folder / JOURNAL_FILE)]


def journal_of(folder: Path, count: int) -> Path:
    """A closed journal with so many events; its file."""
    journal = Journal(folder)
    for number in range(count):
        journal.append("tags", {"number": str(number)})
    journal.close()
    return journal.path


def test_events_are_read_back_in_order_with_their_times(tmp_path):
    before = int(time.time() * 1000)
    journal = Journal(tmp_path / "new" / "run")
    journal.append("metrics", {"step": 1, "values": {"a": 0.1}})
    journal.append("params", {"name": 'é\n"\u2028'})
    found = list(read_events(journal.path))
    assert [event.kind for _, event in found] == ["metrics", "params"]
    assert found[1][1].data == {"name": 'é\n"\u2028'}
    assert all(before <= event.time <= int(time.time() * 1000) for _, event in found)
    assert found[-1][0] == journal.size == journal.path.stat().st_size
    assert list(read_events(journal.path, found[0][0])) == found[1:]
    assert journal.sync() == journal.size


def test_a_missing_journal_has_no_events(tmp_path):
    assert list(read_events(tmp_path / JOURNAL_FILE)) == []


@given(EVENTS, st.data())
def test_a_truncated_journal_keeps_its_complete_events_and_accepts_new_ones(events, data):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        journal = Journal(folder)
        ends = [0]
        for kind, what in events:
            journal.append(kind, what)
            ends.append(journal.size)
        journal.close()
        survived = data.draw(st.sampled_from(ends) | st.integers(0, journal.size), label="bytes that survive")
        with journal.path.open("r+b") as file:
            file.truncate(survived)
        whole = sum(end <= survived for end in ends) - 1
        assert logged(folder) == events[:whole]

        again = Journal(folder)
        assert again.size == ends[whole]
        assert again.truncated_bytes == survived - ends[whole]
        again.append("tags", {"the": "new one"})
        again.close()
        assert logged(folder) == [*events[:whole], ("tags", {"the": "new one"})]


@pytest.mark.parametrize(
    "half", [b'{"kind": "tags", "ti', b'{"kind": "tags"}', b"\0" * 500, b"\xff\xfe", "{é".encode()[:-1]], ids=range(5)
)
def test_an_incomplete_last_line_is_removed(tmp_path, half):
    path = journal_of(tmp_path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole + half)
    assert len(logged(tmp_path)) == 2
    journal = Journal(tmp_path)
    assert journal.truncated_bytes == len(half)
    assert path.read_bytes() == whole
    journal.close()
    journal = Journal(tmp_path)
    assert journal.truncated_bytes == 0
    journal.close()


@pytest.mark.parametrize("damage", [b"x", b"\0", b"\n", b"[1]"], ids=["letter", "zero", "newline", "list"])
def test_a_damaged_line_before_the_last_is_an_error_and_stays(tmp_path, rejected, damage):
    path = journal_of(tmp_path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = damage + lines[1][len(damage) :] if damage != b"[1]" else b"[1]\n"
    path.write_bytes(lines[0] + damaged + lines[2])
    before = path.read_bytes()
    byte = len(lines[0]) + (1 if damage == b"\n" else len(damaged))
    with rejected(path, f"byte {byte} is damaged"):
        Journal(tmp_path)
    with rejected(path, f"byte {byte} is damaged"):
        logged(tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"kind": "metrics", "data": {"step": "x", "values": {}}}, "data.step: expected a valid integer, found 'x'"),
        ({"kind": "metrics", "data": {"step": 1, "values": {"a": None}}}, "data.values.a: expected a valid number, found null"),
        ({"kind": "status", "data": {}}, "data.status: missing"),
        ({"kind": "status", "data": {"status": "LOST"}}, "data.status: expected 'RUNNING', 'FINISHED', 'FAILED' or 'KILLED'"),
        ({"kind": "tags", "data": {"a": 1}}, "data.a: expected a valid string, found 1"),
        ({"kind": "params", "data": []}, "data: expected an object, found a list"),
        ({"kind": "params", "data": {}, "time": 10**18}, "time: expected less than"),
        ({"kind": "unheard of", "data": {}}, "kind: expected 'params'"),
    ],
)
def test_an_event_with_data_of_a_wrong_type_is_an_error(tmp_path, rejected, event, words):
    path = journal_of(tmp_path, 1)
    path.write_text(json.dumps({"time": 1} | event) + "\n" + path.read_text())
    with rejected(path, "is damaged", words):
        logged(tmp_path)


def test_an_unreadable_journal_is_an_error(tmp_path, rejected):
    (tmp_path / JOURNAL_FILE).mkdir()
    with rejected(tmp_path / JOURNAL_FILE, "Is a directory"):
        logged(tmp_path)
    (tmp_path / JOURNAL_FILE).rmdir()
    (tmp_path / JOURNAL_FILE).symlink_to(JOURNAL_FILE)
    with rejected(tmp_path / JOURNAL_FILE, "symbolic links"):
        logged(tmp_path)
    with rejected(tmp_path / JOURNAL_FILE, "cannot be written"):
        Journal(tmp_path)


@pytest.mark.parametrize("behind", [b"", b'{"kind": "ta'], ids=["", "and half a line"])
def test_a_damaged_complete_line_at_the_end_is_not_removed(tmp_path, rejected, behind):
    """A crash leaves an incomplete line. A complete line without an event has another cause, and the user may repair it."""
    path = journal_of(tmp_path, 1)
    path.write_bytes(path.read_bytes() + b'"kind": "tags", "time": 1, "data": {}}\n{"what": 2}\n' + behind)
    before = path.read_bytes()
    with rejected(path, "is damaged"):
        Journal(tmp_path)
    assert path.read_bytes() == before


def test_a_full_disk_is_an_error_that_leaves_room_for_the_final_status(small_disk, rejected):
    folder = small_disk / "run"
    journal = Journal(folder)
    count = 0

    def fill() -> None:
        nonlocal count
        for _ in range(1000):
            journal.append("tags", {"number": str(count), "text": "x" * 1000})
            count += 1

    with rejected(journal.path, "the disk is full"):
        fill()
    assert 10 < count < 1000
    assert [data["number"] for _, data in logged(folder)] == [str(number) for number in range(count)]
    assert journal.path.stat().st_size == journal.size
    journal.append("status", {"status": "FAILED"})
    journal.close()
    assert logged(folder)[-1] == ("status", {"status": "FAILED"})
    assert len(logged(folder)) == count + 1


def test_the_reserve_makes_room_for_a_status_on_a_full_disk(small_disk, fill):
    journal = Journal(small_disk / "run")
    journal.append("status", {"status": "RUNNING"})
    fill(small_disk / "other")
    filler = {"text": "x" * 4096}
    journal.append("status", {"status": "FAILED"} | filler)
    assert logged(small_disk / "run")[-1] == ("status", {"status": "FAILED"} | filler)
    journal.close()
    (small_disk / "other").unlink()
    journal = Journal(small_disk / "run")
    journal.append("tags", {"room": "again"})
    journal.close()
    assert [kind for kind, _ in logged(small_disk / "run")] == ["status", "status", "tags"]


def test_opening_a_journal_on_a_full_disk_is_an_error_and_changes_nothing(small_disk, fill, rejected):
    path = journal_of(small_disk / "run", 3)
    before = path.read_bytes()
    fill(small_disk / "other")
    with rejected(path, "the disk is full"):
        Journal(small_disk / "run")
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [JOURNAL_FILE]


def test_closing_removes_the_reserve(tmp_path):
    journal_of(tmp_path / "run", 1)
    assert [file.name for file in (tmp_path / "run").iterdir()] == [JOURNAL_FILE]


def test_a_folder_that_cannot_be_written_is_an_error(small_disk, rejected):
    journal_of(small_disk / "run", 2)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with rejected(small_disk / "run" / JOURNAL_FILE, "cannot be written"):
        Journal(small_disk / "run")
    assert len(logged(small_disk / "run")) == 2


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path, rejected):
    (tmp_path / "run").write_text("")
    with rejected(tmp_path / "run", "cannot be written"):
        Journal(tmp_path / "run")


def test_a_reader_of_a_growing_journal_gets_every_event_once(tmp_path):
    journal = Journal(tmp_path)

    def write() -> None:
        for number in range(2000):
            journal.append("tags", {"number": str(number), "text": "x" * (number % 5000)})

    writer = threading.Thread(target=write)
    writer.start()
    seen, numbers = 0, []
    while writer.is_alive() or seen < journal.size:
        for end, event in read_events(journal.path, seen):
            seen = end
            numbers.append(int(event.data["number"]))
    writer.join()
    assert numbers == list(range(2000))


def test_wait_ends_with_the_next_event_and_always_after_wake(tmp_path):
    journal = Journal(tmp_path)
    journal.append("tags", {})
    journal.wait(0)  # returns at once
    for act in (lambda: journal.append("tags", {}), journal.wake):
        waiting = threading.Thread(target=journal.wait, args=(journal.size,), daemon=True)
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
        act()
        waiting.join(30)
        assert not waiting.is_alive()
    late = threading.Thread(target=journal.wait, args=(journal.size,), daemon=True)  # starts after `wake`
    late.start()
    late.join(30)
    assert not late.is_alive()


WRITER = """
import sys
from pathlib import Path
from fr_ps.tracking.journal import Journal
journal = Journal(Path(sys.argv[1]))
for number in range(10**9):
    journal.append("tags", {"number": str(number), "text": "x" * (number % 20000)})
    print(number, flush=True)
"""


def test_a_killed_process_loses_no_appended_event(tmp_path, start):
    logged_before = -1
    for _ in range(3):
        process = start(WRITER.replace("range(10**9)", f"range({logged_before + 1}, 10**9)"), tmp_path)
        lines = [process.stdout.readline() for _ in range(50)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines(keepends=True)
        process.wait()
        last = int([line for line in lines if line.endswith("\n")][-1])
        numbers = [int(data["number"]) for _, data in logged(tmp_path)]
        assert numbers == list(range(len(numbers)))
        assert numbers[-1] >= last > logged_before
        logged_before = numbers[-1]


def test_a_line_is_plain_json(tmp_path):
    (line,) = journal_of(tmp_path, 1).read_text().splitlines()
    raw = json.loads(line)
    assert Event(raw["kind"], raw["time"], raw["data"]).data == {"number": "0"}


def test_an_event_that_is_not_json_writes_nothing(tmp_path):
    journal = Journal(tmp_path)
    with pytest.raises(TypeError):
        journal.append("tags", {"a": object()})
    journal.append("tags", {"a": "b"})
    assert logged(tmp_path) == [("tags", {"a": "b"})]


def test_a_line_in_writing_is_not_damage_for_a_reader(tmp_path):
    """Another process writes long lines; a reader sees whatever is there of the last one."""
    code = "import sys, time; from pathlib import Path; from fr_ps.tracking.journal import Journal\n"
    code += "journal = Journal(Path(sys.argv[1]))\nprint(flush=True)\n"
    code += "while True: journal.append('params', {str(n): 'x' * 100 for n in range(60)}); time.sleep(3e-4)"
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        writer.stdout.readline()
        position, seen = 0, 0
        while seen < 1000:
            ends = [end for end, _ in read_events(tmp_path / JOURNAL_FILE, position)]
            position, seen = max(ends, default=position), seen + len(ends)
    finally:
        writer.kill()
        writer.wait()
