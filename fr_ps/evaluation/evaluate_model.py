"""Scoring a model folder on a prepared data set, with its report."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fr_ps.config import Modality
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.layout import common_modalities
from fr_ps.data.split_files import SPLIT_FILE, read_part, read_parts
from fr_ps.errors import InputError
from fr_ps.evaluation.baseline_comparison import baseline_section, jitter_section
from fr_ps.evaluation.baselines import baseline_embeddings, count_maps_to_read
from fr_ps.evaluation.evaluate_predictions import EvaluationResult, LabelledPredictions, evaluate_predictions
from fr_ps.evaluation.jitter import JitteredMaps
from fr_ps.evaluation.metrics import Metrics, ReportSection
from fr_ps.evaluation.modality_subsets import predict_with_subsets
from fr_ps.evaluation.pair_figures import pair_figures
from fr_ps.evaluation.pairwise.pair_list import read_pairs
from fr_ps.evaluation.pairwise.similarity import Measure
from fr_ps.evaluation.report import INTERVAL_NOTE, describe_test_set, headline_lines, undefined_summary, write_report
from fr_ps.markdown import markdown_lines
from fr_ps.models.folder import ModelInfo, load_model
from fr_ps.models.inference import predict, require_finite, session_names
from fr_ps.models.network import FaceNetwork
from fr_ps.models.thresholds import read_thresholds
from fr_ps.progress import progress
from fr_ps.report.table import Table
from fr_ps.tracking.run import Run


@dataclass(frozen=True)
class EvaluationOptions:
    """What is asked of an evaluation.

    Attributes:
        part: of the split that the model was trained with; None for every row.
        pairs: CSV of the pairs to verify; None for all.
        measure: by which verification compares embeddings.
        baselines: whether linear baselines are fit on the model's training people and compared.
        jitter: whether the maps are scored a second time, warped.
    """

    part: str | None = None
    pairs: Path | None = None
    measure: Measure = "cosine"
    baselines: bool = False
    jitter: bool = False


@dataclass(frozen=True)
class EvaluationSummary:
    """What an evaluation came to.

    Attributes:
        metrics: named `test/...`, or `val/...`, `train/...` or `gallery/...` where that part was asked for.
        tables: of baselines and warped maps.
        lines: what has to be known beside the numbers.
    """

    metrics: Metrics
    tables: list[Table]
    notes: list[str]


def evaluate_model(
    model: Path, data: Path, out: Path, run: Run, *, protocol: EvaluationOptions, device: torch.device, batch: int
) -> EvaluationSummary:
    """Score the model in the folder `model` on the data set at `data`; write the report to `out` and record it in `run`.

    Args:
        model: a model folder.
        data: a prepared data set.
        out: folder for metrics.json, scores.parquet, report.html, figures and tables.
        run: what records the evaluation.
        protocol: what is asked.
        device: to compute on.
        batch: sessions a batch.

    Raises:
        InputError: the model, the data, the part or the pairs cannot be used.
    """
    network, info = load_model(model, device)
    dataset = open_model_dataset(info, data)
    rows = split_rows(dataset, model, protocol.part)
    labels = dataset.labels.subset(rows)
    listed = read_pairs(protocol.pairs, labels) if protocol.pairs else None
    enrolled = _gallery_rows(dataset, model) if protocol.part == "test" else np.empty(0, dtype=int)
    with progress("score", len(rows) + len(enrolled), "sessions") as advance:
        answers, fewer = predict_with_subsets(network, dataset.store, rows, labels, info.trained, batch, advance)
        gallery = None
        if len(enrolled):
            gallery = LabelledPredictions(
                predict(network, dataset.store, enrolled, batch, advance), dataset.labels.subset(enrolled)
            )
    require_finite(answers, session_names(labels), model)
    if gallery:
        require_finite(gallery.predictions, session_names(gallery.labels), model)
    thresholds = read_thresholds(model)
    assessment = evaluate_predictions(
        LabelledPredictions(answers, labels), info.trained, thresholds, gallery=gallery, listed=listed, measure=protocol.measure
    )
    sections, verdict = _extra_sections(protocol, network, info, model, dataset, rows, assessment, batch)
    shown = np.concatenate([rows, enrolled])
    sections["Pairs"] = ReportSection(figures=pair_figures(assessment, dataset.store, shown, dataset.labels.subset(shown)))

    prefix = protocol.part or "test"
    metrics = assessment.metrics.merge(fewer)
    for section in sections.values():
        metrics = metrics.merge(section.metrics)
    metrics = metrics.with_prefix(prefix)
    facts = {
        "tested": f"{describe_test_set(assessment)}: {_describe_test_set(protocol, model, dataset, rows)}",
        "headline": "; ".join(headline_lines(metrics, prefix)),
        **({"baselines": verdict} if verdict else {}),
        **undefined_summary(metrics, prefix),
        "model": f"{model}, {info.backbones} on {', '.join(info.modalities)}, run {info.provenance.get('run', '?')}",
        "data": f"{data}, digest {dataset.store.digest}, {dataset.labels.encoding} labels",
        "intervals": INTERVAL_NOTE,
    }
    written = write_report(out, f"Evaluation of {model}", facts, metrics, assessment, sections)
    lines = [verdict] if verdict else []
    run.log_params({"model": str(model), "data": str(data), "part": protocol.part or "all", "measure": protocol.measure})
    run.set_tags(
        {
            "fr_ps.kind": "evaluate",
            "fr_ps.data_digest": dataset.store.digest,
            "mlflow.note.content": markdown_lines(
                [facts["tested"], *headline_lines(metrics, prefix), *lines, *assessment.warnings]
            ),
        }
    )
    run.log_dataset(data.resolve().name, str(data.resolve()), dataset.store.digest, {"sessions": len(rows)}, "testing")
    run.log_metrics(metrics.defined(), 0)
    for path in written:
        run.log_artifact(path, str("report" / path.parent.relative_to(out)))
    tables = [
        table for name in ("Baselines", "Jitter", "Baselines, warped") if name in sections for table in sections[name].tables
    ]
    return EvaluationSummary(metrics, tables, [*dataset.notes, *lines, *assessment.warnings])


def open_model_dataset(info: ModelInfo, data: Path) -> Dataset:
    """The data set at `data` as the model of `info` reads it.

    Raises:
        InputError: it is missing, lacks the model's maps, or has another size.
    """
    dataset = open_dataset(data, info.modalities, classes=info.classes)
    if dataset.store.size != info.size:
        raise InputError(
            f"{data}: maps are {dataset.store.size} px, but the model reads {info.size}; prepare with --size {info.size}"
        )
    return dataset


def split_rows(dataset: Dataset, model: Path, part: str | None) -> np.ndarray:
    """The rows of a part of the model's own split; of None, all."""
    return np.arange(len(dataset.labels)) if part is None else read_part(model / SPLIT_FILE, part, dataset.labels)


def count_seen_subjects(dataset: Dataset, model: Path, rows: np.ndarray) -> tuple[int, int] | None:
    """How many people of these rows the model was trained on, and by how many others its epoch and thresholds were chosen.

    None where its folder does not say.
    """
    if not (model / SPLIT_FILE).is_file():
        return None
    parts = read_parts(model / SPLIT_FILE)
    people = set(dataset.labels.ids[rows].tolist())
    train, val = (people & {key[0] for key, its in parts.items() if its == part} for part in ("train", "val"))
    return len(train), len(val - train)


def _gallery_rows(dataset: Dataset, model: Path) -> np.ndarray:
    parts = read_parts(model / SPLIT_FILE)
    return read_part(model / SPLIT_FILE, "gallery", dataset.labels) if "gallery" in parts.values() else np.empty(0, dtype=int)


def _describe_test_set(options: EvaluationOptions, model: Path, dataset: Dataset, rows: np.ndarray) -> str:
    part = f"the {options.part} part of the model's own split" if options.part else "every row of the table"
    known = count_seen_subjects(dataset, model, rows)
    if known is None:
        return f"{part}; whom the model was trained on is not known"
    trained, validated = known
    chosen = (
        f"; its epoch and thresholds were chosen by {validated} of them, so that these numbers flatter it" if validated else ""
    )
    return f"{part}; the model was trained on {f'{trained} of these people' if trained else 'none of them'}{chosen}"


def _extra_sections(
    options: EvaluationOptions,
    network: FaceNetwork,
    info: ModelInfo,
    model: Path,
    dataset: Dataset,
    rows: np.ndarray,
    result: EvaluationResult,
    batch: int,
) -> tuple[dict[str, ReportSection], str]:
    """What was asked for of baselines and warped maps, and the sentence on the baselines."""
    sections: dict[str, ReportSection] = {}
    verdict = ""
    warped = None
    if options.jitter:
        with progress("score warped", len(rows), "sessions") as advance:
            warped = predict(network, JitteredMaps(dataset.store, dataset.labels), rows, batch, advance).embeddings
        sections["Jitter"] = jitter_section(result, warped)
    if options.baselines:
        whole = open_dataset(dataset.root, _baseline_modalities(dataset, info), classes=info.classes)
        train = _training_rows(whole, model)
        reads = count_maps_to_read(len(whole.store.maps), whole.labels, train, len(rows))
        for jittered in [False, True] if options.jitter else [False]:
            with progress("baselines, warped" if jittered else "baselines", reads, "maps") as advance:
                found = baseline_embeddings(whole.store, whole.labels, train, rows, jittered=jittered, advance=advance)
            if jittered:
                sections["Baselines, warped"] = baseline_section(result, found, warped)[0]
            else:
                sections["Baselines"], verdict = baseline_section(result, found)
    return sections, verdict


def _baseline_modalities(dataset: Dataset, info: ModelInfo) -> list[Modality]:
    """What a baseline may read: the model's maps, and albedo and normals where the data set has them."""
    there = common_modalities(dataset.root, dataset.labels)
    return [modality for modality in there if modality in info.modalities or modality != "depth"]


def _training_rows(dataset: Dataset, model: Path) -> np.ndarray:
    """Of those that the model was trained on."""
    if not (model / SPLIT_FILE).is_file():
        raise InputError(f"{model / SPLIT_FILE}: no such file; baselines need to know whom the model was trained on")
    parts = read_parts(model / SPLIT_FILE)
    keys = zip(dataset.labels.ids.tolist(), dataset.labels.sessions.tolist())
    rows = np.array([row for row, key in enumerate(keys) if parts.get(key) == "train"], dtype=int)
    if not len(rows):
        raise InputError(f"{dataset.root}: has nobody whom the model was trained on; baselines need the training people's maps")
    return rows
