"""Evaluation of a model folder on a prepared data set, with its report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fr_ps.data.dataset import Dataset
from fr_ps.data.leakage import leakage_notes, split_overlap
from fr_ps.evaluation.attribute_baselines import AttributeProbe, count_fitted, fit_attribute_probe
from fr_ps.evaluation.baseline_comparison import attribute_aucs, attribute_baseline_section, baseline_section, jitter_section
from fr_ps.evaluation.baseline_data import BaselineData
from fr_ps.evaluation.baselines.embeddings import BaselineEmbeddings, baseline_embeddings, count_maps_to_read
from fr_ps.evaluation.dlib_baseline import NAME as DLIB_NAME
from fr_ps.evaluation.dlib_baseline import dlib_embeddings, reason_without_dlib
from fr_ps.evaluation.evaluate_predictions import EvaluationResult, LabelledPredictions, evaluate_predictions
from fr_ps.evaluation.inputs import EvaluationInputs
from fr_ps.evaluation.jitter import JitteredMaps
from fr_ps.evaluation.metrics import Metrics, ReportSection
from fr_ps.evaluation.modality_subsets import SUBSET_SECTION, predict_with_subsets
from fr_ps.evaluation.pair_figures import pair_section
from fr_ps.evaluation.pairwise.pair_list import PairList
from fr_ps.evaluation.pairwise.similarity import Measure
from fr_ps.evaluation.report import INTERVAL_NOTE, describe_test_set, headline_lines, undefined_summary, write_report
from fr_ps.evaluation.report_lead import describe_lead, report_lead
from fr_ps.markdown import markdown_lines
from fr_ps.models.folder import ModelInfo
from fr_ps.models.inference import Predictions, predict, require_finite
from fr_ps.models.network import FaceNetwork
from fr_ps.models.thresholds import Thresholds
from fr_ps.progress import OnProgress, no_progress, progress
from fr_ps.report.html_page import Verdict
from fr_ps.report.table import Table
from fr_ps.tracking.run import Run
from fr_ps.tracking.tracked_metrics import result_metrics


@dataclass(frozen=True)
class RowPredictions:
    """Predictions of a model for some rows of a data set.

    Attributes:
        rows: the rows.
        predictions: of these rows, with all maps.
        subset_metrics: of these rows, with each proper subset of the maps.
        gallery_rows: rows of the enrolled sessions; may be empty.
        gallery: predictions of the enrolled sessions; None without any.
    """

    rows: np.ndarray
    predictions: Predictions
    subset_metrics: Metrics
    gallery_rows: np.ndarray
    gallery: Predictions | None


@dataclass(frozen=True)
class EvaluationSummary:
    """Result of an evaluation.

    Attributes:
        metrics: named `test/...`, or after the evaluated part of the split (`val/...`, `train/...`, `gallery/...`).
        tables: tables of the baselines and of the warped maps.
        notes: remarks and warnings for the user.
    """

    metrics: Metrics
    tables: list[Table]
    notes: list[str]


def evaluate_model(inputs: EvaluationInputs, out: Path, run: Run, *, batch: int) -> EvaluationSummary:
    """Evaluate a model on a data set, write the report and log it to the run.

    Args:
        inputs: the model, the data, and what to evaluate.
        out: folder for metrics.json, scores.parquet, report.html, figures and tables.
        run: run that logs the evaluation.
        batch: sessions per batch.

    Raises:
        InputError: a prediction with NaN or infinity, or a damaged map.
    """
    model, data, options, baselines = inputs.model, inputs.data, inputs.options, inputs.baselines
    network, info, dataset, rows, gallery_rows = inputs.network, inputs.info, inputs.dataset, inputs.rows, inputs.gallery_rows
    with progress("score", len(rows) + len(gallery_rows), "sessions") as advance:
        predicted = predict_rows(network, info.trained, dataset, rows, gallery_rows, batch, advance)
    result = evaluate_rows(
        predicted,
        info.trained,
        dataset,
        inputs.thresholds,
        model=model,
        pair_list=inputs.pair_list,
        measure=options.measure,
        device=inputs.device,
    )
    jittered = _predict_jittered(network, dataset, rows, batch) if options.jitter else None
    warped = {name: jittered.probabilities[name] for name in info.trained} if jittered else {}
    sections: dict[str, ReportSection] = {}
    if jittered:
        sections["Jitter"] = jitter_section(result, jittered.embeddings, attribute_aucs(warped, result))
    verdicts: list[Verdict] = []
    attribute_headlines: list[str] = []
    if baselines:
        verdicts = _add_identity_baselines(sections, baselines, rows, result, jittered)
        attribute_headlines = _add_attribute_baselines(sections, baselines, info, rows, result, warped if jittered else None)
    prefix = options.part or "test"
    metrics = result.metrics.merge(*(section.metrics for section in sections.values())).with_prefix(prefix)
    part = f"the {options.part} part of the model's own split" if options.part else "every row of the table"
    leakage = leakage_notes("the model", split_overlap(model, dataset.labels.subset(rows).row_keys(), "subject"))
    facts = {
        "tested": f"{describe_test_set(result)}: {part}"
        + ("" if leakage else "; the model was trained on none of the test subjects"),
        "headline": "; ".join(headline_lines(metrics, prefix)),
        **({"baselines": "; ".join(verdict.text for verdict in verdicts)} if verdicts else {}),
        **({"attribute baselines": "; ".join(attribute_headlines)} if attribute_headlines else {}),
        **undefined_summary(metrics, prefix),
        "model": f"{model}, {info.backbones} on {', '.join(info.modalities)}, run {info.provenance.get('run', '?')}",
        "data": f"{data}, digest {dataset.store.digest}, {dataset.labels.encoding} labels",
        "intervals": INTERVAL_NOTE,
    }
    notes = [
        *(verdict.text for verdict in verdicts),
        *attribute_headlines,
        *result.warnings,
        *leakage,
        *(baselines.notes if baselines else []),
    ]
    maps = " + ".join(info.modalities)
    subtitle = f"run {info.provenance.get('run', '?')}, on {data.resolve().name}: {part}"
    lead = report_lead(subtitle, metrics, prefix, result, verdicts)
    written = write_report(out, f"Evaluation of {info.backbones} on {maps}", facts, metrics, result, sections, leakage, lead)
    params = {"model": str(model), "data": str(data), "part": options.part or "all", "measure": options.measure}
    tags = {"fr_ps.kind": "evaluate", "fr_ps.data_digest": dataset.store.digest}
    log_report(run, out, written, params, tags, describe_lead(lead, [*result.warnings, *leakage]))
    run.log_dataset(data.resolve().name, str(data.resolve()), dataset.store.digest, {"sessions": len(rows)}, "testing")
    run.log_metrics(result_metrics(metrics.defined(), prefix), 0)
    return EvaluationSummary(
        metrics, [table for section in sections.values() for table in section.tables], [*dataset.notes, *notes]
    )


def predict_rows(
    network: FaceNetwork,
    trained: Sequence[str],
    dataset: Dataset,
    rows: np.ndarray,
    gallery_rows: np.ndarray,
    batch: int,
    advance: OnProgress = no_progress,
) -> RowPredictions:
    """Predict some rows of a data set, with all maps and with each subset of them, and the gallery.

    The processes of a training share the batches, as in `predict_subsets`.

    Args:
        network: network of the model.
        trained: attributes that the network was trained on.
        dataset: prepared data set.
        rows: rows to evaluate.
        gallery_rows: rows of the enrolled sessions; empty: identification searches among `rows`.
        batch: sessions per batch.
        advance: called with the number of sessions done.
    """
    labels = dataset.labels.subset(rows)
    predictions, subset_metrics = predict_with_subsets(network, dataset.store, rows, labels, trained, batch, advance)
    gallery = predict(network, dataset.store, gallery_rows, batch, advance) if len(gallery_rows) else None
    return RowPredictions(rows, predictions, subset_metrics, gallery_rows, gallery)


def evaluate_rows(
    predicted: RowPredictions,
    trained: Sequence[str],
    dataset: Dataset,
    thresholds: Thresholds | None,
    *,
    model: Path,
    pair_list: PairList | None = None,
    measure: Measure = "cosine",
    device: torch.device,
) -> EvaluationResult:
    """Run all analyses on the predictions of some rows of a data set.

    Args:
        predicted: from `predict_rows`.
        trained: attributes that the network was trained on.
        dataset: prepared data set.
        thresholds: thresholds of the model.
        model: model folder, for error messages.
        pair_list: the pairs of `predicted.rows` to verify; None: all pairs.
        measure: similarity measure of verification.
        device: of the comparison of all pairs.

    Raises:
        InputError: a prediction with NaN or infinity.
    """
    labels, enrolled = dataset.labels.subset(predicted.rows), dataset.labels.subset(predicted.gallery_rows)
    require_finite(predicted.predictions, labels.session_names(), model)
    if predicted.gallery:
        require_finite(predicted.gallery, enrolled.session_names(), model)
    result = evaluate_predictions(
        LabelledPredictions(predicted.predictions, labels),
        trained,
        thresholds,
        gallery=LabelledPredictions(predicted.gallery, enrolled) if predicted.gallery else None,
        pair_list=pair_list,
        measure=measure,
        device=device,
    )
    search_rows = np.concatenate([predicted.rows, predicted.gallery_rows])
    result.sections["Pairs"] = pair_section(result, dataset.store, search_rows, dataset.labels.subset(search_rows))
    result.sections[SUBSET_SECTION] = ReportSection(predicted.subset_metrics)
    return result


def log_report(
    run: Run, out: Path, written: Sequence[Path], params: Mapping[str, str], tags: Mapping[str, str], note: Sequence[str]
) -> None:
    """Log the files of a report, params, tags and the note of an evaluation to its run."""
    run.log_params(dict(params))
    run.set_tags({**tags, "mlflow.note.content": markdown_lines(list(note))})
    for path in written:
        run.log_artifact(path, str("report" / path.parent.relative_to(out)))


def _predict_jittered(network: FaceNetwork, dataset: Dataset, rows: np.ndarray, batch: int) -> Predictions:
    with progress("score warped", len(rows), "sessions") as advance:
        return predict(network, JitteredMaps(dataset.store, dataset.labels), rows, batch, advance)


def _add_identity_baselines(
    sections: dict[str, ReportSection],
    data: BaselineData,
    rows: np.ndarray,
    result: EvaluationResult,
    jittered: Predictions | None,
) -> list[Verdict]:
    """Add the baselines on the original maps and, with `jittered`, on warped ones; returns a verdict for each."""
    sections["Baselines"], verdict = baseline_section(result, _embed_baselines(data, rows, False))
    if not jittered:
        return [verdict]
    sections["Baselines, warped"], on_warped_maps = baseline_section(
        result, _embed_baselines(data, rows, True), jittered.embeddings
    )
    return [verdict, on_warped_maps]


def _add_attribute_baselines(
    sections: dict[str, ReportSection],
    data: BaselineData,
    info: ModelInfo,
    rows: np.ndarray,
    result: EvaluationResult,
    jittered: dict[str, np.ndarray] | None,
) -> list[str]:
    """Add the linear probes on pixels, on the original maps and with `jittered` on warped ones; returns a headline for each."""
    probes = _fit_attribute_probes(data, info)
    omitted = {probe.name: probe.omitted for probe in probes}

    def predict_probes(warped: bool) -> dict[str, dict[str, np.ndarray]]:
        with progress("probes, warped" if warped else "probes", len(probes) * len(rows), "sessions") as advance:
            return {probe.name: probe.predict(data.tested, rows, jittered=warped, advance=advance) for probe in probes}

    sections["Attribute baselines"], headlines = attribute_baseline_section(result, predict_probes(False), omitted)
    if jittered is not None:
        section, on_warped_maps = attribute_baseline_section(result, predict_probes(True), omitted, jittered)
        sections["Attribute baselines, warped"] = section
        headlines += on_warped_maps
    return headlines


def _fit_attribute_probes(data: BaselineData, info: ModelInfo) -> list[AttributeProbe]:
    """A probe on the maps that the model reads, and one on all maps of the baselines if these are more."""
    everything = tuple(data.train.store.maps)
    groups = list(dict.fromkeys([tuple(name for name in everything if name in info.modalities), everything]))
    with progress("fit probes", len(groups) * count_fitted(data.train, data.train_rows), "sessions") as advance:
        return [fit_attribute_probe(data.train, data.train_rows, info.trained, maps, advance=advance) for maps in groups]


def _embed_baselines(data: BaselineData, rows: np.ndarray, warped: bool) -> BaselineEmbeddings:
    """The linear baselines and, if it is installed, dlib's network."""
    train, tested = data.train, data.tested
    reads = count_maps_to_read(train.store.maps, train.labels, data.train_rows, len(rows))
    with progress("baselines, warped" if warped else "baselines", reads, "maps") as advance:
        result = baseline_embeddings(
            train.store, train.labels, data.train_rows, rows, tested=tested, jittered=warped, advance=advance
        )
    reason = reason_without_dlib() if "albedo" in tested.store.maps else "the data set has no albedo"
    if reason:
        result.omitted[DLIB_NAME] = reason
    else:
        with progress("dlib, warped" if warped else "dlib", len(rows), "sessions") as advance:
            result.embeddings[DLIB_NAME] = dlib_embeddings(tested, rows, jittered=warped, advance=advance)
    return result
