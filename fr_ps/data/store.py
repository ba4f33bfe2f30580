"""The packed store: all maps of a data set in one memory-mapped array per modality, built once, rebuilt when stale."""

import hashlib
import io
import sys
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from fr_ps.cache import cache_folder, checksum, remove
from fr_ps.data.labels import Labels
from fr_ps.data.layout import CHANNELS, map_files, read_map
from fr_ps.errors import InputError, one_line
from fr_ps.files import atomic_folder, remove_stale_temp, sync_file, translate_write_errors, write_json
from fr_ps.json_files import NonNegativeInt, read_json
from fr_ps.locks import LOCK_FILE, file_lock
from fr_ps.progress import OnProgress, echo, no_progress

_FORMAT = 2
_INFO_FILE = "info.json"


@dataclass(frozen=True)
class _PackInfo:
    """The content of a pack's `info.json`.

    Attributes:
        digest: of the content of the maps.
        crc32: checksum of the file of maps and of the digest.
    """

    digest: str
    crc32: NonNegativeInt


_verified: set[tuple[object, ...]] = set()
"""States of packs whose checksum this process has compared."""


@dataclass(frozen=True)
class MapStore:
    """The maps of the n selected sessions of a data set.

    Attributes:
        maps: modality to (N, C, H, W) float32 of the whole table, memory-mapped.
        selected: (n,) the row of each session in the whole table.
        digest: of the content of the maps and the selected rows, 32 hexadecimal digits.
    """

    maps: dict[str, np.ndarray]
    selected: np.ndarray
    digest: str

    @property
    def size(self) -> int:
        """Side of the maps in pixels."""
        return next(iter(self.maps.values())).shape[-1]

    def read(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The maps of some of the n sessions: modality to (len(rows), C, H, W) float32, copied into memory."""
        return {modality: maps[self.selected[rows]] for modality, maps in self.maps.items()}

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

    The first time a process opens a pack, it verifies the checksum of the whole file: 0.4 s for 300 MB (normals of 2,000
    sessions) on one core. A damaged pack is rebuilt, with a line on standard error.

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
    maps, digests = {}, []
    for modality in modalities:
        maps[modality], digest = _open_or_pack(root, labels, modality, advance)
        digests.append(digest)
    shapes = {modality: array.shape[2:] for modality, array in maps.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"{root}: the modalities differ in size ({shapes}); prepare them together")
    selected = np.arange(len(labels)) if selected is None else selected
    used = labels.subset(selected)
    table = "\n".join(map("/".join, used.row_keys())).encode() + used.codes.tobytes()
    return MapStore(maps, selected, hashlib.sha256("".join(digests).encode() + table).hexdigest()[:32])


class _CorruptPack(Exception):
    """A pack is missing or damaged; the message describes the damage."""


def _open_or_pack(root: Path, labels: Labels, modality: str, advance: OnProgress) -> tuple[np.ndarray, str]:
    """The memory-mapped pack of one modality and the digest of its maps; written if missing or damaged."""
    files = map_files(root, labels, modality)
    state = hashlib.sha256(f"{_FORMAT}".encode())
    for file in files:
        stat = file.stat()
        state.update(f"{file.relative_to(root)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    packs = cache_folder() / "packed" / hashlib.sha256(f"{root.resolve()}\0{modality}".encode()).hexdigest()[:16]
    folder = packs / state.hexdigest()[:16]
    with suppress(_CorruptPack):  # missing, damaged, or being written by another process: opened again under the lock
        return _open_pack(folder, modality)
    with file_lock(packs), translate_write_errors(folder):
        if folder.exists():
            try:
                return _open_pack(folder, modality)
            except _CorruptPack as damage:
                echo(f"cache: {folder} is damaged ({damage}); packing the {modality} maps again", sys.stderr)
                remove(folder)
        remove_stale_temp(packs)
        _write_pack(files, modality, folder, advance)
        for other in packs.iterdir():
            if other.name not in (folder.name, LOCK_FILE):
                remove(other)
        try:
            return _open_pack(folder, modality)
        except _CorruptPack as damage:
            raise InputError(
                f"{folder}: unreadable after writing ({damage}); check the disk, or set FR_PS_CACHE to another folder"
            ) from None


def _open_pack(folder: Path, modality: str) -> tuple[np.ndarray, str]:
    """The memory-mapped maps of a pack and their digest. Compares the checksum on the first opening in this process.

    Raises:
        _CorruptPack: a file is missing or was changed.
    """
    path, info = folder / f"{modality}.npy", folder / _INFO_FILE
    try:
        pack_info = read_json(info, _PackInfo, "packing again")
        digest, expected = pack_info.digest, pack_info.crc32
        stat = path.stat()
        state = (path, stat.st_ino, stat.st_size, stat.st_mtime_ns, digest, expected)
        if state not in _verified:
            if _checksum_with_digest(checksum(path), digest) != expected:
                raise _CorruptPack(f"{path.name} and its checksum differ")
            _verified.add(state)
        return np.load(path, mmap_mode="r", allow_pickle=False), digest
    except OSError as error:
        raise _CorruptPack(f"{Path(error.filename or path).name}: {error.strerror}") from None
    except (ValueError, InputError) as error:
        raise _CorruptPack(one_line(error)) from None


def _checksum_with_digest(crc: int, digest: str) -> int:
    """The checksum of a pack. It also covers the digest, by which runs and models identify their data."""
    return zlib.crc32(digest.encode(), crc)


def _write_pack(files: list[Path], modality: str, folder: Path, advance: OnProgress) -> None:
    first = read_map(files[0], modality)
    if first.shape[1] != first.shape[2]:
        raise InputError(f"{files[0]}: {first.shape[2]} x {first.shape[1]}; maps must be square (prepare makes them so)")
    shape = (len(files), CHANNELS[modality], *first.shape[1:])
    content = hashlib.sha256()
    with atomic_folder(folder) as temporary:
        path = temporary / f"{modality}.npy"
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
        crc = zlib.crc32(header.getvalue())
        with path.open("wb") as file:
            file.write(header.getvalue())
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
                crc = zlib.crc32(raw, crc)
                advance(1)
            sync_file(file)
        digest = content.hexdigest()
        write_json(temporary / _INFO_FILE, asdict(_PackInfo(digest, _checksum_with_digest(crc, digest))))
