"""The results of `prepare`: its two tables with their checksums, the printed summary and the warnings.

The checksums are in the data set itself, so that `prepare` recognises its tables on any machine.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fr_ps.config import CaptureLayout
from fr_ps.data.capture_labels import CaptureLabels
from fr_ps.data.layout import QUALITY, output_folder
from fr_ps.data.preparation import AlignedBy, read_record
from fr_ps.errors import InputError
from fr_ps.files import write_atomic
from fr_ps.photometric.layouts.diligent import DIRECTIONS_FILE
from fr_ps.photometric.lights import LIGHTS_FILE
from fr_ps.photometric.orientation import AxesMismatch, find_axes_mismatch
from fr_ps.photometric.photoface import ATTRIBUTES_FILE, LIGHT_SOURCE_FILE
from fr_ps.photometric.quality import MEASURES
from fr_ps.tables import SessionKey, format_csv

REPORT_FILE = "prepare.csv"
CHECKSUMS_FILE = ".prepare.sha256"
"""In the format of sha256sum: a line for each table that `prepare` wrote here, including replaced ones."""
REPORT_COLUMNS = ["id", "session", "status", "aligned_by", "reason"]
_ALIGNMENT_TEXT: dict[AlignedBy, str] = {
    "landmarks": "aligned by landmarks",
    "boxes": "cropped to a box",
    "mask": "square around the mask",
    "none": "whole picture",
}
_FILES_OF_VECTORS: dict[CaptureLayout, str] = {"plain": LIGHTS_FILE, "diligent": DIRECTIONS_FILE, "lp": "the .lp file"}
"""The files of lights whose components a user corrects; those of Photoface have `--light-axes`."""


@dataclass(frozen=True)
class SessionResult:
    """The result of preparing one session.

    Attributes:
        id, session: names of the session.
        status: `written`, `kept` from an earlier run, or `skipped`.
        reason: of a skipped session.
        details: alignment, intensities, quality and more: `done` in its `prepared.json`. Empty for a skipped session.
        labelled: False if it has no `metadataII.txt` but others have one.
    """

    id: str
    session: str
    status: str
    reason: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    labelled: bool = True


def write_table(out: Path, name: str, text: str) -> None:
    """Write a table after its checksum, so that a process killed in between leaves no table without one.

    Raises:
        InputError: the disk is full, or the folder is not writable.
    """
    content, checksums = text.encode(), _read_checksums(out)
    line = _checksum_line(name, content)
    if line not in checksums:
        write_atomic(out / CHECKSUMS_FILE, lambda file: file.write(b"".join(known + b"\n" for known in [*checksums, line])))
    write_atomic(out / name, lambda file: file.write(content))


def is_unmodified(out: Path, name: str, labels: CaptureLabels) -> bool:
    """Whether `prepare` wrote the table `name` of the data set `out`, and it is unchanged since.

    In a data set of an older version, without checksums, `prepare.csv` is recognised by its columns, and `labels.csv` if it
    equals what `prepare` would write now: if the captures have other labels since, it counts as edited.

    Args:
        out: the data set.
        name: of the table.
        labels: the current labels of the captures.
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
    """The text of `labels.csv`: the rows of `labels` with a `quality`, whose measures are the last columns."""
    measured = [QUALITY + measure for measure in MEASURES]
    kept = [name for name in labels.header if name not in measured]
    rows = [
        [*(row[name] for name in kept), *(f"{quality[key][measure]:.5f}" for measure in MEASURES)]
        for key, row in labels.rows.items()
        if key in quality
    ]
    return format_csv([*kept, *measured], rows)


def report_text(results: list[SessionResult]) -> str:
    """The text of `prepare.csv`: a row per session."""
    rows = [[result.id, result.session, result.status, result.details.get("aligned_by", ""), result.reason] for result in results]
    return format_csv(REPORT_COLUMNS, rows)


def _recorded_quality(out: Path, labels: CaptureLabels) -> dict[SessionKey, dict[str, float]]:
    found = {}
    for key in labels.rows:
        with suppress(InputError):  # not prepared
            found[key] = read_record(output_folder(out, *key))["done"]["quality"]
    return found


def _read_checksums(out: Path) -> list[bytes]:
    try:
        return (out / CHECKSUMS_FILE).read_bytes().splitlines()
    except OSError:
        return []


def _checksum_line(name: str, content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {name}".encode()


def summary_rows(results: list[SessionResult], limit: int = 10) -> tuple[list[list[str | int]], list[list[str]], int]:
    """The rows to print: counts of sessions, the first `limit` skipped sessions with reasons, and the number of further ones.

    The counts are by status, by alignment, and of sessions without labels if other sessions have some.
    """
    statuses = Counter(result.status for result in results)
    alignments = Counter(result.details["aligned_by"] for result in results if result.details)
    counts: list[list[str | int]] = [[status, statuses[status]] for status in ("written", "kept", "skipped")]
    counts += [[_ALIGNMENT_TEXT[aligned_by], number] for aligned_by, number in sorted(alignments.items())]
    unlabelled = [f"{result.id}/{result.session}" for result in results if result.details and not result.labelled]
    if unlabelled:
        counts.append([f"without labels, e.g. {unlabelled[0]} (no {ATTRIBUTES_FILE})", len(unlabelled)])
    skipped = [[result.id, result.session, result.reason] for result in results if result.status == "skipped"]
    return counts, skipped[:limit], max(len(skipped) - limit, 0)


def orientation_warning(results: list[SessionResult], light_axes: str) -> str | None:
    """A warning with a remedy if most faces appear concave or mirrored; else None.

    `light_axes` is the setting that prepared them.
    """
    details = [result.details for result in results if result.details]
    if not details:
        return None
    convex = np.median([session["convexity"] for session in details], axis=0)
    mismatch = find_axes_mismatch(convex, float(np.median([session["twist_agreement"] for session in details])))
    if mismatch is None:
        return None
    # Records of an earlier version do not name their layout, which was one of these two.
    layouts: set[CaptureLayout] = set()
    for session in details:
        layouts.update([session["layout"]] if "layout" in session else ["photoface", "plain"])
    remedies = "; ".join(_axes_remedy(layout, mismatch, light_axes) for layout in sorted(layouts))
    return (
        f"warning: the faces appear {mismatch.shape}: the light directions probably follow another convention; {remedies}; then "
        "prepare again and check for this warning"
    )


def _axes_remedy(layout: CaptureLayout, mismatch: AxesMismatch, light_axes: str) -> str:
    """What to change in captures of this layout."""
    if layout == "photoface":
        if mismatch.swapped:
            axes = light_axes.translate(str.maketrans("xy", "yx"))
        else:
            signed = re.findall("(-?)([xy])", light_axes)
            axes = "".join(("-" if (sign == "-") != (axis in mismatch.negated) else "") + axis for sign, axis in signed)
        return f"for {LIGHT_SOURCE_FILE} use --light-axes={axes} instead of {light_axes}"
    change = "exchange x and y" if mismatch.swapped else f"negate {' and '.join(mismatch.negated)}"
    if layout == "plain":
        angles = {"x": "azimuth_deg", "y": "elevation_deg"}
        negated = " and ".join(angles[axis] for axis in mismatch.negated)
        change += " (of angles: replace them by x,y,z)" if mismatch.swapped else f" (of angles: {negated})"
    return f"in {_FILES_OF_VECTORS.get(layout, 'the file of lights')} {change}"


def failed_lights_warning(results: list[SessionResult]) -> str | None:
    """A warning if lights failed in sessions; else None."""
    failed = [(f"{result.id}/{result.session}", result.details["failed"]) for result in results if "failed" in result.details]
    if not failed:
        return None
    session, names = failed[0]
    return (
        f"warning: sessions with a failed light: {len(failed)}, e.g. {session} (almost black image: {', '.join(names)}); their "
        "maps are solved from the other images and are less accurate, and their quality_imbalance is 1; capture them again, or "
        "exclude them from training with --data.limits.quality_imbalance 0.99"
    )


def response_warning(results: list[SessionResult], response: str) -> str | None:
    """A warning if images that are probably encoded for a screen were taken as linear in the light; else None.

    `response` is the setting that prepared them.
    """
    count = sum("encoded" in result.details for result in results)
    if response != "linear" or not count:
        return None
    return (
        f"warning: in {count} sessions images are JPEG, or are tagged as sRGB or gamma, but are taken as linear in the light, "
        "because response is linear; if a camera developed them, prepare again with --response srgb, or use its raw files"
    )


def white_level_warning(results: list[SessionResult]) -> str | None:
    """A warning if sessions show a saturation level below the largest value that their files can store; else None.

    It names the stored value, the unit of `--white-level`.
    """
    levels = Counter(result.details["pile_up"] for result in results if "pile_up" in result.details)
    if not levels:
        return None
    level, _ = levels.most_common(1)[0]
    return (
        f"warning: in {levels.total()} sessions many pixels have exactly the largest value, e.g. {level}, and are treated as "
        f"saturated; if the camera saturates there, set --white-level {level}, so that albedo is relative to it"
    )
