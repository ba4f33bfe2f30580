"""Promotion: a version becomes the champion only if it is significantly better on the test set of the present champion."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from fr_ps.config import Config, from_dict, without_removed
from fr_ps.config.yaml_files import read_settings
from fr_ps.data.builtin import resolve_root
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.leakage import Unit, split_overlap
from fr_ps.data.split_files import SPLIT_FILE, read_parts
from fr_ps.errors import InputError, one_line
from fr_ps.evaluation.compare_models import ComparisonResult, compare_models
from fr_ps.evaluation.differences import Difference
from fr_ps.evaluation.inputs import EvaluationOptions, open_inputs
from fr_ps.markdown import markdown_lines
from fr_ps.models.folder import load_model, read_info
from fr_ps.report.table import Table
from fr_ps.serving.registry import ModelVersion, get_champion, parse_version, set_champion, set_tags
from fr_ps.tables import SessionKey
from fr_ps.tracking.resolve import resolve_model
from fr_ps.tracking.run import Run
from fr_ps.tracking.run_folder import CONFIG_FILE

PROMOTION_METRIC = "identity/auc"
"""The challenger must be better in this metric."""
TEST_PART = "test"
_SUBJECT_DISJOINT = "subject_disjoint"
_UNITS: tuple[Unit, Unit] = ("session", "subject")


@dataclass(frozen=True)
class PromotionDecision:
    """The decision about a challenger.

    Attributes:
        challenger: the version to promote.
        previous: the champion before the decision; None if there was none.
        promoted: whether the challenger becomes the champion (in a dry run: would become).
        reasons: reasons of the decision, and warnings; one sentence each.
        tables: tables of the comparison; empty without one.
    """

    challenger: ModelVersion
    previous: ModelVersion | None
    promoted: bool
    reasons: tuple[str, ...]
    tables: tuple[Table, ...] = ()


def promote(
    model: str, run: Run, out: Path, *, data: str | None, limit: float, dry_run: bool, device: torch.device, batch: int
) -> PromotionDecision:
    """Decide whether a version becomes the champion of its registered model, and log the reasons.

    The first version becomes champion without a comparison. A later one is compared with the champion on the test part of the
    champion's own split, on the data set of the champion. The alias moves if the 95 % bootstrap interval over subjects of the
    difference in `PROMOTION_METRIC` excludes zero in favour of the challenger, and no group (sessions of one class of an
    attribute) loses more than `limit`.

    Args:
        model: `models:/NAME/VERSION`.
        run: run that logs the decision and the comparison.
        out: folder for the report of the comparison.
        data: folder of the champion's data set; None: the folder that it was trained on.
        limit: largest accepted decrease of the AUC in a group.
        dry_run: decide without moving the alias.
        device: device of the inference.
        batch: sessions per batch.

    Raises:
        InputError: there is no such version, the data set is missing or different, or the registry is unreachable.
    """
    challenger = parse_version(model)
    previous = get_champion(challenger.name)
    if previous is None:
        reasons = (f"{challenger.name} had no champion", *_check_first_champion(challenger, device))
        decision = PromotionDecision(challenger, None, True, reasons)
    elif previous == challenger:
        decision = PromotionDecision(challenger, previous, False, ("it is the champion already",))
    else:
        decision = _compare_with_champion(challenger, previous, run, out, data, limit, device, batch)
    run.log_params({"challenger": challenger.uri, "champion": previous.uri if previous else "", "limit": f"{limit:g}"})
    run.set_tags({"fr_ps.kind": "promote", "fr_ps.dry_run": str(dry_run).lower()})
    if not dry_run:
        _apply_decision(decision, run)
    first, *others = decision.reasons
    note = markdown_lines([decision_text(decision, dry_run), first, *(["; ".join(others)] if others else [])])
    run.set_tags({"fr_ps.decision": "promoted" if decision.promoted else "refused", "mlflow.note.content": note})
    return decision


def check_promotion(model: str, data: str | None) -> dict[str, tuple[ModelVersion, Path]]:
    """Check the inputs of `promote`, before a run is opened.

    Returns:
        `challenger`, and if there is another `champion` that too, with their versions and model folders.

    Raises:
        InputError: as for `promote`.
    """
    challenger = parse_version(model)
    previous = get_champion(challenger.name)
    found = {"challenger": (challenger, resolve_model(challenger.uri))}
    if previous and previous != challenger:
        folder = resolve_model(previous.uri)
        _open_champion_dataset(folder, _read_config(folder, previous), data, previous)
        found["champion"] = (previous, folder)
    return found


def decide(differences: Sequence[Difference], groups: Sequence[Difference], limit: float) -> tuple[bool, tuple[str, ...]]:
    """Whether the challenger becomes the champion, and the reasons. Each difference is the champion minus the challenger."""
    difference = next((row for row in differences if row.name == PROMOTION_METRIC), None)
    if difference is None:
        return False, (f"{PROMOTION_METRIC} cannot be compared on these data",)
    promoted = difference.better == "second"
    verdicts = {"first": "measurably worse", "second": "measurably better"}
    reasons = [
        f"{verdicts.get(difference.better, 'not measurably better')}: {PROMOTION_METRIC} {difference.second:.4f} against the "
        f"champion's {difference.first:.4f}, {_gain_text(difference)}"
    ]
    losers = [group for group in groups if group.value > limit]
    for group in losers:
        promoted = False
        reasons.append(
            f"worse by more than {limit:g}: {group.name} {group.second:.4f} against {group.first:.4f}, {_gain_text(group)}"
        )
    if groups and not losers:
        worst = max(groups, key=lambda group: group.value)
        loss = f" by more than {limit:g}; the largest loss is {worst.value:.4f} ({worst.name})"
        reasons.append("no group is worse" + (loss if worst.value > 0 else ""))
    if not groups:
        reasons.append("groups cannot be compared: no class of an attribute has genuine and impostor pairs")
    return promoted, tuple(reasons)


def _gain_text(difference: Difference) -> str:
    """The challenger's metric minus the champion's, with its interval."""
    return f"{-difference.value:+.4f} {swap_models(difference).interval_text}"


def swap_models(difference: Difference) -> Difference:
    """The difference with its two models swapped."""
    return Difference(difference.name, difference.second, difference.first, -difference.high, -difference.low, difference.p)


def _compare_with_champion(
    challenger: ModelVersion,
    previous: ModelVersion,
    run: Run,
    out: Path,
    data: str | None,
    limit: float,
    device: torch.device,
    batch: int,
) -> PromotionDecision:
    champion_folder, challenger_folder = resolve_model(previous.uri), resolve_model(challenger.uri)
    config = _read_config(champion_folder, previous)
    dataset = _open_champion_dataset(champion_folder, config, data, previous)
    leakage = _find_leakage(challenger_folder, champion_folder, config)
    if leakage:
        return PromotionDecision(challenger, previous, False, (leakage,))
    options = EvaluationOptions(TEST_PART)
    compared: ComparisonResult = compare_models(
        [open_inputs(folder, dataset.root, options, device, champion_folder) for folder in (champion_folder, challenger_folder)],
        out,
        run,
        batch=batch,
        names=[f"{previous.uri} (champion)", f"{challenger.uri} (challenger)"],
    )
    promoted, reasons = decide(compared.differences, compared.group_differences, limit)
    notes = (*_pretrained_weights_warning(challenger_folder, challenger), *compared.notes[1:])
    return PromotionDecision(challenger, previous, promoted, (*reasons, *notes), tuple(compared.tables))


def _check_first_champion(challenger: ModelVersion, device: torch.device) -> list[str]:
    """Check that the first champion loads. Returns a warning if later versions cannot be compared with it.

    Raises:
        InputError: the model cannot be loaded.
    """
    folder = resolve_model(challenger.uri)
    load_model(folder, device)
    if (folder / SPLIT_FILE).is_file() and _test_sessions(folder):
        return []
    return ["warning: it has no test set, so that no later version can be compared with it; --demote it before the next one"]


def _read_config(folder: Path, version: ModelVersion) -> Config:
    path = folder / CONFIG_FILE
    try:
        return from_dict(without_removed(read_settings(path), any_value=True))
    except (TypeError, ValueError, KeyError, InputError) as error:
        cause = f"its {CONFIG_FILE} cannot be read ({one_line(error)}), so that its test data are unknown"
        raise InputError(f"{version.uri}: {cause}; --demote it, or promote a version whose {CONFIG_FILE} is valid") from None


def _open_champion_dataset(folder: Path, config: Config, data: str | None, version: ModelVersion) -> Dataset:
    """The data set that the champion was trained and tested on.

    Raises:
        InputError: it is missing, or its digest is another one.
    """
    root = resolve_root(data or config.data.root, config.synthetic)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder, and {version.uri} was tested on its data; give their folder with --data")
    settings = replace(config.data, root=str(root))
    dataset = open_dataset(root, settings.modalities, settings)
    expected, found = read_info(folder).provenance.get("data_digest"), dataset.store.digest
    if found != expected:
        raise InputError(
            f"{root}: not the data that {version.uri} was tested on (digest {found}, not {expected}); give it with --data"
        )
    return dataset


def _find_leakage(challenger: Path, champion: Path, config: Config) -> str:
    """Why the challenger cannot be compared on the champion's test part; empty if it can.

    Only the test part of the champion's split is checked, and not its gallery, which the comparison does not use.
    """
    tested = _test_sessions(champion)
    if not tested:
        return "the champion has no test set, so that nothing can be compared; --demote it to promote another version"
    sessions, subjects = (split_overlap(challenger, tested, by) for by in _UNITS)
    if sessions is None or subjects is None:
        return f"its training subjects are unknown: it has no {SPLIT_FILE}"
    if leaked := sessions.trained | sessions.selected:
        return f"it was trained or selected on {len(leaked)} of the {len(tested)} test sessions of the champion"
    leaked = subjects.trained | subjects.selected
    if leaked and config.data.protocol == _SUBJECT_DISJOINT:
        return f"it was trained or selected on {len(leaked)} of the test subjects of the champion"
    return ""


def _test_sessions(folder: Path) -> set[SessionKey]:
    """The test sessions of the model in `folder`."""
    return {key for key, part in read_parts(folder / SPLIT_FILE).items() if part == TEST_PART}


def _pretrained_weights_warning(folder: Path, version: ModelVersion) -> list[str]:
    """A warning if training started from the weights of other models: the model's own split does not list their subjects."""
    config = _read_config(folder, version)
    if not config.fusion.branches and not config.model.weights:
        return []
    return ["warning: the challenger started from weights of other models; their training subjects are not checked"]


def _apply_decision(decision: PromotionDecision, run: Run) -> None:
    if decision.promoted:
        set_champion(decision.challenger, decision.previous)
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    text = f"{decision_text(decision, False)} ({when}, run {run.display_id}): {'; '.join(decision.reasons)}"
    set_tags(decision.challenger, {"fr_ps.promotion": text[:5000]})


def decision_text(decision: PromotionDecision, dry_run: bool) -> str:
    """The decision in one sentence."""
    if decision.promoted:
        verb = "would become" if dry_run else "is now"
        instead = f" instead of version {decision.previous.number}" if decision.previous else ""
        return f"{decision.challenger.uri} {verb} the champion{instead}"
    champion = f"the champion remains {decision.previous.uri}" if decision.previous else "there is no champion"
    return f"{decision.challenger.uri} does not become the champion; {champion}"
