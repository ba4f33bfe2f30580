"""Gain of fusing trained modalities on the built-in faces, and loss with a missing map, over seeds.

Each seed determines the split and all trainings: one network each for albedo, normals and depth, then their fusions with
frozen branches and modality dropout. Compares areas under the identity ROC on the validation subjects (which selected the
epochs) and on the test subjects (which selected nothing).

    python benchmarks/fusion.py
"""

import argparse
import statistics
import tempfile
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from common import Measurement, argument_parser, report, synthetic_experiment

MODALITIES = ("albedo", "normal", "depth")
Scores = dict[str, dict[str, float | None]]
"""Model to metrics."""


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20, help="of every training")
    parser.add_argument("--fusions", nargs="+", default=["concat", "fc", "gated", "score"])
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--fine-tune", action="store_true", help="train the branches further")
    options = parser.parse_args()
    seeds = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            seeds.append(measure(seed, Path(folder), options))
    rows = []
    for model in seeds[0]:
        for maps in ["all", *(_subsets() if model in options.fusions else ())]:
            rows.append([model, maps, *(_summary(seeds, model, maps, part) for part in ("val", "test"))])
    numbers = {}
    for fusion in options.fusions:
        gains = [_auc(s, fusion, "all", "val") - max(_auc(s, m, "all", "val") for m in MODALITIES) for s in seeds]
        # With a subset of the maps, the reference is the best single network among them.
        lost = [
            max(_auc(s, m, "all", "val") for m in subset.split("_")) - _auc(s, fusion, subset, "val")
            for s in seeds
            for subset in _subsets()
        ]
        unit = "AUC on validation"
        numbers[f"{fusion}_over_best_branch"] = Measurement(statistics.mean(gains), 0, "higher", unit)
        numbers[f"{fusion}_lost_to_the_best_remaining"] = Measurement(statistics.mean(lost), 0.02, "lower", unit)
    headers = ["model", "maps", f"val AUC, mean of {options.seeds} seeds", "of each", "test AUC, mean", "of each"]
    report(numbers, [[*row[:2], *row[2], *row[3]] for row in rows], headers, options.json)


def measure(seed: int, folder: Path, options: argparse.Namespace) -> Scores:
    """The metrics of the three single networks and of the fusions of one seed."""
    from fr_ps.config import FusionConfig
    from fr_ps.tracking.run import Run
    from fr_ps.tracking.run_folder import BEST_CHECKPOINT
    from fr_ps.training.train import train

    base = synthetic_experiment(seed, options)
    configs = {modality: replace(base, data=replace(base.data, modalities=(modality,))) for modality in MODALITIES}
    branches = {modality: str(folder / modality / BEST_CHECKPOINT) for modality in MODALITIES}
    for name in options.fusions:
        fusion = FusionConfig(name=name, branches=branches, frozen=not options.fine_tune, dropout=options.dropout)
        configs[name] = replace(base, data=replace(base.data, modalities=MODALITIES), fusion=fusion)
    scores: Scores = {}
    for name, config in configs.items():
        scores[name] = train(config, Run(folder / name), lambda line: None).metrics.values
        print(f"seed {seed}: {name}: identity AUC {scores[name]['val/identity/auc']:.4f}", flush=True)
    return scores


def _subsets() -> list[str]:
    return ["_".join(subset) for count in (1, 2) for subset in combinations(MODALITIES, count)]


def _auc(scores: Scores, model: str, maps: str, part: str) -> float:
    value = scores[model][f"{part}/identity/auc" if maps == "all" else f"{part}/only_{maps}/identity/auc"]
    assert value is not None
    return value


def _summary(seeds: list[Scores], model: str, maps: str, part: str) -> tuple[float, str]:
    values = [_auc(scores, model, maps, part) for scores in seeds]
    return statistics.mean(values), " ".join(f"{value:.3f}" for value in values)


if __name__ == "__main__":
    main()
