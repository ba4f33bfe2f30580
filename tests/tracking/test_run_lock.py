"""One process holds the lock of a run, until it ends or dies."""

import json
import os
import signal
import socket
import subprocess
import time

import pytest

from fr_ps.errors import InputError
from fr_ps.tracking.run_lock import is_locked, run_lock

HOLDER = """
import os, subprocess, sys
from pathlib import Path
from fr_ps.tracking.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    {inside}
    print("locked", flush=True)
    sys.stdin.read()
"""
NOTHING = "pass"
STARTED = "subprocess.Popen(['sleep', '60'])"
FORKED = """if os.fork() == 0:
        os.close(1)
        sys.stdin.read()
        os._exit(0)"""


def test_a_run_is_locked_during_the_block(tmp_path):
    folder = tmp_path / "runs" / "one"
    assert not is_locked(folder)
    with run_lock(folder):
        assert is_locked(folder)
        assert json.loads((folder / "owner.lock").read_text()) == {"pid": os.getpid(), "host": socket.gethostname()}
    assert not is_locked(folder)
    with pytest.raises(ValueError, match="broken"), run_lock(folder):
        raise ValueError("broken")
    assert not is_locked(folder)
    with run_lock(folder):
        assert is_locked(folder)


def test_a_second_process_gets_an_error_until_the_first_is_killed(tmp_path, start, rejected):
    process = start(HOLDER.format(inside=NOTHING), tmp_path)
    assert process.stdout.readline() == "locked\n"
    assert is_locked(tmp_path)
    with rejected(f"run {tmp_path.name} is locked by process {process.pid} on {socket.gethostname()}"), run_lock(tmp_path):
        raise AssertionError
    assert is_locked(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not is_locked(tmp_path)
    with run_lock(tmp_path):
        assert json.loads((tmp_path / "owner.lock").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("child", [STARTED, FORKED], ids=["started", "forked"])
def test_a_child_that_outlives_its_killed_parent_holds_no_lock(tmp_path, start, child):
    process = start(HOLDER.format(inside=child), tmp_path)
    assert process.stdout.readline() == "locked\n"
    assert is_locked(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    os.killpg(process.pid, 0)  # raises if the child has ended too
    for _ in range(300):  # a forked child may not have closed the inherited lock yet
        if not is_locked(tmp_path):
            break
        time.sleep(0.1)
    with run_lock(tmp_path):
        assert is_locked(tmp_path)


def test_the_end_of_a_forked_child_does_not_release_the_lock(tmp_path):
    with run_lock(tmp_path):
        child = os.fork()
        if child == 0:
            os._exit(is_locked(tmp_path))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


def test_a_process_cannot_lock_a_run_twice(tmp_path, rejected):
    with run_lock(tmp_path):
        with rejected(f"process {os.getpid()}"), run_lock(tmp_path):
            raise AssertionError
        assert is_locked(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "{}", "[1]", "\0\0"], ids=["empty", "half", "other", "list", "zeros"])
def test_an_unknown_holder_still_holds_the_lock(tmp_path, text):
    with run_lock(tmp_path):
        (tmp_path / "owner.lock").write_text(text)
        with pytest.raises(InputError, match=f"run {tmp_path.name} is locked by a process of another user"), run_lock(tmp_path):
            raise AssertionError


def test_the_file_of_a_dead_holder_is_overwritten(tmp_path):
    (tmp_path / "owner.lock").write_text("x" * 5000)
    assert not is_locked(tmp_path)
    with run_lock(tmp_path):
        assert json.loads((tmp_path / "owner.lock").read_text())["pid"] == os.getpid()


def test_a_read_only_run_cannot_be_locked(small_disk, rejected):
    with run_lock(small_disk / "run"):
        pass
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert not is_locked(small_disk / "run")
    with rejected(small_disk / "run" / "owner.lock", "cannot be written"), run_lock(small_disk / "run"):
        raise AssertionError
