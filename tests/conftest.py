"""Fixtures of all tests: a temporary cache, the shared data, a small prepared data set, an empty MLflow store."""

import csv
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from fr_ps.cli import main
from fr_ps.config import PrepareConfig
from fr_ps.data.prepare import prepare
from fr_ps.errors import InputError
from fr_ps.synthetic.captures import write_synthetic_captures
from tests.forked import empty_png

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

settings.register_profile("fast", max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

LONGEST_FILES = (
    "search/test_search.py",
    "training/test_resume.py",
    "training/test_checkpoint_manager.py",
    "training/test_build_model.py",
    "test_repository.py",
    "test_cli.py",
    "training/test_train.py",
    "training/test_train_state.py",
    "evaluation/test_coverage.py",
)
"""Test files that take longest, in both tiers. They start first, so that neither of two workers ends long after the other."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {str(Path(__file__).parent / name): rank for rank, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: ranks.get(str(item.path), len(LONGEST_FILES)))


MakeStore = Callable[[Path], str]
WriteCapture = Callable[[Path, np.ndarray, Sequence[tuple[float, float]]], None]
AssertRejected = Callable[..., AbstractContextManager[None]]
Command = Callable[..., str]


@pytest.fixture(autouse=True)
def unchanged_mlflow_parent() -> Iterator[None]:
    """A test that leaves one of these variables set would send the runs of later tests to another experiment."""
    names = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID")
    before = [os.environ.get(name) for name in names]
    yield
    assert [os.environ.get(name) for name in names] == before


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A temporary FR_PS_CACHE for the session: the user's cache stays untouched, and built-in faces are rendered once."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FR_PS_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def new_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store, to be copied. It is created once, because creating its tables takes seconds."""
    from fr_ps.tracking.uris import create_sqlite_store

    path = tmp_path_factory.mktemp("sqlite") / "mlflow.db"
    create_sqlite_store(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def make_store(new_sqlite: Path) -> MakeStore:
    """Creates an MLflow store in a folder and returns its URI."""

    def make(folder: Path) -> str:
        path = folder / "mlflow.db"
        shutil.copy(new_sqlite, path)
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE experiments SET artifact_location = ?", [f"{folder}/mlruns/0"])
        return f"sqlite:///{path}"

    return make


def _shared_folder(name: str) -> Path:
    given = os.environ.get("FR_PS_SHARED")
    shared = Path(given) if given else Path(__file__).parents[2] / "shared"
    folder = shared / name
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist; set FR_PS_SHARED to the folder that contains {name}")
    return folder


@pytest.fixture(scope="session")
def yale() -> Path:
    """Real captures of 20 subjects (captures/ and labels.csv)."""
    return _shared_folder("data/yale_b")


@pytest.fixture(scope="session")
def cases() -> Path:
    """Rendered captures in the formats of other programs, with their true normals."""
    return _shared_folder("cases")


@pytest.fixture(scope="session")
def photoface_labels() -> Path:
    """The original project's label tables."""
    return _shared_folder("data/photoface_labels")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set of 6 synthetic subjects with 4 sessions each, 48 x 48. Read-only."""
    folder = tmp_path_factory.mktemp("synthetic")
    write_synthetic_captures(folder, people=6, sessions=4, seed=0, size=48)
    out = folder / "prepared"
    prepare(PrepareConfig(captures=str(folder / "captures"), out=str(out), labels=str(folder / "labels.csv"), size=48))
    return out


@pytest.fixture(scope="session")
def write_capture() -> WriteCapture:
    """Writes one session: (k, H, W) uint8 images as PNG, and lights.csv with their (azimuth, elevation) in degrees."""

    def write(folder: Path, images: np.ndarray, angles: Sequence[tuple[float, float]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lights.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "azimuth_deg", "elevation_deg"])
            for k, (image, angle) in enumerate(zip(images, angles, strict=True)):
                Image.fromarray(image).save(folder / f"im{k}.png")
                writer.writerow([f"im{k}.png", *angle])

    return write


@pytest.fixture(scope="session")
def rejected() -> AssertRejected:
    """`with rejected("text", ...)`: the block raises InputError with one line that contains these texts and a remedy."""

    @contextmanager
    def check(*words: object) -> Iterator[None]:
        with pytest.raises(InputError) as caught:
            yield
        text = str(caught.value)
        assert "\n" not in text
        for word in words:
            assert str(word) in text
        assert re.search(r"; \w|expected|must|needs", text), f"no remedy in: {text}"

    return check


@pytest.fixture
def run_command(capsys: pytest.CaptureFixture[str]) -> Command:
    """`run_command("train", ...)`: run `fr-ps` with these arguments, without an error; returns its output."""

    def run(*arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return run


@pytest.fixture
def command_error(capsys: pytest.CaptureFixture[str]) -> Command:
    """`command_error("train", ...)`: run `fr-ps` with invalid arguments; returns the one line on standard error."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        # On a busy machine, a run waits longer for MLflow's new tables and prints a line about it.
        (line,) = [line for line in lines if not line.startswith(("loading ", "tracking: waiting for MLflow"))]
        assert line.startswith("error: ")
        return line

    return run


@pytest.fixture(scope="session")
def other_user() -> Callable[[], AbstractContextManager[None]]:
    """A block without the rights of root, which may read every file."""

    @contextmanager
    def block() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    return block


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """Reports of this module draw no figures. Request it by an autouse fixture of module scope: that runs before the others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fr_ps.evaluation.report.draw_png", empty_png)
        yield


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An in-memory disk of 200 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("no mount command on this machine")
    if done.returncode:
        pytest.skip(f"mounting a small disk is not permitted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a failed test may have open files there


@pytest.fixture(scope="module")
def browser() -> "Iterator[Chrome]":
    """Headless Chromium, with its console messages and requests in its logs."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium or chromedriver; install the Debian packages chromium and chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium; pip install 'fr-ps[dev]'")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1440,1200"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()
