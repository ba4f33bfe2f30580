"""The packed store: all maps of a data set in one memory-mapped array per modality, built once, rebuilt when stale."""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fr_ps.cache import cache_folder, remove
from fr_ps.data.labels import Labels
from fr_ps.data.layout import CHANNELS, map_files, read_map, stat_map_files
from fr_ps.data.pack import PackReader, UnusablePack, open_pack, write_pack
from fr_ps.errors import InputError
from fr_ps.files import atomic_folder, remove_stale_temp, translate_write_errors
from fr_ps.locks import LOCK_FILE, file_lock
from fr_ps.progress import OnProgress, echo, no_progress

_FORMAT = 3


@dataclass(frozen=True)
class MapStore:
    """The maps of the n selected sessions of a data set.

    Attributes:
        maps: modality to (N, C, H, W) float32 of the whole table, memory-mapped.
        selected: (n,) the row of each session in the whole table.
        digest: of the content of all maps of the table, and of id, session and attribute classes of the selected rows;
            32 hexadecimal digits.
        readers: modality to the reader of its pack, which compares checksums; without one, `maps` are read as they are.
    """

    maps: dict[str, np.ndarray]
    selected: np.ndarray
    digest: str
    readers: Mapping[str, PackReader] = field(default_factory=dict)

    @property
    def map_size(self) -> int:
        """Side of the maps in pixels."""
        return next(iter(self.maps.values())).shape[-1]

    def read(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The maps of the sessions at (k,) `rows`, indices into the n selected ones: modality to (k, C, H, W) float32 in memory.

        Raises:
            InputError: as `PackReader.read`.
        """
        stored = self.selected[rows]
        return {
            name: self.readers[name].read(stored) if name in self.readers else maps[stored] for name, maps in self.maps.items()
        }

    def with_modalities(self, modalities: Sequence[str]) -> "MapStore":
        """The same sessions, with some of the modalities; the digest stays that of all."""
        return replace(self, maps={modality: self.maps[modality] for modality in modalities})


def open_store(
    root: Path, labels: Labels, modalities: Sequence[str], advance: OnProgress = no_progress, selected: np.ndarray | None = None
) -> MapStore:
    """The packed maps of the data set at `root`, in the order of the table.

    A pack contains the maps of one modality for all rows of the table, so that trainings on different selections share it. The
    cache key contains the name, size and modification time of every map file: changed maps are packed again, and outdated packs
    of the same data set are removed. `root` itself is only read.

    A pack whose damage shows at opening is rebuilt, with a line on standard error. Each map is compared with its checksum when a
    process reads it for the first time (see `PackReader`).

    Args:
        root: of the prepared data set.
        labels: its whole table.
        modalities: the maps to open.
        advance: called with the number of maps packed since the last call; N rows x modalities in total for a new
            data set.
        selected: the selected rows of the table; None for all.

    Raises:
        InputError: a row without a map, or a map that `read_map` rejects.
    """
    readers, digests = {}, []
    for modality in modalities:
        readers[modality], digest = _open_or_pack(root, labels, modality, advance)
        digests.append(digest)
    maps: dict[str, np.ndarray] = {modality: reader.maps for modality, reader in readers.items()}
    shapes = {modality: array.shape[2:] for modality, array in maps.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"{root}: the modalities differ in size ({shapes}); prepare them together")
    selected = np.arange(len(labels)) if selected is None else selected
    names = map("/".join, zip(labels.ids[selected].tolist(), labels.sessions[selected].tolist()))
    table = "\n".join(names).encode() + labels.codes[selected].tobytes()
    return MapStore(maps, selected, hashlib.sha256("".join(digests).encode() + table).hexdigest()[:32], readers)


def _open_or_pack(root: Path, labels: Labels, modality: str, advance: OnProgress) -> tuple[PackReader, str]:
    """The pack of one modality, which is written if it is missing or damaged, and the digest of its maps."""
    packs = cache_folder() / "packed" / hashlib.sha256(f"{root.resolve()}\0{modality}".encode()).hexdigest()[:16]
    folder = packs / _files_state(root, labels, modality)

    def source(row: int) -> Path:
        return map_files(root, labels.subset(np.array([row])), modality)[0]

    # First the pack is opened without the lock. If that fails, it is opened under the lock, because another process may have
    # written it meanwhile. If that fails, this process writes it and opens it.
    with suppress(UnusablePack):
        return open_pack(folder, modality, source)
    with file_lock(packs), translate_write_errors(folder):
        if folder.exists():
            try:
                return open_pack(folder, modality, source)
            except UnusablePack as damage:
                echo(f"cache: {folder} is damaged ({damage}); packing the {modality} maps again", sys.stderr)
                remove(folder)
        remove_stale_temp(packs)
        _pack_files(map_files(root, labels, modality), modality, folder, advance)
        for other in packs.iterdir():
            if other.name not in (folder.name, LOCK_FILE):
                remove(other)
        try:
            return open_pack(folder, modality, source)
        except UnusablePack as damage:
            raise InputError(
                f"{folder}: unreadable after writing ({damage}); check the disk, or set FR_PS_CACHE to another folder"
            ) from None


def _files_state(root: Path, labels: Labels, modality: str) -> str:
    """16 hexadecimal digits of name, size and modification time of every map file."""
    state = hashlib.sha256(f"{_FORMAT}".encode())
    prefix = f"{root}/"
    for path, status in stat_map_files(root, labels, modality):
        # `removeprefix` and not a slice: with the root ".", pathlib drops "./" from some paths.
        state.update(f"{path.removeprefix(prefix)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return state.hexdigest()[:16]


def _pack_files(files: Sequence[Path], modality: str, folder: Path, advance: OnProgress) -> None:
    """Pack the maps in `files`, of which the first sets the size.

    Raises:
        InputError: a map that `read_map` rejects, that is not square, or of another size.
    """
    first = read_map(files[0], modality)
    if first.shape[1] != first.shape[2]:
        raise InputError(f"{files[0]}: {first.shape[2]} x {first.shape[1]}; maps must be square (prepare makes them so)")
    shape = (len(files), CHANNELS[modality], *first.shape[1:])
    with atomic_folder(folder) as temporary:
        write_pack(temporary, modality, shape, _read_maps(files, modality, first.shape), advance)


def _read_maps(files: Sequence[Path], modality: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    for source in files:
        array = read_map(source, modality)
        if array.shape != shape:
            raise InputError(
                f"{source}: {array.shape[2]} x {array.shape[1]}, but {files[0]} is {shape[2]} x {shape[1]}; "
                "all maps must have one size"
            )
        yield array
