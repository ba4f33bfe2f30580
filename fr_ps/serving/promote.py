"""Who is the champion: a challenger takes its place only if it is measurably better on the champion's own test people."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from fr_ps.config import Config, from_dict
from fr_ps.config_files import read_settings
from fr_ps.data.builtin import data_root
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.split_files import SPLIT_FILE, read_parts
from fr_ps.errors import InputError, one_line
from fr_ps.evaluation.compare import Compared, compare_folders
from fr_ps.evaluation.differences import Difference
from fr_ps.evaluation.evaluate import Protocol
from fr_ps.evaluation.numbers.findings import Table
from fr_ps.markdown import markdown_lines
from fr_ps.models.folder import load_model, read_info
from fr_ps.serving.registry import Version, champion, crown, parse_version, tag
from fr_ps.tables import Key
from fr_ps.tracking.find import model_folder
from fr_ps.tracking.layout import CONFIG_FILE
from fr_ps.tracking.run import Run

DECIDES = "identity/auc"
"""The metric that has to be better."""
PART = "test"
_STRANGERS = "subject_disjoint"


@dataclass(frozen=True)
class Decision:
    """What became of a challenger.

    Attributes:
        challenger: who wants to be the champion.
        before: the champion until now; None if there was none.
        promoted: whether it becomes champion (of a dry run: would become).
        why: a sentence each.
        tables: the evidence.
    """

    challenger: Version
    before: Version | None
    promoted: bool
    why: tuple[str, ...]
    tables: tuple[Table, ...] = ()


def promote(
    model: str, run: Run, out: Path, *, data: str | None, limit: float, dry_run: bool, device: torch.device, batch: int
) -> Decision:
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
    before = champion(challenger.name)
    if before is None:
        decision = Decision(challenger, None, True, (f"{challenger.name} had no champion", *_first(challenger, device)))
    elif before == challenger:
        decision = Decision(challenger, before, False, ("it is the champion already",))
    else:
        decision = _contest(challenger, before, run, out, data, limit, device, batch)
    params = {"challenger": challenger.uri, "champion": before.uri if before else "", "limit": f"{limit:g}"}
    run.params(params)
    run.tags({"fr_ps.kind": "promote", "fr_ps.dry_run": str(dry_run).lower()})
    if not dry_run:
        _carry_out(decision, run)
    told = markdown_lines([verdict(decision, dry_run), *decision.why])
    run.tags({"fr_ps.decision": "promoted" if decision.promoted else "refused", "mlflow.note.content": told})
    return decision


def decide(found: Sequence[Difference], groups: Sequence[Difference], limit: float) -> tuple[bool, tuple[str, ...]]:
    """Whether B takes A's place, and why; the differences are A (the champion) minus B (the challenger)."""
    why, promoted = [], True
    one = next((one for one in found if one.name == DECIDES), None)
    if one is None:
        return False, (f"{DECIDES} cannot be compared on these data",)
    numbers = f"{DECIDES} {one.second:.4f} against the champion's {one.first:.4f}, {-one.value:+.4f} {mirrored(one).spread}"
    if one.better == "second":
        why.append(f"measurably better: {numbers}")
    else:
        promoted = False
        why.append(f"{'measurably worse' if one.better == 'first' else 'not measurably better'}: {numbers}")
    worse = [group for group in groups if group.value > limit]
    for group in worse:
        promoted = False
        numbers = f"{group.second:.4f} against {group.first:.4f}, {-group.value:+.4f} {mirrored(group).spread}"
        why.append(f"worse by more than {limit:g}: {group.name} {numbers}")
    if groups and not worse:
        most = max(groups, key=lambda group: group.value)
        loss = f" by more than {limit:g}; the largest loss is {most.value:.4f} ({most.name})"
        why.append("no group is worse" + (loss if most.value > 0 else ""))
    if not groups:
        why.append("groups cannot be compared: no class of an attribute has people to verify")
    return promoted, tuple(why)


def mirrored(one: Difference) -> Difference:
    """The same difference, second minus first."""
    return Difference(one.name, one.second, one.first, -one.high, -one.low, one.p)


def _contest(
    challenger: Version, before: Version, run: Run, out: Path, data: str | None, limit: float, device: torch.device, batch: int
) -> Decision:
    champion_folder, challenger_folder = model_folder(before.uri), model_folder(challenger.uri)
    config = _settings(champion_folder, before)
    dataset = _pinned(champion_folder, config, data, before)
    seen = _seen(challenger_folder, champion_folder, config, dataset)
    if seen:
        return Decision(challenger, before, False, (seen,))
    compared: Compared = compare_folders(
        [champion_folder, challenger_folder],
        dataset.root,
        out,
        run,
        protocol=Protocol(PART),
        device=device,
        batch=batch,
        names=[f"{before.uri} (champion)", f"{challenger.uri} (challenger)"],
    )
    promoted, why = decide(compared.found, compared.groups, limit)
    mind = (*_foreign(challenger_folder, challenger), *compared.lines[1:])
    return Decision(challenger, before, promoted, (*why, *mind), tuple(compared.tables))


def _first(challenger: Version, device: torch.device) -> list[str]:
    """What is to be known of a first champion, with which later ones will be compared.

    Raises:
        InputError: it is no model that can be loaded.
    """
    folder = model_folder(challenger.uri)
    load_model(folder, device)
    if (folder / SPLIT_FILE).is_file() and _tested(folder):
        return []
    return ["mind: it was tested on nobody, so that no later version can be compared with it; --demote it before the next one"]


def _settings(folder: Path, version: Version) -> Config:
    path = folder / CONFIG_FILE
    try:
        return from_dict(read_settings(path))
    except (TypeError, ValueError, KeyError, InputError) as error:
        why = f"its {CONFIG_FILE} cannot be read ({one_line(error)})"
        raise InputError(f"{version.uri}: {why}, so that its test data are unknown") from None


def _pinned(folder: Path, config: Config, data: str | None, version: Version) -> Dataset:
    """The champion's data set, if it still is the one that it was trained and tested on."""
    root = data_root(data or config.data.root, config.synthetic)
    if not root.is_dir():
        raise InputError(f"{root}: the data of {version.uri} are not there; say where they lie by --data")
    settings = replace(config.data, root=str(root))
    dataset = open_dataset(root, settings.modalities, settings.labels, settings.classes, settings)
    wanted, found = read_info(folder).provenance.get("data_digest"), dataset.store.digest
    if found != wanted:
        raise InputError(
            f"{root}: not the data that {version.uri} was tested on (digest {found}, not {wanted}); name these by --data"
        )
    return dataset


def _seen(challenger: Path, champion: Path, config: Config, dataset: Dataset) -> str:
    """Why the challenger cannot be judged on the champion's test part; empty if it can."""
    if not (challenger / SPLIT_FILE).is_file():
        return f"whom it was trained on is not known: it has no {SPLIT_FILE}"
    tested = _tested(champion)
    if not tested:
        return "the champion was tested on nobody, so that nothing can be compared; --demote it to let another take its place"
    known = {key for key, part in read_parts(challenger / SPLIT_FILE).items() if part in ("train", "val")}
    if sessions := len(known & tested):
        return f"it was trained or chosen on {sessions} of the {len(tested)} sessions that the champion was tested on"
    people = {person for person, _ in known} & {person for person, _ in tested}
    if people and config.data.protocol == _STRANGERS:
        return f"it was trained or chosen on {len(people)} of the people that the champion was tested on"
    return ""


def _tested(folder: Path) -> set[Key]:
    """(id, session) of those that the model in `folder` was tested on."""
    return {key for key, part in read_parts(folder / SPLIT_FILE).items() if part == PART}


def _foreign(folder: Path, version: Version) -> list[str]:
    """That a model began with the weights of others, if it did: whom these were trained on, its own split does not say."""
    config = _settings(folder, version)
    if not config.fusion.branches and not config.model.weights:
        return []
    return ["mind: the challenger began with weights of other models; whom these were trained on is not looked at"]


def _carry_out(decision: Decision, run: Run) -> None:
    if decision.promoted:
        crown(decision.challenger, decision.before)
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    told = f"{verdict(decision, False)} ({when}, run {run.shown_id}): {'; '.join(decision.why)}"
    tag(decision.challenger, {"fr_ps.promotion": told[:5000]})


def verdict(decision: Decision, dry_run: bool) -> str:
    """What became of the challenger, in a sentence."""
    would = " would become" if dry_run else " is now"
    if decision.promoted:
        instead = f" instead of version {decision.before.number}" if decision.before else ""
        return f"{decision.challenger.uri}{would} the champion{instead}"
    remains = f"{decision.before.uri} remains it" if decision.before else "nobody is it"
    return f"{decision.challenger.uri} does not become the champion; {remains}"
