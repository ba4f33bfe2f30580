"""Which folders a report may be written to."""

from pathlib import Path

import pytest

from fr_ps.cli import parse_command_line
from fr_ps.commands.evaluate import COMMANDS, check_report_folder
from tests.conftest import AssertRejected


@pytest.mark.parametrize("is_there", [False, True])
def test_a_report_folder_neither_contains_runs_nor_is_inside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rejected: AssertRejected, is_there: bool
) -> None:
    here = tmp_path / "a/here"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    if is_there:
        (here / "runs").mkdir()
        (here / "mlflow.db").touch()
    (here / "link").symlink_to(tmp_path)
    for out in (".", "..", str(tmp_path), "x/..", "link", "runs", "mlruns", "mlflow.db"):
        with rejected(f"{Path(out)}: is or contains", "use a separate folder"):
            check_report_folder(Path(out), {}, overwrite=True)
    for out in ("runs/r/report", "mlruns/0", "x/../runs/r"):
        with rejected("is inside", "use a separate folder"):
            check_report_folder(Path(out), {}, overwrite=True)
    check_report_folder(Path("report"), {}, overwrite=False)


def test_data_for_baselines_without_baselines_are_rejected(tmp_path: Path, rejected: AssertRejected) -> None:
    arguments = ["evaluate", "--model", "m", "--data", "d", "--out", str(tmp_path / "out"), "--baselines-data", "other"]
    with rejected("--baselines-data needs --baselines"):
        COMMANDS["evaluate"].run(parse_command_line(arguments)["evaluate"])
