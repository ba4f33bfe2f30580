"""Exit of a process: errors on paths of the user are one line, internal errors a traceback."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fr_ps.cli import main
from fr_ps.process import run_main, unredacted_output

ROOT = str(Path(__file__).parents[1])


def raising(error: BaseException) -> Callable[[], object]:
    """A program that raises `error`."""

    def program() -> None:
        raise error

    return program


def os_error(number: int, path: str | None) -> OSError:
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize(
    "number", [errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EIO, errno.ESTALE]
)
def test_an_error_of_the_environment_is_one_line(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(raising(os_error(number, "runs/x"))) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"error: runs/x: {os.strerror(number)}; ")
    assert line.count("\n") == 1


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EISDIR, errno.ENOTDIR])
def test_an_error_on_a_path_of_the_user_is_one_line_and_on_another_a_traceback(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for given in ("data/a", str(Path("data/a").absolute()), "data/a/below"):
        assert run_main(raising(os_error(number, "data/a")), ["train", "", given]) == 2
        assert capsys.readouterr().err.startswith(f"error: data/a: {os.strerror(number)}; ")
    for path in ("runs/x/run.json", None):
        with pytest.raises(OSError, match=os.strerror(number)):
            run_main(raising(os_error(number, path)), ["data/a", "runs"])


def test_other_errors_are_internal_errors() -> None:
    for error in (os_error(errno.EMFILE, "data"), OSError("no number"), RuntimeError("something"), ValueError("x")):
        with pytest.raises(type(error)):
            run_main(raising(error), ["data"])


LONG = "n" * 300


@pytest.mark.parametrize(
    "words",
    [
        f"data summary --data.root {LONG}",
        f"forget --gallery {LONG} --person a",
        f"predict --model {LONG} --data a --out b.csv",
        f"train --resume {LONG}",
        f"sync --run {LONG}",
        f"register --model {LONG} --name a",
        "train --data.split loop",
        "train --data.root loop",
        "data mean --data.root file/below",
    ],
)
def test_names_that_cannot_be_opened_are_one_line(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    assert main(words.split()) == 2
    printed = capsys.readouterr().err
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in printed
    assert len(line) < 600


@pytest.mark.parametrize(("words", "closed", "code"), [("runs", ">&-", 0), ("runs", "2>&-", 0), ("nonsense", "2>&-", 2)])
def test_a_closed_standard_stream_changes_no_exit_code(words: str, closed: str, code: int, tmp_path: Path) -> None:
    command = f"{sys.executable} -m fr_ps {words} {closed}"
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": ROOT}
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stdout + done.stderr


STORAGE = "postgresql://me:word@h/db?sslmode=require"


def test_the_users_own_settings_are_not_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    for storage in (STORAGE, "sqlite:///a.db?timeout=5"):
        with pytest.raises(SystemExit, match="0"):
            main(["search", f"--study.storage={storage}", "--print_config"])
        assert yaml.safe_load(capsys.readouterr().out)["study"]["storage"] == storage
    with pytest.raises(SystemExit, match="0"):
        main(["search", "--help"])
    assert "USER:PASSWORD@HOST" in capsys.readouterr().out


def test_after_the_arguments_output_is_redacted_again(capsys: pytest.CaptureFixture[str]) -> None:
    def program() -> None:
        with unredacted_output():
            print(STORAGE)
        print(STORAGE)

    assert run_main(program) == 0
    assert capsys.readouterr().out == f"{STORAGE}\npostgresql://h/db\n"
