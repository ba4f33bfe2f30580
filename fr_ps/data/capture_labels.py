"""The captures to prepare and their labels: from a table, from Photoface's files, or unknown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fr_ps.config import PrepareConfig
from fr_ps.data.labels import COLUMNS, check_raw_values, read_labels
from fr_ps.errors import InputError
from fr_ps.photometric.captures import read_capture_attributes
from fr_ps.photometric.photoface import ATTRIBUTES, ATTRIBUTES_FILE
from fr_ps.photometric.sources import CaptureSource
from fr_ps.tables import SessionKey, read_session_rows, suggest_session


@dataclass(frozen=True)
class CaptureLabels:
    """The labels of the captures to prepare.

    Attributes:
        header: column names, including `id` and `session`.
        rows: cells by column name, of each (id, session), in the order of the table.
        rejected: (id, session) of the sessions left out, with the reason.
        unlabelled: (id, session) of the sessions without `metadataII.txt`, if others have one.
    """

    header: list[str]
    rows: Mapping[SessionKey, Mapping[str, str]]
    rejected: dict[SessionKey, str]
    unlabelled: list[SessionKey] = field(default_factory=list)


def read_capture_labels(config: PrepareConfig, sources: Sequence[CaptureSource]) -> CaptureLabels:
    """The labels of `sources`: from `config.labels`, else from their `metadataII.txt`, else all unknown.

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
        suggestion = suggest_session(absent[0], captured)
        remedy = suggestion or "add the capture, remove the row, or continue without it by --on-bad skip"
        raise InputError(
            f"{labels}: row {found[absent[0]][0]}: {'/'.join(absent[0])} has no capture in {config.captures} ({len(absent)} such "
            f"rows); {remedy}"
        )
    if len(absent) == len(rows):
        remedy = suggest_session(absent[0], captured) if absent else ""
        remedy = remedy or "name the folder of its captures by --captures"
        raise InputError(f"{labels}: none of its rows has a capture in {config.captures}; {remedy}")
    rejected = dict.fromkeys(absent, f"no capture in {config.captures}")
    rejected |= dict.fromkeys(captured - rows.keys(), f"no row in {labels}")
    return CaptureLabels(header, {key: row for key, row in rows.items() if key in captured}, rejected)


def _from_captures(config: PrepareConfig, sources: Sequence[CaptureSource]) -> CaptureLabels:
    found: dict[SessionKey, dict[str, str] | None] = {}
    rejected: dict[SessionKey, str] = {}
    for source in sources:
        try:
            attributes = read_capture_attributes(source.folder)
            if attributes:
                check_raw_values(attributes, str(source.folder / ATTRIBUTES_FILE))
        except InputError as error:
            if config.on_bad == "fail":
                raise InputError(f"{error} (--on-bad skip continues without that session)") from None
            rejected[source.id, source.session] = str(error)
        else:
            found[source.id, source.session] = attributes
    unlabelled = [key for key, cells in found.items() if cells is None]
    any_labelled = len(unlabelled) < len(found)
    columns = ATTRIBUTES if any_labelled else tuple(COLUMNS.values())
    unknown = dict.fromkeys(columns, "")
    rows = {key: {"id": key[0], "session": key[1]} | (cells or unknown) for key, cells in found.items()}
    return CaptureLabels(["id", "session", *columns], rows, rejected, unlabelled if any_labelled else [])
