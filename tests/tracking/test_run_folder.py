"""run.json: ids, names and tracking store of a run."""

import json
import os
import socket
import time

import pytest

from fr_ps.tracking.run_folder import RUN_INFO_FILE, RunInfo, find_run, find_run_by_prefix, new_run_info, read_run_info


def test_run_json_is_read_back(tmp_path):
    info = RunInfo("id", "a name", "f" * 32, "mine", "7", "http://x", "here", 5, {"a": "b"})
    info.write(tmp_path)
    assert read_run_info(tmp_path) == info
    assert json.loads((tmp_path / RUN_INFO_FILE).read_text())["mlflow_id"] == "f" * 32


def test_run_json_of_other_versions_is_read(tmp_path):
    (tmp_path / RUN_INFO_FILE).write_text(json.dumps({"id": "a", "mlflow_id": None, "name": "b"}))
    assert read_run_info(tmp_path) == RunInfo("a", "b")
    (tmp_path / RUN_INFO_FILE).write_text(json.dumps({"id": "a", "name": "b", "unheard_of": 1}))
    assert read_run_info(tmp_path) == RunInfo("a", "b")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "5", '"id"', "{}", '{"id": "a"}', "\0\0\0"], ids=range(9))
def test_an_invalid_run_json_is_an_error(tmp_path, rejected, text):
    (tmp_path / RUN_INFO_FILE).write_text(text)
    with rejected(tmp_path / RUN_INFO_FILE, "expected a run folder"):
        read_run_info(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"begun": 10**18}, "begun: expected less than 253402300800000"),
        ({"begun": "now"}, "begun: expected a valid integer"),
        ({"tags": {"a": 1}}, "tags.a: expected a valid string"),
        ({"mlflow_id": 3}, "mlflow_id: expected a valid string"),
        ({"id": "../../elsewhere"}, "not a plain name"),
    ],
)
def test_wrong_types_and_values_in_run_json_are_errors(tmp_path, rejected, changes, words):
    (tmp_path / RUN_INFO_FILE).write_text(json.dumps({"id": "a", "name": "b"} | changes))
    with rejected(tmp_path / RUN_INFO_FILE, words):
        read_run_info(tmp_path)


def test_a_folder_without_run_json_is_an_error(tmp_path, rejected):
    with rejected(tmp_path / RUN_INFO_FILE, "no such file"):
        read_run_info(tmp_path)


def test_a_new_run_has_id_host_start_time_and_source(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/fr-ps", "train", "--config", "a.yaml"])
    before = int(time.time() * 1000)
    info = new_run_info("id", "a name")
    assert (info.id, info.name, info.mlflow_id) == ("id", "a name", None)
    assert (info.experiment, info.experiment_id, info.tracking_uri) == ("fr-ps", "", "")
    assert info.host == socket.gethostname()
    assert before <= info.begun <= time.time() * 1000
    assert info.tags["mlflow.source.name"] == "fr-ps train"
    assert info.tags["fr_ps.command"] == "fr-ps train --config a.yaml"
    assert info.tags["mlflow.source.type"] == "LOCAL"
    monkeypatch.setattr("sys.argv", ["fr-ps", "search", "--study.storage=postgresql://me:s3cr:t@db.example/studies"])
    assert new_run_info("y", "z").tags["fr_ps.command"] == "fr-ps search --study.storage=postgresql://db.example/studies"


def test_the_environment_sets_experiment_and_store(monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    info = new_run_info("id", "name")
    assert (info.experiment, info.experiment_id, info.tracking_uri) == ("mine", "7", "http://127.0.0.1:5000")


def test_mlflow_run_id_applies_to_one_run(monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "f" * 32)
    assert new_run_info("a", "name").mlflow_id == "f" * 32
    assert "MLFLOW_RUN_ID" not in os.environ
    assert new_run_info("b", "name").mlflow_id is None


@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        ("http://me:secret@host:5000/x", "http://host:5000/x"),
        ("https://me:se@cret@host", "https://host"),
        ("postgresql://me:secret@host:5432/db", "postgresql://host:5432/db"),
        ("https://secret@host", "https://host"),
        ("postgresql://host/db?user=me&password=secret", "postgresql://host/db"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:///relative.db", "sqlite:///relative.db"),
        ("sqlite:////absolute/x.db", "sqlite:////absolute/x.db"),
        ("", ""),
        ("databricks://profile", "databricks://profile"),
    ],
)
def test_a_password_in_the_uri_is_not_written(tmp_path, monkeypatch, uri, kept):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    info = new_run_info("id", "name")
    assert info.tracking_uri == kept
    info.write(tmp_path)
    assert "cret" not in (tmp_path / RUN_INFO_FILE).read_text()


@pytest.mark.parametrize("uri", ["http://[::1", "http://me:secret@[host", "://"])
def test_an_invalid_uri_does_not_prevent_a_run(tmp_path, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    new_run_info("id", "name").write(tmp_path)
    assert "secret" not in (tmp_path / RUN_INFO_FILE).read_text()


def test_a_run_is_found_by_either_id(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        RunInfo(name, "same name", "f" * 32 if name == "two" else None).write(tmp_path / name)
    assert find_run("one", tmp_path) == tmp_path / "one"
    assert find_run("two", tmp_path) == find_run("f" * 32, tmp_path) == tmp_path / "two"
    for nothing in ("three", "same name", "", "../one", "f" * 31):
        assert find_run(nothing, tmp_path) is None
    assert find_run("one", tmp_path / "nothing here") is None


def test_a_damaged_run_json_does_not_hide_other_runs(tmp_path, rejected):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / RUN_INFO_FILE).write_text("{")
    assert find_run("two", tmp_path) is None
    RunInfo("two", "a name", mlflow_id="f" * 32).write(tmp_path / "two")
    assert find_run("two", tmp_path) == find_run("f" * 32, tmp_path) == tmp_path / "two"
    with rejected(tmp_path / "one" / RUN_INFO_FILE):
        read_run_info(tmp_path / "one")


def test_a_run_is_found_by_the_beginning_of_one_of_its_ids(tmp_path, rejected):
    for run, mlflow_id in (("20261129-aa", "b" * 32), ("20261129-ab", "bbbbc" + "0" * 27)):
        RunInfo(run, "x", mlflow_id).write(tmp_path / run)
    assert find_run_by_prefix("20261129-aa", tmp_path) == find_run_by_prefix("bbbbb", tmp_path) == tmp_path / "20261129-aa"
    assert find_run_by_prefix("20261129-ab", tmp_path) == find_run_by_prefix("bbbbc0", tmp_path) == tmp_path / "20261129-ab"
    assert find_run_by_prefix("20261130", tmp_path) is None
    assert find_run_by_prefix("bbb", tmp_path) is None
    with rejected("bbbb: the prefix matches 2 runs", "20261129-aa and 20261129-ab", "more characters"):
        find_run_by_prefix("bbbb", tmp_path)
