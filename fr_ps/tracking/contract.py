"""What a run records, and the run that records nothing: the core needs no server, no database and no mock."""

import secrets
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Protocol


class Run(Protocol):
    """What a training tells about itself; whoever implements it decides where that goes.

    Attributes:
        id: ours, known before any contact with a server.
        folder: of the run on disk, `runs/ID`.
    """

    id: str
    folder: Path

    @property
    def shown_id(self) -> str:
        """The id to print for the user."""

    def params(self, values: Mapping[str, str]) -> None:
        """Settings that never change."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Text about the run that may change."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Points of curves, all at one step."""

    def dataset(self, name: str, source: str, digest: str, profile: Mapping[str, int], context: str) -> None:
        """The data that the run reads: where they are, their digest, and what is in them."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file, or a folder with all in it, to keep with the run under `folder`."""


class LocalRun:
    """A run that no server knows. What a training writes stays in its folder; the rest is forgotten."""

    def __init__(self, folder: Path) -> None:
        self.id = folder.name
        self.folder = folder

    @property
    def shown_id(self) -> str:
        return self.id

    def params(self, values: Mapping[str, str]) -> None:
        return

    def tags(self, values: Mapping[str, str]) -> None:
        return

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        return

    def dataset(self, name: str, source: str, digest: str, profile: Mapping[str, int], context: str) -> None:
        return

    def artifact(self, path: Path, folder: str = "") -> None:
        return


def new_id() -> str:
    """A run id of ours: sortable by time, unique."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
