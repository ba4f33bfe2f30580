"""Magnitude of an embedding as quality of its session: error versus discard, and correlation with the measures of `prepare`.

MagFace trains the magnitude (length) of an embedding to be its quality (Meng et al., "MagFace: A universal representation for
face recognition and quality assessment", CVPR 2021). If it is a good quality, discarding the sessions of low magnitude
removes errors, and it correlates with the photometric quality measures.
"""

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import rankdata

from fr_ps.data.labels import Labels
from fr_ps.data.layout import QUALITY
from fr_ps.evaluation.bootstrap import BootstrapWeights
from fr_ps.evaluation.metrics import LOW_SUPPORT, LOW_SUPPORT_REASON, Metrics, ReportSection
from fr_ps.photometric.quality import MEASURES
from fr_ps.report.figures import empty_figure, legend_beside, new_figure
from fr_ps.report.table import Cell, Table

DISCARD_LIMIT = 0.2
"""Largest share of the genuine pairs to discard, for the partial AUC."""
DISCARDS = (0.0, 0.05, 0.1, 0.2)
MAX_STEPS = 2000
"""With more distinct qualities than this, the replicates discard neighbouring ones together."""
MAX_POINTS = 2000
Curve = tuple[np.ndarray, np.ndarray]
"""Shares discarded, growing from 0, and the FNMR of the remaining pairs: (..., k) and (..., k)."""
_PAUC = "quality/edc_pauc"
_SHOWN_DISCARD = 0.5


def error_versus_discard(
    genuine_score: np.ndarray, quality_first: np.ndarray, quality_second: np.ndarray, threshold: float
) -> Curve:
    """FNMR at a fixed threshold after the genuine pairs of the lowest quality are discarded: (k,) shares and (k,) FNMR.

    The quality of a pair is the lower one of its two sessions. Pairs of equal quality are discarded together, so k is the number
    of distinct qualities. The curve is constant between two shares and after the last one. Without pairs: ([0], [NaN]).

    Grother and Tabassi, "Performance of biometric quality measures", PAMI 2007; Schlett et al., "Considerations on the evaluation
    of biometric quality assessment algorithms", 2023.

    Args:
        genuine_score: (m,) scores of the genuine pairs.
        quality_first: (m,) quality of one session of each; higher is better.
        quality_second: (m,) quality of the other.
        threshold: a pair is accepted if its score is at least this.
    """
    if not len(genuine_score):
        return np.zeros(1), np.full(1, np.nan)
    step = np.unique(np.minimum(quality_first, quality_second), return_inverse=True)[1]
    return _curve(np.bincount(step), np.bincount(step, genuine_score < threshold))


def oracle_curve(pairs: int, errors: int) -> Curve:
    """`error_versus_discard` of an oracle that discards the errors first, one by one.

    It is a lower bound, which a quality per session may not reach: discarding a session discards its correct pairs with its
    errors.
    """
    discarded = np.arange(pairs)
    return discarded / pairs, np.maximum(errors - discarded, 0) / (pairs - discarded)


def partial_auc(discard: np.ndarray, fnmr: np.ndarray, limit: float = DISCARD_LIMIT) -> np.ndarray:
    """(...) mean FNMR along an error-versus-discard curve from 0 to `limit`, over the starting FNMR.

    This is the partial area under the step curve, divided by `limit` times the starting FNMR. Random discarding gives 1 on
    average. Lower is better; above 1, correct pairs are discarded before errors. The minimum is that of `oracle_curve`, about
    E / (2 limit) for a small starting FNMR E. NaN if the starting FNMR is 0 or undefined.

    Args:
        discard: (..., k) shares discarded, from 0.
        fnmr: (..., k) FNMR of the remaining pairs.
        limit: largest share, in (0, 1].
    """
    edges = np.minimum(np.concatenate([discard, np.ones((*discard.shape[:-1], 1))], axis=-1), limit)
    width = np.diff(edges)
    area = np.where(width > 0, fnmr * width, 0).sum(axis=-1)
    start = fnmr[..., 0]
    return np.divide(area, limit * start, out=np.full_like(start, np.nan), where=start > 0)


def partial_auc_replicates(
    genuine_score: np.ndarray, quality: np.ndarray, threshold: float, bootstrap: BootstrapWeights
) -> np.ndarray:
    """(B,) `partial_auc` in each replicate, a genuine pair of subject i weighing w_i; NaN where it is undefined.

    Beyond `MAX_STEPS` distinct qualities, neighbouring ones are discarded together.

    Args:
        genuine_score: (m,) scores of the genuine pairs.
        quality: (m,) quality of the pairs.
        threshold: a pair is accepted if its score is at least this.
        bootstrap: replicates of the subjects, by pair.
    """
    step = np.unique(quality, return_inverse=True)[1]
    steps = int(step.max()) + 1
    if steps > MAX_STEPS:
        step, steps = step * MAX_STEPS // steps, MAX_STEPS
    units = bootstrap.weights.shape[1]
    cell = bootstrap.unit * steps + step
    pairs, errors = (
        np.bincount(cell, weights, units * steps).reshape(units, steps) for weights in (None, genuine_score < threshold)
    )
    return partial_auc(*_curve(bootstrap.weights @ pairs, bootstrap.weights @ errors))


def correlation_replicates(x: np.ndarray, y: np.ndarray, bootstrap: BootstrapWeights) -> np.ndarray:
    """(B,) Pearson correlation of (n,) x and (n,) y in each replicate, a session weighing w_i; NaN if one is constant."""
    x, y = x - x.mean(), y - y.mean()
    count, of_x, of_y, xx, yy, xy = bootstrap.weighted_sums(np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)).T
    with np.errstate(invalid="ignore", divide="ignore"):
        spread_x, spread_y = xx - of_x**2 / count, yy - of_y**2 / count
        varies = (spread_x > 1e-9 * xx) & (spread_y > 1e-9 * yy)
        return np.where(varies, (xy - of_x * of_y / count) / np.sqrt(spread_x * spread_y), np.nan)


def quality_section(
    embeddings_norm: np.ndarray,
    labels: Labels,
    first: np.ndarray,
    second: np.ndarray,
    score: np.ndarray,
    threshold: float | None,
    threshold_source: str,
    bootstrap: BootstrapWeights | None,
) -> ReportSection:
    """Error versus discard by magnitude, and correlation of the magnitude with the quality measures of the labels table.

    Metrics: `quality/edc_pauc`, and `quality/spearman_{measure}` for each quality measure of `prepare`. Lower measures are
    better, so a good magnitude correlates negatively. Spearman's correlation is Pearson's of the ranks; the replicates keep the
    ranks of all sessions.

    Args:
        embeddings_norm: (n,) magnitude of each embedding.
        labels: labels of the n sessions.
        first: (m,) row of one session of each genuine pair.
        second: (m,) row of the other.
        score: (m,) scores of these pairs.
        threshold: a pair is accepted if its score is at least this; None: undefined.
        threshold_source: where the threshold comes from, or why it is undefined.
        bootstrap: replicates of the subjects; None: no intervals.
    """
    section = ReportSection()
    if threshold is None:
        first, second, score = first[:0], second[:0], score[:0]
        section.metrics.add(_PAUC, None, threshold_source)
    limit = np.nan if threshold is None else threshold
    quality = np.minimum(embeddings_norm[first], embeddings_norm[second])
    curve = error_versus_discard(score, quality, quality, limit)
    oracle = oracle_curve(len(score), int((score < limit).sum()))
    if threshold is not None:
        _add_partial_auc(section.metrics, score, quality, threshold, bootstrap and bootstrap.select(first))
    measured: dict[str, np.ndarray] = {}
    for measure in [measure for measure in MEASURES if QUALITY + measure in labels.columns]:
        values = np.asarray(pd.to_numeric(pd.Series(labels.columns[QUALITY + measure]), errors="coerce"), dtype=np.float64)
        rows = np.flatnonzero(np.isfinite(values))
        _add_spearman(section.metrics, measure, embeddings_norm[rows], values[rows], bootstrap and bootstrap.select(rows))
        measured[measure] = np.where(np.isfinite(values), values, np.nan)
    section.tables.append(_table(section.metrics, curve, oracle, [threshold, None, None, threshold_source], measured))
    if section.metrics.values[_PAUC] is not None:
        section.figures["error_versus_discard"] = partial(_curve_figure, curve, oracle)
    correlations = {measure: section.metrics.values[f"quality/spearman_{measure}"] for measure in measured}
    if any(value is not None for value in correlations.values()):
        section.figures["quality_measures"] = partial(_measures_figure, embeddings_norm, measured, correlations)
    return section


def _curve(pairs: np.ndarray, errors: np.ndarray) -> Curve:
    """Shares discarded and remaining FNMR (..., k), from the weights of pairs and errors at each quality, lowest first."""
    remaining, remaining_errors = (
        np.cumsum(weights[..., ::-1], axis=-1, dtype=np.float64)[..., ::-1] for weights in (pairs, errors)
    )
    total = remaining[..., :1]
    with np.errstate(invalid="ignore"):
        return (total - remaining) / total, remaining_errors / remaining


def _add_partial_auc(
    metrics: Metrics, score: np.ndarray, quality: np.ndarray, threshold: float, bootstrap: BootstrapWeights | None
) -> None:
    errors = int((score < threshold).sum())
    if not len(score):
        metrics.add(_PAUC, None, "no genuine pair: no subject has two sessions")
    elif not errors:
        metrics.add(_PAUC, None, f"no false non-match among {len(score)} genuine pairs at the threshold {threshold:.4g}")
    elif _constant(quality):
        metrics.add(_PAUC, None, "all embeddings have the same magnitude")
    else:
        value = float(partial_auc(*error_versus_discard(score, quality, quality, threshold)))
        note = (
            f"{LOW_SUPPORT_REASON}: {errors} false non-matches among {len(score)} genuine pairs" if errors < LOW_SUPPORT else ""
        )
        metrics.add(_PAUC, value, note, partial_auc_replicates(score, quality, threshold, bootstrap) if bootstrap else None)


def _add_spearman(
    metrics: Metrics, measure: str, magnitude: np.ndarray, values: np.ndarray, bootstrap: BootstrapWeights | None
) -> None:
    name = f"quality/spearman_{measure}"
    if len(values) < 2:
        metrics.add(name, None, f"fewer than two sessions have a number in {QUALITY}{measure}")
    elif np.ptp(values) == 0:
        metrics.add(name, None, f"{QUALITY}{measure} is {values[0]:g} in all sessions")
    elif _constant(magnitude):
        metrics.add(name, None, "all embeddings have the same magnitude")
    else:
        x, y = rankdata(magnitude), rankdata(values)
        metrics.add(name, float(np.corrcoef(x, y)[0, 1]), "", correlation_replicates(x, y, bootstrap) if bootstrap else None)


def _constant(magnitude: np.ndarray) -> bool:
    """True if the magnitudes are equal up to float32 rounding, as those of unit vectors are."""
    return bool(np.ptp(magnitude) <= 1e-5 * magnitude.max())


def _table(metrics: Metrics, curve: Curve, oracle: Curve, threshold: list[Cell], measured: dict[str, np.ndarray]) -> Table:
    (discard, fnmr), pairs = curve, len(oracle[0])
    rows: list[list[Cell]] = [["threshold", *threshold]]
    for share in DISCARDS if pairs else ():
        step = int(np.searchsorted(discard, share, side="right")) - 1
        remaining = pairs - round(discard[step] * pairs)
        label = f"FNMR, {share:.0%} discarded" if share else "starting FNMR"
        rows.append([label, float(fnmr[step]), None, None, f"{round(fnmr[step] * remaining)} of {remaining} genuine pairs"])

    def add(label: str, name: str, sample: str) -> None:
        low, high = metrics.intervals.get(name, (None, None))
        rows.append([label, metrics.values[name], low, high, metrics.reasons.get(name, sample)])

    add(f"pAUC to {DISCARD_LIMIT:.0%} discarded", _PAUC, f"{pairs} genuine pairs")
    if metrics.values[_PAUC] is not None:
        rows.append(["pAUC of an oracle", float(partial_auc(*oracle)), None, None, "errors discarded first"])
    for measure, values in measured.items():
        add(f"Spearman, magnitude and {measure}", f"quality/spearman_{measure}", f"{int(np.isfinite(values).sum())} sessions")
    note = (
        "FNMR at one threshold after the genuine pairs with the smallest magnitude are discarded. pAUC: mean FNMR up to the "
        "limit over the starting FNMR; 1 is an uninformative quality, lower is better. Lower photometric measures are better, so "
        "a good magnitude correlates negatively with them"
    )
    return Table(
        "quality",
        "Quality: the magnitude of the embedding",
        ["", "value", "95 % low", "95 % high", "of"],
        rows,
        note + ("." if measured else "; the labels table has none."),
    )


def _curve_figure(curve: Curve, oracle: Curve) -> Figure:
    figure, axes = new_figure("Error versus discard", "share of genuine pairs discarded", "FNMR of the rest", legend=True)
    for (discard, fnmr), name, style in ((curve, "magnitude", "-"), (oracle, "oracle", "--")):
        axes.step(np.append(discard, 1), np.append(fnmr, fnmr[-1]), style, where="post", label=name)
    axes.axhline(curve[1][0], color="gray", linewidth=1, label="at random")
    axes.axvspan(0, DISCARD_LIMIT, color="gray", alpha=0.12, linewidth=0, label=f"pAUC {float(partial_auc(*curve)):.3f}")
    axes.set_xlim(0, _SHOWN_DISCARD)
    axes.set_ylim(0, 1.1 * curve[1][curve[0] <= _SHOWN_DISCARD].max())
    legend_beside(axes)
    return figure


def _measures_figure(magnitude: np.ndarray, measured: dict[str, np.ndarray], correlations: dict[str, float | None]) -> Figure:
    shown = {measure: rho for measure, rho in correlations.items() if rho is not None}
    width = max(2.4 * len(shown), 4)
    figure = empty_figure(width, 2.8)
    panels = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    figure.subplots_adjust(left=0.6 / width, right=1 - 0.1 / width, bottom=0.18, top=0.9, wspace=0.1)
    rows = np.random.default_rng(0).permutation(len(magnitude))[:MAX_POINTS]
    for axes, (measure, rho) in zip(panels, shown.items()):
        axes.plot(measured[measure][rows], magnitude[rows], ".", markersize=3, alpha=0.5)
        axes.set_title(f"Spearman {rho:.2f}", fontsize=9)
        axes.set_xlabel("integrability (degrees)" if measure == "integrability" else measure)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("magnitude of the embedding")
    return figure
