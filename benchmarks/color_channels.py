"""Luminance against each colour channel solved by itself, on a rendered glossy sphere: mean angular error of the normals.

The sphere has an albedo by channel and white highlights (Blinn, exponent 30). Luminance: what `prepare` does. Channels: three
solutions, whose albedo-scaled normals are summed, each weighted by its confidence.

    python benchmarks/color_channels.py
"""

import numpy as np
from common import argument_parser, limit_threads, report

SIZE, RADIUS, TILT = 128, 0.95, 40
HIGHLIGHT, EXPONENT, NOISE = 0.3, 30, 0.002
WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)
ALBEDOS = {"grey": (0.5, 0.5, 0.5), "skin": (0.6, 0.42, 0.33), "red": (0.6, 0.1, 0.08), "blue": (0.08, 0.1, 0.6)}


def main() -> None:
    options = argument_parser(__doc__.splitlines()[0]).parse_args()
    limit_threads(options.threads)
    rows: list[list[object]] = []
    for solver in ("least_squares", "robust"):
        for count in (4, 8, 16):
            for name, albedo in ALBEDOS.items():
                for highlight in (0.0, HIGHLIGHT):
                    rows.append([solver, count, name, highlight, *errors(solver, dome(count), np.array(albedo), highlight)])
    report({}, rows, ["solver", "lights", "albedo", "highlight", "luminance, degrees", "channels, degrees"], options.json)


def dome(count: int) -> np.ndarray:
    """(count, 3) lights in a ring, `TILT` degrees from the camera's axis."""
    turn, across = np.arange(count) * 2 * np.pi / count + 0.3, np.sin(np.radians(TILT))
    return np.stack([across * np.cos(turn), across * np.sin(turn), np.full(count, np.cos(np.radians(TILT)))], axis=1)


def errors(solver: str, lights: np.ndarray, albedo: np.ndarray, highlight: float) -> tuple[float, float]:
    """Mean angular error in degrees from luminance, and from the three channels together."""
    from fr_ps.photometric.captures import Capture
    from fr_ps.photometric.frame import fit_frame
    from fr_ps.photometric.maps import compute_maps

    y, x = np.mgrid[1 : -1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    square = (x**2 + y**2) / RADIUS**2
    inside = square < 0.97**2
    normal = np.stack([x / RADIUS, y / RADIUS, np.sqrt(np.maximum(1 - square, 1e-3))], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    halfway = lights + np.array([0, 0, 1])
    halfway /= np.linalg.norm(halfway, axis=1, keepdims=True)
    diffuse = np.maximum(np.einsum("hwc,kc->khw", normal, lights), 0)[..., None] * albedo
    shiny = highlight * np.maximum(np.einsum("hwc,kc->khw", normal, halfway), 0) ** EXPONENT
    images = diffuse + shiny[..., None]
    images = np.clip(images + np.random.default_rng(0).normal(0, NOISE, images.shape), 0, 1).astype(np.float32)

    def solve(planes: np.ndarray, saturated: np.ndarray) -> np.ndarray:
        """Albedo-scaled normals, weighted by confidence."""
        capture = Capture(np.ascontiguousarray(planes), lights, saturated, mask=inside)
        maps = compute_maps(capture, fit_frame((0, 0, SIZE, SIZE), SIZE, "crop"), solver=solver)
        return (maps.confidence * maps.albedo)[..., None] * maps.normal

    def error(scaled: np.ndarray) -> float:
        cosine = (scaled * normal).sum(axis=-1) / np.maximum(np.linalg.norm(scaled, axis=-1), 1e-9)
        return float(np.degrees(np.arccos(np.clip(cosine[inside], -1, 1))).mean())

    saturated = images >= 1
    channels = sum(solve(images[..., channel], saturated[..., channel]) for channel in range(3))
    return error(solve(images @ WEIGHTS, saturated.any(axis=3))), error(channels)


if __name__ == "__main__":
    main()
