"""A real `mlflow server` or `mlflow models serve` that can be killed and restarted, for benchmarks and tests."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path


class MlflowProcess:
    """An MLflow server that keeps its port when it is restarted; its output goes to `server.log` in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def arguments(self) -> list[str]:
        """Arguments of the command `mlflow`."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the server unless it is running."""
        if self.process and self.process.poll() is None:
            return
        # MLflow looks up `uvicorn` on PATH.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PATH": path}
        command = [sys.executable, "-m", "mlflow", *self.arguments(), "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)

    def wait(self) -> None:
        """Wait until the server responds."""
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=1)
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError((self.folder / "server.log").read_text())

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """Stop the server and all its processes."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, with_signal)
            self.process.wait()

    def kill(self) -> None:
        """Stop it by `kill -9`."""
        self.stop(signal.SIGKILL)


class Server(MlflowProcess):
    """A `mlflow server` over a SQLite file in `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.store = f"sqlite:///{folder}/server.db"

    def arguments(self) -> list[str]:
        stores = ["--backend-store-uri", self.store, "--artifacts-destination", str(self.folder / "artifacts")]
        return ["server", "--workers", "1", *stores]


class ModelServer(MlflowProcess):
    """A `mlflow models serve` of a registered model."""

    def __init__(self, folder: Path, model: str) -> None:
        super().__init__(folder)
        self.model = model

    def arguments(self) -> list[str]:
        return ["models", "serve", "-m", self.model, "--env-manager", "local"]

    def post(self, body: bytes, content_type: str = "application/json") -> tuple[int, str]:
        """Status and text of the response to a request.

        Raises:
            OSError, http.client.HTTPException: there was no response.
        """
        request = urllib.request.Request(f"{self.uri}/invocations", body, {"Content-Type": content_type})
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
