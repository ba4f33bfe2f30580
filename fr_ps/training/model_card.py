"""The model card: what a model is, which data trained and tested it, and its limits.

Mitchell et al., "Model cards for model reporting", FAT* 2019.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from fr_ps.config import PrepareConfig
from fr_ps.data.split_files import PARTS
from fr_ps.evaluation.metrics import Metrics
from fr_ps.evaluation.report import headline_lines
from fr_ps.files import write_text
from fr_ps.markdown import escape_markdown, markdown_lines
from fr_ps.models.thresholds import read_thresholds
from fr_ps.tracking.run_folder import FOLDER_PLACEHOLDER, MODEL_CARD_FILE
from fr_ps.training.setup import TrainingSetup

_SHOWN_SETTINGS = ("format", "size", "align", "solver")
"""Settings of the preparation that the card shows also where they are the default."""


def write_model_card(
    folder: Path,
    setup: TrainingSetup,
    metric: str,
    epoch: int,
    metrics: Metrics,
    facts: Mapping[str, str],
    warnings: Sequence[str],
    summary: Sequence[str],
) -> None:
    """Write `README.md` into the model folder, in Markdown: first the result in words, then how to load the model.

    Args:
        folder: model folder with the thresholds.
        setup: setup of the training.
        metric: metric that selected the model.
        epoch: epoch of the model.
        metrics: `val/...`, and `test/...` if the model was tested.
        facts: facts of the report.
        warnings: limits of the metrics.
        summary: the result in words, from `describe_lead`.
    """
    info, labels = setup.info, setup.dataset.labels
    maps = " + ".join(info.modalities)
    parts = [
        f"{part} {len(rows)} sessions of {len(np.unique(labels.ids[rows]))} subjects"
        for part in PARTS
        if len(rows := getattr(setup.split, part))
    ]
    by = f"the best by {metric}" if len(setup.split.val) else "the last"
    lines = [
        f"# {escape_markdown(info.backbones)} on {maps}",
        "",
        markdown_lines(summary),
        "",
        "## Use",
        "",
        "```python",
        "import fr_ps",
        f'model = fr_ps.load("{FOLDER_PLACEHOLDER}")',
        f"model.embed({{{', '.join(f'{name!r}: {name}' for name in info.modalities)}}})  # as prepare writes them",
        "```",
        "",
        "## Model",
        "",
        f"Predicts identity and {', '.join(info.trained) or 'no attribute'} from {maps} maps of {info.size} x {info.size} pixels "
        f"by photometric stereo. Epoch {epoch}, {by}. Run {info.provenance['run']}.",
        "",
        _preparation_line(setup),
        "",
        "## Data",
        "",
        f"{escape_markdown(setup.dataset.root.resolve().name)}, digest {setup.dataset.store.digest}; "
        f"{setup.config.data.protocol}: {'; '.join(parts)}.",
        "",
        "## Metrics",
        "",
        *_metric_lines(metrics, facts),
        *(f"- Warning: {escape_markdown(warning)}" for warning in warnings),
        "",
        "## Thresholds from validation",
        "",
        *_threshold_lines(folder, setup),
        "",
        "## Classes",
        "",
        *(_class_line(setup, attribute) for attribute in info.classes),
        "",
        "## Limits",
        "",
        "The metrics hold for the subjects above. They do not transfer to other subjects, cameras, lights, ages and expressions: "
        "before the model decides anything about people, evaluate it on data from its field of use, by group.",
        "",
    ]
    write_text(folder / MODEL_CARD_FILE, "\n".join(lines))


def _metric_lines(metrics: Metrics, facts: Mapping[str, str]) -> list[str]:
    found = [f"- Tested on {escape_markdown(facts['tested'])}"] if "tested" in facts else []
    for part in ("test", "val"):
        found += [f"- {escape_markdown(line)}" for line in headline_lines(metrics, part)]
    return [*found, f"- Intervals: {escape_markdown(facts['intervals'])}"] if found else ["- no validation and no test"]


def _threshold_lines(folder: Path, setup: TrainingSetup) -> list[str]:
    # A list and not a table: MLflow's page shows tables without space between the columns.
    thresholds = read_thresholds(folder)
    if thresholds is None:
        return ["none: no validation part"]
    identity = [
        f"- FMR {point.fmr:g}: a cosine of {point.threshold:.4f}; {point.false_matches} of {point.impostors} impostor pairs match"
        + (f" ({escape_markdown(point.support)})" if point.support else "")
        for point in thresholds.identity
    ]
    attributes = [
        f"- {attribute}: {escape_markdown(list(setup.info.classes[attribute])[1])} from a probability of {value:.4f}"  # type: ignore[index]
        for attribute, value in thresholds.attributes.items()
    ]
    return [*identity, *attributes]


def _class_line(setup: TrainingSetup, attribute: str) -> str:
    groups = setup.info.classes[attribute]  # type: ignore[index]
    untrained = "" if attribute in setup.info.trained else ", not trained: ignore its predictions"
    names = "; ".join(f"{name} ({', '.join(raw)})" for name, raw in groups.items())
    return f"- {attribute}: {escape_markdown(names)}{untrained}"


def _preparation_line(setup: TrainingSetup) -> str:
    settings = setup.info.preparation
    if not settings:
        return "The preparation of its maps is unknown."
    defaults = {field.name: field.default for field in fields(PrepareConfig)}
    shown = {name: value for name, value in settings.items() if name in _SHOWN_SETTINGS or value != defaults.get(name)}
    values = escape_markdown(", ".join(f"{name} {value}" for name, value in shown.items()))
    acquisition = setup.info.acquisition
    captures = f" Its captures have {acquisition.summary()}." if acquisition else ""
    return f"Its maps come from `fr-ps prepare` with {values}. All other settings have their defaults.{captures}"
