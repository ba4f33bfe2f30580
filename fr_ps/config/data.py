"""Settings of the data: which maps, who is in which part, how batches are made."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from fr_ps.config.checks import MAX_SEED, MAX_STEPS, check_range, check_setting, check_share_or_count, check_types
from fr_ps.config.names import SYNTHETIC_ROOT, Attribute, LabelForm, Modality
from fr_ps.redaction import redact


@dataclass(frozen=True)
class DataConfig:
    """Which maps, which labels, and who is trained, validated and tested on.

    Args:
        root: folder of a prepared data set (labels.csv and data/), or "synthetic" for the built-in faces.
        modalities: the maps that the network reads, one to three of albedo, normal, depth; several are fused (fusion.*).
        labels: how the attribute columns are coded; auto looks at them and the choice is printed.
        classes: for raw labels, the classes of an attribute and the raw values of each, the negative class first, as
            {emotion: {neutral: [blankstare], other: [positive, negative, emoOther]}}; the original's by default.
        only: column of labels.csv and the values of it that are used, as {Quality: [ok]}, each as the text in the table;
            sessions of others are left out.
        limits: column of labels.csv and the largest number of it that is used, as {quality_residual: 0.15}.
        subsample_sessions: sessions of each person that are used, drawn by split_seed; who has fewer keeps all; 0: all.
        subsample_share: share of all sessions that are used, drawn by split_seed; 1: all.
        protocol: subject_disjoint tests on people who are not trained on; session_disjoint on other sessions of them.
        val_people: share (below 1) or number of people to validate on; with session_disjoint, of each one's sessions.
            0: the epochs are fixed and the last checkpoint is the best.
        test_people: share or number of people to test on once at the end, like val_people; 0: no test.
        folds: number K of folds of people (of sessions with session_disjoint); fold I is tested on instead of
            test_people; 0: no folds.
        fold: which of the folds, from 0.
        split_seed: seed of the draw of people; the same seed draws the same people.
        gallery: sessions of each test person with more than that which are put aside, in the part gallery, to enrol that
            person by; 0: none.
        split: parts that are read instead of drawn: a split.csv (id, session, part), or a folder with the original's
            train_set.csv, test_set.csv and gallery_set.csv; without a val part, val_people are drawn from train.
    """

    root: str = SYNTHETIC_ROOT
    modalities: tuple[Modality, ...] = ("albedo",)
    labels: LabelForm = "auto"
    classes: dict[Attribute, dict[str, list[str]]] = field(default_factory=dict)
    only: dict[str, list[str]] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    subsample_sessions: int = 0
    subsample_share: float = 1.0
    protocol: Literal["subject_disjoint", "session_disjoint"] = "subject_disjoint"
    val_people: float = 0.2
    test_people: float = 0.2
    folds: int = 0
    fold: int = 0
    split_seed: int = 0
    gallery: int = 0
    split: str = ""

    def __post_init__(self) -> None:
        check_types(self, "data.")
        for name in ("root", "split"):
            path = getattr(self, name)
            check_setting("://" not in path, f"data.{name}", redact(path), "a path of this machine, not an address")
        good = 0 < len(set(self.modalities)) == len(self.modalities) and set(self.modalities) <= set(get_args(Modality))
        check_setting(good, "data.modalities", list(self.modalities), "one or more of albedo, normal, depth, each once")
        for attribute in self.classes:
            check_setting(
                attribute in get_args(Attribute), "data.classes", attribute, f"attributes among {', '.join(get_args(Attribute))}"
            )
        check_share_or_count("data.val_people", self.val_people)
        check_share_or_count("data.test_people", self.test_people)
        check_setting(self.folds == 0 or 2 <= self.folds <= 1000, "data.folds", self.folds, "0, or 2 to 1000")
        check_setting(
            0 <= self.fold < max(self.folds, 1),
            "data.fold",
            self.fold,
            f"0 to {max(self.folds, 1) - 1} (data.folds is {self.folds})",
        )
        check_range(self, "data.", 0, MAX_SEED, "split_seed")
        check_range(self, "data.", 0, MAX_STEPS, "subsample_sessions", "gallery")
        for column, values in self.only.items():
            good = len(values) > 0 and all(isinstance(value, str) for value in values)
            check_setting(good, f"data.only.{column}", values, "one value or more, each as the text in the table")
        for column, limit in self.limits.items():
            check_setting(math.isfinite(limit), f"data.limits.{column}", limit, "a finite number")
        check_setting(0 < self.subsample_share <= 1, "data.subsample_share", self.subsample_share, "a share above 0, at most 1")
        check_setting(not (self.split and self.folds), "data.folds", self.folds, "0, as data.split says who is tested on")


@dataclass(frozen=True)
class SyntheticConfig:
    """The built-in faces, used where data.root is "synthetic".

    Args:
        people: how many.
        sessions: of each person.
        seed: of all that is random in them.
        size: side of the maps in pixels.
    """

    people: int = 40
    sessions: int = 8
    seed: int = 0
    size: int = 112

    def __post_init__(self) -> None:
        check_types(self, "synthetic.")
        check_range(self, "synthetic.", 2, 100_000, "people")
        check_range(self, "synthetic.", 1, 10_000, "sessions")
        faces = self.people * self.sessions
        check_setting(faces <= MAX_STEPS, "synthetic.people", self.people, f"people x sessions of {MAX_STEPS} or fewer")
        check_range(self, "synthetic.", 0, MAX_SEED, "seed")
        check_range(self, "synthetic.", 32, 1024, "size")
