"""Linear baselines: not fitted on test sessions, omitted with the reason if they cannot be fitted, every read counted."""

from pathlib import Path

import numpy as np
import pytest

from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.store import MapStore
from fr_ps.evaluation.baselines import training_rows
from fr_ps.evaluation.baselines.embeddings import baseline_embeddings, count_maps_to_read
from fr_ps.evaluation.baselines.training_rows import sample_subjects
from fr_ps.evaluation.jitter import jitter
from tests.evaluation.baselines.smooth_maps import SIDE, labels_of, people


def test_the_embedding_of_a_test_session_does_not_depend_on_the_others() -> None:
    store, labels = people(10, 4, "albedo", "normal")
    train, tested = np.arange(20), np.arange(20, 40)
    before = baseline_embeddings(store, labels, train, tested).embeddings
    changed = {modality: maps.copy() for modality, maps in store.maps.items()}
    for maps in changed.values():
        maps[25] = maps[25, :, ::-1] ** 2
    after = baseline_embeddings(MapStore(changed, store.selected, ""), labels, train, tested).embeddings
    fewer = baseline_embeddings(store, labels, train, tested[[7, 3]]).embeddings
    for name, embeddings in before.items():
        others = np.arange(20) != 5
        scale = np.abs(embeddings).max()
        np.testing.assert_array_equal(after[name][others], embeddings[others])
        assert np.abs(after[name][5] - embeddings[5]).max() > 0.01 * scale
        np.testing.assert_allclose(fewer[name], embeddings[[7, 3]], atol=1e-4 * scale)


def test_the_order_of_the_training_rows_does_not_matter() -> None:
    store, labels = people(8, 4)
    tested = np.arange(20, 32)
    one, other = (
        baseline_embeddings(store, labels, rows, tested).embeddings
        for rows in (np.arange(20), np.random.default_rng(0).permutation(20))
    )
    for name, embeddings in one.items():
        np.testing.assert_array_equal(other[name], embeddings)


def test_every_baseline_of_every_modality_has_its_name_and_shape() -> None:
    store, labels = people(10, 4, "albedo", "normal")
    found = baseline_embeddings(store, labels, np.arange(20), np.arange(20, 40))
    assert {name: embeddings.shape for name, embeddings in found.embeddings.items()} == {
        "pixels_albedo": (20, SIDE**2),
        "eigenfaces_albedo": (20, 19),
        "wccn_albedo": (20, 99),
        "pixels_normal": (20, 3 * SIDE**2),
        "eigenfaces_normal": (20, 19),
        "wccn_normal": (20, 99),
        "wccn_albedo_normal": (20, 198),
        "wccn_albedo_normal_registered": (20, 198),
        "wccn_albedo_normal_symmetric": (20, 392),
        "normals_10x10": (20, 300),
    }
    assert not found.omitted
    for embeddings in found.embeddings.values():
        assert embeddings.dtype == np.float32
        assert np.isfinite(embeddings).all()
    alone, labels = people(10, 4, "albedo")
    found = baseline_embeddings(alone, labels, np.arange(20), np.arange(20, 40))
    wccn_names = {"wccn_albedo", "wccn_albedo_registered", "wccn_albedo_symmetric"}
    assert set(found.embeddings) == {"pixels_albedo", "eigenfaces_albedo"} | wccn_names


def test_jittered_embeddings_equal_those_of_maps_that_were_jittered_before() -> None:
    store, labels = people(10, 4, "albedo", "normal")
    train, tested = np.arange(20), np.arange(20, 40)
    moved = jitter(
        {modality: maps[tested] for modality, maps in store.maps.items()}, labels.ids[tested], labels.sessions[tested], 0
    )
    before = {modality: np.concatenate([maps[train], moved[modality]]) for modality, maps in store.maps.items()}
    wanted = baseline_embeddings(MapStore(before, store.selected, ""), labels, train, tested).embeddings
    plain = baseline_embeddings(store, labels, train, tested).embeddings
    for name, got in baseline_embeddings(store, labels, train, tested, jittered=True).embeddings.items():
        scale = np.abs(got).max()
        np.testing.assert_allclose(got, wanted[name], atol=1e-4 * scale)
        assert np.abs(got - plain[name]).max() > 0.01 * scale


@pytest.mark.parametrize(
    ("ids", "eigenfaces", "normalised"),
    [
        ([], "fewer than two training sessions", "fewer than two training sessions"),
        (["a"], "fewer than two training sessions", "fewer than two training sessions"),
        (["a", "b", "c"], None, "no training subject has two sessions"),
        (["a", "a", "b"], None, None),
    ],
)
def test_baselines_that_cannot_be_fitted_are_omitted_with_the_reason(
    ids: list[str], eigenfaces: str | None, normalised: str | None
) -> None:
    store, _ = people(4, 2, "albedo", "depth")
    labels = labels_of([*ids, "x", "x", "y", "y", "z", "z", "z", "z"][:8])
    found = baseline_embeddings(store, labels, np.arange(len(ids)), np.arange(len(ids), 8))
    reasons = {f"eigenfaces_{modality}": eigenfaces for modality in ("albedo", "depth")}
    reasons |= {
        f"wccn_{modality}": normalised
        for modality in ("albedo", "depth", "albedo_depth", "albedo_registered", "albedo_depth_symmetric")
    }
    assert found.omitted == {name: reason for name, reason in reasons.items() if reason}
    assert set(found.embeddings) == {"pixels_albedo", "pixels_depth"} | {name for name, reason in reasons.items() if not reason}


def test_equal_training_maps_omit_the_fitted_baselines() -> None:
    store, labels = people(6, 2, "albedo")
    store.maps["albedo"][:8] = 0.5
    found = baseline_embeddings(store, labels, np.arange(8), np.arange(8, 12))
    names = ["eigenfaces_albedo", "wccn_albedo", "wccn_albedo_registered", "wccn_albedo_symmetric"]
    assert found.omitted == dict.fromkeys(names, "the training maps do not differ")
    assert set(found.embeddings) == {"pixels_albedo"}
    store.maps["albedo"][:8] = np.repeat(np.arange(1, 5), 2)[:, None, None, None]  # subjects differ, their sessions do not
    found = baseline_embeddings(store, labels, np.arange(8), np.arange(8, 12))
    assert set(found.omitted) == set(names[1:])


def test_with_many_training_sessions_only_the_sample_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    store, labels = people(12, 4)
    monkeypatch.setattr(training_rows, "MAX_SESSIONS", 20)
    train, tested = np.arange(40), np.arange(40, 48)
    drawn = sample_subjects(labels, train, seed=0)
    assert len(drawn) == 20
    whole = baseline_embeddings(store, labels, train, tested)
    same = baseline_embeddings(store, labels, drawn, tested)
    assert whole.omitted == {"wccn_registered": "the data set has neither albedo nor normals"}
    assert whole.embeddings["wccn_depth"].shape == (8, 19)  # the components are those of 20 of the 100 maps
    for name, embeddings in whole.embeddings.items():
        np.testing.assert_array_equal(embeddings, same.embeddings[name])
    first = baseline_embeddings(store, labels, train, tested, seed=1).embeddings["wccn_depth"]
    assert not np.allclose(first, whole.embeddings["wccn_depth"])


@pytest.mark.parametrize(("sessions", "most"), [(1, 2000), (4, 2000), (4, 20)])
@pytest.mark.parametrize("modalities", [("depth",), ("albedo", "depth"), ("albedo", "normal")])
def test_progress_counts_every_map_that_is_read(
    sessions: int, most: int, modalities: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_rows, "MAX_SESSIONS", most)
    count = 8 * sessions
    store, labels = people(10, sessions, *modalities)
    train, tested = np.arange(count), np.arange(count, 10 * sessions)
    done: list[int] = []
    baseline_embeddings(store, labels, train, tested, advance=done.append)
    assert sum(done) == count_maps_to_read(modalities, labels, train, len(tested))


def test_a_prepared_data_set_is_read_through_its_store(prepared: Path) -> None:
    dataset = open_dataset(prepared, ["albedo", "normal", "depth"])
    tested = np.isin(dataset.labels.ids, np.unique(dataset.labels.ids)[:2])
    found = baseline_embeddings(dataset.store, dataset.labels, np.flatnonzero(~tested), np.flatnonzero(tested), jittered=True)
    assert not found.omitted
    assert "wccn_albedo_normal_depth" in found.embeddings
    assert all(np.isfinite(embeddings).all() for embeddings in found.embeddings.values())


def test_test_maps_in_another_data_set_give_the_same_embeddings(tmp_path: Path) -> None:
    store, labels = people(10, 4, "albedo", "normal")
    train, tested = np.arange(20), np.arange(20, 40)
    alone = {modality: maps[tested] for modality, maps in store.maps.items()}
    rest = labels.subset(tested)
    other = Dataset(rest, np.arange(20), rest, [], [], tmp_path, MapStore(alone, np.arange(20), "other"))
    known = MapStore({modality: maps[train] for modality, maps in store.maps.items()}, train, "known")
    for jittered in (False, True):
        together = baseline_embeddings(store, labels, train, tested, jittered=jittered).embeddings
        apart = baseline_embeddings(known, labels.subset(train), train, np.arange(20), tested=other, jittered=jittered)
        for name, embeddings in apart.embeddings.items():
            np.testing.assert_array_equal(embeddings, together[name])
