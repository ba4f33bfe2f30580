"""benchmarks/recognition.py: pooled pairs against scikit-learn, folds without leakage, and a tiny run."""

import itertools
import json
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import recognition
import recognition_folds
import torch
from recognition_folds import CrossValidation, Embedded, _compact, experiment_name, fold_config, with_jittered_copies
from recognition_report import eer_by_geometry, false_non_matches, pool_pairs, with_score_norm
from score_norm import cohort_cosines
from sklearn.metrics import roc_auc_score

from fr_ps.data.dataset import open_dataset
from fr_ps.data.labels import ATTRIBUTES, DEFAULT_CLASSES, Labels
from fr_ps.data.split_files import read_parts
from fr_ps.errors import InputError
from fr_ps.evaluation.attribute_baselines import fit_attribute_probe
from fr_ps.evaluation.baselines.embeddings import baseline_embeddings
from fr_ps.evaluation.dlib_baseline import reason_without_dlib
from fr_ps.evaluation.jitter import JitteredMaps
from fr_ps.evaluation.pairwise.verification import verification_with_intervals

TINY = """
data: {modalities: [albedo], val_people: 1, test_people: 2}
batch: {people: 2, sessions: 2}
model: {backbone: 'timm:test_resnet', channels: 16, reduction: 8}
train: {epochs: 1}
"""


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restores the number of threads of torch."""
    monkeypatch.setattr(recognition, "limit_threads", lambda threads: None)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def labels_of(ids: list[str], sessions: list[str]) -> Labels:
    codes = np.zeros((len(ids), len(ATTRIBUTES)), dtype=np.int8)
    return Labels(np.array(ids), np.array(sessions), codes, DEFAULT_CLASSES, "raw", {})


def cosines(embeddings: np.ndarray) -> np.ndarray:
    unit = embeddings.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return unit @ unit.T


def test_only_sessions_of_one_fold_and_draw_are_compared() -> None:
    rng = np.random.default_rng(0)
    labels = labels_of([f"p{row // 3}" for row in range(24)], [f"q{row % 3}" for row in range(24)])
    rows = [np.arange(12), np.arange(12, 24), np.arange(6, 18)]
    folds = [
        Embedded(part, rng.normal(size=(3, 12, 4 + k)) + 0.7 * rng.normal(size=(8, 1))[part // 3]) for k, part in enumerate(rows)
    ]
    score, genuine = [], []
    for fold in folds:
        first, second = np.triu_indices(12, k=1)
        for embeddings in fold.embeddings[1:]:
            score += cosines(embeddings)[first, second].tolist()
            genuine += (labels.ids[fold.rows[first]] == labels.ids[fold.rows[second]]).tolist()
    pairs = pool_pairs(folds, slice(1, None))
    scores, metrics = verification_with_intervals(pairs.listed(labels), None)
    assert len(pairs.first) == len(score) == 3 * 2 * 66
    assert (len(scores.genuine_levels), scores.impostor_count) == (sum(genuine), len(score) - sum(genuine))
    assert metrics.values["auc"] == pytest.approx(roc_auc_score(genuine, score), abs=1e-4)
    low, high = metrics.intervals["auc"]
    assert low < metrics.values["auc"] < high  # type: ignore[operator]


def test_compact_embeddings_keep_all_cosines() -> None:
    embeddings = np.random.default_rng(0).normal(size=(2, 5, 300)).astype(np.float32)
    compact = _compact(embeddings)
    assert compact.shape == (2, 5, 5)
    for one, other in zip(embeddings, compact):
        np.testing.assert_allclose(cosines(one), cosines(other), atol=1e-6)
    narrow = embeddings[:, :, :5]
    assert _compact(narrow) is narrow


def test_the_matrix_has_the_error_rate_of_each_two_geometries() -> None:
    ids = [f"p{row // 3}" for row in range(30)]
    labels = labels_of(ids, [f"q{row % 3}" for row in range(30)])
    embeddings = np.repeat(np.eye(10), 3, axis=0)
    embeddings[2::3] = np.roll(np.eye(10), 1, axis=0)  # in q2, each subject is like the next one
    names, found = eer_by_geometry(pool_pairs([Embedded(np.arange(30), embeddings[None])], slice(None)), labels)
    assert names == ["q0", "q1", "q2"]
    assert found.keys() == {("q0", "q1"), ("q0", "q2"), ("q1", "q2")}  # no subject has two sessions of one geometry
    assert found["q0", "q1"] == 0
    assert found["q0", "q2"] > 0.09


def test_false_non_matches_are_listed_by_session_from_the_worst() -> None:
    ids = [f"p{row // 3}" for row in range(30)]
    labels = labels_of(ids, [f"q{row % 3}" for row in range(30)])
    embeddings = np.repeat(np.eye(11, 12)[:10], 3, axis=0)
    embeddings[4] = np.eye(11, 12)[10]  # a failed session of p1, unlike all others
    embeddings[:, 11] = 0.1  # so that no cosine is 0
    folds = [Embedded(np.arange(30), np.stack([embeddings, embeddings]))]
    found = false_non_matches(pool_pairs(folds, slice(None)), labels, 0.001)
    assert found == [("p1/q1", 4, 4), ("p1/q0", 2, 4), ("p1/q2", 2, 4)]
    alone = [Embedded(np.arange(3), embeddings[None, :3])]  # a fold of one subject has no impostor pairs
    assert false_non_matches(pool_pairs(alone, slice(None)), labels, 0.001) == []


def test_many_session_names_are_no_geometries() -> None:
    labels = labels_of(["a"] * 13, [f"s{row}" for row in range(13)])
    pairs = pool_pairs([Embedded(np.arange(13), np.ones((1, 13, 2)))], slice(None))
    assert eer_by_geometry(pairs, labels) == ([], {})


def test_copies_are_the_maps_and_their_jittered_draws(prepared: Path) -> None:
    dataset = open_dataset(prepared, ["albedo", "normal"])
    rows = np.array([3, 9])
    copies = with_jittered_copies(dataset, rows, 2)
    found = copies.store.read(np.arange(6))
    wanted, jittered = dataset.store.read(rows), JitteredMaps(dataset.store, dataset.labels).read(rows)
    for name in ("albedo", "normal"):
        np.testing.assert_array_equal(found[name][:2], wanted[name])
        np.testing.assert_array_equal(found[name][2:4], jittered[name])
        assert np.abs(found[name][4:] - jittered[name]).max() > 0.01
    assert copies.labels.row_keys() == 3 * dataset.labels.subset(rows).row_keys()


def test_an_experiment_gets_the_split_of_the_fold_and_its_own_settings(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    parts = next(CrossValidation(tmp_path, tmp_path, 4, 1, 0, 1, print).each_fold())
    config = fold_config(
        f"{file} optim.lr=0.5 train.epochs=7", ["train.epochs=3", "batch.people=3"], replace(parts, split_seed=2), 1
    )
    assert (config.data.val_people, config.data.folds, config.data.fold, config.data.split_seed) == (0, 4, 0, 2)
    assert (config.optim.lr, config.train.epochs, config.batch.people, config.train.seed) == (0.5, 7, 3, 2)
    assert config.data.modalities == ("albedo",)
    assert experiment_name(f"{file} optim.lr=0.5") == "tiny optim.lr=0.5"
    with pytest.raises(InputError, match="'lr': expected key=value"):
        fold_config(f"{file} lr", [], parts, 1)


def run_benchmark(data: Path, out: Path, *arguments: str) -> dict:
    flags = ["--folds", "3", "--seeds", "1", "--jitter-draws", "1", "--threads", "1"]
    recognition.main(["--data", str(data), "--out", str(out), *flags, *arguments])
    return json.loads((out / "results.json").read_text())


@pytest.mark.usefixtures("few_replicates")
def test_a_tiny_run_reports_all_and_its_folds_are_kept(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recognition_folds, "reason_without_dlib", lambda: "not in this test")
    splits = []

    def recorded_fit(config, run, echo):  # type: ignore[no-untyped-def]
        result = fit(config, run, echo)
        splits.append(read_parts(run.folder / "split.csv"))
        return result

    fit = recognition_folds.fit
    monkeypatch.setattr(recognition_folds, "fit", recorded_fit)
    file, out = tmp_path / "tiny.yaml", tmp_path / "out"
    file.write_text(TINY)
    found = run_benchmark(prepared, out, "--config", str(file))
    tested = [{key for key, part in parts.items() if part == "test"} for parts in splits]
    assert [len(part) for part in tested] == [8, 8, 8]
    assert len(set.union(*tested)) == 24
    for parts in splits:
        subjects = {part: {subject for (subject, _), own in parts.items() if own == part} for part in ("train", "test")}
        assert set(parts.values()) == {"train", "test"}
        assert not subjects["train"] & subjects["test"]
    baselines = {f"{kind}_{maps}" for kind in ("pixels", "eigenfaces", "wccn") for maps in ("albedo", "normal", "depth")}
    baselines |= {f"wccn_albedo_normal{kind}" for kind in ("", "_registered", "_symmetric")} | {"wccn_depth_symmetric"}
    assert set(found["results"]) == baselines | {"normals_10x10", "tiny"}
    assert found["notes"] == ["dlib_albedo omitted: not in this test"]
    for kinds in found["results"].values():
        for kind in ("as they are", "jittered"):
            assert 0 <= kinds[kind]["metrics"]["eer"] <= 1
            assert len(kinds[kind]["eer_of_each_seed"]) == 1
            assert kinds[kind]["eer_of_each_seed"][0] == pytest.approx(kinds[kind]["metrics"]["eer"])
    assert {(one["network"], one["kind"]) for one in found["differences"]} == {("tiny", "as they are"), ("tiny", "jittered")}
    check_attributes(found, CrossValidation(prepared, out, 3, 1, 1, 1, print))
    text = (out / "results.md").read_text()
    assert "| linear_probe_albedo_normal | jittered" in text
    assert "## Attributes: networks against a linear probe on pixels" in text
    assert text in capsys.readouterr().out
    assert {line[3:] for line in text.splitlines() if line.startswith("## Unseen")} == {
        "Unseen subjects, as they are",
        "Unseen subjects, jittered",
    }
    assert not list((out / "tiny").glob("*/checkpoints"))

    again = run_benchmark(prepared, out, "--config", str(file))
    assert len(splits) == 3  # nothing is trained again
    assert {name: value for name, value in again.items() if name != "versions"} == {
        name: value for name, value in found.items() if name != "versions"
    }
    next((out / "tiny").glob("*.npz")).unlink()
    run_benchmark(prepared, out, "--config", str(file), "--no-baselines")
    assert len(splits) == 4  # the fold that was lost
    changed = run_benchmark(prepared, out, "--config", str(file), "--set", "optim.lr=0.01", "--no-baselines")
    assert len(splits) == 7
    assert set(changed["results"]) == {"tiny"}


def check_attributes(found: dict, validation: CrossValidation) -> None:
    """The AUC of the probe over the pooled folds is that of probes fitted here on the training subjects of each fold."""
    (probe,) = found["attribute_probes"]
    assert probe == "linear_probe_albedo_normal"
    dataset = open_dataset(validation.data, ["albedo", "normal"])
    for kind, jittered in (("as they are", False), ("jittered", True)):
        codes: dict[str, list] = {}
        positive: dict[str, list] = {}
        for parts in validation.each_fold():
            train, tested = validation.split(parts)
            for name, probabilities in (
                fit_attribute_probe(dataset, train, ATTRIBUTES, ["albedo", "normal"])
                .predict(dataset, tested, jittered=jittered)
                .items()
            ):
                codes.setdefault(name, []).append(dataset.labels.codes[tested, ATTRIBUTES.index(name)])
                positive.setdefault(name, []).append(probabilities[:, 1])
        common = [name for name, folds in codes.items() if len(folds) == 3]
        values = found["attribute_probes"][probe][kind]["metrics"]
        assert common
        assert set(values) == {f"{name}/auc" for name in common}
        for name in common:
            assert values[f"{name}/auc"] == pytest.approx(
                roc_auc_score(np.concatenate(codes[name]), np.concatenate(positive[name])), abs=1e-6
            )
    for one in found["attribute_differences"]:
        own, other = (found[key][one[name]][one["kind"]]["metrics"][one["metric"]] for key, name in PAIRED)
        assert one["difference"] == pytest.approx(own - other)
    compared = {(one["kind"], one["metric"]) for one in found["attribute_differences"]}
    assert compared == {(kind, f"{name}/auc") for kind in ("as they are", "jittered") for name in common}


PAIRED = (("results", "network"), ("attribute_probes", "against"))


def test_the_baselines_are_those_of_evaluate_with_jitter(prepared: Path, tmp_path: Path) -> None:
    validation = CrossValidation(prepared, tmp_path / "out", 3, 1, 1, 1, lambda line: None)
    found = validation.linear_baselines()
    dataset = open_dataset(prepared, ["albedo", "normal"])
    for fold, parts in enumerate(validation.each_fold()):
        train, tested = validation.split(parts)
        assert not set(dataset.labels.ids[train]) & set(dataset.labels.ids[tested])
        for draw in (0, 1):
            wanted = baseline_embeddings(dataset.store, dataset.labels, train, tested, jittered=bool(draw)).embeddings
            for name, embeddings in wanted.items():
                np.testing.assert_array_equal(found[name][fold].rows, tested)
                np.testing.assert_allclose(
                    cosines(found[name][fold].embeddings[draw]), cosines(embeddings), atol=1e-3, err_msg=name
                )


def test_data_settings_that_select_other_sessions_are_rejected(prepared: Path, tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    with pytest.raises(SystemExit, match="select other test sessions"):
        run_benchmark(prepared, tmp_path / "out", "--no-baselines", "--config", f"{file} data.subsample_sessions=2")


def test_sessions_with_another_value_are_trained_on_but_not_compared(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, file, out = tmp_path / "data", tmp_path / "tiny.yaml", tmp_path / "out"
    shutil.copytree(prepared, data)
    header, *rows = (prepared / "labels.csv").read_text().splitlines()
    rows = [f"{row},{int(row.split(',')[1] == 's03')}" for row in rows]  # the last of the four sessions of each subject
    (data / "labels.csv").write_text("\n".join([f"{header},relit", *rows]) + "\n")
    file.write_text(TINY)
    monkeypatch.setattr(recognition_folds, "reason_without_dlib", lambda: "not in this test")
    with pytest.raises(SystemExit, match="--tested light=0: no column 'light'; expected one of id, session, "):
        run_benchmark(data, out, "--tested", "light=0")
    with pytest.raises(SystemExit, match="--tested relit=2: relit is never '2'; it has 0, 1"):
        run_benchmark(data, out, "--tested", "relit=2")
    assert not out.exists()
    found = run_benchmark(data, out, "--config", str(file), "--tested", "relit=0")
    assert (found["data"]["sessions"], found["data"]["tested"]) == (24, "relit=0")
    assert "6 subjects, 18 sessions with relit=0 (training uses all 24); 3 subject folds" in (out / "results.md").read_text()

    every = CrossValidation(data, out, 3, 1, 1, 1, print)
    some = replace(every, tested="relit=0")
    labels = every.dataset.labels
    for fold, parts in enumerate(every.each_fold()):
        (train, tested), (same_train, compared) = every.split(parts), some.split(parts)
        np.testing.assert_array_equal(train, same_train)
        np.testing.assert_array_equal(compared, [row for row in tested if labels.sessions[row] != "s03"])
        for folds in (some.network(str(file), []), *some.linear_baselines().values()):
            np.testing.assert_array_equal(folds[fold].rows, compared)
            assert folds[fold].embeddings.shape[:2] == (2, 6)
    names = sorted(path.name for path in out.rglob("*seed0*"))
    run_benchmark(data, out, "--config", str(file))
    added = sorted({path.name for path in out.rglob("*seed0*")} - set(names))
    assert len(added) == len(names)  # nothing of the other run is used


def test_sessions_with_a_value_are_compared_but_not_trained_on(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out, trained = tmp_path / "tiny.yaml", tmp_path / "out", []
    file.write_text(TINY)
    fit = recognition_folds.fit

    def recorded_fit(config, run, echo):  # type: ignore[no-untyped-def]
        result = fit(config, run, echo)
        trained.append({key for key, part in read_parts(run.folder / "split.csv").items() if part == "train"})
        return result

    monkeypatch.setattr(recognition_folds, "fit", recorded_fit)
    with pytest.raises(SystemExit, match="--untrained session=s09: session is never 's09'"):
        run_benchmark(prepared, out, "--no-baselines", "--untrained", "session=s09", "--config", str(file))
    run_benchmark(prepared, out, "--no-baselines", "--untrained", "session=s03", "--config", str(file))
    assert "6 subjects, 24 sessions, none with session=s03 in training; 3 subject folds" in (out / "results.md").read_text()
    every = CrossValidation(prepared, out, 3, 1, 1, 1, print)
    some, labels = replace(every, untrained="session=s03"), every.dataset.labels
    for found, parts in zip(trained, every.each_fold(), strict=True):
        (train, tested), (fitted, compared) = every.split(parts), some.split(parts)
        np.testing.assert_array_equal(compared, tested)
        np.testing.assert_array_equal(fitted, [row for row in train if labels.sessions[row] != "s03"])
        assert found == set(labels.subset(fitted).row_keys())
    for parts in every.each_fold():  # a value of one subject is in the training part of some folds only
        train = every.split(parts)[0]
        without_one = replace(every, untrained=f"id={labels.ids[0]}").split(parts)[0]
        np.testing.assert_array_equal(without_one, [row for row in train if labels.ids[row] != labels.ids[0]])
    with pytest.raises(InputError, match="no test session of one of the folds has this value; expected a value that more"):
        [replace(every, tested=f"id={labels.ids[0]}").split(parts) for parts in every.each_fold()]


def s_norm_of_pair(first: np.ndarray, second: np.ndarray, cohort: np.ndarray) -> float:
    """S-norm of two embeddings, from its definition."""

    def cosine(one: np.ndarray, other: np.ndarray) -> float:
        return float(one @ other / np.sqrt((one @ one) * (other @ other)))

    normalised = []
    for one in (first, second):
        scores = [cosine(one, other) for other in cohort]
        normalised.append((cosine(first, second) - statistics.fmean(scores)) / statistics.pstdev(scores))
    return sum(normalised) / 2


def check_scores(folds: list[Embedded], draws: list[list[np.ndarray]], cohorts: list[np.ndarray]) -> None:
    """The cosines of `folds` are S-norm of the embeddings (n, k) in `draws`, times one factor for all folds and draws."""
    found, wanted = [], []
    for fold, embeddings, cohort in zip(folds, draws, cohorts, strict=True):
        for vectors, one in zip(fold.embeddings, embeddings, strict=True):
            for i, j in itertools.combinations(range(len(one)), 2):
                found.append(float(cosines(vectors)[i, j]))
                wanted.append(s_norm_of_pair(one[i].astype(np.float64), one[j].astype(np.float64), cohort.astype(np.float64)))
    factor = found[0] / wanted[0]
    assert factor > 0
    np.testing.assert_allclose(found, factor * np.array(wanted), atol=2e-5)


def test_normalised_scores_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    draws = [[rng.normal(size=(n, 20)) + shift for _ in range(2)] for n, shift in ((5, 0), (7, 1), (6, -1))]
    cohorts = [rng.normal(size=(9, 20)) + shift for shift in (1, 0.5, 0)]
    folds = []
    for embeddings, cohort in zip(draws, cohorts):
        stacked = np.stack(embeddings)
        folds.append(Embedded(np.arange(len(embeddings[0])), _compact(stacked), cohort=cohort_cosines(stacked, cohort)))
    check_scores(with_score_norm(folds), draws, cohorts)


@pytest.mark.usefixtures("few_replicates")
def test_a_run_with_score_normalisation_has_a_further_row(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = tmp_path / "tiny.yaml", tmp_path / "out"
    file.write_text(TINY)
    plain = run_benchmark(prepared, out, "--config", str(file), "--no-baselines")
    predicted = []

    def recorded_predict(network, store, rows):  # type: ignore[no-untyped-def]
        predicted.append((predict(network, store, rows), rows))
        return predicted[-1][0]

    predict = recognition_folds.predict
    monkeypatch.setattr(recognition_folds, "predict", recorded_predict)
    found = run_benchmark(prepared, out, "--config", str(file), "--no-baselines", "--score-norm")
    assert list(found["results"]) == ["tiny", "tiny s-norm"]
    for kind in ("as they are", "jittered"):
        assert found["results"]["tiny"][kind]["metrics"] == pytest.approx(plain["results"]["tiny"][kind]["metrics"], abs=1e-6)
        assert "eer" in found["results"]["tiny s-norm"][kind]["metrics"]
    assert len(list((out / "tiny").glob("*.npz"))) == 6  # of both runs

    assert len(predicted) == 6
    validation = CrossValidation(prepared, out, 3, 1, 1, 1, print, score_norm=True)
    draws, cohorts = [], []
    for parts, (tested, _), (cohort, rows) in zip(validation.each_fold(), predicted[::2], predicted[1::2]):
        np.testing.assert_array_equal(rows, validation.split(parts)[0])
        draws.append(list(tested.embeddings.reshape(2, 8, -1)))
        cohorts.append(cohort.embeddings)
    check_scores(with_score_norm(validation.network(str(file), [])), draws, cohorts)


@pytest.mark.skipif(bool(reason_without_dlib()), reason=reason_without_dlib())
def test_the_embeddings_of_dlib_are_computed_once_for_all_folds(prepared: Path, tmp_path: Path) -> None:
    validation = CrossValidation(prepared, tmp_path / "out", 3, 2, 0, 1, lambda line: None)
    folds, reason = validation.dlib()
    assert (len(folds), reason) == (6, "")
    assert len(list((tmp_path / "out" / "baselines").glob("*.npz"))) == 1
    assert all(fold.embeddings.shape == (1, 8, 128) for fold in folds)
