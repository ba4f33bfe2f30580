"""A temporary PostgreSQL server."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.tracking.servers import free_port

_USER = "fr_ps"
_TIMEOUT = 60
"""Seconds for a server to start, and to stop."""


class PostgresServer:
    """A server on 127.0.0.1 with password authentication.

    Args:
        tools: folder of its programs.
        port: on 127.0.0.1.
        password: of its one user.
    """

    def __init__(self, tools: Path, port: int, password: str) -> None:
        self.tools, self.port, self.password = tools, port, password

    def database(self, name: str) -> str:
        """A new, empty database; returns its address for SQLAlchemy."""
        arguments = ["--host", "127.0.0.1", "--port", str(self.port), "--username", _USER, name]
        _run([str(self.tools / "createdb"), *arguments], env=os.environ | {"PGPASSWORD": self.password})
        return f"postgresql+psycopg2://{_USER}:{self.password}@127.0.0.1:{self.port}/{name}"


@contextmanager
def postgresql() -> Iterator[PostgresServer]:
    """Run a server during the block; skip the test where PostgreSQL is not installed."""
    tools = _tools()
    # Not pytest's folder, which only its user may enter. The name is short: a path of a socket has 107 characters at most.
    folder = Path(tempfile.mkdtemp(prefix="fr-ps-pg-"))
    data, log = folder / "data", folder / "server.log"
    try:
        prefix = _user_prefix(folder)
        password, password_file = secrets.token_hex(16), folder / "password"
        password_file.write_text(password)
        settings = ["--username", _USER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--pwfile", str(password_file)]
        _run([*prefix, str(tools / "initdb"), "--pgdata", str(data), "--no-sync", *settings], cwd=folder)
        port = free_port()
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
        control = [*prefix, str(tools / "pg_ctl"), "--pgdata", str(data), "--wait", "--timeout", str(_TIMEOUT), "--silent"]
        _run([*control, "--log", str(log), "--options", options, "start"], cwd=folder, log=log)
        try:
            yield PostgresServer(tools, port, password)
        finally:
            _run([*control, "--mode", "immediate", "stop"], cwd=folder, log=log)
    finally:
        shutil.rmtree(folder)


def _tools() -> Path:
    """The folder of PostgreSQL's programs, of the newest version."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    for folder in [*debian, *([Path(on_path).parent] if on_path else [])]:
        if all((folder / name).is_file() for name in ("initdb", "pg_ctl", "createdb")):
            return folder
    return pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")


def _user_prefix(folder: Path) -> list[str]:
    """The prefix that runs a command as the user postgres, which then owns `folder`; empty unless this process runs as root."""
    if os.geteuid():
        return []
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("PostgreSQL does not run as root, and setpriv is missing (Debian: util-linux)")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _run(command: Sequence[str], log: Path | None = None, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    # To a file, not a pipe: the server keeps the descriptors of pg_ctl open, and a pipe would never end.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=cwd, env=env, check=False)
        output.seek(0)
        server_log = log.read_text() if log and log.is_file() else ""
        assert done.returncode == 0, f"{' '.join(command)}: {output.read()}{server_log}"
