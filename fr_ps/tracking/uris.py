"""Addresses of MLflow's stores, and the SQLite file that the default one is.

A file's path and its address are two things: `mlflow.db` in the folder `50% a?b` has an address in which `?` is encoded. MLflow
encodes more than SQLAlchemy needs, and makes a folder of the encoded name beside the right one.
"""

import os
from glob import escape
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import get_uri_scheme
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from fr_ps.files import TEMP_PREFIX, dir_lock
from fr_ps.redaction import redact

DEFAULT_STORE_FILE = "mlflow.db"


def tracking_uri() -> str:
    """The address of the MLflow store in use: what MLFLOW_TRACKING_URI or `mlflow.set_tracking_uri` names, else the default."""
    return mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else default_tracking_uri()


def registry_uri() -> str:
    """The address of the model registry in use: what MLFLOW_REGISTRY_URI names, else the MLflow store in use."""
    found = mlflow.get_registry_uri()
    return tracking_uri() if found == mlflow.get_tracking_uri() else found


def connect() -> MlflowClient:
    """A client of the MLflow store and the model registry in use."""
    limit_http_retries(2, timeout=60)
    return MlflowClient(tracking_uri(), registry_uri())


def limit_http_retries(retries: int, timeout: int) -> None:
    """End a request to a server after `retries` retries, each of at most `timeout` seconds without an answer.

    MLflow retries for about four minutes by default. Its environment variables take precedence where they are set.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(retries))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(timeout))


def default_tracking_uri() -> str:
    """The address of MLflow's default store for this folder: the file `mlflow.db`."""
    if not mlflow.is_tracking_uri_set() and not (found := mlflow.get_tracking_uri()).startswith("sqlite:"):
        return found  # a folder `mlruns` of an earlier MLflow
    return sqlite_uri(Path(DEFAULT_STORE_FILE).absolute())


def sqlite_uri(path: Path) -> str:
    """The address of the SQLite file `path`, encoded only where SQLAlchemy would read another path from the plain one."""
    plain = f"sqlite:///{path}"
    return plain if sqlite_path(plain) == path else URL.create("sqlite+pysqlite", database=str(path)).render_as_string()


def sqlite_path(uri: str) -> Path | None:
    """The file that the address of a SQLite database names; None for a database in memory, with options, or another address."""
    if not uri.startswith("sqlite"):
        return None
    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):
        return None
    if url.get_backend_name() != "sqlite" or url.query or not url.database or url.database == ":memory:":
        return None
    return Path(url.database)


def redacted_uri(uri: str) -> str:
    """The address as a file may hold it: without secrets, and with all that an address gives a meaning to encoded."""
    file = sqlite_path(uri)
    return URL.create("sqlite", database=str(file)).render_as_string() if file else redact(uri)


def is_database(uri: str) -> bool:
    """Whether this process itself opens the store as a database, so that it also chooses the place of artifacts."""
    return get_uri_scheme(uri) in DATABASE_ENGINES


def artifact_root() -> str:
    """MLflow's default place for artifacts, `mlruns` in this folder.

    A path, as MLflow writes it, or the `file:` address of it where MLflow would read another path from the plain one (`a%20b`).
    """
    folder = Path("mlruns").absolute()
    return str(folder) if local_file_uri_to_path(str(folder)) == str(folder) else folder.as_uri()


def create_sqlite_store(uri: str) -> None:
    """Make the SQLite store of `uri` if it is one and is not there yet.

    Under another name first: a process that is killed while it makes the tables would leave a store that MLflow can never
    open again. And one process at a time, as two break it in its migration.
    """
    path = sqlite_path(uri)
    if path is None or path.exists():
        return
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    with dir_lock(path.parent):
        if path.exists():
            return
        temporary = path.with_name(f"{TEMP_PREFIX}{path.name}")
        for remains in path.parent.glob(f"{escape(temporary.name)}*"):
            remains.unlink()
        SqlAlchemyStore(sqlite_uri(temporary), artifact_root())
        try:
            os.link(temporary, path)
            temporary.unlink()
        except FileExistsError:  # another program, as `mlflow ui`, was faster
            temporary.unlink()
        except OSError:  # a file system without hard links
            temporary.rename(path)
