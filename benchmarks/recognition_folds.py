"""The folds of benchmarks/recognition.py: embeddings of the sessions of unseen subjects by each network and baseline."""

import hashlib
import json
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from score_norm import cohort_cosines

from fr_ps.arguments import training_config
from fr_ps.cli import parse_command_line
from fr_ps.config import Config, DataConfig, flatten
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.labels import ATTRIBUTES, Labels
from fr_ps.data.layout import common_modalities
from fr_ps.data.split_files import write_split
from fr_ps.data.splits import make_split
from fr_ps.data.store import MapStore
from fr_ps.device import pick_device
from fr_ps.errors import InputError
from fr_ps.evaluation.attribute_baselines import fit_attribute_probe
from fr_ps.evaluation.baselines.embeddings import baseline_embeddings
from fr_ps.evaluation.dlib_baseline import NAME as DLIB_NAME
from fr_ps.evaluation.dlib_baseline import dlib_embeddings, reason_without_dlib
from fr_ps.evaluation.jitter import TEST_SEED, jitter
from fr_ps.models.folder import load_model
from fr_ps.models.inference import predict
from fr_ps.tracking.run import Run
from fr_ps.tracking.run_folder import BEST_CHECKPOINT
from fr_ps.training.setup import open_training_data
from fr_ps.training.train import fit

BASELINE_MAPS = (("albedo", "normal"), ("depth",))
"""Maps whose linear baselines are fitted together; the linear probe of the attributes reads the first ones."""
_WITHOUT_EFFECT = ("name", "data/root", "train/threads", "device")
"""Settings that do not change what a training learns."""
_SPLIT_FILE = "fold.csv"


@dataclass(frozen=True)
class Embedded:
    """The n test sessions of one fold.

    Attributes:
        rows: (n,) rows of the data set.
        embeddings: (1 + draws, n, k), of the sessions as they are, then jittered by each draw; compared by cosine. k is 0 for
            a linear probe of attributes.
        probabilities: trained attribute to (1 + draws, n, classes).
        seconds: duration of the training; 0 without one.
        cohort: (1 + draws, n, c) cosines with the c training sessions as they are; None without score normalisation.
    """

    rows: np.ndarray
    embeddings: np.ndarray
    probabilities: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: float = 0.0
    cohort: np.ndarray | None = None


@dataclass(frozen=True)
class CrossValidation:
    """Cross-validation over the subjects of a prepared data set. Finished folds are stored, and read the next time.

    Attributes:
        data: prepared data set.
        out: folder of the finished folds.
        folds: number of folds of the subjects.
        seeds: number of times that the subjects are dealt.
        draws: number of jittered copies of each session.
        threads: CPU threads of torch.
        echo: prints a line.
        tested: `COLUMN=VALUE`: of the test sessions, only those with this value of a column of the labels table are compared.
            Training uses all. Empty: all are compared.
        score_norm: whether the folds of networks have the cosines with their training sessions.
        untrained: `COLUMN=VALUE`: sessions with this value are in no training. Empty: all sessions of training subjects are.
    """

    data: Path
    out: Path
    folds: int
    seeds: int
    draws: int
    threads: int
    echo: Callable[[str], None]
    tested: str = ""
    score_norm: bool = False
    untrained: str = ""

    @cached_property
    def dataset(self) -> Dataset:
        """All sessions, with all maps that every session has.

        Raises:
            InputError: unusable data; or `tested` or `untrained` has an unknown column, or a value that no session has.
        """
        everything = open_dataset(self.data, ["albedo"])
        for flag, condition in (("--tested", self.tested), ("--untrained", self.untrained)):
            if condition:
                _check_condition(everything.labels, condition, flag)
        return open_dataset(self.data, common_modalities(self.data, everything.labels))

    def each_fold(self) -> Iterator[DataConfig]:
        """The settings of the split of each fold."""
        for seed in range(self.seeds):
            for fold in range(self.folds):
                yield DataConfig(root=str(self.data), val_people=0, folds=self.folds, fold=fold, split_seed=seed)

    def network(self, text: str, common: Sequence[str]) -> list[Embedded]:
        """Train an experiment for each fold and embed its test sessions.

        Args:
            text: file, and settings after it.
            common: further settings, as `key=value`.

        Raises:
            InputError: settings or data that cannot be used.
        """
        return [self._network_fold(text, common, parts) for parts in self.each_fold()]

    def linear_baselines(self) -> dict[str, list[Embedded]]:
        """Baseline to its folds."""
        found: dict[str, list[Embedded]] = {}
        for parts in self.each_fold():
            for name, embedded in self._linear_fold(parts).items():
                found.setdefault(name, []).append(embedded)
        return {name: folds for name, folds in found.items() if len(folds) == self.seeds * self.folds}

    def attribute_probe(self) -> tuple[str, list[Embedded]]:
        """The name of the linear probe on pixels, and its folds with the probabilities of the attributes."""
        maps = [name for name in BASELINE_MAPS[0] if name in self.dataset.store.maps]
        return f"linear_probe_{'_'.join(maps)}", [self._probe_fold(maps, parts) for parts in self.each_fold()]

    def dlib(self) -> tuple[list[Embedded], str]:
        """The folds of dlib's network, or the reason why there are none. Its embeddings do not depend on the fold."""
        if reason := reason_without_dlib():
            return [], reason
        embeddings = np.stack([self._dlib_draw(draw) for draw in range(self.draws + 1)])
        tested = (self.split(parts)[1] for parts in self.each_fold())
        return [Embedded(rows, embeddings[:, rows]) for rows in tested], ""

    def split(self, parts: DataConfig) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the training subjects, and those of the test subjects that are compared.

        Raises:
            InputError: no test session of the fold has the value of `tested`.
        """
        labels = self.dataset.labels
        split = make_split(labels, parts)
        tested = self.compared(labels, split.test)
        if not len(tested):
            raise InputError(
                f"--tested {self.tested}: no test session of one of the folds has this value; expected a value that more "
                "subjects have, or fewer folds"
            )
        return self._trained(labels, split.train), tested

    def compared(self, labels: Labels, rows: np.ndarray) -> np.ndarray:
        """Those of the `rows` of a table that have the value of `tested`."""
        return rows[_has_value(labels, self.tested)[rows]] if self.tested else rows

    def _trained(self, labels: Labels, rows: np.ndarray) -> np.ndarray:
        """Those of the `rows` of a table that do not have the value of `untrained`."""
        return rows[~_has_value(labels, self.untrained)[rows]] if self.untrained else rows

    def _network_fold(self, text: str, common: Sequence[str], parts: DataConfig) -> Embedded:
        config = fold_config(text, common, parts, self.threads)
        settings = {name: value for name, value in flatten(config).items() if name not in _WITHOUT_EFFECT}
        settings |= {"score_norm": True} if self.score_norm else {}
        folder = self.out / experiment_name(text) / f"{self._digest(settings)}-seed{parts.split_seed}-fold{parts.fold}"
        file = folder.with_suffix(".npz")
        if not file.exists():
            dataset = open_training_data(config, lambda line: None)
            split = make_split(dataset.labels, config.data, dataset.left_out)
            tested, rows = self.split(parts)[1], self.compared(dataset.labels, split.test)
            if dataset.labels.subset(rows).row_keys() != self.dataset.labels.subset(tested).row_keys():
                raise InputError(f"{text}: its data settings select other test sessions; change the data set instead")
            folder.mkdir(parents=True, exist_ok=True)
            if self.untrained:
                split = replace(split, train=self._trained(dataset.labels, split.train))
                write_split(folder / _SPLIT_FILE, dataset.labels, split)
                config = replace(config, data=replace(config.data, split=str(folder / _SPLIT_FILE), folds=0, fold=0))
            started = time.perf_counter()
            result = fit(config, Run(folder), lambda line: None)
            seconds = time.perf_counter() - started
            network, info = load_model(folder / BEST_CHECKPOINT, pick_device(config.device))
            copies = with_jittered_copies(dataset, rows, self.draws)
            predictions = predict(network, copies.store, np.arange(len(copies.labels)))
            shape = (self.draws + 1, len(tested), -1)
            probabilities = {name: predictions.probabilities[name].reshape(shape) for name in info.trained}
            embeddings, cohort = predictions.embeddings.reshape(shape), None
            if self.score_norm:
                cohort = cohort_cosines(embeddings, predict(network, dataset.store, split.train).embeddings)
            _write(file, Embedded(tested, _compact(embeddings), probabilities, seconds, cohort))
            shutil.rmtree(folder)
            self.echo(f"{file.stem} of {experiment_name(text)}: {result.state.epoch} epochs in {seconds:.0f} s")
        return _read(file)

    def _linear_fold(self, parts: DataConfig) -> dict[str, Embedded]:
        folder = self.out / "baselines" / f"{self._digest({})}-seed{parts.split_seed}-fold{parts.fold}"
        if not folder.is_dir():
            train, tested = self.split(parts)
            temporary = folder.with_suffix(".tmp")
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            for maps in BASELINE_MAPS:
                if not set(maps) <= set(self.dataset.store.maps):
                    continue
                known = with_modalities(self.dataset, maps)
                copies = with_jittered_copies(known, tested, self.draws)
                rows = np.arange(len(copies.labels))
                found = baseline_embeddings(known.store, known.labels, train, rows, tested=copies, seed=parts.split_seed)
                for name, embeddings in found.embeddings.items():
                    compact = _compact(embeddings.reshape(self.draws + 1, len(tested), -1))
                    _write(temporary / f"{name}.npz", Embedded(tested, compact))
            temporary.rename(folder)
            self.echo(f"{folder.name} of the linear baselines")
        return {file.stem: _read(file) for file in sorted(folder.glob("*.npz"))}

    def _probe_fold(self, maps: Sequence[str], parts: DataConfig) -> Embedded:
        stem = f"{self._digest({'maps': list(maps)})}-linear_probe-seed{parts.split_seed}-fold{parts.fold}"
        file = self.out / "baselines" / f"{stem}.npz"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            train, tested = self.split(parts)
            known = with_modalities(self.dataset, maps)
            copies = with_jittered_copies(known, tested, self.draws)
            probe = fit_attribute_probe(known, train, ATTRIBUTES, maps, seed=parts.split_seed)
            shape = (self.draws + 1, len(tested), -1)
            predicted = probe.predict(copies, np.arange(len(copies.labels)))
            probabilities = {name: found.reshape(shape) for name, found in predicted.items()}
            _write(file, Embedded(tested, np.zeros((self.draws + 1, len(tested), 0), dtype=np.float32), probabilities))
            self.echo(stem)
        return _read(file)

    def _dlib_draw(self, draw: int) -> np.ndarray:
        """(sessions, 128) embeddings of all sessions, as they are (0) or jittered by a draw."""
        file = self.out / "baselines" / f"{self._digest({'draws': None})}-{DLIB_NAME}-draw{draw}.npz"
        rows = np.arange(len(self.dataset.labels))
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            albedo = with_modalities(self.dataset, ("albedo",))
            maps = albedo.store.read(rows) if draw == 0 else _jittered(albedo, rows, draw)
            drawn = replace(albedo, store=MapStore(maps, rows, ""))
            _write(file, Embedded(rows, dlib_embeddings(drawn, rows)[None]))
            self.echo(f"{file.stem}")
        return _read(file).embeddings[0]

    def _digest(self, settings: dict) -> str:
        key = {"data": self.dataset.store.digest, "folds": self.folds, "draws": self.draws, **settings}
        key |= {"tested": self.tested} if self.tested else {}
        key |= {"untrained": self.untrained} if self.untrained else {}
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]


def experiment_name(text: str) -> str:
    """The name of a file and its further settings, for tables and folders."""
    file, *settings = shlex.split(text)
    return " ".join([Path(file).stem, *settings]).replace("/", "_")


def fold_config(text: str, common: Sequence[str], parts: DataConfig, threads: int) -> Config:
    """The settings of an experiment for one fold.

    Raises:
        InputError: a file or setting that cannot be used.
    """
    file, *settings = shlex.split(text)
    if wrong := [setting for setting in [*common, *settings] if "=" not in setting]:
        raise InputError(f"{wrong[0]!r}: expected key=value")
    flags = [f"--{setting}" for setting in [*common, *settings]]
    config = training_config(parse_command_line(["train", "--config", file, *flags])["train"])
    data = replace(
        config.data, root=parts.root, split="", val_people=0, test_people=0, folds=parts.folds, fold=parts.fold,
        split_seed=parts.split_seed, protocol="subject_disjoint", gallery=0,
    )  # fmt: skip
    return replace(config, data=data, train=replace(config.train, seed=parts.split_seed, threads=threads))


def _check_condition(labels: Labels, condition: str, flag: str) -> None:
    """Check that some session fulfils `COLUMN=VALUE`.

    Raises:
        InputError: there is no such column, or no session has that value.
    """
    column, _, value = condition.partition("=")
    if column not in labels.columns:
        raise InputError(f"{flag} {condition}: no column {column!r}; expected one of {', '.join(labels.columns)}")
    found = labels.columns[column]
    if value not in found:
        raise InputError(f"{flag} {condition}: {column} is never {value!r}; it has {', '.join(np.unique(found))}")


def _has_value(labels: Labels, condition: str) -> np.ndarray:
    """(n,) whether each session of the table fulfils `COLUMN=VALUE`."""
    column, _, value = condition.partition("=")
    found: np.ndarray = labels.columns[column] == value
    return found


def with_modalities(dataset: Dataset, modalities: Sequence[str]) -> Dataset:
    """The same sessions with some of their maps."""
    return replace(dataset, store=dataset.store.with_modalities(modalities))


def with_jittered_copies(dataset: Dataset, rows: np.ndarray, draws: int) -> Dataset:
    """A data set in memory: the n rows as they are, then jittered by each draw; row d n + i is session i in draw d."""
    copies = [dataset.store.read(rows), *(_jittered(dataset, rows, draw) for draw in range(1, draws + 1))]
    maps = {name: np.concatenate([copy[name] for copy in copies]) for name in dataset.store.maps}
    labels = dataset.labels.subset(np.tile(rows, draws + 1))
    everything = np.arange(len(labels))
    return replace(dataset, labels=labels, selected=everything, all_labels=labels, store=MapStore(maps, everything, ""))


def _jittered(dataset: Dataset, rows: np.ndarray, draw: int) -> dict[str, np.ndarray]:
    """Draw 1 is that of `fr-ps evaluate --jitter`."""
    labels: Labels = dataset.labels
    return jitter(dataset.store.read(rows), labels.ids[rows], labels.sessions[rows], TEST_SEED + draw - 1)


def _compact(embeddings: np.ndarray) -> np.ndarray:
    """(d, n, min(n, k)) float32 with the same inner products between the n vectors of each draw as (d, n, k)."""
    if embeddings.shape[2] <= embeddings.shape[1]:
        return embeddings
    return np.stack([np.linalg.qr(one.astype(np.float64).T, mode="r").T for one in embeddings]).astype(np.float32)


def _write(path: Path, embedded: Embedded) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(
            file, allow_pickle=False, rows=embedded.rows, embeddings=embedded.embeddings, seconds=embedded.seconds,
            **embedded.probabilities, **({} if embedded.cohort is None else {"cohort": embedded.cohort}),
        )  # fmt: skip
    temporary.replace(path)


def _read(path: Path) -> Embedded:
    with np.load(path, allow_pickle=False) as found:
        probabilities = {name: found[name] for name in ATTRIBUTES if name in found}
        return Embedded(found["rows"], found["embeddings"], probabilities, float(found["seconds"]), found.get("cohort"))
