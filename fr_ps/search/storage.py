"""Where studies live: a relational database that any number of workers, here and elsewhere, open at once."""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import create_engine, event, inspect, text
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, ProgrammingError, SQLAlchemyError

from fr_ps.errors import InputError, one_line
from fr_ps.files import dir_lock
from fr_ps.redaction import redact
from fr_ps.training.signals import GracefulStop, StopRequested

HEARTBEAT_GRACE = 4
"""Heartbeats that may fail to come before a worker is taken for dead."""
_SQLITE_TIMEOUT = 60.0
_RETRY_SECONDS, _MAX_RETRY_PAUSE = 600.0, 30.0
Result = TypeVar("Result")
Direction = Literal["maximize", "minimize"]

optuna.logging.set_verbosity(optuna.logging.WARNING)
# Of what was tried around the study, none is told by a warning in the middle of a training.
warnings.filterwarnings("ignore", category=ExperimentalWarning)


class Storage:
    """A database of studies, opened.

    Args:
        url: of SQLAlchemy.
        heartbeat: seconds between two signs of life.

    Attributes:
        rdb: as Optuna has it.

    Raises:
        InputError: it cannot be reached, or is none.
    """

    def __init__(self, url: str, heartbeat: int) -> None:
        self.heartbeat = heartbeat
        address = _parse_url(url)
        self.file = _sqlite_path(url, address)
        if self.file and not self.file.parent.is_dir():
            raise InputError(f"study.storage: {self.file.parent} is no folder; make it, or name another place")
        arguments = {"timeout": _SQLITE_TIMEOUT} if self.file else {"connect_timeout": 20}
        engine = {"connect_args": arguments} | ({} if self.file else {"pool_pre_ping": True})
        where = redact(url)
        for last in (False, False, False, True):
            try:
                with self.lock():  # two that make its tables at once would fail
                    _require_optuna_schema(address, engine)
                    template = url.replace("{", "{{").replace("}", "}}")  # Optuna passes it to str.format
                    self.rdb = RDBStorage(
                        template, engine, heartbeat_interval=heartbeat, grace_period=HEARTBEAT_GRACE * heartbeat
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
                # Where there is no `alone`, another process may be making the tables; once they are there, all is well.
                if last or not isinstance(error, (ProgrammingError, IntegrityError, AssertionError)):
                    raise InputError(
                        f"study.storage: {where} cannot be opened ({_redacted_error(error, address)}); "
                        "see that it is there and answers"
                    ) from None
            time.sleep(1.0)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Wait until no other process is in here, where the database is a SQLite file.

        SQLite has no locks of rows: two workers would see the same waiting trial and both take it. PostgreSQL has them.
        """
        if self.file is None:
            yield
            return
        with dir_lock(self.file.parent):
            yield

    def trial_id(self, study: optuna.Study, number: int) -> int:
        """The database's own number of a trial."""
        study_id = self.rdb.get_study_id_from_name(study.study_name)
        return self.rdb.get_trial_id_from_study_id_trial_number(study_id, number)


def retry(call: Callable[[], Result]) -> Result:
    """What `call` returns; where the database does not answer, tried again for ten minutes.

    A signal waits until it has returned: in the middle of a read the exception would hold on to SQLite's lock, and nothing
    could be written down any more.

    Raises:
        InputError: the database did not answer for that long.
        KeyboardInterrupt, SystemExit: a signal came.
    """
    begun, pause = time.monotonic(), 0.5
    while True:
        trouble = ""
        with GracefulStop() as stop:
            try:
                found = call()
            except (StorageInternalError, SQLAlchemyError) as error:
                trouble = one_line(error, 200)
        if stop.signal_number:
            raise StopRequested(stop.signal_number).exit_exception()
        if not trouble:
            return found
        if time.monotonic() - begun > _RETRY_SECONDS:
            raise InputError(f"study.storage: does not answer any more ({trouble}); see to it, and start the search again")
        time.sleep(pause)
        pause = min(2 * pause, _MAX_RETRY_PAUSE)


def open_study(storage: Storage, name: str, directions: Sequence[Direction]) -> tuple[optuna.Study, bool]:
    """The study of that name, and whether it was made now.

    Raises:
        InputError: it is there with other directions, or the name is refused.
    """
    try:
        with storage.lock():
            study = optuna.create_study(storage=storage.rdb, study_name=name, directions=list(directions))
        return study, True
    except DuplicatedStudyError:
        study = optuna.load_study(study_name=name, storage=storage.rdb)
    except (StorageInternalError, SQLAlchemyError) as error:
        raise InputError(f"study.name {name!r}: is refused by the database ({one_line(error, 200)}); use a shorter one") from None
    there = [direction.name.lower() for direction in study.directions]
    if there != list(directions):
        raise InputError(
            f"study {name!r} is there, and is to {', '.join(there)}, not to {', '.join(directions)}; "
            "take its objectives, or another study.name"
        )
    return study, False


def _enable_wal(engine: Engine) -> None:
    """Let a SQLite file not wait for the disk at every change, of which a trial makes many.

    With a log that is written ahead a process that dies loses nothing, and a power cut the last changes, as if they had not
    been told yet. Where there can be no such log, all stays as it was.
    """
    with engine.connect() as connection:
        if connection.execute(text("PRAGMA journal_mode=WAL")).scalar() != "wal":
            return

    @event.listens_for(engine, "connect")
    def set_up(raw: Any, _record: object) -> None:
        raw.execute("PRAGMA synchronous=NORMAL")

    engine.dispose()  # those that are open begin anew


def _parse_url(url: str) -> URL:
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):  # whose words repeat the address, and a password in it
        raise InputError(
            f"study.storage is {_redacted_url(url)}: no address of a database; expected one as sqlite:///FILE"
        ) from None
    if "@" in (address.host or ""):  # the driver would look for a host of that name, and print it
        raise InputError(f"study.storage is {_redacted_url(url)}: an @ in its password ends it; expected it written as %40")
    return address


def _redacted_error(error: BaseException, address: URL) -> str:
    """The message of a database driver on one line; drivers repeat parts of the address by themselves."""
    query = [value for values in address.normalized_query.values() for value in values]
    message = str(error)
    for secret in (address.username, address.password, *query):
        if secret and len(secret) > 2:
            message = message.replace(secret, "***")
    return one_line(RuntimeError(message), 200)


def _redacted_url(url: str) -> str:
    """`url` without secrets; what is no address at all may hold a password in any place."""
    return repr(redact(url)) if "://" in url or "@" not in url else "'***'"


def _sqlite_path(url: str, address: URL) -> Path | None:
    """The file of a SQLite address; None for another database."""
    if address.get_backend_name() != "sqlite":
        return None
    if not address.database or address.database.startswith((":memory:", "file:")):
        raise InputError(
            f"study.storage is {_redacted_url(url)}: no plain file; expected sqlite:///FILE, which each worker opens by name"
        )
    return Path(address.database).absolute()


def _require_optuna_schema(address: URL, settings: dict[str, Any]) -> None:
    """Refuse a database that is another program's, before anything is written to it."""
    engine = create_engine(address, **settings)
    try:
        tables = set(inspect(engine).get_table_names())
    finally:
        engine.dispose()
    if tables and "studies" not in tables:
        where = redact(address.render_as_string())
        raise InputError(
            f"study.storage: {where} cannot be opened, as it has tables of another program "
            f"({', '.join(sorted(tables)[:3])}); expected a database of its own, which is made where it is a file"
        )
