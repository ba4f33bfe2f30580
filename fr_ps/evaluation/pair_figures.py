"""Figures of the genuine pairs with extreme scores, and of the top impostors."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from fr_ps.data.contact_sheet import render_tiles
from fr_ps.data.labels import Labels
from fr_ps.data.store import MapStore
from fr_ps.evaluation.evaluate_predictions import EvaluationResult
from fr_ps.report.figures import empty_figure
from fr_ps.report.table import DrawFigure

PAIRS_SHOWN = 5


def pair_figures(result: EvaluationResult, store: MapStore, rows: np.ndarray, labels: Labels) -> dict[str, DrawFigure]:
    """Figures of the genuine pairs with the lowest and the highest scores, and of the impostor pairs with the highest cosine.

    The impostor pairs are those of each probe with its top impostor.

    Args:
        result: evaluation with the pairs.
        store: store of the maps.
        rows: row of the store of each row of the gallery search: test rows, then gallery rows.
        labels: labels of these rows.
    """
    scored, search = result.pair_scores, result.gallery_search
    figures: dict[str, DrawFigure] = {}
    if len(scored.genuine_levels):
        order = np.argsort(scored.genuine_levels, kind="stable")
        scores = scored.scale.scores(scored.genuine_levels)
        for name, title, shown in (
            ("worst_genuine", "Genuine pairs with the lowest scores", order[:PAIRS_SHOWN]),
            ("best_genuine", "Genuine pairs with the highest scores", order[::-1][:PAIRS_SHOWN]),
        ):
            pairs = list(zip(*(of_pair[shown].tolist() for of_pair in (scored.genuine_first, scored.genuine_second, scores))))
            figures[name] = partial(_figure, title, pairs, store, rows, labels)
    impostors = _top_impostor_pairs(search.probes, search.top_impostor, search.by_maximum.nonmated)
    if impostors:
        figures["worst_impostor"] = partial(_figure, "Impostor pairs with the highest cosine", impostors, store, rows, labels)
    return figures


def _top_impostor_pairs(probes: np.ndarray, impostors: np.ndarray, scores: np.ndarray) -> list[tuple[int, int, float]]:
    pairs: dict[tuple[int, int], float] = {}
    for search in np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable"):
        if impostors[search] < 0 or len(pairs) == PAIRS_SHOWN:
            break
        first, second = sorted((int(probes[search]), int(impostors[search])))
        pairs.setdefault((first, second), float(scores[search]))
    return [(*pair, score) for pair, score in pairs.items()]


def _figure(title: str, pairs: Sequence[tuple[int, int, float]], store: MapStore, rows: np.ndarray, labels: Labels) -> Figure:
    figure = empty_figure(1.7 * PAIRS_SHOWN, 4.2)
    figure.suptitle(title)
    grid = figure.subplots(2, PAIRS_SHOWN, squeeze=False)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.84, wspace=0.05, hspace=0.15)
    for axes in grid.flat:
        axes.axis("off")
    for column, (*pair, score) in enumerate(pairs):
        maps = store.read(rows[np.array(pair)])
        for line, row in enumerate(pair):
            tiles = render_tiles({modality: array[line] for modality, array in maps.items()})
            grid[line, column].imshow(next(iter(tiles.values())))
            above = f"{score:.3f}\n" if line == 0 else ""
            grid[line, column].set_title(f"{above}{labels.ids[row]}/{labels.sessions[row]}", fontsize=8)
    return figure
