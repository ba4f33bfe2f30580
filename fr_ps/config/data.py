"""Settings of the data: maps, labels, splits, batches and augmentation."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from fr_ps.config.checks import MAX_BATCH, MAX_SEED, MAX_STEPS, check_range, check_setting, check_share_or_count, check_types
from fr_ps.config.names import SYNTHETIC_ROOT, Attribute, LabelForm, Modality
from fr_ps.redaction import redact


@dataclass(frozen=True)
class DataConfig:
    """Maps, labels, and the split into training, validation and test.

    Args:
        root: folder of a prepared data set (labels.csv and data/), or "synthetic" for the built-in faces.
        modalities: maps that the network reads: one to three of albedo, normal, depth; several are fused (fusion.*).
        labels: encoding of the attribute columns; auto detects it and prints the result.
        classes: classes of an attribute in raw labels, with their raw values, negative class first, as
            {emotion: {neutral: [blankstare], other: [positive, negative, emoOther]}}; default: the original project's.
        only: column of labels.csv to its allowed values, as {Quality: [ok]}; values are text, as in the table.
        limits: column of labels.csv to its largest allowed number, as {quality_residual: 0.15}.
        subsample_sessions: largest number of sessions per subject, drawn with split_seed; 0: all.
        subsample_share: share of the sessions that remain after data.only, data.limits and data.subsample_sessions, drawn with
            split_seed; 1: all.
        protocol: subject_disjoint: test subjects are not in training; session_disjoint: test sessions of training subjects.
        val_people: share (below 1) or number of validation subjects; with session_disjoint, of each subject's sessions.
            0: no validation; the training runs all epochs, and the last checkpoint counts as the best.
        test_people: share or number of test subjects, as val_people. The test set is evaluated once, after training; 0: none.
        folds: number of cross-validation folds of subjects (with session_disjoint, of sessions); 0: no folds.
        fold: index, from 0, of the fold that is the test set, instead of test_people.
        split_seed: seed of the split; equal seeds give equal splits.
        gallery: sessions per test subject in the part gallery, with which identification enrols the subject; 0: no gallery.
        split: fixed split: a split.csv (id, session, part), or a folder with the original project's train_set.csv, test_set.csv
            and gallery_set.csv; without a val part, val_people are drawn from train.
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
            check_setting("://" not in path, f"data.{name}", redact(path), "a local path, not a URI")
        valid = 0 < len(set(self.modalities)) == len(self.modalities) and set(self.modalities) <= set(get_args(Modality))
        check_setting(valid, "data.modalities", list(self.modalities), "one or more of albedo, normal, depth, each once")
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
            valid = len(values) > 0 and all(isinstance(value, str) for value in values)
            check_setting(valid, f"data.only.{column}", values, "one or more values, as text in the table")
        for column, limit in self.limits.items():
            check_setting(math.isfinite(limit), f"data.limits.{column}", limit, "a finite number")
        check_setting(0 < self.subsample_share <= 1, "data.subsample_share", self.subsample_share, "a share above 0, at most 1")
        check_setting(not (self.split and self.folds), "data.folds", self.folds, "0, as data.split is set")

    @property
    def unseen(self) -> str:
        """What the test part has that training has not."""
        return "subjects not in training" if self.protocol == "subject_disjoint" else "other sessions of the training subjects"


@dataclass(frozen=True)
class SyntheticConfig:
    """The built-in synthetic faces, used if data.root is "synthetic".

    Args:
        people: number of subjects.
        sessions: sessions per subject.
        seed: random seed.
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


@dataclass(frozen=True)
class AugmentConfig:
    """Random augmentation of training batches. All maps of a session get the same geometry.

    Args:
        flip: probability of a horizontal flip.
        crop: smallest side of the random square crop, as a share of the map's side; 1: no crop.
        rotation: largest rotation in degrees, clockwise or counterclockwise.
        scale: largest relative change of size: 0.15 enlarges or shrinks the picture by a factor of up to 1.15, after the crop.
        shift: largest shift of the crop to the left, right, up and down, as a share of the map's side. Pixels from outside the
            picture, which rotation, scale and shift can bring in, repeat its border.
        noise: largest standard deviation of Gaussian noise on a random patch of 10 to 25 % of the map, as a share of the
            map's root mean square; 0: no noise.
        erase: probability that a random rectangle of 2 to 33 % of a session's maps is erased (Zhong et al. 2020): albedo becomes
            its mean, depth 0, and normals (0, 0, 1).
        leave_out_light: only for the fit of the linear embedding, not for batches. The fit reads several copies of each session,
            moved by crop, rotation, scale and shift. For half of the copies, the maps are first computed again from the session's
            pictures without one light, drawn at random. It affects only sessions with stored pictures (`pictures.npy`, four to
            seven lights).
    """

    flip: float = 0.5
    crop: float = 0.9
    rotation: float = 5.0
    scale: float = 0.0
    shift: float = 0.0
    noise: float = 0.1
    erase: float = 0.0
    leave_out_light: bool = False

    def __post_init__(self) -> None:
        check_types(self, "augment.")
        check_setting(0 <= self.flip <= 1, "augment.flip", self.flip, "a probability from 0 to 1")
        check_setting(0.1 <= self.crop <= 1, "augment.crop", self.crop, "a share from 0.1 to 1")
        check_setting(0 <= self.rotation <= 180, "augment.rotation", self.rotation, "degrees from 0 to 180")
        check_range(self, "augment.", 0, 10, "noise")
        check_range(self, "augment.", 0, 1, "scale")
        check_range(self, "augment.", 0, 0.5, "shift")
        check_setting(0 <= self.erase <= 1, "augment.erase", self.erase, "a probability from 0 to 1")


@dataclass(frozen=True)
class BatchConfig:
    """P x K batches: P subjects with K sessions each.

    Args:
        people: P; with fewer training subjects, a batch contains all of them.
        sessions: K; if a subject has fewer, or not a multiple of K, its sessions can repeat in a batch, with different
            augmentation.
        balance: identity: all subjects are drawn equally often, regardless of their number of sessions; class: the classes of
            `attribute` are drawn equally often, and a subject drawn for a class contributes sessions of that class; none: each
            session once per pass in random order, P x K per batch; the last batch is filled up with earlier sessions.
        attribute: attribute whose classes are balanced with balance=class. Sessions without its label are drawn in proportion
            to their number. The losses still weight classes by their inverse frequency in the training part;
            set loss.class_weights, as {gender: [0.5, 0.5]}, to avoid a double correction.
        steps: batches per epoch (not optimizer steps, see train.accumulate); 0: about one pass over the training sessions. On a
            small data set a pass has few batches, and a larger number makes each epoch longer. To train for as long as before,
            lower train.epochs in proportion; there are then fewer validations.
    """

    people: int = 8
    sessions: int = 4
    balance: Literal["identity", "class", "none"] = "identity"
    attribute: Attribute = "gender"
    steps: int = 0

    def __post_init__(self) -> None:
        check_types(self, "batch.")
        check_range(self, "batch.", 1, MAX_BATCH, "people", "sessions")
        check_range(self, "batch.", 0, MAX_STEPS, "steps")
        size = self.people * self.sessions
        check_setting(size >= 2, "batch.people", self.people, "a batch of 2 or more: BN needs variance")
        check_setting(size <= MAX_BATCH, "batch.people", self.people, f"a batch (people x sessions) of {MAX_BATCH} or fewer")
