"""The built-in data set goes through `prepare` like a real one, once."""

from fr_ps.config import SyntheticConfig
from fr_ps.data.builtin import synthetic_dataset
from fr_ps.data.dataset import open_dataset


def test_the_built_in_faces_are_made_once_and_are_a_data_set(monkeypatch, tmp_path):
    monkeypatch.setenv("FR_PS_CACHE", str(tmp_path))
    config = SyntheticConfig(people=3, sessions=2, size=32)
    root = synthetic_dataset(config)
    dataset = open_dataset(root, ["albedo", "normal", "depth"])
    assert len(dataset.labels) == 6
    assert dataset.store.size == 32
    assert dataset.labels.form == "raw"
    assert dataset.ignored == []
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert synthetic_dataset(config) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert synthetic_dataset(SyntheticConfig(people=3, sessions=2, size=32, seed=1)) != root
