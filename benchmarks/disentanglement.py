"""Effect of the adversaries on the attributes in the identity embedding of the built-in faces, over seeds.

Each seed determines the split and three trainings, one for each value of model.adversaries: off; rest (the adversary of an
attribute reads the features that remain after the attribute is split off); identity (all adversaries read the identity
features). Measured on the validation and test subjects together: the AUC of a linear probe for each attribute in the identity
embedding, fitted and scored on disjoint subjects, that of the same probe on permuted labels (chance), and the identity AUC.

    python benchmarks/disentanglement.py
"""

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from common import Measurement, argument_parser, limit_threads, report, synthetic_experiment

ADVERSARIES = ("off", "rest", "identity")
Scores = Mapping[str, float | None]
"""Metric to value."""


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20, help="of every training")
    parser.add_argument("--people", type=int, default=40, help="subjects of the built-in faces; chance varies less with more")
    options = parser.parse_args()
    limit_threads(options.threads)
    seeds = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            seeds.append({kind: measure(seed, kind, Path(folder), options) for kind in ADVERSARIES})
    attributes = [name.split("/")[1] for name in seeds[0]["off"] if name.startswith("probe/") and name.endswith("/auc")]
    rows: list[list[object]] = []
    numbers = {}
    for kind in ADVERSARIES:
        identity = _mean(seeds, kind, "identity/auc")
        for attribute in attributes:
            auc, chance = (_mean(seeds, kind, f"probe/{attribute}/{name}") for name in ("auc", "chance_auc_95"))
            rows.append([kind, attribute, auc, _each(seeds, kind, f"probe/{attribute}/auc"), chance, identity])
            before = _mean(seeds, "off", f"probe/{attribute}/auc")
            if kind != "off" and auc is not None and before is not None:
                numbers[f"{kind}_{attribute}_over_off"] = Measurement(auc - before, 0, "lower", "probe AUC")
        without = _mean(seeds, "off", "identity/auc")
        if kind != "off" and identity is not None and without is not None:
            numbers[f"{kind}_identity_lost_to_off"] = Measurement(without - identity, 0.02, "lower", "identity AUC")
    headers = ["adversaries", "attribute", f"probe AUC, mean of {options.seeds} seeds", "of each", "chance 95 %", "identity AUC"]
    report(numbers, rows, headers, options.json)


def measure(seed: int, kind: str, folder: Path, options: argparse.Namespace) -> Scores:
    """The probe AUCs and the identity AUC of one network, on the validation and test subjects."""
    import numpy as np

    from fr_ps.data.splits import make_split
    from fr_ps.device import pick_device
    from fr_ps.evaluation.analyses.linear_probes import linear_probe_section
    from fr_ps.evaluation.evaluate_predictions import validation_metrics
    from fr_ps.models.folder import load_model
    from fr_ps.models.inference import predict
    from fr_ps.tracking.run import Run
    from fr_ps.tracking.run_folder import BEST_CHECKPOINT
    from fr_ps.training.setup import open_training_data
    from fr_ps.training.train import train

    base = synthetic_experiment(seed, options)
    config = replace(base, synthetic=replace(base.synthetic, people=options.people), model=replace(base.model, adversaries=kind))
    run = Run(folder / kind)
    train(config, run, lambda line: None)
    network, info = load_model(run.folder / BEST_CHECKPOINT, pick_device(config.device))
    dataset = open_training_data(config, lambda line: None)
    split = make_split(dataset.labels, config.data, dataset.left_out)
    rows = np.sort(np.concatenate([split.val, split.test]))
    labels = dataset.labels.subset(rows)
    predictions = predict(network, dataset.store, rows)
    scores = (
        validation_metrics(predictions, labels, info.trained).values
        | linear_probe_section(predictions.embeddings, labels, seed).metrics.values
    )
    print(f"seed {seed}: adversaries {kind}: identity AUC {scores['identity/auc']:.4f}", flush=True)
    return scores


def _defined(seeds: list[dict[str, Scores]], kind: str, name: str) -> list[float]:
    return [value for scores in seeds if (value := scores[kind][name]) is not None]


def _mean(seeds: list[dict[str, Scores]], kind: str, name: str) -> float | None:
    """The mean over the seeds in which the metric is defined."""
    values = _defined(seeds, kind, name)
    return statistics.mean(values) if values else None


def _each(seeds: list[dict[str, Scores]], kind: str, name: str) -> str:
    return " ".join(f"{value:.3f}" for value in _defined(seeds, kind, name))


if __name__ == "__main__":
    main()
