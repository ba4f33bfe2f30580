"""`fr-ps` in a process of its own, without the ten seconds that importing torch and mlflow takes.

The processes are forked from a server that has imported both (the forkserver of `multiprocessing`, one for each pytest process).
A process has its own working directory, environment, output, signals and exit code, and can be killed. Two things differ from a
real process: its command line in /proc is that of the server, and the figures of its reports are empty.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fr_ps.report.table import DrawFigure

PRELOADED_MODULES = ["fr_ps.training.train", "fr_ps.tracking.lifecycle", "fr_ps.evaluation.report", "timm", "torch._dynamo"]
_SERVED = multiprocessing.get_context("forkserver")
_SERVED.set_forkserver_preload(PRELOADED_MODULES)


def _main(words: Sequence[str], cwd: Path, environment: Mapping[str, str], out: Path, errors: Path) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for stream, file in ((1, out), (2, errors)):
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(handle, stream)
        os.close(handle)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, closefd=False) for stream in (1, 2))
    # A shell that runs the suite in the background makes it ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Otherwise a child of the forkserver starts a second forkserver, which imports everything again.
    multiprocessing.set_start_method(None, force=True)
    sys.argv = ["fr-ps", *words]
    from fr_ps.cli import main
    from fr_ps.evaluation import report

    report.draw_png = empty_png
    sys.exit(main())


def empty_png(draw: DrawFigure) -> bytes:
    """A PNG without content, in place of `draw_png`: drawing 20 figures takes longer than a tiny training."""
    return b"\x89PNG"


class ForkedCommand:
    """A process of `fr-ps`, with the part of the interface of `subprocess.Popen` that tests need.

    Args:
        words: arguments of the command line.
        cwd: working directory.
        environment: complete environment.
        out: file for standard output.
        errors: file for standard error.
    """

    def __init__(self, words: Sequence[str], cwd: Path, environment: Mapping[str, str], out: Path, errors: Path) -> None:
        self.out, self.errors = out, errors
        out.touch()
        errors.touch()
        self.process = _SERVED.Process(target=_main, args=(list(words), cwd, dict(environment), out, errors))
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("fr-ps", timeout or 0)
        return self.process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Standard output since the start, and standard error."""
        self.wait(timeout)
        return self.out.read_text(), self.errors.read_text()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    @property
    def stdout(self) -> Iterator[str]:
        """The lines of standard output, as they are printed."""
        with self.out.open() as file:
            line = ""
            while True:
                ended = self.poll() is not None
                line += file.readline()
                if line.endswith("\n"):
                    yield line
                    line = ""
                elif ended:
                    return
                else:
                    time.sleep(0.01)
