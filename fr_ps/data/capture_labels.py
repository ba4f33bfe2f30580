"""Which captures are wanted, and their labels: from a table, from Photoface's own files, or from nowhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fr_ps.config import PrepareConfig
from fr_ps.data.labels import COLUMNS, check_raw_values, read_labels
from fr_ps.errors import InputError
from fr_ps.photometric.captures import CaptureSource, read_capture_attributes
from fr_ps.photometric.photoface import ATTRIBUTES, ATTRIBUTES_FILE
from fr_ps.tables import SessionKey, read_session_rows, suggest_session


@dataclass(frozen=True)
class CaptureLabels:
    """The labels of the captures that are wanted.

    Attributes:
        header: column names, `id` and `session` among them.
        rows: cells by column name, of each (id, session), in the order of the table.
        refused: (id, session) of what is left out, and why.
        unlabelled: (id, session) of those that no `metadataII.txt` tells anything about, while others have one.
    """

    header: list[str]
    rows: Mapping[SessionKey, Mapping[str, str]]
    rejected: dict[SessionKey, str]
    unlabelled: list[SessionKey] = field(default_factory=list)


def read_capture_labels(config: PrepareConfig, sources: Sequence[CaptureSource]) -> CaptureLabels:
    """The labels of `sources`: of `config.labels`, else of their `metadataII.txt`, else all unknown.

    Raises:
        InputError: a bad table; with `on_bad="fail"` also a row without a capture or a bad `metadataII.txt`.
    """
    return _from_table(config, config.labels, sources) if config.labels else _from_captures(config, sources)


def _from_table(config: PrepareConfig, labels: str, sources: Sequence[CaptureSource]) -> CaptureLabels:
    read_labels(Path(labels))
    header, found = read_session_rows(Path(labels), [])
    rows = {key: row for key, (_, row) in found.items()}
    captured = {(source.id, source.session) for source in sources}
    absent = [key for key in rows if key not in captured]
    if absent and config.on_bad == "fail":
        cause = suggest_session(absent[0], captured)
        remedy = cause or "add the capture, remove the row, or go on without it by --on-bad skip"
        raise InputError(
            f"{labels}: row {found[absent[0]][0]}: {'/'.join(absent[0])} has no capture in {config.captures} ({len(absent)} such "
            f"rows); {remedy}"
        )
    if len(absent) == len(rows):
        remedy = suggest_session(absent[0], captured) if absent else ""
        remedy = remedy or "name the folder that belongs to it"
        raise InputError(f"{labels}: no row of it has a capture in {config.captures}; {remedy}")
    refused = dict.fromkeys(absent, f"no capture in {config.captures}")
    refused |= dict.fromkeys(captured - rows.keys(), f"no row in {labels}")
    return CaptureLabels(header, {key: row for key, row in rows.items() if key in captured}, refused)


def _from_captures(config: PrepareConfig, sources: Sequence[CaptureSource]) -> CaptureLabels:
    found: dict[SessionKey, dict[str, str] | None] = {}
    refused: dict[SessionKey, str] = {}
    for source in sources:
        try:
            attributes = read_capture_attributes(source.folder)
            if attributes:
                check_raw_values(attributes, str(source.folder / ATTRIBUTES_FILE))
        except InputError as error:
            if config.on_bad == "fail":
                raise InputError(f"{error} (--on-bad skip goes on without that session)") from None
            refused[source.id, source.session] = str(error)
        else:
            found[source.id, source.session] = attributes
    unlabelled = [key for key, cells in found.items() if cells is None]
    some = len(unlabelled) < len(found)
    columns = ATTRIBUTES if some else tuple(COLUMNS.values())
    unknown = dict.fromkeys(columns, "")
    rows = {key: {"id": key[0], "session": key[1]} | (cells or unknown) for key, cells in found.items()}
    return CaptureLabels(["id", "session", *columns], rows, refused, unlabelled if some else [])
