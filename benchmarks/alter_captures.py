"""Write captures with further sessions in which one light is missing or failed, to measure what such training sessions change.

The result has the sessions as they are (altered=0 in its labels), and for each of them and each of its k lights one further
session (altered=1):

- missing: the picture of that light is left out, so that normals and albedo are solved from the other k - 1.
- failed: the picture of that light is almost black, 3 % of its values, as if the light had not fired.

A training on the prepared result uses all sessions; `--tested altered=0` compares only those as they are. `captures` and
`captures.csv` are written to --out, which must not exist. Only captures with a `lights.csv` can
be altered, and for `failed` only 8-bit grey and RGB pictures without transparency and EXIF orientation.

    python benchmarks/alter_captures.py --captures captures/yale_b --labels captures/yale_b.csv --how missing --out missing
    fr-ps prepare --captures missing/captures --labels missing/captures.csv --out data/yale_b_missing
    python benchmarks/recognition.py --data data/yale_b_missing --tested altered=0 --config experiments/yale_fusion.yaml
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from fr_ps.errors import InputError, one_line
from fr_ps.photometric.lights import MIN_LIGHTS, read_lights
from fr_ps.tables import format_csv, read_csv_rows, read_session_rows

ALTERED = "altered"
"""Column of the labels: 1 for a session in which a light is missing or failed, else 0."""
_ORIENTATION = 274  # of the EXIF tags
_FAILED_SHARE = 0.03
"""Values of the picture of a failed light, as a share of the original values."""


def leave_out_light(capture: Path, image: str, out: Path) -> None:
    """Copy a capture without `image` and its row of `lights.csv`."""
    columns, rows = read_csv_rows(capture / "lights.csv")
    shutil.copytree(capture, out)
    (out / image).unlink()
    (out / "lights.csv").write_text(format_csv(columns, [list(row.values()) for _, row in rows if row["image"] != image]))


def _read_values(path: Path) -> np.ndarray:
    """The pixels of an 8-bit picture; an InputError if its values are not those of its pixels."""
    try:
        with Image.open(path) as picture:
            has_16_bits = any(";16" in str(tile) for tile in getattr(picture, "tile", ()))
            turned = picture.getexif().get(_ORIENTATION, 1) != 1
            if picture.mode not in ("L", "RGB") or has_16_bits or turned or picture.has_transparency_data:
                raise InputError(f"{path}: expected 8-bit grey or RGB without transparency or orientation; convert it")
            return np.asarray(picture)
    except OSError as error:
        raise InputError(f"{path}: not readable ({one_line(error)}); expected a picture") from None


def darken_light(capture: Path, image: str, out: Path) -> None:
    """Copy a capture whose `image` is almost black.

    Raises:
        InputError: a picture of another kind, as one with transparency, whose values are not those of its pixels.
    """
    values = _read_values(capture / image)
    shutil.copytree(capture, out)
    Image.fromarray(np.rint(_FAILED_SHARE * values).astype(values.dtype)).save(out / image)


ALTERATIONS = {"missing": leave_out_light, "failed": darken_light}


def alter(captures: Path, labels: Path, how: str, out: Path) -> int:
    """Write the captures and their labels to `out`; returns the number of sessions.

    Raises:
        InputError: `out` exists, labels, lights or pictures that cannot be used, or too few lights to leave one out.
    """
    if out.exists():
        raise InputError(f"{out}: already exists; choose another --out, or remove it")
    columns, sessions = read_session_rows(labels, ["id", "session"])
    if ALTERED in columns:
        raise InputError(f"{labels}: has a column {ALTERED}; name captures that were not altered")
    if not sessions:
        raise InputError(f"{labels}: no sessions; expected a row for each")
    images_of = {}
    for subject, session in sessions:  # all are checked before the first is copied
        capture = captures / subject / session
        images = images_of[subject, session] = read_lights(capture / "lights.csv")[0]
        if absent := [image for image in images if not (capture / image).is_file()]:
            raise InputError(f"{capture / 'lights.csv'}: no image {absent[0]} in that folder; restore it, or remove the row")
        if how == "missing" and len(images) <= MIN_LIGHTS:
            raise InputError(f"{capture}: {len(images)} lights, of which none can be left out; choose --how failed")
        for number, image in enumerate(images):
            name = f"{session}-{how}{number}"
            if (subject, name) in sessions:
                raise InputError(f"{labels}: {subject}/{name} is a session already; rename it")
            if how == "failed":
                _read_values(capture / image)
    rows = []
    for (subject, session), (_, cells) in sessions.items():
        capture = captures / subject / session
        shutil.copytree(capture, out / "captures" / subject / session)
        rows.append([*cells.values(), "0"])
        for number, image in enumerate(images_of[subject, session]):
            name = f"{session}-{how}{number}"
            ALTERATIONS[how](capture, image, out / "captures" / subject / name)
            rows.append([*(cells | {"session": name}).values(), "1"])
    (out / "captures.csv").write_text(format_csv([*columns, ALTERED], rows))
    return len(rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--captures", type=Path, required=True, help="folder of captures with a lights.csv each")
    parser.add_argument("--labels", type=Path, required=True, help="labels table of the captures")
    parser.add_argument("--how", choices=list(ALTERATIONS), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for captures and captures.csv; must not exist")
    options = parser.parse_args(arguments)
    try:
        count = alter(options.captures, options.labels, options.how, options.out)
    except InputError as error:
        raise SystemExit(str(error)) from None
    print(f"altered captures: {options.out} ({count} sessions)")


if __name__ == "__main__":
    main()
