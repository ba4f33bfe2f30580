"""What was found in a gallery, as rows for people and for files."""

from collections.abc import Sequence
from pathlib import Path

from fr_ps.outputs import write_output
from fr_ps.serving.gallery import UNKNOWN, Gallery, Match
from fr_ps.serving.predict import PredictionResult
from fr_ps.tables import format_csv


def identification_rows(result: PredictionResult, matches: Sequence[Match]) -> list[dict[str, str]]:
    """A row a session: who it is or `unknown`, the score, and the most alike people."""
    return [
        {
            "id": person,
            "session": session,
            "identified": match.subject or UNKNOWN,
            "score": f"{match.score:.4f}",
            "most alike": ", ".join(f"{who} {score:.4f}" for who, score in match.candidates),
        }
        for (person, session), match in zip(result.keys, matches)
    ]


def verification_rows(result: PredictionResult, gallery: Gallery, claimed: str | None, threshold: float) -> list[dict[str, str]]:
    """A row a session: whom it claims to be, the score against that person, and whether it is accepted (yes, no, not enrolled).

    Args:
        answered: the sessions.
        gallery: with those who are claimed.
        claimed: by all of them; None: each its own id.
        threshold: cosine from which a claim is accepted.
    """
    place = {person: column for column, person in enumerate(gallery.subjects)}
    rows = []
    for (person, session), scores in zip(result.keys, gallery.scores(result.predictions.embeddings)):
        who = claimed or person
        score = float(scores[place[who]]) if who in place else None
        accepted = "not enrolled" if score is None else "yes" if score >= threshold else "no"
        told = "" if score is None else f"{score:.4f}"
        rows.append({"id": person, "session": session, "claims": who, "score": told, "accepted": accepted})
    return rows


def identification_summary(keys: Sequence[tuple[str, str]], matches: Sequence[Match], gallery: Gallery, threshold: float) -> str:
    """How many were taken for somebody, and, by the ids that the sessions bear, how many rightly."""
    enrolled = set(gallery.subjects)
    known = [(person, match) for (person, _), match in zip(keys, matches) if person in enrolled]
    strangers = [match for (person, _), match in zip(keys, matches) if person not in enrolled]
    lines = [f"threshold {threshold:.4f}, {len(enrolled)} people enrolled"]
    if known:
        right = sum(match.subject == person for person, match in known)
        first = sum(match.candidates[0][0] == person for person, match in known)
        unknown = sum(match.subject is None for _, match in known)
        lines.append(
            f"of {len(known)} sessions whose id is enrolled: {right} identified as that person, "
            f"{len(known) - right - unknown} as another, {unknown} unknown; that person is the most alike of {first}"
        )
    if strangers:
        lines.append(f"of {len(strangers)} sessions of others: {sum(match.subject is None for match in strangers)} unknown")
    return "\n".join(lines)


def write_rows(path: Path, rows: Sequence[dict[str, str]], kind: str) -> None:
    """Write them as CSV; `kind` is that of the output for `fr_ps.outputs`."""
    write_output(path, kind, format_csv(list(rows[0]), [row.values() for row in rows]).encode())
