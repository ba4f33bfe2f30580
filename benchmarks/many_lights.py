"""Accuracy of estimators with many lights, error bars of the normals, and the time of 50 lights at 512 x 512 pixels.

Accuracy: mean and median angular error in degrees inside the mask, on a bumpy sphere and a synthetic head (`glossy.py`) with cast
shadows, 12 bit, under domes of 8 to 96 lights: matte with noise of 0, 1 and 2 % of the white level; highlights of Blinn's
model and of Ward, "Measuring and modeling anisotropic reflection", SIGGRAPH 1992, by exponent or roughness, with noise of 0 to
2 %; and overexposed. `robust` is what `prepare` uses with eight lights and more; the others are in `robust_estimators.py`.

    python benchmarks/many_lights.py
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from common import Measurement, argument_parser, limit_threads, report
from tabulate import tabulate

if TYPE_CHECKING:
    from glossy import Lobe

SURFACES = ("sphere", "head")
MANY, WIDEST, WHITE = 8, 60.0, 4095
"""Lights from which `robust` selects observations; angle of the widest light to the camera; white level."""
EXPOSED, OVEREXPOSED = 0.998, 0.95
"""Share of the observations below the white level."""
SPEED_LIGHTS, SPEED_SIZE, SPEED_SECONDS = 50, 512, 10.0


@dataclass(frozen=True)
class Condition:
    """A material under noise, as a share of the white level, and an exposure."""

    material: str
    noise: float
    exposed: float = EXPOSED

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.material}, {'overexposed' if self.exposed == OVEREXPOSED else f'{100 * self.noise:g} %'}"


@dataclass(frozen=True)
class Scene:
    """The pixels of an object in the pictures: images and saturation (k, n), lights (k, 3), true normals (n, 3)."""

    condition: str
    images: np.ndarray
    saturated: np.ndarray
    lights: np.ndarray
    normal: np.ndarray


CONDITIONS = (
    Condition("matte", 0),
    Condition("matte", 0.01),
    Condition("matte", 0.02),
    Condition("matte", 0.005, OVEREXPOSED),
    Condition("Blinn 25", 0.005),
    Condition("Blinn 100", 0.005),
    Condition("Ward 0.1", 0.005),
    Condition("Ward 0.2", 0),
    Condition("Ward 0.2", 0.01),
    Condition("Ward 0.2", 0.02),
    Condition("Ward 0.2", 0.005, OVEREXPOSED),
)


ERROR_CONDITIONS = ("matte, 1 %", "matte, 2 %", "Blinn 100, 0.5 %", "Ward 0.2, 1 %")
"""For the error bars: noise alone, then noise and highlights that bias the normals."""


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--lights", type=int, nargs="+", default=[8, 16, 50, 96], help="numbers of lights, 8 or more")
    parser.add_argument("--surfaces", nargs="+", choices=SURFACES, default=SURFACES)
    parser.add_argument("--size", type=int, default=SPEED_SIZE, help="side in pixels of the timed session")
    options = parser.parse_args()
    limit_threads(options.threads)
    numbers: dict[str, Measurement] = {}
    columns = {count: compare(count, options.surfaces, numbers) for count in options.lights}
    print("\nstandard error: root mean square over pixels in degrees, true and estimated\n")
    print_error_bars(options.lights, numbers)
    seconds = session_seconds(options.size)
    unit = f"s, all maps of {SPEED_LIGHTS} lights at {options.size} x {options.size}"
    numbers["session_seconds"] = Measurement(seconds, SPEED_SECONDS, "lower", unit)
    print("\nall conditions: mean and median error in degrees, and microseconds of processor time a pixel, by number of lights\n")
    names = list(next(iter(columns.values())))
    rows: list[list[object]] = [[name, *(value for column in columns.values() for value in column[name])] for name in names]
    headers = [f"{name} {count}" for count in columns for name in ("mean", "median", "us")]
    report(numbers, rows, ["estimator", *headers], options.json)


def compare(count: int, surfaces: Sequence[str], numbers: dict[str, Measurement]) -> dict[str, tuple[float, float, float]]:
    """Print the mean errors by condition under `count` lights; returns mean, median and microseconds a pixel of each."""
    from robust_estimators import ESTIMATORS

    estimators = {"robust": robust} | ESTIMATORS
    errors: dict[str, dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    seconds, pixels = dict.fromkeys(estimators, 0.0), 0
    for surface in surfaces:
        for scene in rendered(surface, count):
            trust = 1 - 0.95 * scene.saturated
            pixels += trust.shape[1]
            for name, estimate in estimators.items():
                started = time.process_time()
                scaled = estimate(scene.images, scene.lights, trust)
                seconds[name] += time.process_time() - started
                errors[name][scene.condition].append(angles(scaled, scene.normal))
    table = [[name, *(float(np.concatenate(found).mean()) for found in by.values())] for name, by in errors.items()]
    print(f"\n{count} lights: mean angular error in degrees\n")
    print(tabulate(table, headers=["estimator", *(condition.name for condition in CONDITIONS)], floatfmt=".2f"))
    found = {}
    for name, by in errors.items():
        every = np.concatenate([part for parts in by.values() for part in parts])
        found[name] = float(every.mean()), float(np.median(every)), 1e6 * seconds[name] / pixels
    best = min(mean for name, (mean, _, _) in found.items() if name != "robust")
    numbers[f"robust_{count}"] = Measurement(found["robust"][0] / best, 1.0, "lower", "mean error over the best other's")
    return found


def print_error_bars(counts: list[int], numbers: dict[str, Measurement]) -> None:
    """Print true and estimated standard errors by condition and number of lights; under noise alone, their ratio is a number."""
    from fr_ps.photometric.robust import observation_weights
    from fr_ps.photometric.solve import weighted_least_squares
    from fr_ps.photometric.standard_error import normal_standard_error

    rows: dict[str, list[object]] = {name: [name] for name in ERROR_CONDITIONS}
    for count in counts:
        for scene in rendered("sphere", count):
            if scene.condition not in rows:
                continue
            images = scene.images[:, None]
            weights = observation_weights(images, scene.saturated[:, None], scene.lights)
            scaled, _ = weighted_least_squares(images, scene.lights, weights)
            estimated = normal_standard_error(images, scene.lights, weights, scaled)
            pair = [float(np.sqrt(np.nanmean(one**2))) for one in (angles(scaled[:, 0], scene.normal), estimated)]
            rows[scene.condition] += pair
            if scene.condition == ERROR_CONDITIONS[0] and count >= MANY:
                ratio = max(pair[0] / pair[1], pair[1] / pair[0])
                numbers[f"standard_error_{count}"] = Measurement(ratio, 1.15, "lower", "true over estimated or its inverse")
    headers = [f"{name} {count}" for count in counts for name in ("true", "estimated")]
    print(tabulate(list(rows.values()), headers=["condition", *headers], floatfmt=".2f"))


def robust(images: np.ndarray, lights: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """The solver of `prepare`."""
    from fr_ps.photometric.outliers import many_light_weights
    from fr_ps.photometric.solve import weighted_least_squares

    weights = many_light_weights(images[:, None], trust[:, None], lights)[:, 0]
    return weighted_least_squares(images, lights, weights)[0]


def rendered(surface: str, count: int) -> Iterator[Scene]:
    """The scene of each condition."""
    from glossy import shapes
    from rendering import cast_shadow, dome

    lights = dome(count, widest=WIDEST)
    normal, depth, mask, texture = shapes(surface)
    lit = np.stack([(normal @ light > 0) & ~cast_shadow(depth, light) for light in lights])[:, mask]
    normal, texture = normal[mask], texture[mask]
    shading = np.maximum(lights @ normal.T, 0)
    for condition in CONDITIONS:
        albedo, strength, lobe = materials()[condition.material]
        images = lit * (albedo * texture * shading + strength * np.stack([lobe(normal, light) for light in lights]))
        images /= np.quantile(images, condition.exposed)
        images += np.random.default_rng(0).normal(0, condition.noise, images.shape)
        stored = np.clip(np.rint(WHITE * images), 0, WHITE)
        saturated = (stored == WHITE).astype(np.float32)
        yield Scene(condition.name, (stored / WHITE).astype(np.float32), saturated, lights, normal)


def materials() -> "dict[str, tuple[float, float, Lobe]]":
    """Material to its albedo, the strength of its highlights, and their lobe."""
    from glossy import blinn

    return {
        "matte": (0.5, 0.0, blinn(1)),
        "Blinn 25": (0.4, 0.2, blinn(25)),
        "Blinn 100": (0.1, 1.0, blinn(100)),
        "Ward 0.1": (0.3, 0.1, ward(0.1)),
        "Ward 0.2": (0.2, 0.2, ward(0.2)),
    }


def ward(roughness: float) -> "Lobe":
    """Ward's isotropic lobe times n . l, and times pi like the diffuse part."""
    from glossy import CAMERA

    def lobe(normal: np.ndarray, light: np.ndarray) -> np.ndarray:
        half = (light + CAMERA) / np.linalg.norm(light + CAMERA)
        to_light, to_camera, to_half = (np.maximum(normal @ one, 1e-3) for one in (light, CAMERA, half))
        tangent = (1 - np.minimum(to_half, 1) ** 2) / to_half**2
        return np.exp(-tangent / roughness**2) * np.sqrt(to_light / to_camera) / (4 * roughness**2)

    return lobe


def angles(scaled: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """(n,) angles in degrees between scaled normals (3, n) and unit normals (n, 3)."""
    cosine = np.sum(scaled * normal.T, axis=0) / np.maximum(np.linalg.norm(scaled, axis=0), 1e-9)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def session_seconds(size: int) -> float:
    """Seconds from the pictures of a matte head under 50 lights to all maps."""
    from rendering import dome

    from fr_ps.photometric.captures import Capture
    from fr_ps.photometric.frame import fit_frame
    from fr_ps.photometric.maps import compute_maps
    from fr_ps.synthetic.scene import render_session

    scene, lights = render_session(seed=7, subject=1, session=0, size=size), dome(SPEED_LIGHTS)
    images = np.maximum(np.einsum("hwc,kc->khw", scene.normal, lights.astype(np.float32)), 0) * scene.albedo
    images *= 0.95 / np.quantile(images, EXPOSED)
    images += np.random.default_rng(0).normal(0, 0.005, images.shape).astype(np.float32)
    images = np.clip(images, 0, 1).astype(np.float32)
    capture, frame = Capture(images, lights, images >= 1), fit_frame((0, 0, size, size), size, "crop")
    started = time.perf_counter()
    compute_maps(capture, frame, solver="robust", integration="poisson")
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
