"""The database of the studies, which the workers of all machines open at the same time."""

import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal, TypeVar

import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import create_engine, event, inspect, text
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, ProgrammingError, SQLAlchemyError

from fr_ps.errors import DatabaseUnreachableError, InputError, one_line
from fr_ps.locks import dir_lock
from fr_ps.redaction import redact

HEARTBEAT_GRACE = 4
"""Number of missing heartbeats after which a lease expires. A lease is the right of a worker to the trial that it runs."""
_SQLITE_TIMEOUT = 60.0
_RETRY_SECONDS, _MAX_RETRY_PAUSE = 600.0, 30.0
Result = TypeVar("Result")
Direction = Literal["maximize", "minimize"]

optuna.logging.set_verbosity(optuna.logging.WARNING)
# Optuna would warn about experimental features in the middle of a training.
warnings.filterwarnings("ignore", category=ExperimentalWarning)


class Storage:
    """An open database of studies.

    Args:
        url: database URI in SQLAlchemy's form.
        heartbeat: seconds between two heartbeats of a running trial.

    Attributes:
        rdb: Optuna's storage.

    Raises:
        InputError: the database is unreachable, or holds the tables of another program.
    """

    def __init__(self, url: str, heartbeat: int) -> None:
        self.heartbeat = heartbeat
        address = _parse_url(url)
        self.file = _sqlite_path(url, address)
        if self.file and not self.file.parent.is_dir():
            raise InputError(f"study.storage: {self.file.parent} is no folder; create it, or set another path")
        arguments = {"timeout": _SQLITE_TIMEOUT} if self.file else {"connect_timeout": 20}
        engine_options = {"connect_args": arguments} | ({} if self.file else {"pool_pre_ping": True})
        where = redact(url)
        for last_attempt in (False, False, False, True):
            try:
                with self.lock():  # two processes that create the tables at the same time would fail
                    _require_optuna_schema(address, engine_options)
                    template = url.replace("{", "{{").replace("}", "}}")  # Optuna passes it to str.format
                    self.rdb = RDBStorage(
                        template, engine_options, heartbeat_interval=heartbeat, grace_period=HEARTBEAT_GRACE * heartbeat
                    )
                    if self.file:
                        _enable_wal(self.rdb.engine)
                return
            except ImportError as error:
                raise InputError(
                    f"study.storage: {where} needs a driver that is not installed ({one_line(error.__cause__ or error, 100)}); "
                    "for PostgreSQL: pip install 'fr-ps[postgresql]'"
                ) from None
            except (SQLAlchemyError, StorageInternalError, RuntimeError, OSError, AssertionError) as error:
                # `lock` has no effect on a database server: another process may be creating the tables. Then a later attempt
                # succeeds.
                if last_attempt or not isinstance(error, (ProgrammingError, IntegrityError, AssertionError)):
                    raise InputError(
                        f"study.storage: {where} cannot be opened ({_redacted_error(error, address)}); "
                        "check that it exists and is reachable"
                    ) from None
            time.sleep(1.0)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Mutual exclusion between processes that call `lock` for the same SQLite file, by a lock on its folder; no effect for
        other databases.

        Without it, two workers could acquire the same waiting trial, because SQLite has no row locks. PostgreSQL has them.
        """
        if self.file is None:
            yield
            return
        with dir_lock(self.file.parent):
            yield

    def trial_id(self, study: optuna.Study, number: int) -> int:
        """The database's id of the trial with that number."""
        study_id = self.rdb.get_study_id_from_name(study.study_name)
        return self.rdb.get_trial_id_from_study_id_trial_number(study_id, number)


def with_database_retries(call: Callable[[], Result]) -> Result:
    """Result of `call`; retried for ten minutes while the database is unreachable.

    Signals are deferred until `call` returns, because an exception in the middle of a read would leave SQLite locked. If signals
    came, their handlers run afterwards:

    - If a handler raises, its exception replaces the result or the error of `call`.
    - If no handler raises and `call` succeeded, its result is returned.
    - If no handler raises and `call` failed, KeyboardInterrupt or SystemExit is raised instead of a retry.

    Handlers that do not raise: that of `run_workers`, and that of `GracefulStop` at the first signal.

    Raises:
        DatabaseUnreachableError: the database was unreachable for ten minutes.
        KeyboardInterrupt, SystemExit: a signal arrived during `call`, and either its handler raised or `call` failed.
    """
    started, pause = time.monotonic(), 0.5
    while True:
        received: list[int] = []
        try:
            with _deferred_signals(received):
                return call()
        except (StorageInternalError, SQLAlchemyError) as error:
            if received:  # their handlers ran at the end of the block and raised nothing
                raise (KeyboardInterrupt() if signal.SIGINT in received else SystemExit(128 + received[0])) from None
            reason = one_line(error, 200)
        if time.monotonic() - started > _RETRY_SECONDS:
            raise DatabaseUnreachableError(
                f"study.storage: unreachable for 10 minutes ({reason}); check the database and start the search again"
            )
        time.sleep(pause)
        pause = min(2 * pause, _MAX_RETRY_PAUSE)


@contextmanager
def _deferred_signals(received: list[int]) -> Iterator[None]:
    """Deliver SIGINT and SIGTERM after the block; append them to `received`. A second SIGINT raises KeyboardInterrupt at once."""

    def defer(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in received:
            raise KeyboardInterrupt
        received.append(number)

    # Python runs handlers in the main thread only.
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    handlers = {number: signal.getsignal(number) for number in numbers}
    handlers = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    for number in handlers:
        signal.signal(number, defer)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for deferred in received:
            signal.raise_signal(deferred)


def open_study(storage: Storage, name: str, directions: Sequence[Direction]) -> tuple[optuna.Study, bool]:
    """The study of that name, and whether this call created it.

    Raises:
        InputError: the study has other directions, or the database rejects the name.
    """
    try:
        with storage.lock():
            study = optuna.create_study(storage=storage.rdb, study_name=name, directions=list(directions))
        return study, True
    except DuplicatedStudyError:
        study = optuna.load_study(study_name=name, storage=storage.rdb)
    except (StorageInternalError, SQLAlchemyError) as error:
        raise InputError(f"study.name {name!r}: the database rejects it ({one_line(error, 200)}); use a shorter name") from None
    existing = [direction.name.lower() for direction in study.directions]
    if existing != list(directions):
        raise InputError(
            f"study {name!r} exists with the directions {', '.join(existing)}, not {', '.join(directions)}; "
            "use the objectives of the existing study, or set another study.name"
        )
    return study, False


def _enable_wal(engine: Engine) -> None:
    """Use SQLite's write-ahead log, where the file system allows it: a commit does not wait for the disk.

    A trial makes many commits. A killed process loses none of them; a power failure may lose the last ones.
    """
    with engine.connect() as connection:
        if connection.execute(text("PRAGMA journal_mode=WAL")).scalar() != "wal":
            return

    @event.listens_for(engine, "connect")
    def set_up(raw: Any, _record: object) -> None:
        raw.execute("PRAGMA synchronous=NORMAL")

    engine.dispose()  # open connections lack the setting


def _parse_url(url: str) -> URL:
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):  # their message contains the address and its password
        raise InputError(
            f"study.storage is {_redacted_url(url)}: no database address; expected one like sqlite:///FILE"
        ) from None
    if "@" in (address.host or ""):  # the driver would print the rest of the password as a host name
        raise InputError(f"study.storage is {_redacted_url(url)}: the password contains @; expected it written as %40")
    return address


def _redacted_error(error: BaseException, address: URL) -> str:
    """The message of a database driver on one line, without the secrets of the address."""
    query = [value for values in address.normalized_query.values() for value in values]
    message = str(error)
    for secret in (address.username, address.password, *query):
        if secret and len(secret) > 2:
            message = message.replace(secret, "***")
    return one_line(RuntimeError(message), 200)


def _redacted_url(url: str) -> str:
    """`url` without secrets. A malformed address may contain a password anywhere: it becomes ***."""
    return repr(redact(url)) if "://" in url or "@" not in url else "'***'"


def _sqlite_path(url: str, address: URL) -> Path | None:
    """The file of a SQLite address; None for other databases."""
    if address.get_backend_name() != "sqlite":
        return None
    if not address.database or address.database.startswith((":memory:", "file:")):
        raise InputError(
            f"study.storage is {_redacted_url(url)}: not a file; expected sqlite:///FILE, which each worker can open"
        )
    return Path(address.database).absolute()


def _require_optuna_schema(address: URL, engine_options: dict[str, Any]) -> None:
    """Reject the database of another program before anything is written to it."""
    engine = create_engine(address, **engine_options)
    try:
        tables = set(inspect(engine).get_table_names())
    finally:
        engine.dispose()
    if tables and "studies" not in tables:
        where = redact(address.render_as_string())
        raise InputError(
            f"study.storage: {where} has the tables of another program ({', '.join(sorted(tables)[:3])}); "
            "expected an empty database, or a new file"
        )
