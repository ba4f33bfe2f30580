"""The command `calibrate`."""

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from fr_ps.arguments import Command, Parser, add_overwrite_flag
from fr_ps.errors import InputError
from fr_ps.terminal import echo_loading

if TYPE_CHECKING:
    import numpy as np

    from fr_ps.photometric.sphere import SphereCalibration
    from fr_ps.photometric.sphere_circle import Circle

_LIGHTS, _FIGURE = "lights", "lights_figure"
"""Kinds of output for `fr_ps.outputs`."""


def _add_calibrate_arguments(calibrate: Parser) -> None:
    calibrate.description = (
        "Light directions from the highlights on a mirror sphere, seen by a distant (orthographic) camera: lights.csv, and a "
        "picture of what was found beside it."
    )
    calibrate.add_argument(
        "--sphere", type=str, required=True, help="folder with a picture of the sphere under each light; optionally mask.png"
    )
    calibrate.add_argument(
        "--out", type=str, default="lights.csv", help="CSV to write: image, x, y, z, and intensity if measured"
    )
    calibrate.add_argument(
        "--circle",
        type=str,
        default=None,
        help="outline of the sphere as X,Y,RADIUS in pixels from the top left corner; default: from mask.png, else found",
    )
    calibrate.add_argument(
        "--white",
        type=str,
        default=None,
        help="folder with pictures of the same names, of a white matte target that faces the camera",
    )
    calibrate.add_argument(
        "--faces", type=str, default=None, help="folder of {id}/{session}/ with pictures of the same names, of faces"
    )
    add_overwrite_flag(calibrate)


def _calibrate(arguments: Namespace) -> None:
    echo_loading(f"the pictures of {arguments.sphere}", "scipy")
    from fr_ps.outputs import check_output_file, is_output, write_output
    from fr_ps.photometric.light_intensities import check_faces, check_names
    from fr_ps.photometric.sphere import calibrate_sphere, lights_csv, list_pictures
    from fr_ps.photometric.sphere_figure import calibration_figure
    from fr_ps.progress import progress
    from fr_ps.report.figures import to_png

    folder, out = Path(arguments.sphere), Path(arguments.out)
    if arguments.white and arguments.faces:
        raise InputError("--white and --faces both measure the intensities; expected one of them")
    if out.suffix.lower() != ".csv":
        raise InputError(f"--out is {arguments.out}; expected a file name that ends with .csv")
    circle = _parse_circle(arguments.circle) if arguments.circle is not None else None
    figure = out.with_suffix(".png")
    inputs = {"--sphere": folder, "--white": arguments.white, "--faces": arguments.faces}
    for path, kind in ((out, _LIGHTS), (figure, _FIGURE)):
        check_output_file(path, kind, inputs, arguments.overwrite)
    ignored = [name for name in list_pictures(folder) if is_output(folder / name, _FIGURE)]  # of earlier runs
    names = list_pictures(folder, ignored)
    if arguments.white:
        check_names(Path(arguments.white), names)
    if arguments.faces:
        check_faces(Path(arguments.faces), names)
    with progress("calibrate", 2 * len(names), "pictures") as advance:
        calibration = calibrate_sphere(folder, circle, ignored=ignored, advance=advance)
    intensities, note = _measure_intensities(arguments, calibration)
    write_output(out, _LIGHTS, lights_csv(calibration, intensities).encode())
    write_output(figure, _FIGURE, to_png(calibration_figure(calibration)))
    _print_calibration(calibration, intensities)
    print("\n".join([*note, f"lights: {out}", f"picture: {figure}"]))


def _parse_circle(text: str) -> "Circle":
    from fr_ps.photometric.lights import parse_number
    from fr_ps.photometric.sphere_circle import Circle

    expected = "X,Y,RADIUS in pixels, as 320.5,241,150"
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3:
        raise InputError(f"--circle is {text!r}; expected {expected}")
    x, y, radius = (parse_number(part, f"--circle {text}: a number", expected) for part in parts)
    return Circle(x, y, radius)


def _measure_intensities(arguments: Namespace, calibration: "SphereCalibration") -> "tuple[np.ndarray | None, list[str]]":
    """The intensities, None if not measured, and lines about them."""
    from fr_ps.photometric.light_intensities import intensities_from_faces, intensities_from_target, select_sessions
    from fr_ps.progress import progress

    names, lights = calibration.names, calibration.lights
    if arguments.white:
        with progress("white target", 2 * len(names), "pictures") as advance:
            return intensities_from_target(Path(arguments.white), names, lights, advance), ["intensities: white target, mean 1"]
    if arguments.faces:
        captures = Path(arguments.faces)
        with progress("faces", len(select_sessions(captures)), "sessions") as advance:
            found = intensities_from_faces(captures, names, lights, advance)
        counts = f"{found.sessions} sessions" + (f" ({found.skipped} not usable)" if found.skipped else "")
        line = f"intensities: median of {counts}, mean 1; standard deviation over sessions at most {found.spread.max():.3f}"
        return found.intensities, [line]
    return None, []


def _print_calibration(calibration: "SphereCalibration", intensities: "np.ndarray | None") -> None:
    import numpy as np
    from tabulate import tabulate

    from fr_ps.config import PrepareConfig
    from fr_ps.photometric.sphere_figure import circle_text

    rows = []
    for number, (name, highlight) in enumerate(zip(calibration.names, calibration.highlights)):
        cells = [f"{highlight.x:.2f}", f"{highlight.y:.2f}", *(f"{value:.4f}" for value in highlight.direction)]
        angle = f"{np.degrees(np.arccos(highlight.direction[2])):.1f}"
        rows.append([name, *cells, angle, f"{highlight.spread:.2f}"])
        if intensities is not None:
            rows[-1].append(f"{intensities[number]:.3f}")
    header = ["image", "pixel x", "pixel y", "x", "y", "z", "degrees from axis", "spread, degrees"]
    header += ["intensity"] if intensities is not None else []
    right = ["left", *["right"] * (len(header) - 1)]
    print(tabulate(rows, headers=header, disable_numparse=True, colalign=right))
    if copies := calibration.copies:
        name, other = copies[0]
        more = f" ({len(copies)} copies in all)" if len(copies) > 1 else ""
        print(f"\nwarning: {other} and {name} are the same picture{more}; remove one, or take the picture of its light")
    circle = calibration.circle
    residual = "" if circle.residual is None else f"; residual {circle.residual:.2f} pixels"
    support = "" if circle.support is None else f", along {circle.support:.0%} of the outline"
    print(f"\n{circle_text(calibration)}{residual}{support}")
    print(f"resolution: a shift of one pixel turns a light by {np.degrees(2 / circle.radius):.2f} degrees or more")
    limit = PrepareConfig.max_condition
    warning = f"; warning: fr-ps prepare rejects more than {limit:g}, spread the lights" if calibration.condition > limit else ""
    print(f"condition number of the lights: {calibration.condition:.2f}{warning}")


COMMANDS = {"calibrate": Command(_add_calibrate_arguments, _calibrate)}
