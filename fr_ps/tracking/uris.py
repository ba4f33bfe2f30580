"""URIs of MLflow's tracking stores and registry, and the SQLite file of the default store.

Some paths must be percent-encoded in a URI, as `50% a?b/mlflow.db`. MLflow's own encoding is not used: it encodes more
characters than SQLAlchemy decodes, and SQLAlchemy would create a second folder with the encoded name.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
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

from fr_ps.files import TEMP_PREFIX
from fr_ps.locks import dir_lock
from fr_ps.redaction import redact

DEFAULT_STORE_FILE = "mlflow.db"
_own_limits: dict[str, str] = {}
"""MLflow's environment variables that this module set, with their values; the user did not set these."""
_open_client_used = False


def tracking_uri() -> str:
    """URI of the tracking store in use: MLFLOW_TRACKING_URI or `mlflow.set_tracking_uri`, else the default store."""
    return mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else default_tracking_uri()


def registry_uri() -> str:
    """URI of the model registry in use: MLFLOW_REGISTRY_URI, else the tracking store in use."""
    found = mlflow.get_registry_uri()
    return tracking_uri() if found == mlflow.get_tracking_uri() else found


def registry_client() -> MlflowClient:
    """A client of the tracking store and the model registry in use, for requests inside `retried_requests`."""
    return MlflowClient(tracking_uri(), registry_uri())


@contextmanager
def retried_requests() -> Iterator[None]:
    """Retry each HTTP request of the block at most twice, with 60 seconds per try; MLflow's default is about four minutes.

    The limits apply to the whole process. After the block, the limits of `open_client`, which keep a delivery quick, apply again
    if that function was called before.
    """
    _limit_requests(retries=2, timeout=60)
    try:
        yield
    finally:
        if _open_client_used:
            _limit_requests(retries=0, timeout=20)


def open_client(uri: str) -> MlflowClient:
    """A client of the tracking store `uri`. HTTP requests are not retried, as callers retry. Creates a missing SQLite store."""
    global _open_client_used
    # Only in the first call: later ones could end the limits of `retried_requests` while another thread is in its block.
    if not _open_client_used:
        _open_client_used = True
        _limit_requests(retries=0, timeout=20)
    create_sqlite_store(uri)
    return MlflowClient(uri)


def _limit_requests(retries: int, timeout: int) -> None:
    """Set the number of retries and the seconds per try. Environment variables that the user set take precedence."""
    for name, limit in (("MLFLOW_HTTP_REQUEST_MAX_RETRIES", retries), ("MLFLOW_HTTP_REQUEST_TIMEOUT", timeout)):
        if os.environ.get(name) in (None, _own_limits.get(name)):
            os.environ[name] = _own_limits[name] = str(limit)


def default_tracking_uri() -> str:
    """URI of the default store of this folder: the file `mlflow.db`, or the folder `mlruns` if an earlier MLflow left one."""
    if not mlflow.is_tracking_uri_set() and not (found := mlflow.get_tracking_uri()).startswith("sqlite:"):
        return found
    return sqlite_uri(Path(DEFAULT_STORE_FILE).absolute())


def sqlite_uri(path: Path) -> str:
    """URI of the SQLite file `path`; percent-encoded only if SQLAlchemy would read another path from the plain URI."""
    plain = f"sqlite:///{path}"
    return plain if sqlite_path(plain) == path else URL.create("sqlite+pysqlite", database=str(path)).render_as_string()


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite URI; None for a database in memory, a URI with options, or any other URI."""
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
    """The URI without credentials and query, for files and messages; the path of a SQLite URI is encoded."""
    file = sqlite_path(uri)
    return URL.create("sqlite", database=str(file)).render_as_string() if file else redact(uri)


def is_database(uri: str) -> bool:
    """Whether the store is a database that this process opens itself; then it also chooses the artifact location."""
    return get_uri_scheme(uri) in DATABASE_ENGINES


def artifact_root() -> str:
    """MLflow's default artifact location, `mlruns` in this folder.

    A plain path, as in MLflow; a `file:` URI for a path that MLflow would decode to a different one, as `a%20b`.
    """
    folder = Path("mlruns").absolute()
    return str(folder) if local_file_uri_to_path(str(folder)) == str(folder) else folder.as_uri()


def create_sqlite_store(uri: str) -> None:
    """Create the SQLite store of `uri` if it does not exist; do nothing for other URIs.

    The database is created under a temporary name and then renamed, as MLflow cannot open one whose creation was killed.
    A lock serialises processes, as two concurrent migrations corrupt the database.
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
        for stale in path.parent.glob(f"{escape(temporary.name)}*"):
            stale.unlink()
        SqlAlchemyStore(sqlite_uri(temporary), artifact_root())
        try:
            os.link(temporary, path)
            temporary.unlink()
        except FileExistsError:  # another program, as `mlflow ui`, created it first
            temporary.unlink()
        except OSError:  # a file system without hard links
            temporary.rename(path)
