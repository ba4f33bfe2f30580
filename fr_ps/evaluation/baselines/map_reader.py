"""Maps of training and test sessions, read and jittered in batches, and turned into vectors."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fr_ps.data.labels import Labels
from fr_ps.data.store import MapStore
from fr_ps.evaluation.baselines.training_rows import MapSources, count_maps
from fr_ps.evaluation.jitter import jitter
from fr_ps.progress import OnProgress

Maps = dict[str, np.ndarray]
"""Modality to (b, C, H, W) float32."""

ToVectors = Callable[[Maps], np.ndarray]
"""Function from the maps of b sessions to their (b, D) float32 vectors."""

_BATCH = 64


@dataclass(frozen=True)
class MapReader:
    """Reads maps of a data set in batches.

    Attributes:
        store: store of the maps.
        labels: labels of the store's rows.
        advance: called with the number of maps read.
        prepare: changes the maps of each batch after the jitter; None: they stay as they are.
    """

    store: MapStore
    labels: Labels
    advance: OnProgress
    prepare: Callable[[Maps], Maps] | None = None

    def batches(self, sources: MapSources) -> Iterator[Maps]:
        """The maps of all sources, one source after the other."""
        for rows, seed in sources:
            for start in range(0, len(rows), _BATCH):
                some = rows[start : start + _BATCH]
                maps = self.store.read(some)
                if seed is not None:
                    maps = jitter(maps, self.labels.ids[some], self.labels.sessions[some], seed)
                yield self.prepare(maps) if self.prepare else maps
                self.advance(len(some))

    def vectors(self, functions: Mapping[str, ToVectors], sources: MapSources) -> dict[str, np.ndarray]:
        """Name of each function to its (n, D) float32 vectors of the n maps of all sources; empty if n is 0."""
        total, done = count_maps(sources), 0
        found: dict[str, np.ndarray] = {}
        for maps in self.batches(sources):
            parts = {name: function(maps) for name, function in functions.items()}
            found = found or {name: np.empty((total, part.shape[1]), dtype=np.float32) for name, part in parts.items()}
            count = len(next(iter(maps.values())))
            for name, part in parts.items():
                found[name][done : done + count] = part
            done += count
        return found


@dataclass(frozen=True)
class BaselineMaps:
    """The maps that baselines are fitted on, and those that they embed.

    Attributes:
        train: reader of the training maps.
        rows: (n,) training rows.
        repeated_rows: those of the subjects with two sessions or more.
        test: reader of the test maps, of the same modalities.
        test_maps: test rows and their jitter.
        seed: random seed of the jittered copies and the principal components.
    """

    train: MapReader
    rows: np.ndarray
    repeated_rows: np.ndarray
    test: MapReader
    test_maps: MapSources
    seed: int

    @property
    def modalities(self) -> list[str]:
        """The modalities that the readers read."""
        return list(self.train.store.maps)

    @property
    def repeated_ids(self) -> np.ndarray:
        """Subjects of `repeated_rows`."""
        return self.train.labels.ids[self.repeated_rows]

    @property
    def no_components(self) -> str:
        """Why principal components cannot be fitted; empty if they can."""
        return "" if len(self.rows) > 1 else "fewer than two training sessions"

    @property
    def no_wccn(self) -> str:
        """Why the covariance within subjects cannot be fitted; empty if it can."""
        return "" if len(self.repeated_rows) else self.no_components or "no training subject has two sessions"

    def with_modalities(self, modalities: Sequence[str]) -> "BaselineMaps":
        """The same, of some of the modalities."""
        train, test = (replace(one, store=one.store.with_modalities(modalities)) for one in (self.train, self.test))
        return replace(self, train=train, test=test)

    def prepared(self, prepare: Callable[[Maps], Maps]) -> "BaselineMaps":
        """The same, with each batch of training and test maps changed by `prepare`."""
        return replace(self, train=replace(self.train, prepare=prepare), test=replace(self.test, prepare=prepare))

    def test_vectors(self, functions: Mapping[str, ToVectors]) -> dict[str, np.ndarray]:
        """Name of each function to its (n, D) float32 vectors of the n test maps."""
        return self.test.vectors(functions, self.test_maps)


def pixels_of(modality: str) -> ToVectors:
    """A function to the (b, C H W) flattened maps of a modality."""
    return lambda maps: flatten(maps[modality])


def flatten(maps: np.ndarray) -> np.ndarray:
    """(b, C H W) from (b, C, H, W)."""
    return maps.reshape(len(maps), -1)
