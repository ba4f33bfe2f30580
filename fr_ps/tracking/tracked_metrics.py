"""Which metrics a run logs to MLflow, in the order of its tables. All metrics are in metrics.json and in the report."""

from collections.abc import Mapping, Sequence

from fr_ps.data.labels import ATTRIBUTES

BEST_PREFIX = "best/"
"""Prefix of the validation metrics of the best checkpoint: `best/val/identity/auc`."""
_IDENTITY_HEADLINE = ("identity/auc", "identity/eer", "identity/tar_at_far_0.01", "identity/rank1")
HEADLINE = (*_IDENTITY_HEADLINE, *(f"{attribute}/auc" for attribute in ATTRIBUTES))
"""The numbers to look at first, without the part (`test/`), most important first."""
_IDENTITY = ("auc", "auc_person_balanced", "eer", "rank1")
_ATTRIBUTE = ("auc", "balanced_accuracy", "average_precision")
_FAR_POINT = "tar_at_far_"


def validation_curves(values: Mapping[str, float], tracked: Sequence[str]) -> dict[str, float]:
    """The metrics with a curve: the main ones of identity and attributes, and those that select a checkpoint.

    Args:
        values: `val/...` metrics of an epoch.
        tracked: metrics that select a checkpoint; kept in any case.
    """
    main = {f"{attribute}/{metric}" for attribute in ATTRIBUTES for metric in _ATTRIBUTE}
    return {
        name: value
        for name, value in values.items()
        if name in tracked or _is_main_identity(_without_part(name)) or _without_part(name) in main
    }


def best_metrics(values: Mapping[str, float], select: str) -> dict[str, float]:
    """Metrics of the best checkpoint, under names of their own (`best/...`).

    MLflow sorts runs by the last point of a curve, and the last epoch is rarely the best one.

    Args:
        values: `val/...` metrics of the best epoch.
        select: metric that selects the best epoch; it comes first.
    """
    names = dict.fromkeys([select, *(f"val/{name}" for name in _IDENTITY_HEADLINE)])
    return {f"{BEST_PREFIX}{name}": values[name] for name in names if name in values}


def result_metrics(values: Mapping[str, float], part: str) -> dict[str, float]:
    """The metrics of an evaluated part: `HEADLINE`, then the other main metrics of identity.

    Args:
        values: metrics by name, `test/...`.
        part: evaluated part.
    """
    others = [_without_part(name) for name in values if name.startswith(f"{part}/")]
    names = dict.fromkeys([*HEADLINE, *filter(_is_main_identity, others)])
    return {f"{part}/{name}": values[f"{part}/{name}"] for name in names if f"{part}/{name}" in values}


def difference_metrics(values: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """The metrics of a comparison: all about the identity AUC, then the differences of the other numbers of `HEADLINE`.

    Args:
        values: `difference/...`, `p/...`, and `a/...` and `b/...`, the values of both models.
        intervals: of `difference/...`; logged as `low/...` and `high/...`.
    """
    first, *others = HEADLINE
    low, high = intervals.get(f"difference/{first}", (None, None))
    names = [f"{prefix}/{first}" for prefix in ("difference", "low", "high", "p", "a", "b")]
    names += [f"difference/{name}" for name in others]
    known = {**values, f"low/{first}": low, f"high/{first}": high}
    return {name: value for name in names if (value := known.get(name)) is not None}


def _without_part(name: str) -> str:
    return name.partition("/")[2]


def _is_main_identity(name: str) -> bool:
    task, _, metric = name.partition("/")
    return task == "identity" and (metric in _IDENTITY or metric.startswith(_FAR_POINT))
