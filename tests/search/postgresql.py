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
_START = 60
"""Seconds for a server to start, and to stop."""


class Server:
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
        words = ["createdb", "--host", "127.0.0.1", "--port", str(self.port), "--username", _USER, name]
        environment = os.environ | {"PGPASSWORD": self.password}
        _run([str(self.tools / words[0]), *words[1:]], env=environment)
        return f"postgresql+psycopg2://{_USER}:{self.password}@127.0.0.1:{self.port}/{name}"


@contextmanager
def postgresql() -> Iterator[Server]:
    """Run a server during the block; skip the test where PostgreSQL is not installed."""
    tools = _tools()
    # Not pytest's folder, which only root may enter; and a short name, as that of a socket has 107 characters at most.
    folder = Path(tempfile.mkdtemp(prefix="fr-ps-pg-"))
    data, log = folder / "data", folder / "server.log"
    try:
        before = _as_its_user(folder)
        password = secrets.token_hex(16)
        words = (folder / "password").write_text(password) and ["--pwfile", str(folder / "password")]
        how = ["--username", _USER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-sync", *words]
        _run([*before, str(tools / "initdb"), "--pgdata", str(data), *how], cwd=folder)
        port = free_port()
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
        control = [*before, str(tools / "pg_ctl"), "--pgdata", str(data), "--wait", "--timeout", str(_START), "--silent"]
        _run([*control, "--log", str(log), "--options", options, "start"], cwd=folder, log=log)
        try:
            yield Server(tools, port, password)
        finally:
            _run([*control, "--mode", "immediate", "stop"], cwd=folder, log=log)
    finally:
        shutil.rmtree(folder)


def _tools() -> Path:
    """The folder of initdb and pg_ctl, those of the newest version first."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    for folder in [*debian, *([Path(on_path).parent] if on_path else [])]:
        if all((folder / name).is_file() for name in ("initdb", "pg_ctl", "createdb")):
            return folder
    return pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")


def _as_its_user(folder: Path) -> list[str]:
    """The prefix of PostgreSQL's commands, which do not run as root; `folder` then belongs to their user."""
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


def _run(words: Sequence[str], log: Path | None = None, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    # To a file, not a pipe: the server keeps the descriptors of pg_ctl open, and a pipe would never end.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(words, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=cwd, env=env, check=False)
        output.seek(0)
        server_log = log.read_text() if log and log.is_file() else ""
        assert done.returncode == 0, f"{' '.join(words)}: {output.read()}{server_log}"
