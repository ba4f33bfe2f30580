"""Who is the champion: a challenger takes its place only if it is measurably better on the champion's own test people."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from fr_ps.config import Config, from_dict
from fr_ps.config.yaml_files import read_settings
from fr_ps.data.builtin import resolve_root
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.leakage import Unit, split_overlap
from fr_ps.data.split_files import SPLIT_FILE, read_parts
from fr_ps.errors import InputError, one_line
from fr_ps.evaluation.compare_models import ComparisonResult, compare_models
from fr_ps.evaluation.differences import Difference
from fr_ps.evaluation.evaluate_model import EvaluationOptions
from fr_ps.markdown import markdown_lines
from fr_ps.models.folder import load_model, read_info
from fr_ps.report.table import Table
from fr_ps.serving.registry import ModelVersion, get_champion, parse_version, set_champion, set_tags
from fr_ps.tables import SessionKey
from fr_ps.tracking.layout import CONFIG_FILE
from fr_ps.tracking.resolve import resolve_model
from fr_ps.tracking.run import Run

PROMOTION_METRIC = "identity/auc"
"""The metric that has to be better."""
TEST_PART = "test"
_SUBJECT_DISJOINT = "subject_disjoint"
_UNITS: tuple[Unit, Unit] = ("session", "subject")


@dataclass(frozen=True)
class PromotionDecision:
    """What became of a challenger.

    Attributes:
        challenger: who wants to be the champion.
        before: the champion until now; None if there was none.
        promoted: whether it becomes champion (of a dry run: would become).
        why: a sentence each.
        tables: the evidence.
    """

    challenger: ModelVersion
    previous: ModelVersion | None
    promoted: bool
    reasons: tuple[str, ...]
    tables: tuple[Table, ...] = ()


def promote(
    model: str, run: Run, out: Path, *, data: str | None, limit: float, dry_run: bool, device: torch.device, batch: int
) -> PromotionDecision:
    """Decide whether a version becomes the champion of its registered model, and write down why.

    The first becomes it unopposed. Later ones are compared with the champion on the test part of the champion's own split, on
    the data that its run had: the alias moves if the 95 % interval of the difference of `DECIDES`, from drawing people,
    excludes zero in favour of the challenger, and among the sessions of no class of an attribute it is worse by more than
    `limit`.

    Args:
        model: `models:/NAME/VERSION`.
        run: what records the decision and its evidence.
        out: folder for the report of the comparison.
        data: where the champion's data lie now; None: where they lay when it was trained.
        limit: AUC that a group may lose.
        dry_run: whether only the decision is told, and nothing moved.
        device: to compute on.
        batch: sessions a batch.

    Raises:
        InputError: there is no such version, the data are missing or others, or the registry does not answer.
    """
    challenger = parse_version(model)
    before = get_champion(challenger.name)
    if before is None:
        decision = PromotionDecision(
            challenger, None, True, (f"{challenger.name} had no champion", *_check_first_champion(challenger, device))
        )
    elif before == challenger:
        decision = PromotionDecision(challenger, before, False, ("it is the champion already",))
    else:
        decision = _compare_with_champion(challenger, before, run, out, data, limit, device, batch)
    params = {"challenger": challenger.uri, "champion": before.uri if before else "", "limit": f"{limit:g}"}
    run.log_params(params)
    run.set_tags({"fr_ps.kind": "promote", "fr_ps.dry_run": str(dry_run).lower()})
    if not dry_run:
        _apply_decision(decision, run)
    told = markdown_lines([decision_text(decision, dry_run), *decision.reasons])
    run.set_tags({"fr_ps.decision": "promoted" if decision.promoted else "refused", "mlflow.note.content": told})
    return decision


def decide(differences: Sequence[Difference], groups: Sequence[Difference], limit: float) -> tuple[bool, tuple[str, ...]]:
    """Whether B takes A's place, and why; the differences are A (the champion) minus B (the challenger)."""
    why, promoted = [], True
    one = next((one for one in differences if one.name == PROMOTION_METRIC), None)
    if one is None:
        return False, (f"{PROMOTION_METRIC} cannot be compared on these data",)
    gain = f"{-one.value:+.4f} {negated(one).interval_text}"
    numbers = f"{PROMOTION_METRIC} {one.second:.4f} against the champion's {one.first:.4f}, {gain}"
    if one.better == "second":
        why.append(f"measurably better: {numbers}")
    else:
        promoted = False
        why.append(f"{'measurably worse' if one.better == 'first' else 'not measurably better'}: {numbers}")
    worse = [group for group in groups if group.value > limit]
    for group in worse:
        promoted = False
        numbers = f"{group.second:.4f} against {group.first:.4f}, {-group.value:+.4f} {negated(group).interval_text}"
        why.append(f"worse by more than {limit:g}: {group.name} {numbers}")
    if groups and not worse:
        most = max(groups, key=lambda group: group.value)
        loss = f" by more than {limit:g}; the largest loss is {most.value:.4f} ({most.name})"
        why.append("no group is worse" + (loss if most.value > 0 else ""))
    if not groups:
        why.append("groups cannot be compared: no class of an attribute has people to verify")
    return promoted, tuple(why)


def negated(difference: Difference) -> Difference:
    """The same difference, second minus first."""
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
    seen = _find_leakage(challenger_folder, champion_folder, config)
    if seen:
        return PromotionDecision(challenger, previous, False, (seen,))
    compared: ComparisonResult = compare_models(
        [champion_folder, challenger_folder],
        dataset.root,
        out,
        run,
        options=EvaluationOptions(TEST_PART),
        device=device,
        batch=batch,
        names=[f"{previous.uri} (champion)", f"{challenger.uri} (challenger)"],
    )
    promoted, why = decide(compared.differences, compared.group_differences, limit)
    mind = (*_pretrained_weights_warning(challenger_folder, challenger), *compared.notes[1:])
    return PromotionDecision(challenger, previous, promoted, (*why, *mind), tuple(compared.tables))


def _check_first_champion(challenger: ModelVersion, device: torch.device) -> list[str]:
    """What is to be known of a first champion, with which later ones will be compared.

    Raises:
        InputError: it is no model that can be loaded.
    """
    folder = resolve_model(challenger.uri)
    load_model(folder, device)
    if (folder / SPLIT_FILE).is_file() and _test_sessions(folder):
        return []
    return ["mind: it was tested on nobody, so that no later version can be compared with it; --demote it before the next one"]


def _read_config(folder: Path, version: ModelVersion) -> Config:
    path = folder / CONFIG_FILE
    try:
        return from_dict(read_settings(path))
    except (TypeError, ValueError, KeyError, InputError) as error:
        why = f"its {CONFIG_FILE} cannot be read ({one_line(error)})"
        raise InputError(f"{version.uri}: {why}, so that its test data are unknown") from None


def _open_champion_dataset(folder: Path, config: Config, data: str | None, version: ModelVersion) -> Dataset:
    """The champion's data set, if it still is the one that it was trained and tested on."""
    root = resolve_root(data or config.data.root, config.synthetic)
    if not root.is_dir():
        raise InputError(f"{root}: the data of {version.uri} are not there; say where they lie by --data")
    settings = replace(config.data, root=str(root))
    dataset = open_dataset(root, settings.modalities, settings)
    wanted, found = read_info(folder).provenance.get("data_digest"), dataset.store.digest
    if found != wanted:
        raise InputError(
            f"{root}: not the data that {version.uri} was tested on (digest {found}, not {wanted}); name these by --data"
        )
    return dataset


def _find_leakage(challenger: Path, champion: Path, config: Config) -> str:
    """Why the champion's test part is no fair test of the challenger; empty if it is.

    Only the test part is checked: the comparison enrols no gallery.
    """
    tested = _test_sessions(champion)
    if not tested:
        return "the champion has no test sessions to compare on; --demote it to let another version take its place"
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
    """(id, session) of those that the model in `folder` was tested on."""
    return {key for key, part in read_parts(folder / SPLIT_FILE).items() if part == TEST_PART}


def _pretrained_weights_warning(folder: Path, version: ModelVersion) -> list[str]:
    """That a model began with the weights of others, if it did: whom these were trained on, its own split does not say."""
    config = _read_config(folder, version)
    if not config.fusion.branches and not config.model.weights:
        return []
    return ["mind: the challenger began with weights of other models; whom these were trained on is not looked at"]


def _apply_decision(decision: PromotionDecision, run: Run) -> None:
    if decision.promoted:
        set_champion(decision.challenger, decision.previous)
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    told = f"{decision_text(decision, False)} ({when}, run {run.display_id}): {'; '.join(decision.reasons)}"
    set_tags(decision.challenger, {"fr_ps.promotion": told[:5000]})


def decision_text(decision: PromotionDecision, dry_run: bool) -> str:
    """What became of the challenger, in a sentence."""
    would = " would become" if dry_run else " is now"
    if decision.promoted:
        instead = f" instead of version {decision.previous.number}" if decision.previous else ""
        return f"{decision.challenger.uri}{would} the champion{instead}"
    remains = f"{decision.previous.uri} remains it" if decision.previous else "nobody is it"
    return f"{decision.challenger.uri} does not become the champion; {remains}"
