"""Search in galleries of growing size: opening, one query, many queries, and one further enrolment.

The galleries are generated: random embeddings of 512 channels, two sessions per subject and once one, written by the code of
`enroll`. Beside the queries stands the bare product of all embeddings with one probe on the same mapped file, in turns.

    python benchmarks/gallery_search.py
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import Measurement, argument_parser, interleave, limit_threads, report

WIDTH = 512
MODEL = "0" * 64
QUERY_GOAL = 0.2
MANY = 32


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--per-subject", type=int, default=2)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="for the galleries, 2.1 GB at a million sessions; default: temporary")
    options = parser.parse_args(arguments)
    limit_threads(options.threads)
    numbers: dict[str, Measurement] = {}
    rows: list[dict[str, Any]] = []
    for sessions in options.sessions:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            rows.append(measure(Path(folder) / "gallery", sessions, options.per_subject, options.turns))
        numbers[f"query_{sessions}"] = Measurement(rows[-1]["query s"], QUERY_GOAL, "lower", f"s, median, {sessions:,} sessions")
    report(numbers, [list(row.values()) for row in rows], list(rows[0]), options.json)


def measure(folder: Path, sessions: int, per_subject: int, turns: int) -> dict[str, Any]:
    """Seconds of each operation on a gallery of this size."""
    import numpy as np

    from fr_ps.serving.enrolment import enroll
    from fr_ps.serving.gallery import read_gallery

    make_gallery(folder, sessions, per_subject)
    opening, gallery = timed(lambda: read_gallery(folder))
    probes = np.random.default_rng(1).standard_normal((MANY, WIDTH), dtype=np.float32)
    first, _ = timed(lambda: gallery.search(probes[:1], 0.5, top=3))
    unit = probes[0] / np.linalg.norm(probes[0])

    def bare() -> None:
        gallery.embeddings @ unit

    def query() -> None:
        gallery.search(probes[:1], 0.5, top=3)

    seconds = interleave({"product": bare, "query": query}, turns)
    many, _ = timed(lambda: gallery.search(probes, 0.5, top=3))
    enrolling, _ = timed(lambda: enroll(folder, MODEL, [("new", "s")], probes[:1]))
    product, one = (statistics.median(seconds[name]) for name in ("product", "query"))
    return {
        "sessions": sessions,
        "subjects": len(gallery.subjects),
        "open s": opening,
        "first query s": first,
        "query s": one,
        "product s": product,
        "query / product": statistics.median(q / p for p, q in zip(seconds["product"], seconds["query"])),
        f"query of {MANY} s": many / MANY,
        "enroll one s": enrolling,
    }


def make_gallery(folder: Path, sessions: int, per_subject: int) -> None:
    """A gallery of random embeddings."""
    import numpy as np

    from fr_ps.serving.enrolment import enroll

    shutil.rmtree(folder, ignore_errors=True)
    keys = [(f"S{number // per_subject:07d}", f"s{number % per_subject}") for number in range(sessions)]
    embeddings = 25 / WIDTH**0.5 * np.random.default_rng(0).standard_normal((sessions, WIDTH), dtype=np.float32)
    enroll(folder, MODEL, keys, embeddings)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """The seconds of a call, and its result."""
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


if __name__ == "__main__":
    main()
