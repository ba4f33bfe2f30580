"""The results of benchmarks/recognition.py: error rates with intervals, paired differences, and EER by light geometry."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
from recognition_folds import CrossValidation, Embedded, experiment_name
from score_norm import s_norm, vectors_of_scores
from tabulate import tabulate

from fr_ps.data.labels import ATTRIBUTES, Labels
from fr_ps.evaluation.analyses.attributes import all_attribute_metrics
from fr_ps.evaluation.bootstrap import bootstrap_weights
from fr_ps.evaluation.differences import Difference, paired_differences
from fr_ps.evaluation.dlib_baseline import NAME as DLIB_NAME
from fr_ps.evaluation.metrics import LOW_SUPPORT, Metrics
from fr_ps.evaluation.pairwise.pairs import ListedPairs
from fr_ps.evaluation.pairwise.verification import verification_metrics, verification_with_intervals
from fr_ps.tracking.environment import code_versions

AS_IS, JITTERED = "as they are", "jittered"
SHOWN = {"eer": "EER %", "tar_at_far_0.01": "TAR at FAR 1 %", "tar_at_far_0.001": "TAR at FAR 0.1 %"}
FAR = 0.001
"""False acceptance rate of the listed false non-matches."""
MAX_SESSIONS = 4
"""Listed sessions with false non-matches."""
MAX_GEOMETRIES = 12
"""With more session names than this, they are not light geometries, and there is no matrix."""


@dataclass(frozen=True)
class PooledPairs:
    """The test sessions of several folds and draws. Only sessions of the same fold and draw form pairs.

    Attributes:
        embeddings: (n, k), padded with zeros if folds differ in k.
        rows: (n,) row of the data set.
        first, second: (m,) index in `rows` of the two sessions of each pair.
    """

    embeddings: np.ndarray
    rows: np.ndarray
    first: np.ndarray
    second: np.ndarray

    def listed(self, labels: Labels, kept: np.ndarray | slice = slice(None)) -> ListedPairs:
        """The pairs, or the (m,) `kept` of them, with bootstrap replicates of the subjects."""
        ids = labels.ids[self.rows]
        return ListedPairs(self.embeddings, ids, self.first[kept], self.second[kept], bootstrap=bootstrap_weights(ids))


def pool_pairs(folds: Sequence[Embedded], draws: slice) -> PooledPairs:
    """All pairs within each fold and draw, pooled."""
    groups = [(fold.rows, embeddings) for fold in folds for embeddings in fold.embeddings[draws]]
    width = max(embeddings.shape[1] for _, embeddings in groups)
    starts = np.cumsum([0, *(len(rows) for rows, _ in groups)])
    ends = [start + np.stack(np.triu_indices(len(rows), k=1)) for start, (rows, _) in zip(starts, groups)]
    first, second = np.concatenate(ends, axis=1)
    padded = [np.pad(embeddings, ((0, 0), (0, width - embeddings.shape[1]))) for _, embeddings in groups]
    return PooledPairs(np.concatenate(padded), np.concatenate([rows for rows, _ in groups]), first, second)


def eer_by_geometry(pairs: PooledPairs, labels: Labels) -> tuple[list[str], dict[tuple[str, str], float]]:
    """The session names; and for each two of them, the EER of the pairs of sessions with these names, where it is defined."""
    sessions = labels.sessions[pairs.rows]
    names = sorted(set(sessions.tolist()))
    found: dict[tuple[str, str], float] = {}
    if len(names) > MAX_GEOMETRIES:
        return [], found
    index = np.searchsorted(names, sessions)
    low, high = np.sort([index[pairs.first], index[pairs.second]], axis=0)
    for i, j in combinations_with_replacement(range(len(names)), 2):
        kept = np.flatnonzero((low == i) & (high == j))
        value = verification_metrics(pairs.listed(labels, kept).score()).values["eer"] if len(kept) else None
        if value is not None:
            found[names[i], names[j]] = value
    return names, found


def false_non_matches(pairs: PooledPairs, labels: Labels, far: float) -> list[tuple[str, int, int]]:
    """ID/SESSION, number of its rejected genuine pairs and number of all of them, at a false acceptance rate of at most `far`.

    Only sessions with a rejected pair, by the share of them, from high to low.
    """
    listed = pairs.listed(labels)
    impostors = np.sort(listed.levels[~listed.genuine])[::-1]
    if not len(impostors):
        return []
    threshold = impostors[int(far * len(impostors))]  # accepted above it
    ends = np.stack([pairs.rows[pairs.first], pairs.rows[pairs.second]])[:, listed.genuine]
    total = np.bincount(ends.ravel(), minlength=len(labels))
    rejected = np.bincount(ends[:, listed.levels[listed.genuine] <= threshold].ravel(), minlength=len(labels))
    rows = sorted(np.flatnonzero(rejected), key=lambda row: (-rejected[row] / total[row], row))
    return [(f"{labels.ids[row]}/{labels.sessions[row]}", int(rejected[row]), int(total[row])) for row in rows]


def with_score_norm(folds: Sequence[Embedded]) -> list[Embedded]:
    """Folds whose cosines are the normalised scores, times one factor. They have no attributes, which do not change."""
    scores = [s_norm(fold.embeddings, fold.cohort) for fold in folds if fold.cohort is not None]
    return [
        replace(fold, embeddings=vectors, probabilities={}, cohort=None)
        for fold, vectors in zip(folds, vectors_of_scores(scores), strict=True)
    ]


class Results:
    """The metrics of all networks and baselines.

    Attributes:
        folds: network or baseline to its folds; networks first.
        networks: names of the networks, each without and with score normalisation.
        metrics: name to kind (`AS_IS`, `JITTERED`) to metrics.
        probes: name of the linear probe on pixels to kind to the AUC of the attributes; empty without baselines.
        notes: lines about baselines that are missing.
        tested: rows of the sessions that are compared.

    Raises:
        InputError: settings or data that cannot be used.
    """

    def __init__(
        self, validation: CrossValidation, experiments: Sequence[str], common: Sequence[str], *, with_baselines: bool
    ) -> None:
        self.validation, self.labels = validation, validation.dataset.labels
        self.tested = validation.compared(self.labels, np.arange(len(self.labels)))
        self.subjects = len(np.unique(self.labels.ids[self.tested]))
        self.settings = list(common)
        self.notes: list[str] = []
        self.folds: dict[str, list[Embedded]] = {}
        if with_baselines:
            baselines = validation.linear_baselines()
            found, reason = validation.dlib()
            baselines |= {DLIB_NAME: found} if found else {}
            self.notes += [f"{DLIB_NAME} omitted: {reason}"] if reason else []
        for text in experiments:
            name = experiment_name(text)
            self.folds[name] = validation.network(text, common)
            if validation.score_norm:
                self.folds[f"{name} s-norm"] = with_score_norm(self.folds[name])
        self.networks = list(self.folds)
        if with_baselines:
            self.folds |= baselines
        self.kinds = {AS_IS: slice(0, 1)} | ({JITTERED: slice(1, None)} if validation.draws else {})
        self.metrics = {
            name: {kind: self._metrics(folds, draws) for kind, draws in self.kinds.items()} for name, folds in self.folds.items()
        }
        self.probes: dict[str, dict[str, Metrics]] = {}
        if with_baselines:
            probe, tested = validation.attribute_probe()
            self.probes[probe] = {kind: self._attributes(tested, draws) for kind, draws in self.kinds.items()}

    def _metrics(self, folds: Sequence[Embedded], draws: slice) -> Metrics:
        _, metrics = verification_with_intervals(pool_pairs(folds, draws).listed(self.labels), None)
        return metrics.merge(self._attributes(folds, draws))

    def _attributes(self, folds: Sequence[Embedded], draws: slice) -> Metrics:
        """AUC of the attributes that every fold has, over all sessions and draws pooled: `gender/auc`, ..."""
        trained = [name for name in ATTRIBUTES if all(name in fold.probabilities for fold in folds)]
        rows = np.concatenate([fold.rows for fold in folds for _ in fold.embeddings[draws]])
        labels = self.labels.subset(rows)
        probabilities = {
            name: np.concatenate([one for fold in folds for one in fold.probabilities[name][draws]]) for name in trained
        }
        attributes = all_attribute_metrics(probabilities, labels, {}, trained, bootstrap_weights(labels.ids))
        return attributes.select({f"{name}/auc" for name in trained})

    def eer_of_each_seed(self, name: str, kind: str) -> list[float | None]:
        """The EER of the folds of each seed alone."""
        count = self.validation.folds
        parts = [self.folds[name][start : start + count] for start in range(0, len(self.folds[name]), count)]
        pooled = (pool_pairs(part, self.kinds[kind]).listed(self.labels).score() for part in parts)
        return [verification_metrics(scores).values["eer"] for scores in pooled]

    def differences(self, kind: str) -> list[dict]:
        """Each network minus each baseline, and the first network minus the others."""
        found = []
        first = self.networks[:1]
        others = [(one, other) for one in self.networks for other in self.folds if other not in self.networks]
        for one, other in [*((name, after) for name in first for after in self.networks[1:]), *others]:
            pair = (self.metrics[name][kind] for name in (one, other))
            found += [
                _as_json(difference, kind, one, other) for difference in paired_differences(*pair, list(SHOWN), self.subjects)
            ]
        return found

    def attribute_differences(self, kind: str) -> list[dict]:
        """Each network minus the linear probe on pixels, AUC of each attribute that both have."""
        found = []
        for name in self.networks:
            for probe, metrics in self.probes.items():
                pair = self.metrics[name][kind], metrics[kind]
                compared = paired_differences(*pair, list(metrics[kind].values), self.subjects)
                found += [_as_json(difference, kind, name, probe) for difference in compared]
        return found

    def write(self, out: Path) -> str:
        """Write results.md and results.json into `out`; returns the text of the first."""
        validation = self.validation
        seeds = {name: {kind: self.eer_of_each_seed(name, kind) for kind in self.kinds} for name in self.folds}
        geometry = {name: {kind: self._geometry(name, kind) for kind in self.kinds} for name in [*self.networks, *self._best()]}
        differences = [one for kind in self.kinds for one in self.differences(kind)]
        content = {
            "data": {
                "folder": str(validation.data),
                "digest": validation.dataset.store.digest,
                "sessions": len(self.labels),
                "tested": validation.tested,
                "untrained": validation.untrained,
            },
            "folds": validation.folds,
            "seeds": validation.seeds,
            "jitter_draws": validation.draws,
            "settings": self.settings,
            "versions": code_versions(),
            "notes": self.notes,
            "results": {
                name: {kind: metrics.as_json() | {"eer_of_each_seed": seeds[name][kind]} for kind, metrics in kinds.items()}
                | {"seconds_per_training": self._seconds(name)}
                for name, kinds in self.metrics.items()
            },
            "attribute_probes": {
                name: {kind: metrics.as_json() for kind, metrics in kinds.items()} for name, kinds in self.probes.items()
            },
            "differences": differences,
            "attribute_differences": [one for kind in self.kinds for one in self.attribute_differences(kind)],
            "eer_by_geometry": {
                name: {kind: {" ".join(key): value for key, value in found[1].items()} for kind, found in kinds.items()}
                for name, kinds in geometry.items()
            },
        }
        out.mkdir(parents=True, exist_ok=True)
        (out / "results.json").write_text(json.dumps(content, indent=1) + "\n")
        text = self._markdown(seeds, differences, geometry)
        (out / "results.md").write_text(text)
        return text

    def _geometry(self, name: str, kind: str) -> tuple[list[str], dict[tuple[str, str], float]]:
        return eer_by_geometry(pool_pairs(self.folds[name], self.kinds[kind]), self.labels)

    def _seconds(self, name: str) -> float:
        return statistics.mean(fold.seconds for fold in self.folds[name])

    def _best(self, kind: str | None = None) -> list[str]:
        """The linear baseline with the lowest EER, and dlib's network if it was applied. Default kind: the last one."""
        kind = kind or list(self.kinds)[-1]
        linear = [name for name in self.folds if name not in (*self.networks, DLIB_NAME)]
        best = sorted(linear, key=lambda name: self.metrics[name][kind].values["eer"] or 0)[:1]
        return [*best, *([DLIB_NAME] if DLIB_NAME in self.folds else [])]

    def _markdown(self, seeds: dict, differences: list[dict], geometry: dict) -> str:
        validation = self.validation
        only = f" with {validation.tested} (training uses all {len(self.labels)})" if validation.tested else ""
        without = f", none with {validation.untrained} in training" if validation.untrained else ""
        lines = [
            f"{self.subjects} subjects, {len(self.tested)} sessions{only}{without}; "
            f"{validation.folds} subject folds, {validation.seeds} seeds. "
            f"Jittered: {validation.draws} draws. Brackets: 95 % bootstrap confidence interval over subjects. "
            f"*: fewer than {LOW_SUPPORT} expected false matches.",
            *self.notes,
        ]
        for kind in self.kinds:
            lines += ["", f"## Unseen subjects, {kind}", "", self._table(kind, seeds)]
        lines += self._attribute_lines()
        for kind in self.kinds:
            against = {*self.networks, *self._best(kind), *self._best(AS_IS)}
            rows = [
                [one["network"], one["against"], SHOWN[one["metric"]], _difference(one), _p(one["p"]), one["better"] or "neither"]
                for one in differences
                if one["kind"] == kind and one["against"] in against
            ]
            if rows:
                header = ["network", "against", "metric", "network minus the other", "p", "better"]
                lines += ["", f"## Paired differences, {kind}", "", _table(rows, header)]
        for name in [*self.networks[:1], *self._best()]:
            lines += self._false_non_match_lines(name)
            for kind, (names, found) in geometry[name].items():
                if names:
                    rows = [[one, *(_percent(found.get((min(one, other), max(one, other)))) for other in names)] for one in names]
                    lines += ["", f"## EER % by light geometry: {name}, {kind}", "", _table(rows, ["", *names])]
        return "\n".join(lines) + "\n"

    def _false_non_match_lines(self, name: str) -> list[str]:
        """The sessions with the largest share of false non-matches of a network or baseline."""
        lines: list[str] = []
        for kind, draws in self.kinds.items():
            found = false_non_matches(pool_pairs(self.folds[name], draws), self.labels, FAR)
            if found:
                rows = [[session, str(rejected), str(total)] for session, rejected, total in found[:MAX_SESSIONS]]
                header = ["session", "rejected genuine pairs", "genuine pairs"]
                title = f"Sessions with false non-matches at FAR {FAR:.1%}: {name}, {kind}"
                lines += ["", f"## {title} ({len(found)} sessions)", "", _table(rows, header)]
        return lines

    def _attribute_lines(self) -> list[str]:
        """The AUC of the attributes of each network and of the linear probe on pixels, and their differences."""
        kinds_of = {name: self.metrics[name] for name in self.networks if self.folds[name][0].probabilities} | self.probes
        defined = [metrics[AS_IS].defined() for metrics in kinds_of.values()]
        attributes = [name for name in ATTRIBUTES if any(f"{name}/auc" in values for values in defined)]
        if not attributes:
            return []
        rows = [
            [name, kind, *(_cell(metrics[kind], f"{attribute}/auc") for attribute in attributes)]
            for name, metrics in kinds_of.items()
            for kind in self.kinds
        ]
        lines = ["", "## AUC of the attributes", "", _table(rows, ["", "", *attributes])]
        rows = [
            [one["network"], one["against"], kind, one["metric"], _difference(one), _p(one["p"]), one["better"] or "neither"]
            for kind in self.kinds
            for one in self.attribute_differences(kind)
        ]
        if rows:
            header = ["network", "against", "", "metric", "network minus the probe", "p", "better"]
            lines += ["", "## Attributes: networks against a linear probe on pixels", "", _table(rows, header)]
        return lines

    def _table(self, kind: str, seeds: dict) -> str:
        header = ["", *SHOWN.values(), "EER % of each seed", "s per training"]
        order = sorted(self.folds, key=lambda name: (name not in self.networks, self.metrics[name][kind].values["eer"] or 0))
        rows = []
        for name in order:
            cells = [_cell(self.metrics[name][kind], metric) for metric in SHOWN]
            trained = name in self.networks
            rows.append(
                [name, *cells, " ".join(map(_percent, seeds[name][kind])), f"{self._seconds(name):.0f}" if trained else "-"]
            )
        return _table(rows, header)


def _table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    return tabulate(rows, headers=header, tablefmt="github", disable_numparse=True)


def _cell(metrics: Metrics, name: str) -> str:
    value = metrics.values.get(name)
    if value is None:
        return "-"
    show = _percent if name == "eer" else "{:.3f}".format
    interval = metrics.intervals.get(name)
    mark = "*" if metrics.is_low_support(name) else ""
    return f"{show(value)}{mark}" + (f" [{show(interval[0])}, {show(interval[1])}]" if interval else "")


def _as_json(difference: Difference, kind: str, network: str, other: str) -> dict:
    return {
        "kind": kind, "network": network, "against": other, "metric": difference.name,
        "difference": difference.value, "low": _number(difference.low), "high": _number(difference.high),
        "p": _number(difference.p), "better": {"first": network, "second": other}.get(difference.better),
    }  # fmt: skip


def _difference(one: dict) -> str:
    show = (lambda value: f"{100 * value:+.2f}") if one["metric"] == "eer" else "{:+.3f}".format
    interval = "" if one["low"] is None else f" [{show(one['low'])}, {show(one['high'])}]"
    return show(one["difference"]) + interval


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
