"""Write a prepared data set with altered maps, to measure with benchmarks/recognition.py what the alteration changes.

- confidence: normals n become normalise(c n + (1 - c) (0, 0, 1)), and albedo is blended in the same way with its median over the
  session. c is the photometric confidence that `fr-ps prepare` stored with the maps.
- mirror: each pixel is blended with the mirrored pixel of the other half of the face by (1 - c) c', where c and c' are the
  confidences of the two. A pixel that the lights determine remains, and one that they do not becomes that of the other half.
- slopes: normals become those of the depth, so that they describe an integrable surface.
- relight: the sessions as they are (relit=0 in labels.csv), and for each one further sessions (relit=1). Its albedo and normals
  are rendered under four lights that are drawn at random (matte, attached shadows, noise, 8 bits), and solved and integrated like
  captures. Training uses all sessions; only those with relit=0 are compared.

Other maps, labels and session names stay as they are, so that folds and jitter are those of the source. The result has no record
of its preparation (prepared.json), because `fr-ps prepare` cannot reproduce it. --out must not exist.

    python benchmarks/alter_maps.py --data data/yale_b --how confidence --out data/yale_b_confidence
    python benchmarks/alter_maps.py --data data/yale_b --how slopes --out data/yale_b_slopes
    python benchmarks/alter_maps.py --data data/yale_b --how relight --out data/yale_b_relight
    python benchmarks/recognition.py --data data/yale_b_confidence --config experiments/yale_fusion.yaml
    python benchmarks/recognition.py --data data/yale_b_relight --tested relit=0 --config experiments/yale_fusion.yaml
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rendering import render

from fr_ps.data.labels import Labels, read_labels
from fr_ps.data.layout import LABELS_FILE, QUALITY, map_file, output_folder, read_map, session_folder
from fr_ps.errors import InputError
from fr_ps.npy import read_array, write_array
from fr_ps.photometric.captures import Capture
from fr_ps.photometric.frame import fit_frame
from fr_ps.photometric.integrate import normals_from_depth
from fr_ps.photometric.lights import light_directions
from fr_ps.photometric.maps import SurfaceMaps, compute_maps
from fr_ps.photometric.solve import split_albedo
from fr_ps.tables import format_csv

MAPS = ("albedo", "normal", "depth", "confidence")
RELIT = "relit"
"""Column of labels.csv: 1 for a session that was relit, else 0."""
_WHITE = 255
_EXPOSURE = 250
"""Value of the brightest pixels of a relit session, but for the brightest 0.2 %."""
_NOISE = 1.0
"""Standard deviation of the noise, of 255."""


def blend_by_confidence(maps: SurfaceMaps) -> SurfaceMaps:
    """Maps with less evidence where the confidence is low; see the module."""
    share = maps.confidence
    frontal = np.array([0, 0, 1], dtype=np.float32)
    blended = share[..., None] * maps.normal + (1 - share[..., None]) * frontal
    normal = split_albedo(blended.transpose(2, 0, 1))[1].transpose(1, 2, 0)
    albedo = share * maps.albedo + (1 - share) * np.median(maps.albedo)
    return SurfaceMaps(albedo, normal, maps.depth, share, maps.quality, maps.notes)


def fill_from_mirror(maps: SurfaceMaps) -> SurfaceMaps:
    """Maps whose undetermined pixels are those of the other half of the face; see the module."""
    share = (1 - maps.confidence) * maps.confidence[:, ::-1]
    mirrored = maps.normal[:, ::-1] * np.array([-1, 1, 1], dtype=np.float32)
    blended = (1 - share[..., None]) * maps.normal + share[..., None] * mirrored
    normal = split_albedo(blended.transpose(2, 0, 1))[1].transpose(1, 2, 0)
    albedo = (1 - share) * maps.albedo + share * maps.albedo[:, ::-1]
    return SurfaceMaps(albedo, normal, maps.depth, maps.confidence, maps.quality, maps.notes)


def normals_of_depth(maps: SurfaceMaps) -> SurfaceMaps:
    """Maps whose normals are those of the depth."""
    normal = normals_from_depth(maps.depth).transpose(1, 2, 0)
    return SurfaceMaps(maps.albedo, normal, maps.depth, maps.confidence, maps.quality, maps.notes)


def draw_lights(rng: np.random.Generator) -> np.ndarray:
    """(4, 3) directions of four lights, symmetric between left and right as those of the sessions of Yale B.

    An upper and a lower pair, or a pair at the sides and two lights in the middle, with equal probability. Azimuths are from 10
    to 60 degrees, elevations from 10 to 65 above and from 10 to 40 below. The condition number is below 10.
    """
    (azimuth, other), above, below = rng.uniform(10, 60, size=2), rng.uniform(10, 65), -rng.uniform(10, 40)
    if rng.random() < 0.5:
        return light_directions([(azimuth, above), (-azimuth, above), (other, below), (-other, below)])
    return light_directions([(azimuth, 0), (-azimuth, 0), (0, above), (0, below)])


def relight(maps: SurfaceMaps, lights: np.ndarray, rng: np.random.Generator) -> SurfaceMaps:
    """The maps that the solver `robust` returns for pictures of `maps` under (k, 3) `lights`.

    Pixels of albedo 0, as outside the picture, stay black. The albedo keeps its unit.
    """
    radiance = render(maps.albedo, maps.normal, maps.depth, lights, cast_shadows=False)
    exposure = _EXPOSURE / max(float(np.quantile(radiance, 0.998)), 1e-6)
    noise = rng.normal(0, _NOISE, radiance.shape) * (maps.albedo > 0)
    values = np.clip(np.rint(exposure * radiance + noise), 0, _WHITE)
    size = len(maps.albedo)
    capture = Capture((values / _WHITE).astype(np.float32), lights, values == _WHITE)
    solved = compute_maps(capture, fit_frame((0, 0, size, size), size, "crop"))
    albedo = solved.albedo * np.float32(_WHITE / exposure)
    return SurfaceMaps(albedo, solved.normal, solved.depth, solved.confidence, solved.quality, solved.notes)


ALTERATIONS: dict[str, Callable[[SurfaceMaps], SurfaceMaps]] = {
    "confidence": blend_by_confidence,
    "mirror": fill_from_mirror,
    "slopes": normals_of_depth,
}


def read_maps(root: Path, subject: str, session: str) -> SurfaceMaps:
    """The maps of one session, without quality and notes.

    Raises:
        InputError: a map is missing or unusable.
    """
    found = {}
    for name in MAPS[:3]:
        path = map_file(root, subject, session, name)
        if path is None:
            raise InputError(f"{session_folder(root, subject, session)}: no {name} map; prepare the session again")
        found[name] = read_map(path, name)
    confidence = read_array(session_folder(root, subject, session) / "confidence.npy")
    normal = np.ascontiguousarray(found["normal"].transpose(1, 2, 0))
    return SurfaceMaps(found["albedo"][0], normal, found["depth"][0], confidence, {}, {})


def write_maps(out: Path, subject: str, session: str, maps: SurfaceMaps) -> None:
    """Write the maps of one session as `fr-ps prepare` does."""
    folder = output_folder(out, subject, session)
    folder.mkdir(parents=True)
    for name in MAPS:
        write_array(folder / f"{name}.npy", np.ascontiguousarray(getattr(maps, name), dtype=np.float32))


def alter(data: Path, out: Path, how: str, copies: int, seed: int) -> int:
    """Write the altered data set; returns its number of sessions.

    Args:
        data: prepared data set.
        out: folder of the result, which must not exist.
        how: `confidence`, `mirror`, `slopes` or `relight`.
        copies: relit sessions of each session.
        seed: of the lights and the noise; they do not depend on the order of the table.

    Raises:
        InputError: `out` exists, or labels or maps that cannot be used.
    """
    if out.exists():
        raise InputError(f"{out}: already exists; choose another --out, or remove it")
    labels = read_labels(data / LABELS_FILE)
    if RELIT in labels.columns:
        raise InputError(f"{data / LABELS_FILE}: has a column {RELIT}; name a data set that was not relit")
    rows = []
    for row, (subject, session) in enumerate(labels.row_keys()):
        maps = read_maps(data, subject, session)
        cells = {name: str(column[row]) for name, column in labels.columns.items()}
        if how != "relight":
            write_maps(out, subject, session, ALTERATIONS[how](maps))
            rows.append(cells)
            continue
        write_maps(out, subject, session, maps)
        rows.append(cells | {RELIT: "0"})
        for copy in range(1, copies + 1):
            rng = np.random.default_rng([seed, copy, *f"{subject}/{session}".encode()])
            relit = relight(maps, draw_lights(rng), rng)
            name = f"{session}-relit{copy}"
            write_maps(out, subject, name, relit)
            rows.append(cells | _measured(labels, relit) | {"session": name, RELIT: "1"})
    (out / LABELS_FILE).write_text(format_csv(list(rows[0]), [list(row.values()) for row in rows]))
    return len(rows)


def _measured(labels: Labels, maps: SurfaceMaps) -> dict[str, str]:
    """The quality columns of a table that has them, for a session with these maps."""
    columns = {f"{QUALITY}{measure}": f"{value:.5f}" for measure, value in maps.quality.items()}
    return {name: value for name, value in columns.items() if name in labels.columns}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="prepared data set")
    parser.add_argument("--how", choices=[*ALTERATIONS, "relight"], required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the altered data set; must not exist")
    parser.add_argument("--copies", type=int, default=2, help="relight: further sessions for each session")
    parser.add_argument("--seed", type=int, default=0, help="relight: of the lights and the noise")
    options = parser.parse_args(arguments)
    try:
        count = alter(options.data, options.out, options.how, options.copies, options.seed)
    except InputError as error:
        raise SystemExit(str(error)) from None
    print(f"altered data set: {options.out} ({count} sessions)")


if __name__ == "__main__":
    main()
