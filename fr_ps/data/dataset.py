"""A data set ready for batches: its checked labels and its packed maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fr_ps.config import DataConfig, LabelForm
from fr_ps.data.labels import Classes, Labels, read_labels
from fr_ps.data.layout import LABELS_FILE, find_orphans
from fr_ps.data.row_selection import select_rows
from fr_ps.data.store import MapStore, open_store
from fr_ps.errors import InputError
from fr_ps.photometric.orientation import axes_warning, normal_statistics
from fr_ps.progress import progress
from fr_ps.tables import SessionKey

_ORIENTATION_SAMPLE = 200
"""Sessions whose normals' axes are judged: enough for a median."""


@dataclass(frozen=True)
class LabelTable:
    """The sessions of a data set that are used.

    Attributes:
        labels: their rows.
        rows: (n,) where these stand in the whole table.
        whole: the whole table.
        ignored: sessions (`id/session`) whose maps are there but that no row names.
        notes: for the user: a line for each setting that left sessions out, and one about those that are ignored.
    """

    labels: Labels
    rows: np.ndarray
    all_labels: Labels
    orphans: list[str]
    notes: list[str]

    @property
    def left_out(self) -> list[SessionKey]:
        """(id, session) of the others."""
        others = self.all_labels.subset(np.setdiff1d(np.arange(len(self.all_labels)), self.rows))
        return list(zip(others.ids.tolist(), others.sessions.tolist()))


@dataclass(frozen=True)
class Dataset:
    """Labels and maps by the same row, of the sessions that are used.

    Attributes:
        root: folder of the prepared data set.
        labels: its table.
        store: its maps.
        ignored: sessions (`id/session`) whose maps are there but that no row names.
        left_out: (id, session) of the rows that the settings leave out.
        notes: for the user: those of the table, and a warning where the normals seem to have wrong axes.
    """

    root: Path
    labels: Labels
    store: MapStore
    orphans: list[str]
    left_out: list[SessionKey]
    notes: list[str]


def open_table(
    root: Path, encoding: LabelForm = "auto", classes: Classes | None = None, selection: DataConfig | None = None
) -> LabelTable:
    """The labels table of the prepared data set at `root`, or that is `root`, a CSV file.

    Args:
        root: folder or table.
        form: how the attributes are coded.
        classes: classes of raw values that replace the default ones.
        selection: its settings `only`, `limits`, `subsample_...` say which rows are used; None: all.

    Raises:
        InputError: it is missing or unfinished, or labels or settings are bad.
    """
    whole = read_labels(root if root.is_file() else find_labels_file(root), encoding, classes)
    chosen = select_rows(whole, selection or DataConfig())
    ignored = [] if root.is_file() else find_orphans(root, whole)
    notes = list(chosen.notes)
    if ignored:
        notes.append(f"ignored: {len(ignored)} sessions with maps but no row in the table, as {ignored[0]}")
    return LabelTable(whole.subset(chosen.rows), chosen.rows, whole, ignored, notes)


def open_dataset(
    root: Path,
    modalities: Sequence[str],
    encoding: LabelForm = "auto",
    classes: Classes | None = None,
    selection: DataConfig | None = None,
) -> Dataset:
    """The prepared data set at `root`; packs its maps where that was not done yet. Arguments as of `open_table`.

    Raises:
        InputError: it is missing or unfinished, or labels, maps or settings are bad.
    """
    find_labels_file(root)
    table = open_table(root, encoding, classes, selection)
    with progress("pack maps", len(table.all_labels) * len(modalities), "maps") as advance:
        store = open_store(root, table.all_labels, modalities, advance, table.rows)
    notes = [*table.notes, *_orientation_notes(store)]
    return Dataset(root, table.labels, store, table.orphans, table.left_out, notes)


def _orientation_notes(store: MapStore) -> list[str]:
    """A warning where the normals of the sessions that are used seem to have other axes than they should."""
    if "normal" not in store.maps:
        return []
    rows = np.unique(np.linspace(0, len(store.rows) - 1, min(len(store.rows), _ORIENTATION_SAMPLE)).astype(int))
    warning = axes_warning([normal_statistics(store.read(rows[place : place + 1])["normal"][0]) for place in range(len(rows))])
    return [warning] if warning else []


def find_labels_file(root: Path) -> Path:
    """The labels table of the prepared data set at `root`.

    Raises:
        InputError: `root` is no folder, or no finished data set.
    """
    if root.is_file():
        raise InputError(f"{root}: is a file, and maps are needed; name the folder of a prepared data set by data.root")
    if not root.is_dir():
        raise InputError(f"{root}: no such data folder; write it by fr-ps prepare, and name it by data.root")
    if not (root / LABELS_FILE).is_file():
        raise InputError(f"{root / LABELS_FILE}: no such file, so this is no finished data set; run fr-ps prepare (again)")
    return root / LABELS_FILE
