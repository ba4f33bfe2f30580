"""How the cost of `prepare` compares with just reading its input and writing its output.

Floor: every image read and decoded, and the three maps of every session written (from memory) to a folder that is synced
and renamed like prepare's. Real: `prepare` with one worker. Same captures, same disk, in turns; the number is the median
over the turns of the real time over the floor's.

    python benchmarks/prepare.py
"""

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from common import Number, arguments, report


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--size", type=int, default=168, help="side of the captured pictures")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    from fr_ps.data.synthetic import write_captures

    with tempfile.TemporaryDirectory(dir=".") as folder:
        captures = Path(folder) / "raw"
        write_captures(captures, people=options.people, sessions=options.sessions, seed=0, size=options.size)
        real, floor = [], []
        for turn in range(-1, options.turns):  # the first one warms up
            pair = time_prepare(captures / "captures", Path(folder)), time_floor(captures / "captures", Path(folder))
            if turn >= 0:
                real.append(pair[0])
                floor.append(pair[1])
    count = options.people * options.sessions
    ratio = statistics.median(r / f for r, f in zip(real, floor))
    rows = [["read, decode, write", count / statistics.median(floor)], ["prepare", count / statistics.median(real)]]
    report({"prepare_over_floor": Number(ratio, 2.0, "lower", "time over time")}, rows, ["", "sessions/s"], options.json)


def time_prepare(captures: Path, folder: Path) -> float:
    """Seconds that `prepare` takes from nothing."""
    from fr_ps.config import PrepareConfig
    from fr_ps.data.prepare import prepare

    out = folder / "prepared"
    started = time.perf_counter()
    prepare(PrepareConfig(captures=str(captures), out=str(out)))
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    return seconds


def time_floor(captures: Path, folder: Path) -> float:
    """Seconds that reading and decoding the images and writing maps of the same size take."""
    import numpy as np

    from fr_ps.files import new_folder, write_array
    from fr_ps.photometric.captures import list_sources, read_image

    out = folder / "floor"
    plane, normal = np.ones((112, 112), dtype=np.float32), np.ones((112, 112, 3), dtype=np.float32)
    started = time.perf_counter()
    for source in list_sources(captures):
        for image in sorted(source.folder.glob("*.png")):
            read_image(image)
        with new_folder(out / source.id / source.session) as temporary:
            write_array(temporary / "albedo.npy", plane)
            write_array(temporary / "normal.npy", normal)
            write_array(temporary / "depth.npy", plane)
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    return seconds


if __name__ == "__main__":
    main()
