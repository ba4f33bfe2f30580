"""Accuracy of the normals and speed of `prepare`.

Accuracy: mean angular error of a solver's normals in degrees, by light set, as a ratio to least squares.

- On Yale B (20 subjects, 158 sessions, q1..q8) the reference is the surface with the least absolute deviations from the
  pictures of all other sessions of the subject, without shadows and saturated pixels.
- On rendered faces (synthetic heads under the same eight light sets, with cast shadows, highlights and noise, 8 bit) the
  ground truth is exact.
- The mean face is that of the other subjects, from their maps by `integrable` without a prior.
- Without the shared data, the rendered faces use the built-in light set only.
- Then glossy surfaces by number of lights (`glossy.py`).

Speed: sessions per second of `prepare` with one and two workers, relative to only reading and decoding the same pictures and
writing files of the same size, synced and renamed likewise; interleaved in one process. Then the solver's share of the time.

    python benchmarks/photometric.py
"""

import os
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from common import Measurement, argument_parser, interleave, limit_threads, report
from glossy import report_glossy

SIZE = 112
SOLVERS = ("robust", "robust + intensities", "integrable", "integrable + mean face")
SHADOW, DARK, SATURATED = 0.12, 0.03, 0.01
"""The reference omits pixels darker than this share of the albedo, darker than this, and with this share of saturation."""
HIGHLIGHT, NOISE = 0.15, 1.5 / 255
"""Of the rendered faces: highlights as a share of the albedo, and the standard deviation of the noise."""


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=20, help="subjects of Yale B, and rendered subjects")
    parser.add_argument("--turns", type=int, default=5, help="of the speed measurement")
    options = parser.parse_args()
    limit_threads(options.threads)
    from fr_ps.photometric.lights import light_directions
    from fr_ps.synthetic.captures import write_synthetic_captures
    from fr_ps.synthetic.scene import LIGHT_ANGLES

    numbers: dict[str, Measurement] = {}
    lights = {"built-in": light_directions(LIGHT_ANGLES)}
    yale = shared_yale()
    if yale:
        captures = read_yale(yale, options.people)
        cases = yale_cases(captures)
        accuracy("Yale B", cases, numbers)
        print("\nYale B: intensity of each light by the reference, mean 1: median and standard deviation over subjects\n")
        light_intensities(cases)
        lights = {session: capture.lights for (_, session), (capture, _) in captures.items()}
    accuracy("rendered", rendered_cases(lights, options.people), numbers)
    glossy_captures = yale.parents[1] / "cases" / "highlight" / "captures" if yale else None
    report_glossy(lights, glossy_captures if glossy_captures and glossy_captures.is_dir() else None, numbers)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        if not yale:
            write_synthetic_captures(Path(folder) / "raw", people=20, sessions=8, seed=0, size=168)
        print(f"\nspeed, {'Yale B' if yale else 'synthetic pictures'}\n")
        source = yale if yale else Path(folder) / "raw"
        rows = speed(source / "captures", Path(folder) / "out", options.turns, numbers)
    report(numbers, rows, ["", "sessions/s", "of read, decode, write"], options.json)


def shared_yale() -> Path | None:
    shared = os.environ.get("FR_PS_SHARED")
    folder = (Path(shared) if shared else Path(__file__).parents[2] / "shared") / "data" / "yale_b"
    if folder.is_dir():
        return folder
    print(f"{folder} does not exist: skipping Yale B; set FR_PS_SHARED to the folder that contains data/yale_b")
    return None


def read_yale(yale: Path, people: int) -> dict:
    """(id, session) to its capture and its frame."""
    from fr_ps.photometric.align import align_capture
    from fr_ps.photometric.captures import read_capture
    from fr_ps.photometric.sources import list_sources

    sources = list_sources(yale / "captures")
    chosen = sorted({source.id for source in sources})[:people]
    found = {}
    for source in sources:
        if source.id in chosen:
            capture = read_capture(source.folder)
            frame, _ = align_capture(capture, source.folder, "none", None, size=SIZE, fit="crop")
            found[source.id, source.session] = capture, frame
    return found


def yale_cases(captures: dict) -> dict:
    """(id, session) to its capture, its frame, and the reference normals (H, W, 3) from the subject's other sessions."""
    from fr_ps.photometric.frame import warp

    planes = {}
    for key, (capture, frame) in captures.items():
        planes[key] = warp(capture.images, frame), warp(capture.saturated, frame), capture.lights
    cases = {}
    for (subject, session), (capture, frame) in captures.items():
        others = [planes[key] for key in planes if key[0] == subject and key[1] != session]
        truth = reference(*(np.concatenate(parts) for parts in zip(*others)))
        cases[subject, session] = capture, frame, truth
    return cases


def reference(images: np.ndarray, saturated: np.ndarray, lights: np.ndarray) -> np.ndarray:
    """(H, W, 3) unit normals: iteratively reweighted toward least absolute deviations, without shadows and saturation."""
    from fr_ps.photometric.solve import split_albedo, weighted_least_squares

    usable = (images > DARK) & (saturated < SATURATED)
    scaled, _ = weighted_least_squares(images, lights, usable + 1e-4)
    for _ in range(12):
        albedo = np.linalg.norm(scaled, axis=0)
        error = np.abs(images - np.tensordot(lights, scaled, axes=1))
        lit = usable & (images > SHADOW * albedo)
        scaled, _ = weighted_least_squares(images, lights, lit / np.maximum(error, 0.01 * albedo + 1e-4) + 1e-6)
    return split_albedo(scaled)[1].transpose(1, 2, 0)


def rendered_cases(lights: dict[str, np.ndarray], people: int) -> dict:
    """Like `yale_cases`, of synthetic subjects under the same lights."""
    from rendering import render

    from fr_ps.photometric.captures import Capture
    from fr_ps.photometric.frame import fit_frame
    from fr_ps.synthetic.scene import render_session

    frame = fit_frame((0, 0, SIZE, SIZE), SIZE, "crop")
    cases = {}
    for subject in range(people):
        scene = render_session(seed=7, subject=subject, session=0, size=SIZE)
        shine = HIGHLIGHT * float(np.quantile(scene.albedo, 0.9))
        for session, directions in lights.items():
            images = render(scene.albedo, scene.normal, scene.depth, directions, cast_shadows=True, highlights=shine)
            images *= 0.95 / np.quantile(images, 0.995)
            images += np.random.default_rng([subject, *session.encode()]).normal(0, NOISE, images.shape)
            stored = np.clip(np.rint(255 * images), 0, 255)
            capture = Capture((stored / 255).astype(np.float32), directions, stored == 255)
            cases[f"S{subject:03d}", session] = capture, frame, scene.normal
    return cases


def accuracy(name: str, cases: dict, numbers: dict[str, Measurement]) -> None:
    """Print the table of one kind of ground truth, and add its summary to the numbers."""
    from tabulate import tabulate

    from fr_ps.errors import InputError
    from fr_ps.photometric.maps import compute_maps

    print(f"\n{name}: {len(cases)} sessions, mean angular error in degrees and ratios to least squares\n")
    errors: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    normals = {}

    def solve(column: str, key: tuple[str, str], **settings) -> None:
        capture, frame, truth = cases[key]
        try:
            normals[key] = compute_maps(capture, frame, **settings).normal
        except InputError:  # too few pixels are lit by every light to estimate intensities
            normals[key] = compute_maps(capture, frame, solver="robust").normal
        angles = np.degrees(np.arccos(np.clip(np.sum(normals[key] * truth, axis=-1), -1, 1)))
        errors[column][key[1]].append(float(angles.mean()))

    for key in cases:
        solve("least squares", key, solver="least_squares")
        solve("robust", key, solver="robust")
        solve("robust + intensities", key, solver="robust", calibrate_intensities=True)
        solve("integrable", key, solver="integrable")
    priors = {subject: mean_face(normals, subject) for subject, _ in cases}
    for key in cases:
        solve("integrable + mean face", key, solver="integrable", prior=priors[key[0]])

    means = {column: {q: float(np.mean(values)) for q, values in by_set.items()} for column, by_set in errors.items()}
    base = means["least squares"]
    ratios = {column: {q: means[column][q] / base[q] for q in sorted(base)} for column in SOLVERS}
    total = {column: sum(means[column].values()) / sum(base.values()) for column in SOLVERS}
    rows: list[list[object]] = [[q, base[q], *(ratios[column][q] for column in SOLVERS)] for q in sorted(base)]
    rows.append(["all", float(np.mean(list(base.values()))), *total.values()])
    print(tabulate(rows, headers=["lights", "least squares", *SOLVERS], floatfmt=".3f"))
    short = name.lower().replace(" ", "_")
    for column, goal in (("robust", 0.92), ("integrable", 0.85), ("integrable + mean face", 0.85)):
        key = f"{short}_{column.replace(' + ', '_').replace(' ', '_')}"
        numbers[key] = Measurement(total[column], goal, "lower", "error over least squares'")
        numbers[f"{key}_worst"] = Measurement(max(ratios[column].values()), 1.01, "lower", "the same, worst light set")


def light_intensities(cases: dict) -> None:
    """Print the intensity of each light: the median over pixels of the picture, divided by the reference under equal lights.

    Sessions with a failed light are left out.
    """
    from tabulate import tabulate

    from fr_ps.photometric.frame import warp

    found = defaultdict(list)
    for (_, session), (capture, frame, truth) in cases.items():
        if capture.failed:
            continue
        images = warp(capture.images, frame)
        shading = np.einsum("hwc,kc->khw", truth, capture.lights)
        lit = (images > 0.25 * images.max(axis=0)) & (shading > 0.1)
        several = lit.sum(axis=0) >= 2
        albedo = np.sum(images * lit, axis=0) / np.maximum(np.sum(shading * lit, axis=0), 1e-6)
        relative = images / np.maximum(albedo * shading, 1e-6)
        medians = np.array([np.median(relative[k][lit[k] & several]) for k in range(len(images))])
        found[session].append(medians / medians.mean())
    rows = []
    for session in sorted(found):
        values = np.array(found[session])
        rows.append([session, *(f"{m:.2f} ({d:.2f})" for m, d in zip(np.median(values, axis=0), values.std(axis=0)))])
    print(tabulate(rows, headers=["lights", "first", "second", "third", "fourth"]))


def mean_face(normals: dict, without: str) -> np.ndarray:
    """(H, W, 3): the mean over the other subjects of the mean over their sessions, like fr-ps data mean."""
    by_subject = defaultdict(list)
    for (subject, _), found in normals.items():
        if subject != without:
            by_subject[subject].append(found)
    return np.mean([np.mean(found, axis=0) for found in by_subject.values()], axis=0)


def speed(captures: Path, out: Path, turns: int, numbers: dict[str, Measurement]) -> list[list[object]]:
    """Rows of sessions per second; adds their summary to the numbers."""
    from fr_ps.photometric.sources import list_sources

    count = len(list_sources(captures))
    seconds = interleave(
        {
            "read, decode, write": lambda: time_floor(captures, out),
            "prepare, least squares": lambda: time_prepare(captures, out, solver="least_squares"),
            "prepare, robust": lambda: time_prepare(captures, out, solver="robust"),
            "prepare, robust, 2 workers": lambda: time_prepare(captures, out, solver="robust", workers=2),
            "prepare, integrable": lambda: time_prepare(captures, out, solver="integrable"),
            "prepare, integrable, 2 workers": lambda: time_prepare(captures, out, solver="integrable", workers=2),
        },
        turns,
    )
    floor = seconds["read, decode, write"]
    shares = {name: statistics.median(f / s for f, s in zip(floor, found)) for name, found in seconds.items()}
    numbers["prepare_of_floor"] = Measurement(shares["prepare, robust"], 0.5, "higher", "sessions/s over sessions/s")
    for solver in ("robust", "integrable"):
        share = solver_share(captures, solver, statistics.median(seconds[f"prepare, {solver}"]) / count)
        numbers[f"{solver}_share_of_prepare"] = Measurement(share, 0.25, "lower", "time over time")
    return [[name, count / statistics.median(found), shares[name]] for name, found in seconds.items()]


def time_prepare(captures: Path, out: Path, **settings) -> float:
    """Seconds of `prepare` into a new folder."""
    from fr_ps.config import PrepareConfig
    from fr_ps.data.prepare import prepare

    started = time.perf_counter()
    prepare(PrepareConfig(captures=str(captures), out=str(out), **settings))
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    return seconds


def time_floor(captures: Path, out: Path) -> float:
    """Seconds to read and decode the pictures and to write files of the same size; each capture has four lights."""
    from fr_ps.files import atomic_folder
    from fr_ps.npy import write_array
    from fr_ps.photometric.images import read_image
    from fr_ps.photometric.sources import list_sources

    plane, normal = np.ones((SIZE, SIZE), dtype=np.float32), np.ones((SIZE, SIZE, 3), dtype=np.float32)
    pictures = np.ones((4, SIZE, SIZE), dtype=np.float16)
    files = {"albedo": plane, "normal": normal, "depth": plane, "confidence": plane, "pictures": pictures}
    started = time.perf_counter()
    for source in list_sources(captures):
        for image in sorted(source.folder.glob("im*")):
            read_image(image)
        with atomic_folder(out / source.id / source.session) as temporary:
            for name, array in files.items():
                write_array(temporary / f"{name}.npy", array)
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    return seconds


def solver_share(captures: Path, solver: str, session_seconds: float) -> float:
    """The time of the solver alone as a share of the time of a session."""
    from fr_ps.photometric.captures import read_capture
    from fr_ps.photometric.frame import fit_frame, warp
    from fr_ps.photometric.robust import observation_weights, solve_integrable
    from fr_ps.photometric.solve import weighted_least_squares
    from fr_ps.photometric.sources import list_sources

    mask = np.ones((SIZE, SIZE), dtype=bool)
    ready = []
    for source in list_sources(captures)[:40]:
        capture = read_capture(source.folder)
        height, width = capture.images.shape[1:]
        frame = fit_frame((0, 0, width, height), SIZE, "crop")
        ready.append((warp(capture.images, frame), warp(capture.saturated, frame), capture.lights))
    started = time.perf_counter()
    for images, saturated, lights in ready:
        weights = observation_weights(images, saturated, lights)
        weighted_least_squares(images, lights, weights)
        if solver == "integrable":
            solve_integrable(images, lights, weights, mask)
    return (time.perf_counter() - started) / len(ready) / session_seconds


if __name__ == "__main__":
    main()
