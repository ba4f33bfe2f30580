"""A run logs each event once, to its journal first."""

import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.tracking.journal import JOURNAL_FILE, read_events
from fr_ps.tracking.run import Run, new_run_id

POINTS = st.lists(
    st.tuples(st.dictionaries(st.sampled_from("abc"), st.floats(allow_nan=False), min_size=1), st.integers(0, 3)), max_size=8
)


def logged(folder: Path, kind: str) -> list[dict]:
    return [event.data for _, event in read_events(folder / JOURNAL_FILE) if event.kind == kind]


def test_a_repeated_step_adds_nothing(tmp_path):
    run = Run(tmp_path)
    run.log_metrics({"a": 1.0, "b": 2.0}, 1)
    run.log_metrics({"a": 9.0, "c": 3.0}, 1)
    run.log_metrics({"a": 9.0}, 1)
    expected = [{"step": 1, "values": {"a": 1.0, "b": 2.0}}, {"step": 1, "values": {"c": 3.0}}]
    assert logged(tmp_path, "metrics") == expected
    run.journal.close()

    again = Run(tmp_path)
    assert again.metric_history == {"a": {1: 1.0}, "b": {1: 2.0}, "c": {1: 3.0}}
    again.log_metrics({"a": 9.0, "b": 9.0, "c": 9.0}, 1)
    assert logged(tmp_path, "metrics") == expected
    again.log_metrics({"a": 0.5}, 2)
    assert logged(tmp_path, "metrics")[2:] == [{"step": 2, "values": {"a": 0.5}}]
    assert again.metric_history["a"] == {1: 1.0, 2: 0.5}


@given(POINTS, POINTS)
def test_every_metric_has_one_value_per_step_the_first(before, after):
    expected: dict[str, dict[int, float]] = {}
    for values, step in before + after:
        for name, value in values.items():
            expected.setdefault(name, {}).setdefault(step, value)
    with tempfile.TemporaryDirectory() as name:
        for part in (before, after):
            run = Run(Path(name))
            for values, step in part:
                run.log_metrics(values, step)
            run.journal.close()
        points = [
            ((metric, data["step"]), value) for data in logged(Path(name), "metrics") for metric, value in data["values"].items()
        ]
    assert run.metric_history == expected
    assert dict(points) == {(name, step): value for name, curve in expected.items() for step, value in curve.items()}
    assert len(points) == len(dict(points))


def test_nan_infinity_and_numpy_numbers_are_read_back(tmp_path):
    run = Run(tmp_path)
    run.log_metrics({"nan": math.nan, "inf": math.inf, "single": np.float32(0.5), "whole": np.int64(3)}, 1)
    run.journal.close()
    curves = Run(tmp_path).metric_history
    assert math.isnan(curves["nan"][1])
    assert (curves["inf"][1], curves["single"][1], curves["whole"][1]) == (math.inf, 0.5, 3.0)


def test_a_param_keeps_its_first_value(tmp_path):
    run = Run(tmp_path)
    run.log_params({"lr": "1", "epochs": "2"})
    run.log_params({"lr": "3", "seed": "4"})
    run.journal.close()
    again = Run(tmp_path)
    again.log_params({"lr": "5", "epochs": "6", "seed": "7"})
    assert logged(tmp_path, "params") == [{"lr": "1", "epochs": "2"}, {"seed": "4"}]


def test_tags_and_status_may_change(tmp_path):
    run = Run(tmp_path)
    run.set_tags({"best": "1"})
    run.set_tags({"best": "2"})
    run.set_status("RUNNING")
    run.set_status("FINISHED")
    assert logged(tmp_path, "tags") == [{"best": "1"}, {"best": "2"}]
    assert logged(tmp_path, "status") == [{"status": "RUNNING"}, {"status": "FINISHED"}]


def test_other_events_are_stored_as_logged(tmp_path):
    run = Run(tmp_path / "run")
    run.log_artifact(Path("report"), "kept")  # a relative path means nothing to a process that delivers it later, elsewhere
    run.log_dataset("faces", "/somewhere", "digest", {"sessions": 4}, "training")
    run.tag_other_run("f" * 32, {"fr_ps.kind": "resume"})
    assert logged(tmp_path / "run", "artifact") == [{"path": str(tmp_path / "report"), "folder": "kept"}]
    assert logged(tmp_path / "run", "dataset") == [
        {"name": "faces", "source": "/somewhere", "digest": "digest", "profile": {"sessions": 4}, "context": "training"}
    ]
    assert logged(tmp_path / "run", "elsewhere") == [{"run": "f" * 32, "tags": {"fr_ps.kind": "resume"}}]


def test_the_displayed_id_is_mlflows_if_known(tmp_path):
    run = Run(tmp_path / "20260101-000000-abcdef")
    assert run.display_id == run.id == "20260101-000000-abcdef"
    run.mlflow_id = "f" * 32
    assert run.display_id == "f" * 32


def test_ids_are_unique_and_plain_names():
    ids = {new_run_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(one) == 22 and one.replace("-", "").isalnum() for one in ids)


def test_logging_does_not_import_mlflow():
    source = "import sys, fr_ps.tracking.run; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == 0


def test_a_damaged_journal_is_an_error(tmp_path, rejected):
    (tmp_path / JOURNAL_FILE).write_text("x\n{}\n")
    with rejected(tmp_path / JOURNAL_FILE, "damaged"):
        Run(tmp_path)


@pytest.mark.parametrize("call", ["params", "metrics"])
def test_nothing_new_writes_nothing(tmp_path, call):
    run = Run(tmp_path)
    run.log_params({}) if call == "params" else run.log_metrics({}, 1)
    assert run.journal.size == 0


def test_final_metrics_become_the_last_points_of_their_metrics(tmp_path):
    """As after a resume that found a better epoch once the test had been logged."""
    run = Run(tmp_path)
    run.log_metrics({"best/val/a": 0.5, "best/val/b": 0.1}, 7)
    run.log_final_metrics({"test/a": 0.8, "best/val/a": 0.6, "best/val/b": 0.1}, 0)
    run.log_final_metrics({"test/a": 0.9}, 0)
    assert run.metric_history == {"best/val/a": {7: 0.5, 8: 0.6}, "best/val/b": {7: 0.1}, "test/a": {0: 0.8, 1: 0.9}}
