"""The sections of the page as HTML. All text is escaped, and all pictures are part of the page."""

import html
from collections.abc import Sequence

import numpy as np

from fr_ps.data.session_picture import albedo_white, session_tiles
from fr_ps.data.session_view import QUALITY_MEANINGS, SessionView
from fr_ps.demo.analysis import UPLOAD, Analysis, AttributePrediction
from fr_ps.demo.candidates import Candidate, data_uri
from fr_ps.models.thresholds import ValidationThreshold
from fr_ps.report.html_page import escape_text
from fr_ps.report.session_page import render_relight_page
from fr_ps.report.table import format_cell
from fr_ps.serving.gallery import Gallery, normalize_rows

SEARCH_CAVEAT = "The threshold was chosen on single cosines. Means of several scatter less, so strangers reach it more rarely."
_UNRELIABLE_SHARE = 0.5
"""From this share of searches by strangers with a false match on, a match is shown as unreliable."""
_SAME_PICTURES = 0.9999
"""Cosine from which two embeddings are of the same pictures; the maps are computed again, with other rounding."""
_NO_THRESHOLD = "The model has no thresholds, as it was trained without a validation set: scores are shown without a decision."


def error_section(message: str) -> str:
    """An error in place of an answer."""
    return f'<div class="notice error" role=alert>error: {escape_text(message)}</div>'


def identity_section(
    analysis: Analysis, candidates: Sequence[Candidate], threshold: ValidationThreshold | None, gallery: Gallery | None
) -> str:
    """Warnings, the decision, the meaning of its threshold, and the most similar enrolled subjects.

    Args:
        analysis: of the capture.
        candidates: in falling order; empty without a gallery.
        threshold: for the decision; None: no decision.
        gallery: enrolled subjects.
    """
    warnings = "".join(f'<div class="notice warning" role=status>{escape_text(line)}</div>' for line in analysis.warnings)
    if gallery is None:
        note = "No gallery is open. Start with --gallery to search this face among enrolled subjects."
        meaning = f"<p class=why>{escape_text(threshold_meaning(threshold))}</p>"
        return f"{warnings}<h2>Identity</h2><p>{note}</p>{meaning}<div class=cards>{_probe_card(analysis)}</div>"
    subjects = len(gallery.subjects)
    cards = "".join(_candidate_card(place, one, threshold) for place, one in enumerate(candidates, start=1))
    about = f"The most similar of {subjects:,} enrolled subjects. Score: mean cosine to the subject's sessions, 1 at most."
    about += " The tick on its bar is the threshold." if threshold else ""
    about += _folder_note(analysis, gallery)
    return (
        f"{warnings}<h2>Identity</h2>{_decision(candidates[0], threshold, subjects)}"
        f"<p class=why>{escape_text(threshold_meaning(threshold, subjects))}</p>"
        f"<p class=lead>{escape_text(about)}</p><div class=cards>{_probe_card(analysis)}{cards}</div>"
    )


def _folder_note(analysis: Analysis, gallery: Gallery) -> str:
    """The subject of a capture by the name of its folder, and whether it is enrolled; empty for an upload."""
    subject, session = analysis.key
    if analysis.key == UPLOAD:
        return ""
    rows = gallery.table["row"][(gallery.table["id"] == subject) & (gallery.table["session"] == session)].to_numpy()
    if len(rows):
        cosine = (normalize_rows(gallery.embeddings[rows]) @ normalize_rows(analysis.embedding)[0]).max()
        if cosine >= _SAME_PICTURES:
            return f" This very session is enrolled: the score of {subject} includes its comparison with itself."
        other = f"The enrolled session {subject}/{session} has other pictures (cosine {cosine:.4f})"
        return f" {other}: captures and gallery are probably of different data sets."
    enrolled = "an enrolled subject" if subject in gallery.subjects else "a subject that is not enrolled"
    return f" By its folder, this capture shows {subject}, {enrolled}."


def threshold_meaning(threshold: ValidationThreshold | None, subjects: int = 1) -> str:
    """What the threshold means, in sentences; `subjects` are enrolled."""
    if threshold is None:
        return _NO_THRESHOLD
    share = threshold.false_matches / max(threshold.impostors, 1)
    sentences = [
        f"Two sessions match at a score of {threshold.threshold:.4f} or above: at this score, the false match rate on validation "
        f"is at most {100 * threshold.fmr:g} % ({threshold.false_matches:,} of {threshold.impostors:,} pairs of different "
        f"people, {_percent(share, 2)}).",
    ]
    if subjects > 1:
        limit = 100 * _false_match_limit(threshold, subjects)
        sentences.append(
            f"With {subjects:,} enrolled subjects a stranger is compared {subjects:,} times: expect a false match in at most "
            f"about {limit:g} % of the cases. {SEARCH_CAVEAT}"
        )
    if threshold.support:
        sentences.append(f"{threshold.support[:1].upper()}{threshold.support[1:]}.")
    return " ".join(sentences)


def details_section(analysis: Analysis, spread: dict[str, tuple[float, float]], gallery: Gallery | None) -> str:
    """Attributes, pictures, maps, relighting and quality."""
    return "".join(
        [
            _attributes_section(analysis.attributes),
            _pictures_sections(analysis.view),
            _relight_section(analysis.view),
            _quality_section(analysis, spread, gallery),
        ]
    )


def _false_match_limit(threshold: ValidationThreshold, subjects: int) -> float:
    """The largest expected share of searches by strangers that match one of the enrolled subjects."""
    return min(subjects * threshold.fmr, 1)


def _decision(best: Candidate, threshold: ValidationThreshold | None, subjects: int) -> str:
    if threshold is None:
        return f"<p class=decision>Most similar: {escape_text(best.subject)}, score {best.score:.4f}</p>"
    if best.score >= threshold.threshold:
        text = f"score {best.score:.4f} reaches the threshold {threshold.threshold:.4f}"
        if (limit := _false_match_limit(threshold, subjects)) >= _UNRELIABLE_SHARE:
            text += f", as up to {100 * limit:g} % of strangers would; choose a lower false match rate"
            return f'<p class="decision unknown">Unreliable match with <b>{escape_text(best.subject)}</b><span>{text}</span></p>'
        return f'<p class="decision match">Identified as <b>{escape_text(best.subject)}</b><span>{text}</span></p>'
    text = f"the highest score, {best.score:.4f} of {best.subject}, is below the threshold {threshold.threshold:.4f}"
    return f'<p class="decision unknown"><b>Unknown</b><span>{escape_text(text)}</span></p>'


def _probe_card(analysis: Analysis) -> str:
    return (
        f'<figure class="card probe"><img alt="albedo of this capture" src="{analysis.picture.uri}">'
        f"<figcaption><b>This capture</b><span>{escape_text(analysis.view.name)}</span></figcaption></figure>"
    )


def _candidate_card(place: int, candidate: Candidate, threshold: ValidationThreshold | None) -> str:
    picture = candidate.picture
    if picture.pixels is None:
        shown = f"<div class=no_picture>{escape_text(picture.note)}</div>"
    else:
        alt = f'alt="albedo of {escape_text(candidate.subject)}" title="{escape_text(picture.note)}"'
        shown = f'<img {alt} src="{picture.uri}">'
    tick = None if threshold is None else threshold.threshold
    reached = threshold is not None and candidate.score >= threshold.threshold
    verdict = "" if threshold is None else f"<span>{'match' if reached else 'no match'}</span>"
    count = f"1 of {candidate.sessions} sessions" if candidate.sessions > 1 else "its only session"
    return (
        f'<figure class="card{" match" if reached else ""}">{shown}<figcaption><b>{place}. {escape_text(candidate.subject)}</b>'
        f"<span class=score>{candidate.score:.4f}</span>{_bar(candidate.score, tick)}{verdict}"
        f"<span>{escape_text(f'{candidate.shown_session}, {count}')}</span></figcaption></figure>"
    )


def _attributes_section(attributes: Sequence[AttributePrediction]) -> str:
    if not attributes:
        return "<h2>Attributes</h2><p>The model was trained on none.</p>"
    note = "The bars are probabilities. A tick is the probability from which that class is predicted, chosen on validation."
    note = f"<p class=why>{note}</p>" if any(one.threshold is not None for one in attributes) else ""
    return f"<h2>Attributes</h2>{note}<div class=attributes>{''.join(map(_attribute, attributes))}</div>"


def _attribute(one: AttributePrediction) -> str:
    rows = []
    last = list(one.probabilities)[-1]
    for name, probability in one.probabilities.items():
        bar = _bar(probability, one.threshold if name == last else None)
        chosen = " class=chosen" if name == one.predicted else ""
        rows.append(f"<div{chosen}><span>{_readable(name)}</span>{bar}<span>{_percent(probability, 1)}</span></div>")
    return f"<div class=attribute><h3>{_readable(one.attribute)}: <b>{_readable(one.predicted)}</b></h3>{''.join(rows)}</div>"


def _pictures_sections(view: SessionView) -> str:
    facts = "".join(f"<dt>{escape_text(name)}</dt><dd>{escape_text(text)}</dd>" for name, text in view.facts.items())
    recorded, maps = list(session_tiles(view).items())[:2]
    parts = [f"<h2>Inputs</h2><dl>{facts}</dl>"]
    shown = [tile for tile in maps[1] if not (view.mask.all() and tile.title.startswith("mask"))]  # it would be all white
    for title, tiles in (("", recorded[1]), ("<h2>Maps</h2>", shown)):
        figures = (
            f'<figure><img alt="{escape_text(tile.title)}" src="{data_uri(tile.picture)}">'
            f"<figcaption>{escape_text(tile.title)}</figcaption></figure>"
            for tile in tiles
        )
        parts.append(f"{title}<div class=tiles>{''.join(figures)}</div>")
    return "".join(parts)


def _relight_section(view: SessionView) -> str:
    page = render_relight_page(f"{view.name} relit", view.albedo * view.mask, view.normal, albedo_white(view))
    return f'<h2>Relight</h2><iframe class=relight_frame title="relighting" srcdoc="{html.escape(page)}"></iframe>'


def _quality_section(analysis: Analysis, spread: dict[str, tuple[float, float]], gallery: Gallery | None) -> str:
    rows = []
    for measure, value in analysis.quality.items():
        cells = [f"<td>{escape_text(measure)}</td><td class=number>{format_cell(value)}</td>"]
        if spread:
            known = spread.get(measure)
            cells += [f"<td class=number>{format_cell(known[place] if known else None)}</td>" for place in (0, 1)]
            if known and value > known[1]:
                cells[0] = cells[0].replace("<td class=number>", '<td class="number high" title="above the 95th percentile">')
        rows.append(f"<tr>{''.join(cells)}<td>{escape_text(QUALITY_MEANINGS.get(measure, ''))}</td></tr>")
    colored = " Coloured: above the 95th percentile." if spread else ""
    columns = "<th class=number>median of the data set</th><th class=number>95th percentile</th>" if spread else ""
    return (
        "<h2>Quality</h2>"
        f"<p>{escape_text(_norm_text(analysis.embedding, gallery))}</p><table><thead><tr><th>measure</th>"
        f"<th class=number>this capture</th>{columns}<th>meaning</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f"<p class=why>Lower is better in every measure of the table.{colored}</p>"
    )


def _norm_text(embedding: np.ndarray, gallery: Gallery | None) -> str:
    text = f"Quality of the face by the network, the norm of its embedding: {np.linalg.norm(embedding):.2f}; higher is better"
    if gallery is None:
        return f"{text}."
    low, median, high = np.quantile(gallery.table["quality"].to_numpy(dtype=float), (0.05, 0.5, 0.95))
    return f"{text}. Enrolled sessions have a median of {median:.2f}, and 90 % of them have {low:.2f} to {high:.2f}."


def _bar(share: float, tick: float | None) -> str:
    mark = "" if tick is None else f"<i style='left:{_width(tick)}' title='threshold {tick:.4f}'></i>"
    return f"<span class=bar><u style='width:{_width(share)}'></u>{mark}</span>"


def _width(share: float) -> str:
    return f"{100 * min(max(share, 0), 1):.1f}%"


def _percent(share: float, digits: int) -> str:
    return f"{100 * share:.{digits}f} %"


def _readable(name: str) -> str:
    return escape_text(name.replace("_", " "))
