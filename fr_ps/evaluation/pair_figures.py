"""Pictures of the genuine pairs with extreme scores, and of the top impostors, with all maps that the model reads."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from fr_ps.data.contact_sheet import render_tiles
from fr_ps.data.labels import Labels
from fr_ps.data.store import MapStore
from fr_ps.evaluation.evaluate_predictions import EvaluationResult
from fr_ps.evaluation.metrics import ReportSection
from fr_ps.report.figures import empty_figure

PAIRS_SHOWN = 5
_TILE, _LINE, _GAP = 1.3, 0.26, 0.06
"""Side of a map, height of a line of text and gap, in inches."""
_PAPER, _INK = "#23272e", "#f2f4f7"
"""The pictures are dark on a light and on a dark page: maps look the same on both."""


def pair_section(result: EvaluationResult, store: MapStore, rows: np.ndarray, labels: Labels) -> ReportSection:
    """A picture for each genuine pair with the lowest and the highest scores, and each impostor pair with the highest cosine.

    The names are `worst_genuine_1`, `best_genuine_1`, `worst_impostor_1`, ... The impostor pairs are those of each probe with its
    top impostor.

    Args:
        result: evaluation with the pairs.
        store: store of the maps.
        rows: row of the store of each row of the gallery search: test rows, then gallery rows.
        labels: labels of these rows.
    """
    scored, search = result.pair_scores, result.gallery_search
    order = np.argsort(scored.genuine_levels, kind="stable")
    scores = scored.scale.scores(scored.genuine_levels)

    def genuine(shown: np.ndarray) -> list[tuple[int, int, float]]:
        return list(zip(*(of_pair[shown].tolist() for of_pair in (scored.genuine_first, scored.genuine_second, scores))))

    impostors = _top_impostor_pairs(search.probes, search.top_impostor, search.by_maximum.nonmated)
    section = ReportSection()
    for name, pairs in (
        ("worst_genuine", genuine(order[:PAIRS_SHOWN])),
        ("best_genuine", genuine(order[::-1][:PAIRS_SHOWN])),
        ("worst_impostor", impostors),
    ):
        for number, (*pair, score) in enumerate(pairs, 1):
            measure = "cosine" if name == "worst_impostor" else scored.scale.measure
            section.figures[f"{name}_{number}"] = partial(_figure, pair, store, rows, labels)
            section.captions[f"{name}_{number}"] = f"{measure} {score:.3f}"
    return section


def _top_impostor_pairs(probes: np.ndarray, impostors: np.ndarray, scores: np.ndarray) -> list[tuple[int, int, float]]:
    pairs: dict[tuple[int, int], float] = {}
    for search in np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable"):
        if impostors[search] < 0 or len(pairs) == PAIRS_SHOWN:
            break
        first, second = sorted((int(probes[search]), int(impostors[search])))
        pairs.setdefault((first, second), float(scores[search]))
    return [(*pair, score) for pair, score in pairs.items()]


def _figure(pair: Sequence[int], store: MapStore, rows: np.ndarray, labels: Labels) -> Figure:
    """The maps of the two sessions, one session a line below its name."""
    maps = store.read(rows[np.array(pair)])
    sessions = [
        {
            name: picture
            for name, picture in render_tiles({modality: array[line] for modality, array in maps.items()}).items()
            if name != "relit"  # no map
        }
        for line in range(len(pair))
    ]
    scale = max(1.0, 0.75 * len(sessions[0]))  # the page shows all pictures equally wide
    line_height = scale * _LINE
    width, height = len(sessions[0]) * (_TILE + _GAP) + _GAP, 2 * (_TILE + line_height + _GAP) + _GAP
    figure = empty_figure(width, height)
    figure.set_facecolor(_PAPER)
    for line, (row, tiles) in enumerate(zip(pair, sessions)):
        top = height - _GAP - line * (_TILE + line_height + _GAP)
        name = f"{labels.ids[row]}/{labels.sessions[row]}"
        figure.text(_GAP / width, (top - line_height / 2) / height, name, color=_INK, fontsize=9 * scale, va="center")
        for column, picture in enumerate(tiles.values()):
            left, bottom = _GAP + column * (_TILE + _GAP), top - line_height - _TILE
            axes = figure.add_axes((left / width, bottom / height, _TILE / width, _TILE / height))
            axes.imshow(picture)
            axes.axis("off")
    return figure
