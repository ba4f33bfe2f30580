"""A data set ready for batches: its checked labels and its packed maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fr_ps.config import LabelForm
from fr_ps.data.labels import Classes, Labels, read_labels
from fr_ps.data.layout import LABELS_FILE, unlisted
from fr_ps.data.store import Store, open_store
from fr_ps.errors import InputError
from fr_ps.progress import progress


@dataclass(frozen=True)
class Dataset:
    """Labels and maps by the same row.

    Attributes:
        root: folder of the prepared data set.
        labels: its table.
        store: its maps.
        ignored: sessions (`id/session`) whose maps are there but that no row names.
    """

    root: Path
    labels: Labels
    store: Store
    ignored: list[str]


def open_dataset(root: Path, modalities: Sequence[str], form: LabelForm = "auto", classes: Classes | None = None) -> Dataset:
    """The prepared data set at `root`; packs its maps where that was not done yet.

    Raises:
        InputError: it is missing or unfinished, or labels or maps are bad.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such data folder; write it by fr-ps prepare, and name it by data.root")
    if not (root / LABELS_FILE).is_file():
        raise InputError(f"{root / LABELS_FILE}: no such file, so this is no finished data set; run fr-ps prepare (again)")
    labels = read_labels(root / LABELS_FILE, form, classes)
    with progress("pack maps", len(labels) * len(modalities), "maps") as advance:
        store = open_store(root, labels, modalities, advance)
    return Dataset(root, labels, store, unlisted(root, labels))
