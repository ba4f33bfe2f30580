"""From raw captures to a prepared data set: whole sessions or nothing, and running again does only what is left."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fr_ps.config import PrepareConfig
from fr_ps.data.labels import read_labels, without_labels
from fr_ps.data.layout import LABELS_FILE, session_folder
from fr_ps.errors import InputError
from fr_ps.files import new_folder, read_csv_rows, sync_file, write_array, write_text
from fr_ps.photometric.captures import LIGHTS_FILE, Source, list_sources, read_capture
from fr_ps.photometric.maps import compute_maps
from fr_ps.progress import Advance, silent

REPORT_FILE = "prepare.csv"
RECORD_FILE = "prepared.json"
_FORMAT = 1


@dataclass(frozen=True)
class Outcome:
    """What became of one session: `written`, `kept` from an earlier run, or `skipped`, and then why."""

    id: str
    session: str
    status: str
    reason: str = ""


def prepare(config: PrepareConfig, advance: Advance = silent) -> list[Outcome]:
    """Write the prepared data set of `config.captures` to `config.out`; returns what became of each session, sorted.

    Beside `labels.csv` and the maps, `prepare.csv` holds the outcomes. `labels.csv` is written last, when every session
    of it is on disk. A session's folder appears only when it is whole; one that stands already is kept if it was made
    from the same pictures with the same settings.

    Args:
        config: the settings.
        advance: called once a session.

    Raises:
        InputError: captures or labels that cannot be used; with `on_bad="fail"` also the first bad session.
    """
    out = Path(config.out)
    sources = list_sources(Path(config.captures))
    todo, outcomes = _match_labels(config, sources)
    advance(len(sources) - len(todo))
    for outcome in _prepare_all(todo, config):
        if outcome.status == "skipped" and config.on_bad == "fail":
            raise InputError(f"{outcome.reason} (session {outcome.id}/{outcome.session}; --on-bad skip goes on without it)")
        outcomes.append(outcome)
        advance(1)
    outcomes.sort(key=lambda outcome: (outcome.id, outcome.session))
    _write_tables(out, config.labels, outcomes)
    return outcomes


def _match_labels(config: PrepareConfig, sources: list[Source]) -> tuple[list[Source], list[Outcome]]:
    """The captures to prepare, and the outcomes of those that have no row and of rows that have no capture."""
    if config.labels is None:
        return sources, []
    labels = read_labels(Path(config.labels))
    listed = list(zip(labels.ids.tolist(), labels.sessions.tolist()))
    captured = {(source.id, source.session): source for source in sources}
    absent = [key for key in listed if key not in captured]
    if absent and config.on_bad == "fail":
        person, session = absent[0]
        raise InputError(
            f"{config.labels}: row of {person}/{session} has no capture in {config.captures} ({len(absent)} such rows); "
            "add the capture, remove the row, or go on without it by --on-bad skip"
        )
    if len(absent) == len(listed):
        raise InputError(f"{config.labels}: no row of it has a capture in {config.captures}")
    wanted = set(listed)
    outcomes = [Outcome(*key, "skipped", f"no capture in {config.captures}") for key in absent]
    outcomes += [Outcome(*key, "skipped", f"no row in {config.labels}") for key in captured if key not in wanted]
    return [captured[key] for key in listed if key in captured], outcomes


def _prepare_all(sources: list[Source], config: PrepareConfig) -> Iterator[Outcome]:
    one = partial(_prepare_one, config=config)
    if config.workers == 1:
        yield from map(one, sources)
        return
    pool = ProcessPoolExecutor(config.workers)
    try:
        yield from pool.map(one, sources, chunksize=4)
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare_one(source: Source, config: PrepareConfig) -> Outcome:
    target = session_folder(Path(config.out), source.id, source.session)
    try:
        record = _record(source, config)
        if _is_done(target, record):
            return Outcome(source.id, source.session, "kept")
        capture = read_capture(source.folder, config.max_condition)
        maps = compute_maps(capture, size=config.size, fit=config.fit, solver=config.solver)
    except InputError as error:
        return Outcome(source.id, source.session, "skipped", str(error))
    with new_folder(target) as folder:
        write_array(folder / "albedo.npy", maps.albedo)
        write_array(folder / "normal.npy", maps.normal)
        write_array(folder / "depth.npy", maps.depth)
        with (folder / RECORD_FILE).open("w") as file:
            json.dump(record, file)
            sync_file(file)
    return Outcome(source.id, source.session, "written")


def _record(source: Source, config: PrepareConfig) -> dict[str, Any]:
    """What decides the maps of a session: the settings, and the size and time of each of its files."""
    files = sorted(path for path in source.folder.iterdir() if path.is_file())
    if not any(path.name == LIGHTS_FILE for path in files):
        raise InputError(f"{source.folder / LIGHTS_FILE}: no such file; it lists the images and their lights")
    seen = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    settings = {key: getattr(config, key) for key in ("size", "fit", "solver", "max_condition")}
    return {"format": _FORMAT, "settings": settings, "files": seen}


def _is_done(target: Path, record: dict[str, Any]) -> bool:
    try:
        return json.loads((target / RECORD_FILE).read_text()) == record
    except (OSError, ValueError):
        return False


def _write_tables(out: Path, labels: str | None, outcomes: list[Outcome]) -> None:
    done = [(outcome.id, outcome.session) for outcome in outcomes if outcome.status != "skipped"]
    _write_csv(out / REPORT_FILE, ["id", "session", "status", "reason"], [list(vars(outcome).values()) for outcome in outcomes])
    if not done:
        first = next(outcome.reason for outcome in outcomes)
        raise InputError(f"{out}: no session could be prepared, so there is no data set; {REPORT_FILE} lists why. First: {first}")
    if labels is None:
        columns = without_labels(done)
        _write_csv(out / LABELS_FILE, list(columns), [list(row) for row in zip(*columns.values())])
        return
    header, rows = read_csv_rows(Path(labels))
    kept = set(done)
    _write_csv(out / LABELS_FILE, header, [list(row.values()) for _, row in rows if (row["id"], row["session"]) in kept])


def _write_csv(path: Path, header: list[str], rows: list[list[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def summary_rows(outcomes: list[Outcome], most: int = 10) -> tuple[list[list[str | int]], list[list[str]], int]:
    """For people: counts by status, the first `most` skipped sessions with their reasons, and how many more there are."""
    counts = Counter(outcome.status for outcome in outcomes)
    skipped = [[outcome.id, outcome.session, outcome.reason] for outcome in outcomes if outcome.status == "skipped"]
    return [[status, counts[status]] for status in ("written", "kept", "skipped")], skipped[:most], max(len(skipped) - most, 0)
