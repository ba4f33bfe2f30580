"""The packed store: all maps of a data set in one memory-mapped array a modality, built once, rebuilt when stale."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fr_ps.data.cache import cache_folder
from fr_ps.data.labels import Labels
from fr_ps.data.layout import CHANNELS, map_files, read_map
from fr_ps.errors import InputError
from fr_ps.files import locked, new_folder, sync_file, write_json
from fr_ps.progress import Advance, silent

_FORMAT = 2
_INFO_FILE = "info.json"


@dataclass(frozen=True)
class Store:
    """Maps by row of the labels table.

    Attributes:
        maps: modality to (N, C, H, W) float32 of the whole table, mapped from disk: only what is read takes memory.
        rows: (n,) the rows of the table that are used; what `read` takes are places in it.
        digest: of the maps' content and the rows of the table that are used, 32 hexadecimal digits.
    """

    maps: dict[str, np.ndarray]
    rows: np.ndarray
    digest: str

    @property
    def size(self) -> int:
        """Side of the maps in pixels."""
        return next(iter(self.maps.values())).shape[-1]

    def read(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The maps of some rows, as a copy in memory: modality to (len(rows), C, H, W) float32."""
        return {modality: maps[self.rows[rows]] for modality, maps in self.maps.items()}


def open_store(
    root: Path, labels: Labels, modalities: Sequence[str], advance: Advance = silent, rows: np.ndarray | None = None
) -> Store:
    """The packed maps of the data set at `root`, in the order of the table.

    The whole table is packed, whichever rows are used, so that trainings on different ones share one pack.

    The cache is keyed by every map file's name, size and time of change: what changed is packed anew, and the packs of
    the same data set that it replaces are removed. `root` itself is only read.

    Args:
        root: of the prepared data set.
        labels: its table.
        modalities: which maps.
        advance: called with the number of maps done (N rows x modalities in all), where something has to be packed.
        rows: that are used; None for all.

    Raises:
        InputError: a row without a map, or a map that `read_map` refuses.
    """
    maps, digests = {}, []
    for modality in modalities:
        folder = _packed(root, labels, modality, advance)
        maps[modality] = np.load(folder / f"{modality}.npy", mmap_mode="r", allow_pickle=False)
        digests.append(json.loads((folder / _INFO_FILE).read_text())["digest"])
    shapes = {modality: array.shape[2:] for modality, array in maps.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"{root}: the modalities differ in size ({shapes}); prepare them together")
    rows = np.arange(len(labels)) if rows is None else rows
    used = labels.take(rows)
    table = "\n".join(map("/".join, zip(used.ids, used.sessions))).encode() + used.codes.tobytes()
    return Store(maps, rows, hashlib.sha256("".join(digests).encode() + table).hexdigest()[:32])


def _packed(root: Path, labels: Labels, modality: str, advance: Advance) -> Path:
    files = map_files(root, labels, modality)
    state = hashlib.sha256(f"{_FORMAT}".encode())
    for file in files:
        stat = file.stat()
        state.update(f"{file.relative_to(root)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    family = cache_folder() / "packed" / hashlib.sha256(f"{root.resolve()}\0{modality}".encode()).hexdigest()[:16]
    folder = family / state.hexdigest()[:16]
    with locked(family):
        if not (folder / _INFO_FILE).is_file():
            _pack(files, modality, folder, advance)
            for other in family.iterdir():
                if other.is_dir() and other != folder:
                    shutil.rmtree(other, ignore_errors=True)
    return folder


def _pack(files: list[Path], modality: str, folder: Path, advance: Advance) -> None:
    first = read_map(files[0], modality)
    if first.shape[1] != first.shape[2]:
        raise InputError(f"{files[0]}: {first.shape[2]} x {first.shape[1]}; maps must be square (prepare makes them so)")
    shape = (len(files), CHANNELS[modality], *first.shape[1:])
    content = hashlib.sha256()
    with new_folder(folder) as temporary:
        path = temporary / f"{modality}.npy"
        with path.open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for source in files:
                array = read_map(source, modality)
                if array.shape != first.shape:
                    raise InputError(
                        f"{source}: {array.shape[2]} x {array.shape[1]}, but {files[0]} is {first.shape[2]} x {first.shape[1]}; "
                        "all maps must have one size"
                    )
                raw = array.astype("<f4", copy=False).tobytes()
                file.write(raw)
                content.update(raw)
                advance(1)
            sync_file(file)
        write_json(temporary / _INFO_FILE, {"digest": content.hexdigest()})
