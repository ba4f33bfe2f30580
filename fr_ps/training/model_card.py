"""The model card: what a model is, on whom it was trained and tested, and what it must not be trusted with.

Mitchell et al., "Model cards for model reporting", FAT* 2019.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fr_ps.data.split_files import PARTS
from fr_ps.evaluation.metrics import Metrics
from fr_ps.evaluation.report import headline_lines
from fr_ps.files import write_text
from fr_ps.markdown import escape_markdown
from fr_ps.models.thresholds import read_thresholds
from fr_ps.tracking.layout import MODEL_CARD_FILE
from fr_ps.training.setup import TrainingSetup


def write_model_card(
    folder: Path,
    setup: TrainingSetup,
    metric: str,
    epoch: int,
    metrics: Metrics,
    facts: Mapping[str, str],
    warnings: Sequence[str],
) -> None:
    """Write `README.md` into the model folder, in Markdown.

    Args:
        folder: of the model, with its thresholds.
        plan: of the training.
        metric: that the model was chosen by.
        epoch: of the model.
        metrics: `val/...` and, where the model was tested, `test/...`.
        facts: of the report.
        warnings: what has to be known before the numbers are believed.
    """
    info, labels = setup.info, setup.dataset.labels
    maps = " + ".join(info.modalities)
    parts = [
        f"{part} {len(rows)} sessions of {len(np.unique(labels.ids[rows]))} people"
        for part in PARTS
        if len(rows := getattr(setup.split, part))
    ]
    by = f"the best by {metric}" if len(setup.split.val) else "the last"
    lines = [
        f"# {escape_markdown(info.backbones)} on {maps}",
        "",
        f"Answers who a face is and {', '.join(info.trained) or 'no attribute'}, from {maps} maps of {info.size} x {info.size} "
        f"pixels by photometric stereo. Epoch {epoch}, {by}. Run {info.provenance['run']}.",
        "",
        "## Data",
        "",
        f"{escape_markdown(setup.dataset.root.resolve().name)}, digest {setup.dataset.store.digest}; "
        f"{setup.config.data.protocol}: {'; '.join(parts)}.",
        "",
        "## Numbers",
        "",
        *_metric_lines(metrics, facts),
        *(f"- Mind: {escape_markdown(warning)}" for warning in warnings),
        "",
        "## Thresholds, chosen on validation",
        "",
        *_threshold_lines(folder),
        "",
        "## Classes",
        "",
        *(_class_line(setup, attribute) for attribute in info.classes),
        "",
        "## Use",
        "",
        "```python",
        "import fr_ps",
        'model = fr_ps.load("FOLDER OF THIS FILE")',
        f"model.embed({{{', '.join(f'{name!r}: {name}' for name in info.modalities)}}})  # as prepare writes them",
        "```",
        "",
        _preparation_line(setup),
        "",
        "The numbers are of the people above. Of others, other cameras, lights, ages and expressions they say nothing; "
        "before it decides anything about people, evaluate it on such as it will meet, by group.",
        "",
    ]
    write_text(folder / MODEL_CARD_FILE, "\n".join(lines))


def _metric_lines(metrics: Metrics, facts: Mapping[str, str]) -> list[str]:
    found = [f"- Tested on {escape_markdown(facts['tested'])}"] if "tested" in facts else []
    for part in ("test", "val"):
        found += [f"- {escape_markdown(line)}" for line in headline_lines(metrics, part)]
    return [*found, f"- Intervals: {escape_markdown(facts['intervals'])}"] if found else ["- nobody was validated or tested on"]


def _threshold_lines(folder: Path) -> list[str]:
    thresholds = read_thresholds(folder)
    if thresholds is None:
        return ["none: nobody was validated on"]
    rows = [
        f"| {point.fmr:g} | {point.threshold:.4f} | {point.false_matches} of {point.impostors} "
        f"| {escape_markdown(point.support)} |"
        for point in thresholds.identity
    ]
    told = [f"- {attribute}: {value:.4f}" for attribute, value in thresholds.attributes.items()]
    return ["| wanted FMR | cosine | false matches | |", "|---|---|---|---|", *rows, "", *told]


def _class_line(setup: TrainingSetup, attribute: str) -> str:
    groups = setup.info.classes[attribute]  # type: ignore[index]
    untrained = "" if attribute in setup.info.trained else ", not trained: what it says of it means nothing"
    told = "; ".join(f"{name} ({', '.join(raw)})" for name, raw in groups.items())
    return f"- {attribute}: {escape_markdown(told)}{untrained}"


def _preparation_line(setup: TrainingSetup) -> str:
    settings = setup.info.preparation
    if not settings:
        return "How its maps were made is not known."
    told = escape_markdown(", ".join(f"{name} {value}" for name, value in settings.items()))
    return f"Its maps were made by `fr-ps prepare` with {told}."
