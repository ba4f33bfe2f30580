"""Scoring a model folder on a prepared data set, with its report."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fr_ps.config import Modality
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.layout import modalities_of
from fr_ps.data.split_files import SPLIT_FILE, read_part, read_parts
from fr_ps.errors import InputError
from fr_ps.evaluation.assess import Assessment, Scored, assess
from fr_ps.evaluation.baselines import baseline_embeddings, maps_to_read
from fr_ps.evaluation.jitter import JitteredMaps
from fr_ps.evaluation.numbers.findings import Findings, Table
from fr_ps.evaluation.numbers.metrics import Metrics
from fr_ps.evaluation.pairwise.operating import read_thresholds
from fr_ps.evaluation.pairwise.pairs_file import read_pairs
from fr_ps.evaluation.pairwise.similarity import Measure
from fr_ps.evaluation.pictures import pair_figures
from fr_ps.evaluation.report import INTERVALS, headline, population, undefined, write_report
from fr_ps.evaluation.rivals import baseline_findings, jitter_findings
from fr_ps.evaluation.score import answer, names_of, require_finite
from fr_ps.evaluation.subsets import answers_and_subsets
from fr_ps.markdown import markdown_lines
from fr_ps.models.folder import ModelInfo, load_model
from fr_ps.models.network import FaceNetwork
from fr_ps.progress import progress
from fr_ps.tracking.run import Run


@dataclass(frozen=True)
class Protocol:
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
class Evaluated:
    """What an evaluation came to.

    Attributes:
        metrics: named `test/...`, or `val/...`, `train/...` or `gallery/...` where that part was asked for.
        tables: of baselines and warped maps.
        lines: what has to be known beside the numbers.
    """

    metrics: Metrics
    tables: list[Table]
    lines: list[str]


def evaluate_folder(
    model: Path, data: Path, out: Path, run: Run, *, protocol: Protocol, device: torch.device, batch: int
) -> Evaluated:
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
    dataset = open_for(info, data)
    rows = rows_of(dataset, model, protocol.part)
    labels = dataset.labels.take(rows)
    listed = read_pairs(protocol.pairs, labels) if protocol.pairs else None
    enrolled = _gallery(dataset, model) if protocol.part == "test" else np.empty(0, dtype=int)
    with progress("score", len(rows) + len(enrolled), "sessions") as advance:
        answers, fewer = answers_and_subsets(network, dataset.store, rows, labels, info.trained, batch, advance)
        gallery = None
        if len(enrolled):
            gallery = Scored(answer(network, dataset.store, enrolled, batch, advance), dataset.labels.take(enrolled))
    require_finite(answers, names_of(labels), model)
    if gallery:
        require_finite(gallery.answers, names_of(gallery.labels), model)
    thresholds = read_thresholds(model)
    assessment = assess(
        Scored(answers, labels), info.trained, thresholds, gallery=gallery, listed=listed, measure=protocol.measure
    )
    sections, verdict = _rivals(protocol, network, info, model, dataset, rows, assessment, batch)
    shown = np.concatenate([rows, enrolled])
    sections["Pairs"] = Findings(figures=pair_figures(assessment, dataset.store, shown, dataset.labels.take(shown)))

    prefix = protocol.part or "test"
    metrics = assessment.metrics.joined(fewer)
    for section in sections.values():
        metrics = metrics.joined(section.metrics)
    metrics = metrics.under(prefix)
    facts = {
        "tested": f"{population(assessment)}: {_whom(protocol, model, dataset, rows)}",
        "headline": "; ".join(headline(metrics, prefix)),
        **({"baselines": verdict} if verdict else {}),
        **undefined(metrics, prefix),
        "model": f"{model}, {info.backbones} on {', '.join(info.modalities)}, run {info.provenance.get('run', '?')}",
        "data": f"{data}, digest {dataset.store.digest}, {dataset.labels.form} labels",
        "intervals": INTERVALS,
    }
    written = write_report(out, f"Evaluation of {model}", facts, metrics, assessment, sections)
    lines = [verdict] if verdict else []
    run.params({"model": str(model), "data": str(data), "part": protocol.part or "all", "measure": protocol.measure})
    run.tags(
        {
            "fr_ps.kind": "evaluate",
            "fr_ps.data_digest": dataset.store.digest,
            "mlflow.note.content": markdown_lines([facts["tested"], *headline(metrics, prefix), *lines, *assessment.warnings]),
        }
    )
    run.dataset(data.resolve().name, str(data.resolve()), dataset.store.digest, {"sessions": len(rows)}, "testing")
    run.metrics(metrics.defined(), 0)
    for path in written:
        run.artifact(path, str("report" / path.parent.relative_to(out)))
    tables = [
        table for name in ("Baselines", "Jitter", "Baselines, warped") if name in sections for table in sections[name].tables
    ]
    return Evaluated(metrics, tables, [*dataset.notes, *lines, *assessment.warnings])


def open_for(info: ModelInfo, data: Path) -> Dataset:
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


def rows_of(dataset: Dataset, model: Path, part: str | None) -> np.ndarray:
    """The rows of a part of the model's own split; of None, all."""
    return np.arange(len(dataset.labels)) if part is None else read_part(model / SPLIT_FILE, part, dataset.labels)


def known_people(dataset: Dataset, model: Path, rows: np.ndarray) -> tuple[int, int] | None:
    """How many people of these rows the model was trained on, and by how many others its epoch and thresholds were chosen.

    None where its folder does not say.
    """
    if not (model / SPLIT_FILE).is_file():
        return None
    parts = read_parts(model / SPLIT_FILE)
    people = set(dataset.labels.ids[rows].tolist())
    train, val = (people & {key[0] for key, its in parts.items() if its == part} for part in ("train", "val"))
    return len(train), len(val - train)


def _gallery(dataset: Dataset, model: Path) -> np.ndarray:
    parts = read_parts(model / SPLIT_FILE)
    return read_part(model / SPLIT_FILE, "gallery", dataset.labels) if "gallery" in parts.values() else np.empty(0, dtype=int)


def _whom(protocol: Protocol, model: Path, dataset: Dataset, rows: np.ndarray) -> str:
    part = f"the {protocol.part} part of the model's own split" if protocol.part else "every row of the table"
    known = known_people(dataset, model, rows)
    if known is None:
        return f"{part}; whom the model was trained on is not known"
    trained, validated = known
    chosen = (
        f"; its epoch and thresholds were chosen by {validated} of them, so that these numbers flatter it" if validated else ""
    )
    return f"{part}; the model was trained on {f'{trained} of these people' if trained else 'none of them'}{chosen}"


def _rivals(
    protocol: Protocol,
    network: FaceNetwork,
    info: ModelInfo,
    model: Path,
    dataset: Dataset,
    rows: np.ndarray,
    assessment: Assessment,
    batch: int,
) -> tuple[dict[str, Findings], str]:
    """What was asked for of baselines and warped maps, and the sentence on the baselines."""
    sections: dict[str, Findings] = {}
    verdict = ""
    warped = None
    if protocol.jitter:
        with progress("score warped", len(rows), "sessions") as advance:
            warped = answer(network, JitteredMaps(dataset.store, dataset.labels), rows, batch, advance).embeddings
        sections["Jitter"] = jitter_findings(assessment, warped)
    if protocol.baselines:
        whole = open_dataset(dataset.root, _maps_there(dataset, info), classes=info.classes)
        train = _training_rows(whole, model)
        reads = maps_to_read(len(whole.store.maps), whole.labels, train, len(rows))
        for jittered in [False, True] if protocol.jitter else [False]:
            with progress("baselines, warped" if jittered else "baselines", reads, "maps") as advance:
                found = baseline_embeddings(whole.store, whole.labels, train, rows, jittered=jittered, advance=advance)
            if jittered:
                sections["Baselines, warped"] = baseline_findings(assessment, found, warped)[0]
            else:
                sections["Baselines"], verdict = baseline_findings(assessment, found)
    return sections, verdict


def _maps_there(dataset: Dataset, info: ModelInfo) -> list[Modality]:
    """What a baseline may read: the model's maps, and albedo and normals where the data set has them."""
    there = modalities_of(dataset.root, dataset.labels)
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
