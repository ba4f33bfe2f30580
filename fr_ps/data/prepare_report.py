"""The two tables of a prepared data set, and whether `prepare` wrote those that stand there.

Their checksums stand beside them, so that the answer does not depend on the machine or the cache.
"""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from fr_ps.data.capture_labels import CaptureLabels
from fr_ps.data.layout import QUALITY, output_folder
from fr_ps.data.preparation import read_record
from fr_ps.errors import InputError
from fr_ps.files import write_atomic
from fr_ps.photometric.quality import MEASURES
from fr_ps.tables import SessionKey, format_csv

REPORT_FILE = "prepare.csv"
CHECKSUMS_FILE = ".prepare.sha256"
"""As the program sha256sum writes it: a line for each table that `prepare` wrote here, the replaced ones among them."""
REPORT_COLUMNS = ["id", "session", "status", "aligned_by", "reason"]


def write_table(out: Path, name: str, text: str) -> None:
    """Write a table, and first its checksum, so that a process killed in between leaves no table without one.

    Raises:
        InputError: the disk is full, or the folder may not be written.
    """
    content, checksums = text.encode(), _read_checksums(out)
    line = _checksum_line(name, content)
    if line not in checksums:
        write_atomic(out / CHECKSUMS_FILE, lambda file: file.write(b"".join(one + b"\n" for one in [*checksums, line])))
    write_atomic(out / name, lambda file: file.write(content))


def is_unmodified(out: Path, name: str, labels: CaptureLabels) -> bool:
    """Whether `prepare` wrote the table `name` of the data set `out`, and nobody changed it since.

    Of a data set without checksums, which an older version wrote, `prepare.csv` counts by its columns, and `labels.csv` if
    it is what `prepare` would write now. One made from other labels cannot be told from one that somebody edited.

    Args:
        out: the data set.
        name: of the table.
        labels: of the captures, as they are now.
    """
    try:
        content = (out / name).read_bytes()
    except OSError:
        return False
    checksums = _read_checksums(out)
    if any(line.endswith(f"  {name}".encode()) for line in checksums):
        return _checksum_line(name, content) in checksums
    if name == REPORT_FILE:
        return content.splitlines()[:1] == [",".join(REPORT_COLUMNS).encode()]
    return content == labels_text(labels, _recorded_quality(out, labels)).encode()


def labels_text(labels: CaptureLabels, quality: Mapping[SessionKey, Mapping[str, float]]) -> str:
    """`labels.csv`: the rows of `labels` that have a `quality`, with its measures as the last columns."""
    measured = [QUALITY + measure for measure in MEASURES]
    kept = [name for name in labels.header if name not in measured]
    rows = [
        [*(row[name] for name in kept), *(f"{quality[key][measure]:.5f}" for measure in MEASURES)]
        for key, row in labels.rows.items()
        if key in quality
    ]
    return format_csv([*kept, *measured], rows)


def _recorded_quality(out: Path, labels: CaptureLabels) -> dict[SessionKey, dict[str, float]]:
    found = {}
    for key in labels.rows:
        with suppress(InputError):  # was not prepared
            found[key] = read_record(output_folder(out, *key))["done"]["quality"]
    return found


def _read_checksums(out: Path) -> list[bytes]:
    try:
        return (out / CHECKSUMS_FILE).read_bytes().splitlines()
    except OSError:
        return []


def _checksum_line(name: str, content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {name}".encode()
