"""Draws docs/pictures/overview.png: four lights, maps and a match, from a trained model and its captures.

    python docs/overview_figure.py --model RUN --captures faces/captures --data data/faces

One session of each of the model's test subjects is enrolled. The probe is another session of the first of them. The built-in
faces may be shown publicly.
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

import fr_ps

ENROLLED = 3


def draw(model: str, captures: Path, data: Path, out: Path) -> None:
    """Draw the figure; `model` reads albedo, and `data` has the prepared maps of `captures`."""
    recognizer = fr_ps.load(model, "cpu")
    split = pd.read_csv(recognizer.folder / "split.csv", dtype=str)
    test = split[split.part == "test"].groupby("id").session.apply(list)
    probe = captures / test.index[0] / test.iloc[0][-1]
    enrolled = [captures / subject / sessions[0] for subject, sessions in test.items()]
    maps = recognizer.capture_to_maps(str(probe))
    faces = {path.parent.name: recognizer.capture_to_maps(str(path)) for path in enrolled}
    scores = {subject: cosine(recognizer, maps, face) for subject, face in faces.items()}
    best = sorted(scores, key=lambda subject: -scores[subject])[:ENROLLED]
    figure, axes = plt.subplots(1, 6 + ENROLLED, figsize=(2 * (6 + ENROLLED), 2.6), layout="constrained")
    images = sorted(probe.glob("im*"))[:4]
    for axis, image in zip(axes[:4], images, strict=True):
        show(axis, np.asarray(Image.open(image).convert("L")), "")
    axes[0].set_title("four lights", loc="left")
    show(axes[4], np.squeeze(maps["albedo"]), "albedo")
    normals = np.load(data / "data" / probe.parent.name / probe.name / "normal.npy", allow_pickle=False)
    show(axes[5], (normals + 1) / 2, "normals")
    for axis, subject in zip(axes[6:], best, strict=True):
        show(axis, np.squeeze(faces[subject]["albedo"]), "")
        axis.set_xlabel(f"{subject}  {scores[subject]:.2f}")
    axes[6].set_title("most similar enrolled subjects, cosine", loc="left")
    axes[5].set_xlabel(f"probe: {probe.parent.name}")
    for axis in axes[6:]:
        right = axis is axes[6] and best[0] == probe.parent.name
        axis.spines[:].set(visible=right, color="tab:green", linewidth=3)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=80)


def cosine(recognizer: Any, first: Any, second: Any) -> float:
    """Similarity of two sessions."""
    a, b = recognizer.embed(first)[0], recognizer.embed(second)[0]
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def show(axis: Any, image: np.ndarray, title: str) -> None:
    """Draw one image without ticks."""
    axis.imshow(image, cmap="gray")
    axis.set_title(title)
    axis.set_xticks([])
    axis.set_yticks([])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--captures", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "pictures" / "overview.png")
    arguments = parser.parse_args()
    draw(arguments.model, arguments.captures, arguments.data, arguments.out)
