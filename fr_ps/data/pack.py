"""A pack: the maps of one modality of a data set in one memory-mapped file, with a checksum of each map.

A pack is a folder with `{modality}.npy`, `crc32.npy` (one checksum a map) and `info.json`. Opening it checks the size of the
file of maps, and one checksum over its metadata: header, checksums of the maps, and digest. Opening does not read the maps,
so it takes the same time for maps of any size. The checksum of a map is compared when a process reads the map for the first time.
"""

import mmap
import sys
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from fr_ps.data.layout import read_map
from fr_ps.errors import InputError, one_line
from fr_ps.files import sync_file, write_json
from fr_ps.json_files import NonNegativeInt, read_json
from fr_ps.npy import array_header, read_array, write_array
from fr_ps.progress import OnProgress, echo

INFO_FILE = "info.json"
_CHECKSUM_FILE = "crc32.npy"
_FLOAT32 = np.dtype("<f4")


@dataclass(frozen=True)
class PackInfo:
    """The content of a pack's `info.json`.

    Attributes:
        digest: of the content of the maps.
        crc32: checksum of the header of the maps, of their checksums and of the digest.
    """

    digest: str
    crc32: NonNegativeInt


class UnusablePack(Exception):
    """A pack is missing or damaged; the message describes the damage."""


class PackReader:
    """Reads maps of a pack, and compares the checksum of each when this process reads it for the first time.

    Args:
        maps: (N, C, H, W) float32, memory-mapped.
        checksums: (N,) CRC-32 of each map.
        source: function from a row to the file that its map was packed from.
        modality: of the maps.
    """

    def __init__(self, maps: np.memmap, checksums: np.ndarray, source: Callable[[int], Path], modality: str) -> None:
        self.maps, self.checksums, self.source, self.modality = maps, checksums, source, modality
        self.verified = np.zeros(len(maps), dtype=bool)
        self.found_damage = False

    def read(self, rows: np.ndarray) -> np.ndarray:
        """(n, C, H, W) the maps of (n,) rows of the whole table, copied into memory. A damaged map is read from its source.

        Raises:
            InputError: a map is damaged, and its source is missing or was changed since it was packed.
        """
        self._prefetch(rows)
        maps = np.asarray(self.maps[rows])
        for place in np.flatnonzero(~self.verified[rows]):
            row = int(rows[place])
            if zlib.crc32(maps[place]) == self.checksums[row]:
                self.verified[row] = True
            else:
                maps[place] = self._read_source(row)
        return maps

    def _prefetch(self, rows: np.ndarray) -> None:
        """Ask the system to load these rows from disk in advance. Otherwise the system's read-ahead at each page fault loads far
        more than one map, most of which the batch does not use."""
        if not hasattr(mmap, "MADV_WILLNEED"):  # Windows
            return
        mapped, size = self.maps.base, self.maps[0].nbytes
        assert isinstance(mapped, mmap.mmap)
        begin = len(mapped) - len(self.maps) * size  # the header of the .npy file is before the maps
        for row in rows.tolist():
            start = begin + row * size
            page = start - start % mmap.PAGESIZE
            mapped.madvise(mmap.MADV_WILLNEED, page, start + size - page)

    def _read_source(self, row: int) -> np.ndarray:
        """The map of a row from its source. The first call prints a line and removes `info.json`, so that the maps are
        packed again when they are opened next."""
        pack, source = Path(str(self.maps.filename)).parent, self.source(row)
        if not self.found_damage:
            self.found_damage = True
            echo(
                f"cache: the copy of {source} in {pack} is damaged; the original is read now, and the next run copies it again",
                sys.stderr,
            )
            (pack / INFO_FILE).unlink(missing_ok=True)
        found = read_map(source, self.modality)
        if zlib.crc32(found.astype(_FLOAT32).tobytes()) != self.checksums[row]:
            raise InputError(f"{source}: changed since it was packed, and its copy in {pack} is damaged; start the run again")
        return found


def open_pack(folder: Path, modality: str, source: Callable[[int], Path]) -> tuple[PackReader, str]:
    """The maps of a pack and their digest.

    Args:
        folder: of the pack.
        modality: of the maps.
        source: function from a row to the file of its map.

    Raises:
        UnusablePack: a file is missing or unreadable, the file of maps has the wrong size, or its header, the checksums or the
            digest do not match `info.json`. The maps themselves are not checked here.
    """
    path = folder / f"{modality}.npy"
    try:
        info = read_json(folder / INFO_FILE, PackInfo, "the pack cannot be used")
        checksums = read_array(folder / _CHECKSUM_FILE)
        maps = np.load(path, mmap_mode="r", allow_pickle=False)
        with path.open("rb") as file:
            header = file.read(maps.offset)
    except OSError as error:
        raise UnusablePack(f"{Path(error.filename or path).name}: {error.strerror}") from None
    except (ValueError, EOFError, InputError) as error:
        raise UnusablePack(one_line(error)) from None
    if _checksum(header, checksums, info.digest) != info.crc32:
        raise UnusablePack("its metadata do not match their checksum")
    if path.stat().st_size != maps.offset + maps.nbytes or len(checksums) != len(maps):
        raise UnusablePack(f"the size of {path.name} or the number of checksums does not match its header")
    return PackReader(maps, checksums, source, modality), info.digest


def write_pack(folder: Path, modality: str, shape: tuple[int, ...], maps: Iterable[np.ndarray], advance: OnProgress) -> None:
    """Write the (N, C, H, W) maps of a pack one by one into the empty `folder`."""
    header = array_header(shape, _FLOAT32)
    checksums = np.empty(shape[0], dtype="<u4")
    content = sha256()
    with (folder / f"{modality}.npy").open("wb") as file:
        file.write(header)
        for row, array in enumerate(maps):
            raw = array.astype(_FLOAT32, copy=False).tobytes()
            file.write(raw)
            content.update(raw)
            checksums[row] = zlib.crc32(raw)
            advance(1)
        sync_file(file)
    write_metadata(folder, header, checksums, content.hexdigest())


def write_metadata(folder: Path, header: bytes, checksums: np.ndarray, digest: str) -> None:
    """Write the metadata of a pack: the (N,) checksums of its maps, the digest, and one checksum over these and the header."""
    write_array(folder / _CHECKSUM_FILE, checksums)
    write_json(folder / INFO_FILE, asdict(PackInfo(digest, _checksum(header, checksums, digest))))


def _checksum(header: bytes, checksums: np.ndarray, digest: str) -> int:
    """CRC-32 of the metadata, including the digest, because runs and models identify their data by the digest."""
    return zlib.crc32(digest.encode(), zlib.crc32(checksums.tobytes(), zlib.crc32(header)))
