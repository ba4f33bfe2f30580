"""The command `demo`: everything that it rejects before it serves a page."""

import socket
from pathlib import Path

import pytest

from fr_ps.demo import server
from tests.conftest import Command


def test_a_missing_extra_a_used_port_and_missing_inputs_are_errors(
    command_error: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    assert command_error("demo", "--model", tmp_path).endswith("pip install 'fr-ps[demo]'")
    monkeypatch.setattr(server, "find_spec", lambda name: name)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = command_error("demo", "--model", tmp_path, "--port", port)
    assert f"--port {port}" in message
    assert "Address already in use" in message
    assert str(tmp_path) in command_error("demo", "--model", tmp_path, "--port", port)
    assert "gallery.json" in command_error("demo", "--model", tmp_path, "--gallery", tmp_path, "--port", port)
