"""A data set ready for training: its checked labels and its packed maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fr_ps.config import DataConfig
from fr_ps.data.labels import Classes, Labels, read_labels
from fr_ps.data.layout import LABELS_FILE, find_orphans
from fr_ps.data.row_selection import select_rows
from fr_ps.data.store import MapStore, open_store
from fr_ps.errors import InputError
from fr_ps.photometric.orientation import ORIENTATION_SAMPLE, axes_warning, normal_statistics
from fr_ps.progress import progress
from fr_ps.tables import SessionKey


@dataclass(frozen=True)
class LabelTable:
    """The labels of the sessions that the settings select.

    Two kinds of row indices: those of a split and of `MapStore.read` are indices into `labels`; the values of `selected` and the
    rows of a pack (`MapStore.maps`) are rows of the whole table.

    Attributes:
        labels: the n selected sessions.
        selected: (n,) the row of each of them in `all_labels`.
        all_labels: the whole table.
        orphans: sessions (`id/session`) that have a folder but no row in the table; they are ignored.
        notes: lines for the user: sessions left out by each setting, orphans, suspicious normals.
    """

    labels: Labels
    selected: np.ndarray
    all_labels: Labels
    orphans: list[str]
    notes: list[str]

    @property
    def left_out(self) -> list[SessionKey]:
        """(id, session) of the rows that are not selected."""
        left = np.ones(len(self.all_labels), dtype=bool)
        left[self.selected] = False
        return self.all_labels.subset(np.flatnonzero(left)).row_keys()


@dataclass(frozen=True)
class Dataset(LabelTable):
    """Labels and maps of the selected sessions.

    Attributes:
        root: folder of the prepared data set.
        store: the maps; `store.read` takes indices into `labels`.
    """

    root: Path
    store: MapStore


def open_table(root: Path, config: DataConfig | None = None, classes: Classes | None = None) -> LabelTable:
    """The selected rows of the labels table at `root`: a prepared data set or a CSV file.

    Args:
        root: folder or table.
        config: encoding and classes of the labels, and the settings that select rows; None: the defaults, all rows.
        classes: replace those of `config`.

    Raises:
        InputError: the table is missing or the data set unfinished, or labels or settings are invalid.
    """
    config = config or DataConfig()
    labels = read_labels(root if root.is_file() else find_labels_file(root), config.labels, classes or config.classes)
    selection = select_rows(labels, config)
    orphans = [] if root.is_file() else find_orphans(root, labels)
    notes = list(selection.notes)
    if orphans:
        notes.append(f"ignored: {len(orphans)} session folders without a row in the table, e.g. {orphans[0]}")
    chosen = labels if len(selection.selected) == len(labels) else labels.subset(selection.selected)
    return LabelTable(chosen, selection.selected, labels, orphans, notes)


def open_dataset(
    root: Path, modalities: Sequence[str], config: DataConfig | None = None, classes: Classes | None = None
) -> Dataset:
    """The prepared data set at `root`; packs its maps if they are not packed yet.

    Args:
        root: folder of the data set.
        modalities: the maps to open.
        config, classes: as in `open_table`.

    Raises:
        InputError: the data set is missing or unfinished, or labels, maps or settings are invalid.
    """
    find_labels_file(root)  # rejects a CSV file, which `open_table` would accept
    table = open_table(root, config, classes)
    with progress("pack maps", len(table.all_labels) * len(modalities), "maps") as advance:
        store = open_store(root, table.all_labels, modalities, advance, table.selected)
    notes = [*table.notes, *_orientation_notes(store)]
    return Dataset(table.labels, table.selected, table.all_labels, table.orphans, notes, root, store)


def _orientation_notes(store: MapStore) -> list[str]:
    """A warning if the normals of the selected sessions probably have wrong axes."""
    if "normal" not in store.maps:
        return []
    count = len(store.selected)
    sample = np.unique(np.linspace(0, count - 1, min(count, ORIENTATION_SAMPLE)).astype(int))
    normals = store.with_modalities(["normal"])
    warning = axes_warning([normal_statistics(normals.read(np.array([row]))["normal"][0]) for row in sample])
    return [warning] if warning else []


def find_labels_file(root: Path) -> Path:
    """The labels table of the prepared data set at `root`.

    Raises:
        InputError: `root` is not a folder, or not a finished data set.
    """
    if root.is_file():
        raise InputError(f"{root}: is a file, but maps are required; set data.root to the folder of a prepared data set")
    if not root.is_dir():
        raise InputError(f"{root}: no such data folder; write it by fr-ps prepare, and set data.root to it")
    if not (root / LABELS_FILE).is_file():
        raise InputError(f"{root / LABELS_FILE}: no such file, so this data set is not finished; run fr-ps prepare (again)")
    return root / LABELS_FILE
