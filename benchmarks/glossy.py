"""Accuracy of `robust` on rendered glossy surfaces with exact normals; a part of `photometric.py`.

Four surfaces (a sphere with bumps, waves, a synthetic head, half a ball on a table), cast shadows, ambient light of 2 % of
the albedo, noise, 8 or 16 bit. Highlights: Blinn, "Models of light reflection for computer synthesized pictures", SIGGRAPH
1977, by exponent; or Cook and Torrance, "A reflectance model for computer graphics", ACM TOG 1982, with the distribution of
Walter et al., "Microfacet models for refraction", EGSR 2007 (GGX), by roughness.
"""

from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from common import Measurement
from rendering import cast_shadow, dome
from scipy.ndimage import gaussian_filter

if TYPE_CHECKING:
    from fr_ps.photometric.captures import Capture
    from fr_ps.photometric.frame import Frame

SIZE = 48
AMBIENT, NOISE = 0.02, 0.002
CAMERA = np.array([0.0, 0, 1])
COUNTS = (8, 12, 20, 50)
SURFACES = ("sphere", "waves", "head", "table")
Lobe = Callable[[np.ndarray, np.ndarray], np.ndarray]


def report_glossy(sets: dict[str, np.ndarray], cases: Path | None, numbers: dict[str, Measurement]) -> None:
    """Print the table of materials by number of lights, and add its summary to the numbers.

    Args:
        sets: light set to its (4, 3) directions.
        cases: the folder of two rendered captures, H04 and H20, with truth; None if absent.
        numbers: to add to.
    """
    from tabulate import tabulate

    by_set: dict[str, dict[str, list[tuple[float, float]]]] = {}
    by_count: dict[int, dict[str, list[tuple[float, float]]]] = {count: {} for count in COUNTS}
    for material, (albedo, strength, lobe) in materials().items():
        by_set[material] = {name: errors_by_surface(albedo, strength, lobe, lights) for name, lights in sets.items()}
        for count in COUNTS:
            by_count[count][material] = errors_by_surface(albedo, strength, lobe, dome(count))
    set_ratios = {material: {name: error_ratio(found) for name, found in each.items()} for material, each in by_set.items()}
    four_lights = {material: list(chain(*each.values())) for material, each in by_set.items()}
    rows: list[list[object]] = []
    for material in by_set:
        rows.append([material, *summary(four_lights[material])])
        for count in COUNTS:
            rows[-1] += summary(by_count[count][material])
    without_broad = [material for material in by_set if material != BROAD]
    rows.append(["all except broad", *summary(chain(*(four_lights[material] for material in without_broad)))])
    numbers["glossy_4"] = Measurement(error_ratio(chain(*four_lights.values())), 1.01, "lower", "error over least squares'")
    worst = max(max(ratios.values()) for ratios in set_ratios.values())
    numbers["glossy_4_worst"] = Measurement(worst, 1.01, "lower", "the same, worst material and light set")
    for count in COUNTS:
        degrees, ratio = summary(chain(*(by_count[count][material] for material in without_broad)))
        rows[-1] += [degrees, ratio]
        numbers[f"glossy_{count}"] = Measurement(ratio, 0.6, "lower", "error over least squares', without broad")
        worst = max(map(error_ratio, by_count[count].values()))
        numbers[f"glossy_{count}_worst"] = Measurement(worst, 0.6, "lower", "the same, worst of all materials")
    print("\nglossy surfaces: mean angular error of least squares in degrees, and ratio of robust to it, by number of lights\n")
    headers = ["highlights", *(f"{name} {count}" for count in (4, *COUNTS) for name in ("degrees", "ratio"))]
    print(tabulate(rows, headers=headers, floatfmt=".3f"))
    print("\nratio of robust to least squares with four lights, by light set\n")
    rows = [[material, *ratios.values()] for material, ratios in set_ratios.items()]
    print(tabulate(rows, headers=["highlights", *sets], floatfmt=".3f"))
    if cases:
        for name, goal in (("H04", 1.01), ("H20", 0.6)):
            plain, robust = case_errors(cases / name / "a")
            numbers[f"case_{name}"] = Measurement(robust / plain, goal, "lower", "error over least squares'")


def errors_by_surface(albedo: float, strength: float, lobe: Lobe, lights: np.ndarray) -> list[tuple[float, float]]:
    """Errors of least squares and robust on each surface, under these lights."""
    return [errors(*rendered(surface, albedo, strength, lobe, lights)) for surface in SURFACES]


def summary(found: Iterable[tuple[float, float]]) -> list[float]:
    """The mean error of least squares in degrees, and the ratio of robust's mean error to it."""
    plain, robust = np.mean(list(found), axis=0)
    return [float(plain), float(robust / plain)]


def error_ratio(found: Iterable[tuple[float, float]]) -> float:
    return summary(found)[1]


def errors(capture: "Capture", frame: "Frame", normal: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Mean angular errors in degrees of least squares and robust inside the mask."""
    from fr_ps.photometric.maps import compute_maps

    found = []
    for solver in ("least_squares", "robust"):
        cosine = np.sum(compute_maps(capture, frame, solver=solver).normal * normal, axis=-1)[mask]
        found.append(float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean()))
    return found[0], found[1]


def case_errors(folder: Path) -> tuple[float, float]:
    """The errors of a stored capture, whose folder contains the ground truth."""
    from fr_ps.photometric.captures import read_capture
    from fr_ps.photometric.frame import fit_frame
    from fr_ps.photometric.images import read_image

    normal = np.load(folder / "truth_normal.npy", allow_pickle=False)
    mask = read_image(folder / "truth_mask.png").luminance > 0
    frame = fit_frame((0, 0, mask.shape[1], mask.shape[0]), mask.shape[0], "crop")
    return errors(read_capture(folder), frame, normal, mask)


def rendered(
    surface: str, albedo: float, strength: float, lobe: Lobe, lights: np.ndarray
) -> "tuple[Capture, Frame, np.ndarray, np.ndarray]":
    """A capture, its frame, the true normals (H, W, 3), and the pixels (H, W) of the object."""
    from fr_ps.photometric.captures import Capture
    from fr_ps.photometric.frame import fit_frame

    normal, depth, mask, texture = shapes(surface)
    images = np.empty((len(lights), SIZE, SIZE))
    for image, light in zip(images, lights):
        cosine = normal @ light
        lit = (cosine > 0) & ~cast_shadow(depth, light)
        image[:] = np.where(lit, albedo * texture * cosine + strength * lobe(normal, light), 0) + AMBIENT * albedo * texture
    images *= 0.95 / np.quantile(images[:, mask], 0.995)
    images += np.random.default_rng(0).normal(0, NOISE, images.shape) * np.sqrt(1 + 200 * np.maximum(images, 0)) / 5
    largest = 255 if surface == "waves" else 65535
    stored = np.clip(np.rint(largest * images), 0, largest)
    capture = Capture((stored / largest).astype(np.float32), lights, stored == largest)
    return capture, fit_frame((0, 0, SIZE, SIZE), SIZE, "crop"), normal, mask


def shapes(surface: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Normals (H, W, 3), depth (H, W) in pixels, mask (H, W), and albedo (H, W) relative to the material's."""
    from fr_ps.synthetic.scene import render_session

    row, column = np.mgrid[:SIZE, :SIZE]
    x, y = (column - (SIZE - 1) / 2) * 2 / SIZE, ((SIZE - 1) / 2 - row) * 2 / SIZE
    everywhere, plain = np.ones((SIZE, SIZE), dtype=bool), np.ones((SIZE, SIZE))
    if surface == "head":
        scene = render_session(seed=5, subject=1, session=0, size=SIZE)
        return scene.normal, scene.depth, everywhere, scene.albedo / np.quantile(scene.albedo, 0.9)
    if surface == "waves":
        rng = np.random.default_rng(3)
        depth = gaussian_filter(rng.normal(size=(SIZE, SIZE)), SIZE / 10)
        depth *= 0.21 * SIZE / 8 / depth.std()
        texture = 0.6 + 0.4 * (gaussian_filter(rng.normal(size=(SIZE, SIZE)), 2) > 0)
        return normals_of(depth), depth, everywhere, texture
    if surface == "table":
        depth = gaussian_filter(np.sqrt(np.maximum(0.6**2 - x**2 - y**2, 0)) * SIZE / 2, 1)
        return normals_of(depth), depth, everywhere, plain
    depth = np.sqrt(np.maximum(0.92**2 - x**2 - y**2, 0))
    depth += 0.12 * np.exp(-((x - 0.2) ** 2 + (y + 0.1) ** 2) / 0.02) + 0.08 * np.exp(-((x + 0.3) ** 2 + (y - 0.3) ** 2) / 0.03)
    return normals_of(depth * SIZE / 2), depth * SIZE / 2, x**2 + y**2 < 0.75**2, plain


def normals_of(depth: np.ndarray) -> np.ndarray:
    down, right = np.gradient(depth)
    vectors = np.stack([-right, down, np.ones_like(depth)], axis=-1)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def blinn(exponent: float) -> Lobe:
    def lobe(normal: np.ndarray, light: np.ndarray) -> np.ndarray:
        half = light + CAMERA
        return np.maximum(normal @ (half / np.linalg.norm(half)), 0) ** exponent

    return lobe


def cook_torrance(roughness: float, reflectance: float) -> Lobe:
    """The lobe times n . l, and times pi like the diffuse part; with Schlick's Fresnel and shadowing terms."""

    def lobe(normal: np.ndarray, light: np.ndarray) -> np.ndarray:
        half = (light + CAMERA) / np.linalg.norm(light + CAMERA)
        to_light, to_camera = np.maximum(normal @ light, 1e-4), np.maximum(normal @ CAMERA, 1e-4)
        squared, k = roughness**4, (roughness + 1) ** 2 / 8
        distribution = squared / (np.maximum(normal @ half, 0) ** 2 * (squared - 1) + 1) ** 2
        shadowing = to_light * to_camera / ((to_light * (1 - k) + k) * (to_camera * (1 - k) + k))
        fresnel = reflectance + (1 - reflectance) * (1 - CAMERA @ half) ** 5
        return distribution * shadowing * fresnel / (4 * to_camera)

    return lobe


BROAD = "Blinn 10 (broad)"


def materials() -> dict[str, tuple[float, float, Lobe]]:
    """Material to its albedo, the strength of its highlights, and their lobe."""
    return {
        BROAD: (0.15, 0.6, blinn(10)),
        "Blinn 25, dark": (0.06, 1.0, blinn(25)),
        "Blinn 30": (0.12, 0.8, blinn(30)),
        "Blinn 100": (0.1, 1.0, blinn(100)),
        "roughness 0.2": (0.3, 1.0, cook_torrance(0.2, 0.05)),
        "roughness 0.3": (0.12, 1.0, cook_torrance(0.3, 0.05)),
        "roughness 0.45": (0.05, 1.0, cook_torrance(0.45, 0.05)),
        "roughness 0.35, metal": (0.08, 0.6, cook_torrance(0.35, 0.5)),
    }
