"""The database of studies: opened by several processes at once; errors in one line, without the password."""

import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import OperationalError

from fr_ps.errors import InputError
from fr_ps.search import storage as module
from fr_ps.search.storage import HEARTBEAT_GRACE, Direction, Storage, open_study, with_database_retries
from tests.conftest import AssertRejected
from tests.search.conftest import four_at_once

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"


def opened(file: Path, name: str = "s", directions: Sequence[Direction] = ("maximize",)) -> tuple[optuna.Study, bool]:
    return open_study(Storage(f"sqlite:///{file}", 1), name, directions)


def tables(file: Path) -> set[str]:
    connection = sqlite3.connect(file)
    try:
        return {name for (name,) in connection.execute(TABLES)}
    finally:
        connection.close()


OPEN = """
import sys
import optuna
from fr_ps.search.storage import Storage, open_study
print("ready", flush=True)
sys.stdin.readline()
study, created = open_study(Storage(sys.argv[1], 1), "s", ["maximize", "minimize"])
study.add_trial(optuna.create_trial(values=[1, 2]))
print(study.study_name, created, flush=True)
"""


@pytest.mark.slow
def test_processes_that_open_a_new_file_at_once_get_the_same_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    outputs = [text.strip() for text in four_at_once(OPEN, url)]
    assert sorted(outputs) == ["s False", "s False", "s False", "s True"]
    (study,) = optuna.get_all_study_summaries(url)
    assert (study.study_name, study.n_trials) == ("s", 4)
    assert sorted(trial.number for trial in optuna.load_study(study_name="s", storage=url).trials) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["a b", "dự án", "50%", "a+b", "O'Brien", "a#b", "a{b}", "{0}", "[x]"])
def test_the_name_of_the_folder_may_have_any_character(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    open_study(Storage(f"sqlite:///{folder}/studies.db", 60), "a study", ["maximize"])
    with sqlite3.connect(folder / "studies.db") as database:
        assert database.execute("select study_name from studies").fetchall() == [("a study",)]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_study_is_created_once(tmp_path: Path) -> None:
    study, made = opened(tmp_path / "a.db", directions=["maximize", "minimize"])
    study.add_trial(optuna.create_trial(values=[1, 2]))
    again, made_again = opened(tmp_path / "a.db", directions=["maximize", "minimize"])
    assert (made, made_again) == (True, False)
    assert [trial.values for trial in again.trials] == [[1, 2]]
    other, made_other = opened(tmp_path / "a.db", "another name, with a blank and an ü")
    assert (made_other, other.trials) == (True, [])


@pytest.mark.parametrize(
    "directions",
    [["minimize"], ["maximize", "minimize"], ["maximize", "maximize"], ["minimize", "maximize", "maximize"]],
    ids=" ".join,
)
def test_an_existing_study_with_other_directions_is_an_error(
    tmp_path: Path, directions: list[Direction], rejected: AssertRejected
) -> None:
    stored: list[Direction] = ["minimize", "maximize"]
    opened(tmp_path / "a.db", directions=stored)
    with rejected("'s'", f"directions {', '.join(stored)}, not {', '.join(directions)}", "study.name"):
        opened(tmp_path / "a.db", directions=directions)


def test_the_heartbeat_is_that_of_the_settings(tmp_path: Path) -> None:
    rdb = Storage(f"sqlite:///{tmp_path / 'a.db'}", 7).rdb
    assert (rdb.get_heartbeat_interval(), rdb.grace_period) == (7, 7 * HEARTBEAT_GRACE)


POSTGRESQL = "postgresql+psycopg2://someone:secret@127.0.0.1:{port}/studies"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", ["study.storage is 'nonsense'", "sqlite:///FILE"]),
        ("", ["study.storage is ''", "sqlite:///FILE"]),
        ("://", ["study.storage is '://'", "sqlite:///FILE"]),
        ("sqlite:/one.db", ["study.storage is 'sqlite:/one.db'", "sqlite:///FILE"]),
        ("sqlite://", ["study.storage is 'sqlite://'", "sqlite:///FILE"]),
        ("sqlite:///", ["study.storage is 'sqlite:///'", "sqlite:///FILE"]),
        ("sqlite:///:memory:", ["study.storage is 'sqlite:///:memory:'", "sqlite:///FILE"]),
        ("sqlite://two.db", ["study.storage is 'sqlite://two.db'", "sqlite:///FILE"]),
        ("sqlite:////nowhere/at/all.db", ["study.storage", "/nowhere/at is no folder"]),
        ("journal:///file", ["study.storage: journal:///file", "journal"]),
        ("http://someone:secret@host/studies", ["study.storage: http://host/studies"]),
        (
            "postgresql+nodriver://someone:secret@host/studies",
            ["study.storage: postgresql+nodriver://host/studies"],
        ),
        ("oracle://someone:secret@host/studies", ["study.storage: oracle://host/studies", "driver", "oracledb"]),
        ("postgresql+psycopg2://someone:secret@host:port/studies", ["study.storage"]),
        ("postgresql-psycopg2://someone:secret@host/studies", ["study.storage", "sqlite:///FILE"]),
        ("postgresql://someone:two@secret@host/db?user=secret", ["study.storage is 'postgresql://host/db'", "%40"]),
        ("postgresql:someone:secret@host/db", ["study.storage is '***'", "sqlite:///FILE"]),
        ("sqlite:///file:one?mode=memory&uri=true", ["study.storage", "sqlite:///FILE"]),
    ],
)
def test_an_invalid_address_is_an_error(
    url: str, words: list[str], rejected: AssertRejected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        Storage(url, 1)
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    with rejected(*words):
        Storage(url, 1)


def test_an_unreachable_server_is_an_error_without_the_password(rejected: AssertRejected, unused_port: int) -> None:
    pytest.importorskip("psycopg2")
    started = time.monotonic()
    with rejected("study.storage: postgresql+psycopg2://127.0.0.1", f"port {unused_port} failed", "refused"):
        Storage(POSTGRESQL.format(port=unused_port), 1)
    with pytest.raises(InputError) as caught:
        Storage(POSTGRESQL.format(port=unused_port), 1)
    assert "secret" not in str(caught.value)
    assert time.monotonic() - started < 10


@pytest.fixture
def unused_port() -> int:
    """A port without a listener."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize("content", [b"id,session\n" * 200, b"\x89PNG\r\n\x1a\n" + bytes(4000)], ids=["a table", "a picture"])
def test_a_file_that_is_no_database_is_an_error_and_stays_as_it_is(
    tmp_path: Path, content: bytes, rejected: AssertRejected
) -> None:
    file = tmp_path / "file.db"
    file.write_bytes(content)
    with rejected(f"study.storage: sqlite:///{file}", "not a database"):
        Storage(f"sqlite:///{file}", 1)
    assert file.read_bytes() == content


def test_a_folder_is_an_error(tmp_path: Path, rejected: AssertRejected) -> None:
    with rejected(f"study.storage: sqlite:///{tmp_path}", "unable to open"):
        Storage(f"sqlite:///{tmp_path}", 1)


def mlflow_like(file: Path) -> None:
    """A database that another program keeps its revisions in, as MLflow does."""
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY)")
    connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
    connection.execute("INSERT INTO alembic_version VALUES ('dc11669786a5')")
    connection.commit()
    connection.close()


def test_the_database_of_another_program_is_an_error(tmp_path: Path, rejected: AssertRejected) -> None:
    mlflow_like(tmp_path / "mlflow.db")
    with rejected(f"study.storage: sqlite:///{tmp_path / 'mlflow.db'}", "tables of another program"):
        Storage(f"sqlite:///{tmp_path / 'mlflow.db'}", 1)


def test_the_database_of_another_program_stays_as_it_is(tmp_path: Path, rejected: AssertRejected) -> None:
    mlflow_like(tmp_path / "mlflow.db")
    before = tables(tmp_path / "mlflow.db")
    with rejected("study.storage"):
        Storage(f"sqlite:///{tmp_path / 'mlflow.db'}", 1)
    assert tables(tmp_path / "mlflow.db") == before


def test_one_process_at_a_time_holds_the_lock_of_a_file(tmp_path: Path) -> None:
    inside, max_inside = 0, 0

    def enter(storage: Storage) -> None:
        nonlocal inside, max_inside
        for _ in range(20):
            with storage.lock():
                inside += 1
                max_inside = max(max_inside, inside)
                time.sleep(0.0005)
                inside -= 1

    storages = [Storage(f"sqlite:///{tmp_path / 'a.db'}", 1) for _ in range(3)]
    threads = [threading.Thread(target=enter, args=(storage,)) for storage in storages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max_inside == 1


def test_trial_ids_belong_to_their_study(tmp_path: Path) -> None:
    storage = Storage(f"sqlite:///{tmp_path / 'a.db'}", 1)
    studies = [open_study(storage, name, ["maximize"])[0] for name in ("one", "two")]
    ids = []
    for number in range(3):
        for study in studies:
            study.add_trial(optuna.create_trial(value=number))
            ids.append(storage.trial_id(study, number))
    assert sorted(ids) == ids
    assert len(set(ids)) == 6
    assert storage.rdb.get_trial(storage.trial_id(studies[1], 2)).value == 2


OUTAGES = [StorageInternalError("gone\naway"), OperationalError("SELECT 1", {}, Exception("gone\naway"))]


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda error: type(error).__name__)
def test_a_call_is_retried_while_the_database_is_unreachable(outage: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    answers = iter([outage, outage, outage, 7])

    def read() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert with_database_retries(read) == 7
    assert pauses == [0.5, 1, 2]


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda error: type(error).__name__)
def test_a_call_fails_after_ten_minutes(outage: Exception, monkeypatch: pytest.MonkeyPatch, rejected: AssertRejected) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(module.time, "sleep", sleep)
    monkeypatch.setattr(module.time, "monotonic", lambda: now)

    def read() -> None:
        raise outage

    with rejected("study.storage", "gone away", "start the search again"):
        with_database_retries(read)
    assert 600 < now < 660


@pytest.fixture
def default_sigint() -> Iterator[None]:
    """SIGINT has Python's handler, also where the suite runs in a shell's background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_is_deferred_until_the_call_has_returned_and_then_reaches_its_handler(number: signal.Signals) -> None:
    events: list[str] = []
    before = signal.signal(number, lambda *_: events.append("handled"))
    try:

        def read() -> int:
            signal.raise_signal(number)
            events.append("read")
            return 7

        assert with_database_retries(read) == 7
        assert events == ["read", "handled"]
        assert signal.getsignal(number) not in (before, signal.SIG_DFL)
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_while_the_database_is_unreachable_ends_the_retries(number: signal.Signals, error: type[BaseException]) -> None:
    attempts = []
    before = signal.signal(number, lambda *_: None)  # as a launcher, whose handler forwards the signal to its workers
    try:

        def read() -> None:
            attempts.append(1)
            signal.raise_signal(number)
            raise StorageInternalError

        with pytest.raises(error):
            with_database_retries(read)
        assert len(attempts) == 1
    finally:
        signal.signal(number, before)


def test_a_second_sigint_interrupts_the_call(default_sigint: None) -> None:
    done = []

    def read() -> None:
        signal.raise_signal(signal.SIGINT)
        done.append(1)
        signal.raise_signal(signal.SIGINT)
        done.append(2)

    with pytest.raises(KeyboardInterrupt):
        with_database_retries(read)
    assert done == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_calls_in_other_threads_work() -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(with_database_retries(lambda: 7)))
    thread.start()
    thread.join()
    assert found == [7]


def test_other_errors_are_raised_at_once() -> None:
    with pytest.raises(KeyError):
        with_database_retries(lambda: {}["x"])
