"""Growth of a training with the number of sessions: start-up, loader and memory, and which function takes the start-up.

The data sets have ten sessions a subject. Maps are not stored: each session is a link to one folder, and the packed maps are a
sparse file of zeros, which takes no disk space and is read at the speed of memory. Labels, layout, checksums, split, sampler and
loader are those of any training. Each number of sessions is measured in a process of its own, in which a first, small training
has loaded all modules.

- start-up: from the call of `train` until the first batch, for packed maps; then by function, from cProfile.
- sampler and loader: seconds an image of `epoch_indices`, and of `BatchLoader.load` without augmentation but for the flip.
- cold reads: bytes that the disk reads per byte of a map, of 64 random maps of a real file of 4,000 that is not in the system's
  cache; by the store, and by plain indexing of the memory map.
- memory: resident memory of the process that is not of files, before and after (`RssAnon` of /proc).

    python benchmarks/growth.py --sessions 1000 10000 100000 1000000 --plot docs/pictures/growth.png
"""

import cProfile
import csv
import multiprocessing
import os
import pstats
import tempfile
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from common import Measurement, argument_parser, limit_threads, report
from tabulate import tabulate

SESSIONS_PER_SUBJECT = 10
STAGES = ("read_labels", "find_orphans", "_files_state", "open_pack", "make_split", "epoch_indices")
"""Functions whose time is shown."""


@dataclass(frozen=True)
class Measured:
    """The measurements of one data set.

    Attributes:
        start: seconds from the settings to the first batch.
        stages: seconds of each function of `STAGES` in it, with those that it calls; slowed down by the profiler.
        sampler: seconds an image of the batches of an epoch.
        loader: seconds an image of reading and augmenting them.
        memory: MB that the process takes more than after a small training.
    """

    start: float
    stages: dict[str, float]
    sampler: float
    loader: float
    memory: float


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--size", type=int, default=112, help="side of the maps")
    parser.add_argument("--steps", type=int, default=50, help="batches that the loader reads")
    parser.add_argument("--plot", type=Path, help="write a figure to this file")
    options = parser.parse_args()
    limit_threads(options.threads)
    found: dict[int, Measured] = {}
    with tempfile.TemporaryDirectory() as name:
        os.environ["FR_PS_CACHE"] = f"{name}/cache"
        for count in options.sessions:
            root = Path(name) / str(count)
            write_linked_dataset(root, count, options.size)
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                found[count] = pool.submit(measure, root, Path(name) / "small", options.size, options.steps).result()
        ours, plain = cold_reads(Path(name) / "cold", options.size)
    rows = [[count, one.start, 1e6 * one.sampler, 1e3 * one.loader, one.memory] for count, one in found.items()]
    stages = [[count, *one.stages.values()] for count, one in found.items()]
    print(tabulate(stages, headers=["sessions", *(f"{stage}, s" for stage in STAGES)], floatfmt=".3f"), end="\n\n")
    if options.plot:
        plot(found, options.plot)
    small, large = found[min(found)], found[max(found)]
    span, most = f"{max(found)} sessions over {min(found)}", f"{max(found)} sessions"
    numbers = {
        "loader_growth": Measurement(large.loader / small.loader, 1.2, "lower", f"time per image of the loader, {span}"),
        "sampler_of_loader": Measurement(
            large.sampler / large.loader, 0.05, "lower", f"time of the sampler over that of the loader, {max(found)} sessions"
        ),
        "start_us_per_session": Measurement(1e6 * large.start / max(found), 50, "lower", f"µs a session, start-up, {most}"),
        "cold_reads": Measurement(ours, 1.5, "lower", f"bytes read from disk per byte of a map; a plain memory map: {plain:.1f}"),
        "bytes_per_session": Measurement(1e6 * large.memory / max(found), 1000, "lower", f"bytes a session, {most}"),
    }
    report(numbers, rows, ["sessions", "start-up s", "sampler µs/image", "loader ms/image", "memory MB"], options.json)


def write_linked_dataset(root: Path, count: int, size: int) -> None:
    """A prepared data set of `count` sessions, all of which are links to one folder with an albedo map of zeros."""
    import numpy as np

    from fr_ps.progress import progress

    template = root / "template"
    template.mkdir(parents=True)
    np.save(template / "albedo.npy", np.zeros((size, size), dtype=np.float32))
    with (root / "labels.csv").open("w", newline="") as file, progress(f"{count} sessions", count, "sessions") as advance:
        table = csv.writer(file)
        table.writerow(["id", "session", "Gender", "Spectacles", "Facial_Hair", "Pose", "Emotion"])
        for row in range(count):
            subject, session = divmod(row, SESSIONS_PER_SUBJECT)
            folder = root / "data" / f"S{subject:06}"
            if not session:
                folder.mkdir(parents=True)
            (folder / f"s{session}").symlink_to("../../template")
            table.writerow([f"S{subject:06}", f"s{session}", ("Male", "Female")[subject % 2], "", "", "", ""])
            advance(1)


def measure(root: Path, small: Path, size: int, steps: int) -> Measured:
    """The measurements of the data set at `root`; `small` is a folder for the training that loads all modules."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with mock.patch("fr_ps.data.store._pack_files", write_sparse_pack):
        if not small.exists():
            write_linked_dataset(small, 200, size)
        _open_loader(small)
        before = _anonymous_memory()
        _open_loader(root)  # writes the pack
    begun = time.perf_counter()
    loader = _open_loader(root)
    loader.load(loader.epoch_indices(0)[0], 0, 0)
    start = time.perf_counter() - begun
    begun = time.perf_counter()
    batches = loader.epoch_indices(1)
    sampler = (time.perf_counter() - begun) / sum(map(len, batches))
    batches = batches[:steps]
    begun = time.perf_counter()
    for _ in loader.stream(batches, 1):
        pass
    seconds = (time.perf_counter() - begun) / sum(map(len, batches))
    memory = _anonymous_memory() - before
    return Measured(start, _profile_start(root), sampler, seconds, memory)


def cold_reads(folder: Path, size: int) -> tuple[float, float]:
    """Bytes that the disk reads per byte of a map, of random maps that are not in the cache: by the store; by the memory map."""
    import numpy as np

    from fr_ps.data.pack import open_pack, write_pack

    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = rng.permutation(4_000)[:128]
    maps = (rng.random((1, size, size), dtype=np.float32) for _ in range(4_000))
    write_pack(folder, "albedo", (4_000, 1, size, size), maps, lambda _: None)
    _forget_cached(folder / "albedo.npy")
    reader, _ = open_pack(folder, "albedo", lambda _: folder)
    begun = _bytes_read()
    wanted = reader.read(rows[:64]).nbytes
    ours = (_bytes_read() - begun) / wanted
    del reader
    _forget_cached(folder / "albedo.npy")
    begun = _bytes_read()
    wanted = np.load(folder / "albedo.npy", mmap_mode="r")[rows[64:]].nbytes
    return ours, (_bytes_read() - begun) / wanted


def _forget_cached(path: Path) -> None:
    """Remove a file from the system's cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _bytes_read() -> int:
    """Bytes that the disk has read for this process."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def _open_loader(root: Path) -> Any:
    """The loader of a training on the data set at `root`, made as `train` makes it."""
    from dataclasses import replace

    import torch
    from training_loops import training_settings

    from fr_ps.config import AugmentConfig, DataConfig
    from fr_ps.training.setup import build_setup

    config = training_settings("convnextv2_atto")
    plain = AugmentConfig(crop=1.0, rotation=0.0, noise=0.0)
    config = replace(config, data=DataConfig(root=str(root)), augment=plain)
    return build_setup(config, {}, torch.device("cpu"), lambda line: None)[1]


def _profile_start(root: Path) -> dict[str, float]:
    """Seconds of each function of `STAGES` until the first batch, from cProfile."""
    with cProfile.Profile() as profile:
        loader = _open_loader(root)
        loader.load(loader.epoch_indices(0)[0], 0, 0)
    by_name = dict.fromkeys(STAGES, 0.0)
    for (_, _, function), (_, _, _, cumulative, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if function in by_name:
            by_name[function] += cumulative
    return by_name


def write_sparse_pack(files: list[Path], modality: str, folder: Path, advance: Any) -> None:
    """In place of `_pack_files`: a pack of zeros with the shape of the first file, as a sparse file."""
    import numpy as np

    from fr_ps.data.layout import CHANNELS, read_map
    from fr_ps.data.pack import write_metadata
    from fr_ps.files import atomic_folder
    from fr_ps.npy import array_header

    first = read_map(files[0], modality)
    shape = (len(files), CHANNELS[modality], *first.shape[1:])
    header = array_header(shape, first.dtype)
    with atomic_folder(folder) as temporary:
        with (temporary / f"{modality}.npy").open("wb") as file:
            file.write(header)
            file.truncate(len(header) + len(files) * first.nbytes)
        checksums = np.full(len(files), zlib.crc32(np.zeros_like(first)), dtype="<u4")
        write_metadata(temporary, header, checksums, f"{zlib.crc32(str(shape).encode()):064x}")


def _anonymous_memory() -> float:
    """MB of resident memory that is not of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def plot(found: dict[int, Measured], path: Path) -> None:
    """A figure of the measurements by number of sessions."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    counts = list(found)
    curves = {
        "start-up until the first batch, s": {"": [one.start for one in found.values()]},
        "ms per image": {
            "loader": [1e3 * one.loader for one in found.values()],
            "sampler": [1e3 * one.sampler for one in found.values()],
        },
        "memory, MB": {"": [one.memory for one in found.values()]},
    }
    for axis, (title, lines) in zip(axes, curves.items()):
        for label, values in lines.items():
            axis.plot(counts, values, marker="o", label=label)
        axis.set(title=title, xscale="log", yscale="log", xlabel="sessions")
        axis.grid(alpha=0.3)
        if len(lines) > 1:
            axis.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
