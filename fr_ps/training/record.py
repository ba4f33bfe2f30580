"""What a training tells: to the run, to the user, and in its report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from matplotlib.figure import Figure

from fr_ps.config import Config, flatten, resolved, to_dict
from fr_ps.data.dataset import Dataset
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.data.split_files import PARTS, SPLIT_FILE, Split, write_split
from fr_ps.data.splits import split_notes
from fr_ps.evaluation.assess import Assessment
from fr_ps.evaluation.numbers.metrics import Metrics
from fr_ps.evaluation.report import INTERVALS, headline, population, undefined
from fr_ps.files import write_text
from fr_ps.models.folder import ModelInfo
from fr_ps.models.network import ADVERSARIAL
from fr_ps.redaction import redact_tree
from fr_ps.tracking.layout import CONFIG_FILE
from fr_ps.tracking.provenance import environment_text
from fr_ps.tracking.run import Run
from fr_ps.training.figures import curves_figure
from fr_ps.training.selection import Selection

ENVIRONMENT_FILE = "environment.txt"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is to be trained on what: settled before the first step."""

    config: Config
    dataset: Dataset
    split: Split
    info: ModelInfo


def default_name(config: Config) -> str:
    """Data, modalities, fusion and backbone: what tells runs apart in a table."""
    fusion = [config.fusion.name] if len(config.data.modalities) > 1 else []
    return "-".join([Path(config.data.root).name, *config.data.modalities, *fusion, config.model.backbone])


def figures(curves: Mapping[str, Mapping[int, float]], trained: Sequence[str], rates: Figure) -> dict[str, Figure]:
    """Losses, weights, validation and learning rate (`rates`) over the epochs."""
    lines = {name: sorted(points.items()) for name, points in curves.items()}
    tasks = ["identity", *trained]
    adversarial = [ADVERSARIAL + task for task in trained]
    found = {
        "losses": curves_figure(lines, "Training losses", [f"train/loss/{task}" for task in tasks], logarithmic=True),
        "weights": curves_figure(lines, "Weights of the losses", [f"train/weight/{task}" for task in tasks + adversarial]),
        "learning_rate": rates,
    }
    judged = [f"train/loss/{task}" for task in adversarial]
    if any(name in lines for name in judged):
        found["adversarial"] = curves_figure(lines, "Adversarial losses", judged)
    validated = [f"val/{task}/auc" for task in tasks]
    if any(name in lines for name in validated):
        found["validation"] = curves_figure(lines, "Validation AUC", validated)
    return found


def describe(plan: Plan, run: Run, say: Say) -> None:
    """Tell the run and the user what is about to be trained."""
    config, dataset, split, info = plan.config, plan.dataset, plan.split, plan.info
    for part in PARTS:
        rows = getattr(split, part)
        if len(rows) or part != "gallery":
            say(f"{part}: {len(rows)} sessions of {len(np.unique(dataset.labels.ids[rows]))} people")
    for note in split_notes(dataset.labels, split):
        say(note)
    for attribute in ATTRIBUTES:
        if attribute not in info.trained:
            say(f"{attribute}: not trained, as the training part has fewer than two classes of it")
    run.params(flatten(config))
    run.tags(
        {
            "fr_ps.kind": "train",
            "fr_ps.protocol": config.data.protocol,
            "fr_ps.modality": "+".join(config.data.modalities),
            "fr_ps.backbone": info.backbones,
            "fr_ps.labels": dataset.labels.form,
            "fr_ps.data_digest": dataset.store.digest,
            "mlflow.source.git.commit": info.provenance["git_commit"],
        }
    )
    profile = {"sessions": len(dataset.labels), "people": len(np.unique(dataset.labels.ids))}
    profile |= {f"{part}_sessions": len(getattr(split, part)) for part in PARTS}
    run.dataset(dataset.root.resolve().name, str(dataset.root.resolve()), dataset.store.digest, profile, "training")
    write_settings(run.folder, plan)
    write_text(run.folder / ENVIRONMENT_FILE, environment_text())
    for name in (CONFIG_FILE, SPLIT_FILE, ENVIRONMENT_FILE):
        run.artifact(run.folder / name)


def write_settings(folder: Path, plan: Plan) -> None:
    """Write what makes the same training again into `folder`: the settings, and who is in which part."""
    write_config(folder, plan.config)
    write_split(folder / SPLIT_FILE, plan.dataset.labels, plan.split)


def write_config(folder: Path, config: Config) -> None:
    """Write the resolved settings into `folder`."""
    write_text(folder / CONFIG_FILE, yaml.safe_dump(redact_tree(to_dict(resolved(config))), sort_keys=False))


def epoch_line(epoch: int, epochs: int, values: dict[str, float], validation: Metrics, selection: Selection) -> str:
    loss = f"loss {values['train/loss/total']:.3f}" if "train/loss/total" in values else "no good step"
    line = f"epoch {epoch}/{epochs}  {loss}  {values['train/images_per_second']:.0f} images/s"
    if bad := values["train/bad_steps"]:
        line += f"  {bad:.0f} bad steps skipped"
    if not validation.values:
        return line
    mark = "  best" if selection.best_epoch == epoch else ""
    return f"{line}  {selection.metric} {validation.values[selection.metric]:.4f}{mark}"


def facts_of(plan: Plan, metrics: Metrics, tested: Assessment | None, chosen: int) -> dict[str, str]:
    """The first lines of the report of epoch `chosen`: who was tested, what came out, and what could not be told."""
    config, dataset, validated = plan.config, plan.dataset, plan.split.val
    unseen = (
        "people never trained on" if config.data.protocol == "subject_disjoint" else "other sessions of the people trained on"
    )
    maps = ", ".join(config.data.modalities) + (f" ({config.fusion.name})" if len(config.data.modalities) > 1 else "")
    return {
        "tested": f"{population(tested)}: {unseen}" if tested else "nobody (data.test_people is 0)",
        "headline": "; ".join(headline(metrics, "test" if tested else "val")) or "nobody was validated or tested on",
        **(undefined(metrics, "test") if tested else {}),
        "model": f"{plan.info.backbones} on {maps}, {dataset.store.size} px, epoch {chosen}",
        "chosen by": f"{config.train.select} on {len(validated)} sessions" if len(validated) else "nothing: the last epoch",
        "data": f"{dataset.root.resolve().name}, digest {dataset.store.digest}, {dataset.labels.form} labels",
        "intervals": INTERVALS,
    }
