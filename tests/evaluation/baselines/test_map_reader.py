"""Maps in batches: in the order of the sources, jittered by their seeds, each read counted."""

import numpy as np

from fr_ps.evaluation.baselines.map_reader import MapReader, flatten, pixels_of
from fr_ps.evaluation.jitter import jitter
from fr_ps.progress import no_progress
from tests.evaluation.baselines.smooth_maps import SIDE, people


def test_vectors_are_those_of_all_sources_one_after_the_other() -> None:
    store, labels = people(30, 4, "albedo", "depth")
    many, few = np.random.default_rng(0).permutation(120)[:90], np.array([7, 3])
    done: list[int] = []
    reader = MapReader(store, labels, done.append)
    found = reader.vectors({"first": pixels_of("albedo"), "second": pixels_of("depth")}, [(many, None), (few, 5)])
    moved = jitter(store.read(few), labels.ids[few], labels.sessions[few], 5)
    for name, modality in {"first": "albedo", "second": "depth"}.items():
        wanted = np.concatenate([store.maps[modality][many], moved[modality]]).reshape(92, SIDE**2)
        np.testing.assert_array_equal(found[name], wanted)
    assert done == [64, 26, 2]
    assert reader.vectors({"first": pixels_of("albedo")}, [(few[:0], None)]) == {}


def test_maps_are_prepared_after_the_jitter() -> None:
    store, labels = people(2, 2)
    rows = np.arange(4)
    reader = MapReader(store, labels, no_progress, lambda maps: {"depth": maps["depth"][..., :3] ** 2})
    moved = jitter(store.read(rows), labels.ids, labels.sessions, 1)["depth"]
    (maps,) = reader.batches([(rows, 1)])
    np.testing.assert_array_equal(maps["depth"], moved[..., :3] ** 2)
    np.testing.assert_array_equal(reader.vectors({"depth": pixels_of("depth")}, [(rows, 1)])["depth"], flatten(maps["depth"]))
