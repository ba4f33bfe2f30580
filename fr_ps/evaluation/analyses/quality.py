"""Does the length of an embedding tell how far its session can be trusted?

MagFace makes the length (magnitude) of an embedding the quality of its session (Meng et al., "MagFace: A universal
representation for face recognition and quality assessment", CVPR 2021). That is so if errors go away as the sessions of low
magnitude are discarded, and should show in how well the session's pictures can be believed, which `prepare` measures.
"""

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import rankdata

from fr_ps.data.labels import Labels
from fr_ps.data.layout import QUALITY
from fr_ps.evaluation.bootstrap import BootstrapWeights
from fr_ps.evaluation.metrics import LOW_SUPPORT, Metrics, ReportSection
from fr_ps.photometric.quality import MEASURES
from fr_ps.report.figures import empty_figure, new_figure
from fr_ps.report.table import Cell, Table

DISCARD_LIMIT = 0.2
"""Share of the genuine pairs up to which discarding them is looked at."""
DISCARDS = (0.0, 0.05, 0.1, 0.2)
MAX_STEPS = 2000
"""Where there are more distinct qualities than these, the draws of people discard neighbouring ones together."""
MAX_POINTS = 2000
Curve = tuple[np.ndarray, np.ndarray]
"""Shares discarded, from 0 and growing, and the FNMR of what is left at each: (..., k) and (..., k)."""
_PAUC = "quality/edc_pauc"
_SHOWN_DISCARD = 0.5


def error_versus_discard(
    genuine_score: np.ndarray, quality_first: np.ndarray, quality_second: np.ndarray, threshold: float
) -> Curve:
    """What FNMR is left when the genuine pairs of the lowest quality are discarded: (k,) shares discarded and (k,) FNMR.

    The quality of a pair is the smaller one of its two sessions'; pairs of the same quality go together, so that k is the
    number of distinct ones. The threshold stays what it is. Between two shares the curve is flat, and so it is after the last
    one: there is one quality left. (Grother and Tabassi, "Performance of biometric quality measures", PAMI 2007; Schlett et
    al., "Considerations on the evaluation of biometric quality assessment algorithms", 2023.) Without pairs: ([0], [NaN]).

    Args:
        genuine_score: (m,) of the genuine pairs.
        quality_first: (m,) of one session of each; more is better.
        quality_second: (m,) of the other.
        threshold: a pair is accepted if its score is at least this.
    """
    if not len(genuine_score):
        return np.zeros(1), np.full(1, np.nan)
    step = np.unique(np.minimum(quality_first, quality_second), return_inverse=True)[1]
    return _curve(np.bincount(step), np.bincount(step, genuine_score < threshold))


def oracle_curve(pairs: int, errors: int) -> Curve:
    """`error_versus_discard` of a quality that discards errors first, one by one.

    No quality can do better; one of single sessions, which takes a session's good pairs along with its bad ones, need not be
    able to do as well.
    """
    discarded = np.arange(pairs)
    return discarded / pairs, np.maximum(errors - discarded, 0) / (pairs - discarded)


def partial_auc(discard: np.ndarray, fnmr: np.ndarray, limit: float = DISCARD_LIMIT) -> np.ndarray:
    """(...) the mean FNMR along an error-versus-discard curve from 0 to `limit`, over the FNMR before anything is discarded.

    In other words the partial area under the step curve by `limit` times the starting FNMR. 1 is what discarding at random
    gives on average: the quality tells nothing. Less is better; more than 1 says that good pairs are discarded before bad
    ones. It is never 0: the least that can be reached is the value of the `oracle`, about E / (2 limit) for a small starting
    FNMR E. NaN where the starting FNMR is 0 or undefined.

    Args:
        discard: (..., k) shares discarded, from 0.
        fnmr: (..., k) of what is left.
        limit: in (0, 1].
    """
    edges = np.minimum(np.concatenate([discard, np.ones((*discard.shape[:-1], 1))], axis=-1), limit)
    width = np.diff(edges)
    area = np.where(width > 0, fnmr * width, 0).sum(axis=-1)
    start = fnmr[..., 0]
    return np.divide(area, limit * start, out=np.full_like(start, np.nan), where=start > 0)


def partial_auc_replicates(
    genuine_score: np.ndarray, quality: np.ndarray, threshold: float, bootstrap: BootstrapWeights
) -> np.ndarray:
    """(B,) `pauc` in each draw of people, where a genuine pair of person i weighs w_i; NaN where it is undefined.

    Beyond `MOST_STEPS` distinct qualities, neighbouring ones are discarded together.

    Args:
        genuine_score: (m,) of the genuine pairs.
        quality: (m,) of the pairs.
        threshold: of acceptance.
        draws: of people, by pair.
    """
    step = np.unique(quality, return_inverse=True)[1]
    steps = int(step.max()) + 1
    if steps > MAX_STEPS:
        step, steps = step * MAX_STEPS // steps, MAX_STEPS
    units = bootstrap.weights.shape[1]
    cell = bootstrap.unit * steps + step
    pairs, errors = (np.bincount(cell, of, units * steps).reshape(units, steps) for of in (None, genuine_score < threshold))
    return partial_auc(*_curve(bootstrap.weights @ pairs, bootstrap.weights @ errors))


def correlation_replicates(x: np.ndarray, y: np.ndarray, bootstrap: BootstrapWeights) -> np.ndarray:
    """(B,) Pearson correlation of (n,) x and (n,) y in each draw of people, a session weighing w_i; NaN where one is constant."""
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
    """Errors against discarding by magnitude, and magnitude against the measures of the session that the labels table has.

    Metrics: `quality/edc_pauc`, and `quality/spearman_{measure}` for each of prepare's measures, in which less is better, so
    that a good magnitude correlates negatively. Spearman's is Pearson's correlation of the ranks; these are of all sessions
    and not ranked anew in each draw of people.

    Args:
        embeddings_norm: (n,) length of each session's embedding.
        labels: of the n sessions.
        first: (m,) row of one session of each genuine pair.
        second: (m,) row of the other.
        score: (m,) of these pairs.
        threshold: a pair is accepted if its score is at least this; None: no error can be told.
        threshold_source: where it comes from, or why there is none.
        draws: of people, for the intervals.
    """
    findings = ReportSection()
    if threshold is None:
        first, second, score = first[:0], second[:0], score[:0]
        findings.metrics.add(_PAUC, None, threshold_source)
    limit = np.nan if threshold is None else threshold
    quality = np.minimum(embeddings_norm[first], embeddings_norm[second])
    curve = error_versus_discard(score, quality, quality, limit)
    best = oracle_curve(len(score), int((score < limit).sum()))
    if threshold is not None:
        _add_partial_auc(findings.metrics, score, quality, threshold, bootstrap and bootstrap.select(first))
    measured: dict[str, np.ndarray] = {}
    for measure in [measure for measure in MEASURES if QUALITY + measure in labels.columns]:
        values = np.asarray(pd.to_numeric(pd.Series(labels.columns[QUALITY + measure]), errors="coerce"), dtype=np.float64)
        rows = np.flatnonzero(np.isfinite(values))
        _add_spearman(findings.metrics, measure, embeddings_norm[rows], values[rows], bootstrap and bootstrap.select(rows))
        measured[measure] = np.where(np.isfinite(values), values, np.nan)
    findings.tables.append(_table(findings.metrics, curve, best, [threshold, None, None, threshold_source], measured))
    if findings.metrics.values[_PAUC] is not None:
        findings.figures["error_versus_discard"] = partial(_curve_figure, curve, best)
    told = {measure: findings.metrics.values[f"quality/spearman_{measure}"] for measure in measured}
    if any(value is not None for value in told.values()):
        findings.figures["quality_measures"] = partial(_measures_figure, embeddings_norm, measured, told)
    return findings


def _curve(pairs: np.ndarray, errors: np.ndarray) -> Curve:
    """Shares discarded and FNMR of what is left (..., k), of the weights of pairs and errors at each quality, lowest first."""
    left, wrong = (np.cumsum(of[..., ::-1], axis=-1, dtype=np.float64)[..., ::-1] for of in (pairs, errors))
    total = left[..., :1]
    with np.errstate(invalid="ignore"):
        return (total - left) / total, wrong / left


def _add_partial_auc(
    metrics: Metrics, score: np.ndarray, quality: np.ndarray, threshold: float, bootstrap: BootstrapWeights | None
) -> None:
    errors = int((score < threshold).sum())
    if not len(score):
        metrics.add(_PAUC, None, "no genuine pair: nobody has two sessions")
    elif not errors:
        metrics.add(_PAUC, None, f"no false non-match among {len(score)} genuine pairs at the threshold {threshold:.4g}")
    elif _constant(quality):
        metrics.add(_PAUC, None, "all embeddings have the same magnitude")
    else:
        value = float(partial_auc(*error_versus_discard(score, quality, quality, threshold)))
        note = f"low support: {errors} false non-matches among {len(score)} genuine pairs" if errors < LOW_SUPPORT else ""
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
    """Whether they differ by no more than float32's error: those of unit vectors do."""
    return bool(np.ptp(magnitude) <= 1e-5 * magnitude.max())


def _table(metrics: Metrics, curve: Curve, best: Curve, threshold: list[Cell], measured: dict[str, np.ndarray]) -> Table:
    (discard, fnmr), pairs = curve, len(best[0])
    rows: list[list[Cell]] = [["threshold", *threshold]]
    for share in DISCARDS if pairs else ():
        at = int(np.searchsorted(discard, share, side="right")) - 1
        left = pairs - round(discard[at] * pairs)
        what = f"FNMR, {share:.0%} discarded" if share else "starting FNMR"
        rows.append([what, float(fnmr[at]), None, None, f"{round(fnmr[at] * left)} of {left} genuine pairs"])

    def add(what: str, name: str, of: str) -> None:
        low, high = metrics.intervals.get(name, (None, None))
        rows.append([what, metrics.values[name], low, high, metrics.reasons.get(name, of)])

    add(f"pAUC to {DISCARD_LIMIT:.0%} discarded", _PAUC, f"{pairs} genuine pairs")
    if metrics.values[_PAUC] is not None:
        rows.append(["pAUC of an oracle", float(partial_auc(*best)), None, None, "errors discarded first"])
    for measure, values in measured.items():
        add(f"Spearman, magnitude and {measure}", f"quality/spearman_{measure}", f"{int(np.isfinite(values).sum())} sessions")
    note = (
        "FNMR of the genuine pairs that are left when those with the shortest embeddings are discarded, at one threshold. pAUC "
        "is its mean up to the limit over the starting FNMR: 1 is a quality that tells nothing, less is better. In the "
        "measures of the pictures less is better, so that a good magnitude correlates negatively with them"
    )
    return Table(
        "quality",
        "Quality: the magnitude of the embedding",
        ["", "value", "95 % low", "95 % high", "of"],
        rows,
        note + ("." if measured else "; the labels table has none of them."),
    )


def _curve_figure(curve: Curve, best: Curve) -> Figure:
    figure, axes = new_figure("Error versus discard", "share of genuine pairs discarded", "FNMR of the rest")
    for (discard, fnmr), name, style in ((curve, "magnitude", "-"), (best, "oracle", "--")):
        axes.step(np.append(discard, 1), np.append(fnmr, fnmr[-1]), style, where="post", label=name)
    axes.axhline(curve[1][0], color="gray", linewidth=1, label="at random")
    axes.axvspan(0, DISCARD_LIMIT, color="gray", alpha=0.12, linewidth=0, label=f"pAUC {float(partial_auc(*curve)):.3f}")
    axes.set_xlim(0, _SHOWN_DISCARD)
    axes.set_ylim(0, 1.1 * curve[1][curve[0] <= _SHOWN_DISCARD].max())
    axes.legend(fontsize=8)
    return figure


def _measures_figure(magnitude: np.ndarray, measured: dict[str, np.ndarray], told: dict[str, float | None]) -> Figure:
    shown = {measure: rho for measure, rho in told.items() if rho is not None}
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
