"""What was found in a gallery, as rows for people and for files."""

from collections.abc import Sequence
from pathlib import Path

from fr_ps.outputs import write_file
from fr_ps.serving.gallery import UNKNOWN, Gallery, Match
from fr_ps.serving.sessions import Answered
from fr_ps.tables import csv_text


def identification_rows(answered: Answered, matches: Sequence[Match]) -> list[dict[str, str]]:
    """A row a session: who it is or `unknown`, the score, and the most alike people."""
    return [
        {
            "id": person,
            "session": session,
            "identified": match.person or UNKNOWN,
            "score": f"{match.score:.4f}",
            "most alike": ", ".join(f"{who} {score:.4f}" for who, score in match.candidates),
        }
        for (person, session), match in zip(answered.keys, matches)
    ]


def verification_rows(answered: Answered, gallery: Gallery, claimed: str | None, threshold: float) -> list[dict[str, str]]:
    """A row a session: whom it claims to be, the score against that person, and whether it is accepted (yes, no, not enrolled).

    Args:
        answered: the sessions.
        gallery: with those who are claimed.
        claimed: by all of them; None: each its own id.
        threshold: cosine from which a claim is accepted.
    """
    place = {person: column for column, person in enumerate(gallery.people)}
    rows = []
    for (person, session), scores in zip(answered.keys, gallery.scores(answered.answers.embeddings)):
        who = claimed or person
        score = float(scores[place[who]]) if who in place else None
        accepted = "not enrolled" if score is None else "yes" if score >= threshold else "no"
        told = "" if score is None else f"{score:.4f}"
        rows.append({"id": person, "session": session, "claims": who, "score": told, "accepted": accepted})
    return rows


def summary(keys: Sequence[tuple[str, str]], matches: Sequence[Match], gallery: Gallery, threshold: float) -> str:
    """How many were taken for somebody, and, by the ids that the sessions bear, how many rightly."""
    enrolled = set(gallery.people)
    known = [(person, match) for (person, _), match in zip(keys, matches) if person in enrolled]
    strangers = [match for (person, _), match in zip(keys, matches) if person not in enrolled]
    lines = [f"threshold {threshold:.4f}, {len(enrolled)} people enrolled"]
    if known:
        right = sum(match.person == person for person, match in known)
        first = sum(match.candidates[0][0] == person for person, match in known)
        unknown = sum(match.person is None for _, match in known)
        lines.append(
            f"of {len(known)} sessions whose id is enrolled: {right} identified as that person, "
            f"{len(known) - right - unknown} as another, {unknown} unknown; that person is the most alike of {first}"
        )
    if strangers:
        lines.append(f"of {len(strangers)} sessions of others: {sum(match.person is None for match in strangers)} unknown")
    return "\n".join(lines)


def write_rows(path: Path, rows: Sequence[dict[str, str]], kind: str) -> None:
    """Write them as CSV; `kind` is that of the output for `fr_ps.outputs`."""
    write_file(path, kind, csv_text(list(rows[0]), [row.values() for row in rows]).encode())
