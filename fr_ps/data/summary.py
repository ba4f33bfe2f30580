"""Tables that summarise a data set, as data frames; pure functions of the labels."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fr_ps.data.labels import ATTRIBUTES, MISSING, Labels
from fr_ps.data.layout import QUALITY
from fr_ps.data.split_files import PARTS, Split

_BAR_WIDTH = 40
_TOP_SUBJECTS = 5


def summary(labels: Labels) -> list[tuple[str, pd.DataFrame]]:
    """All tables of a data set, each with its title."""
    counts = sessions_per_subject(labels)
    top = ", ".join(f"{subject} {count}" for subject, count in counts.head(_TOP_SUBJECTS).items())
    spread = f"min {counts.min()}, median {counts.median():g}, max {counts.max()}; most sessions: {top}"
    tables = [("classes", class_table(labels)), (f"sessions per subject: {spread}", subject_histogram(labels))]
    quality = quality_table(labels)
    return [*tables, ("quality", quality)] if len(quality) else tables


def class_table(labels: Labels) -> pd.DataFrame:
    """A row per class: its sessions, its subjects (with it in any session), and its share of the labelled sessions.

    Missing labels have a row if there are any, without a share.
    """
    rows = []
    for column, attribute in enumerate(ATTRIBUTES):
        codes = labels.codes[:, column]
        known = int((codes != MISSING).sum())
        for code, name in _classes(labels, column):
            has = codes == code
            share = f"{has.sum() / known:.1%}" if known and code != MISSING else ""
            rows.append([attribute, name, int(has.sum()), len(np.unique(labels.ids[has])), share])
    return pd.DataFrame(rows, columns=["attribute", "class", "sessions", "subjects", "share"])


def subject_histogram(labels: Labels) -> pd.DataFrame:
    """Subjects and sessions by sessions per subject, in bins that double (1, 2, 3-4, 5-8, ...), with a bar of subjects."""
    counts = sessions_per_subject(labels).to_numpy()
    bins = np.ceil(np.log2(counts)).astype(int)
    subjects = np.bincount(bins)
    sessions = np.bincount(bins, counts).astype(int)
    names = ["1", "2"] + [f"{2 ** (bin_ - 1) + 1}-{2**bin_}" for bin_ in range(2, len(subjects))]
    bars = ["#" * int(np.ceil(_BAR_WIDTH * count / subjects.max())) for count in subjects]
    columns = {"sessions per subject": names[: len(subjects)], "subjects": subjects, "sessions": sessions, "": bars}
    return pd.DataFrame(columns)


def sessions_per_subject(labels: Labels) -> pd.Series:
    """Number of sessions by id, the subject with most sessions first."""
    return pd.Series(labels.ids).value_counts().sort_index(kind="stable").sort_values(ascending=False, kind="stable")


def quality_table(labels: Labels, limit: int = 3) -> pd.DataFrame:
    """A row per quality column: median, 5th and 95th percentile, and the sessions with the largest values.

    Cells that are not numbers count as missing. Empty if the table has no quality columns.
    """
    rows = []
    for name in [name for name in labels.columns if name.startswith(QUALITY)]:
        values = pd.to_numeric(pd.Series(labels.columns[name]), errors="coerce")
        found = [f"{labels.ids[row]}/{labels.sessions[row]} {values[row]:.3g}" for row in values.nlargest(limit).index]
        spread = [f"{values.quantile(share):.3g}" for share in (0.05, 0.5, 0.95)]
        rows.append([name, *spread, int(values.isna().sum()), ", ".join(found)])
    return pd.DataFrame(rows, columns=["column", "5 %", "median", "95 %", "missing", "worst sessions"])


def parts_table(labels: Labels, split: Split) -> pd.DataFrame:
    """A row per class and a column per part that is not empty: `sessions (subjects)`; the first row counts all sessions."""
    parts: dict[str, np.ndarray] = {part: getattr(split, part) for part in PARTS if len(getattr(split, part))}
    rows = [["", "all", *(_count_cell(labels, rows) for rows in parts.values())]]
    for column, attribute in enumerate(ATTRIBUTES):
        for code, name in _classes(labels, column):
            has = labels.codes[:, column] == code
            rows.append([attribute, name, *(_count_cell(labels, rows[has[rows]]) for rows in parts.values())])
    return pd.DataFrame(rows, columns=["attribute", "class", *parts])


def _classes(labels: Labels, column: int) -> Sequence[tuple[int, str]]:
    """Code and name of every class of an attribute, and of the missing label if any are missing."""
    named = list(enumerate(labels.class_names(ATTRIBUTES[column])))
    return named + [(MISSING, "(missing)")] * bool((labels.codes[:, column] == MISSING).any())


def _count_cell(labels: Labels, rows: np.ndarray) -> str:
    return f"{len(rows)} ({len(np.unique(labels.ids[rows]))})"
