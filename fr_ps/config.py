"""The typed tree of settings. Every training is described by one `Config`; the docstrings are the text of `--help`.

No torch here: the names that an error lists must be known before anything heavy is imported.
"""

import math
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fr_ps.errors import InputError

Modality = Literal["albedo", "normal", "depth"]
Attribute = Literal["gender", "spectacles", "facial_hair", "pose", "emotion"]
LabelForm = Literal["auto", "raw", "reduced", "encoded"]
CaptureLayout = Literal["plain", "photoface"]
Align = Literal["auto", "landmarks", "boxes", "none"]
Fit = Literal["crop", "pad", "stretch"]
Solver = Literal["least_squares", "robust", "integrable"]
Integration = Literal["poisson", "frankot_chellappa"]
LightAxes = Literal["xy", "-xy", "x-y", "-x-y", "yx", "-yx", "y-x", "-y-x"]
Backbone = Literal[
    "miresnet18",
    "miresnet34",
    "convnextv2_atto",
    "convnextv2_femto",
    "convnextv2_pico",
    "convnextv2_nano",
    "convnextv2_tiny",
    "convnextv2_base",
    "convnextv2_large",
    "convnextv2_huge",
]
SYNTHETIC = "synthetic"
"""The value of `data.root` that stands for the built-in faces."""


def _require(good: bool, key: str, value: object, expected: str) -> None:
    if not good:
        raise InputError(f"{key} is {value!r}; expected {expected}")


def _require_types(config: object, group: str) -> None:
    """Refuse names that are no choice and numbers that are not finite, as settings may also come from Python or JSON."""
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        key = f"{group}{name}"
        if get_origin(kind) is Literal:
            _require(value in get_args(kind), key, value, f"one of {', '.join(get_args(kind))}")
        elif kind is float:
            _require(isinstance(value, (int, float)) and math.isfinite(value), key, value, "a finite number")
        elif kind is int:
            _require(isinstance(value, int), key, value, "a whole number")


def _require_share(key: str, value: float) -> None:
    good = 0 <= value < 1 or (value >= 1 and value == int(value))
    _require(good, key, value, "a share below 1 (0.2) or a whole number (12); 0 for none")


@dataclass(frozen=True)
class DataConfig:
    """Which maps, which labels, and who is trained, validated and tested on.

    Args:
        root: folder of a prepared data set (labels.csv and data/), or "synthetic" for the built-in faces.
        modalities: the maps that the network reads; one, until fusion networks exist.
        labels: how the attribute columns are coded; auto looks at them and the choice is printed.
        classes: for raw labels, the classes of an attribute and the raw values of each, the negative class first, as
            {emotion: {neutral: [blankstare], other: [positive, negative, emoOther]}}; the original's by default.
        only: column of labels.csv and the values of it that are used, as {Quality: [ok]}; sessions of others are left out.
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

    root: str = SYNTHETIC
    modalities: tuple[Modality, ...] = ("albedo",)
    labels: LabelForm = "auto"
    classes: dict[Attribute, dict[str, list[str]]] = field(default_factory=dict)
    only: dict[str, list[str | int]] = field(default_factory=dict)
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
        _require_types(self, "data.")
        good = len(self.modalities) == 1 and self.modalities[0] in get_args(Modality)
        _require(good, "data.modalities", list(self.modalities), "one of albedo, normal, depth")
        for attribute in self.classes:
            _require(
                attribute in get_args(Attribute), "data.classes", attribute, f"attributes among {', '.join(get_args(Attribute))}"
            )
        _require_share("data.val_people", self.val_people)
        _require_share("data.test_people", self.test_people)
        _require(self.folds == 0 or self.folds >= 2, "data.folds", self.folds, "0, or 2 and more")
        _require(
            0 <= self.fold < max(self.folds, 1),
            "data.fold",
            self.fold,
            f"0 to {max(self.folds, 1) - 1} (data.folds is {self.folds})",
        )
        _require(self.split_seed >= 0, "data.split_seed", self.split_seed, "0 or more")
        for column, values in self.only.items():
            _require(len(values) > 0, f"data.only.{column}", values, "one value or more")
        for column, limit in self.limits.items():
            _require(math.isfinite(limit), f"data.limits.{column}", limit, "a finite number")
        _require(self.subsample_sessions >= 0, "data.subsample_sessions", self.subsample_sessions, "0 or more")
        _require(0 < self.subsample_share <= 1, "data.subsample_share", self.subsample_share, "a share above 0, at most 1")
        _require(self.gallery >= 0, "data.gallery", self.gallery, "0 or more")
        _require(not (self.split and self.folds), "data.folds", self.folds, "0, as data.split says who is tested on")


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
        _require_types(self, "synthetic.")
        _require(self.people >= 2, "synthetic.people", self.people, "2 or more")
        _require(self.sessions >= 1, "synthetic.sessions", self.sessions, "1 or more")
        _require(self.seed >= 0, "synthetic.seed", self.seed, "0 or more")
        _require(self.size >= 32, "synthetic.size", self.size, "32 or more")


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of a training batch, the same geometry for all maps of a session.

    Args:
        flip: probability of a horizontal flip.
        crop: smallest side of the random square crop, as a share of the picture's; 1 for none.
        rotation: largest rotation in degrees, either way.
        noise: largest standard deviation of the Gaussian noise on a random patch of 10 to 25 % of the picture, as a
            share of the map's root mean square; 0 for none.
    """

    flip: float = 0.5
    crop: float = 0.9
    rotation: float = 5.0
    noise: float = 0.1

    def __post_init__(self) -> None:
        _require_types(self, "augment.")
        _require(0 <= self.flip <= 1, "augment.flip", self.flip, "a probability from 0 to 1")
        _require(0.1 <= self.crop <= 1, "augment.crop", self.crop, "a share from 0.1 to 1")
        _require(0 <= self.rotation <= 180, "augment.rotation", self.rotation, "degrees from 0 to 180")
        _require(self.noise >= 0, "augment.noise", self.noise, "0 or more")


@dataclass(frozen=True)
class BatchConfig:
    """P x K batches: P people with K sessions each.

    Args:
        people: P; where there are fewer people to train on, all of them.
        sessions: K; a person with fewer has some twice in the batch, augmented differently.
    """

    people: int = 8
    sessions: int = 4

    def __post_init__(self) -> None:
        _require_types(self, "batch.")
        _require(self.people >= 1, "batch.people", self.people, "1 or more")
        _require(self.sessions >= 1, "batch.sessions", self.sessions, "1 or more")
        _require(self.people * self.sessions >= 2, "batch.people", self.people, "a batch of 2 or more: BN needs variance")


@dataclass(frozen=True)
class ModelConfig:
    """The network.

    Args:
        backbone: what turns maps into the shared feature map.
        channels: of the shared feature map, and so of every embedding.
        reduction: by how much the feature separation modules narrow their bottleneck (16 in the original, where five
            of them hold 17 M parameters); 14 x channels -> channels x 14 / reduction -> channels.
    """

    backbone: Backbone = "convnextv2_atto"
    channels: int = 512
    reduction: int = 16

    def __post_init__(self) -> None:
        _require_types(self, "model.")
        _require(self.channels >= 8, "model.channels", self.channels, "8 or more")
        _require(1 <= self.reduction <= self.channels, "model.reduction", self.reduction, "1 to model.channels")


@dataclass(frozen=True)
class LossConfig:
    """Identity, attribute and adversarial losses, and how they are weighed.

    Args:
        weighting: fixed multiplies each loss with the weights below; uncertainty learns the weights (Kendall et al.
            2018), starting from equal ones.
        identity: fixed weight of the identity loss.
        attribute: fixed weight of each attribute's loss.
        adversarial: fixed weight of each adversarial loss.
        reversal: alpha of the gradient reversal before the adversarial discriminators.
        focal_gamma: focusing exponent of the focal losses; 0 is class-weighted cross-entropy.
        scale: s of MagFace.
        lower_norm: l_a of MagFace, the norm of the smallest margin.
        upper_norm: u_a of MagFace, the norm of the largest margin.
        lower_margin: margin at lower_norm, in radians.
        upper_margin: margin at upper_norm, in radians.
        lambda_g: weight of MagFace's regulariser on norms.
        allow_unsafe_lambda: accept a lambda_g below the bound of the paper (the original's 20 is).
    """

    weighting: Literal["fixed", "uncertainty"] = "uncertainty"
    identity: float = 1.0
    attribute: float = 1.0
    adversarial: float = 0.1
    reversal: float = 0.1
    focal_gamma: float = 1.0
    scale: float = 64.0
    lower_norm: float = 10.0
    upper_norm: float = 110.0
    lower_margin: float = 0.45
    upper_margin: float = 0.8
    lambda_g: float = 35.0
    allow_unsafe_lambda: bool = False

    def __post_init__(self) -> None:
        _require_types(self, "loss.")
        for key in ("identity", "attribute", "adversarial", "reversal", "focal_gamma"):
            _require(getattr(self, key) >= 0, f"loss.{key}", getattr(self, key), "0 or more")
        _require(self.scale > 0, "loss.scale", self.scale, "above 0")
        _require(
            0 < self.lower_norm < self.upper_norm,
            "loss.lower_norm",
            self.lower_norm,
            f"between 0 and loss.upper_norm ({self.upper_norm:g})",
        )
        _require(
            0 <= self.lower_margin <= self.upper_margin,
            "loss.lower_margin",
            self.lower_margin,
            f"between 0 and loss.upper_margin ({self.upper_margin:g})",
        )
        _require(self.upper_margin < 1.571, "loss.upper_margin", self.upper_margin, "below pi / 2")
        bound = self.lambda_bound
        safe = self.allow_unsafe_lambda or self.lambda_g >= bound
        _require(
            safe,
            "loss.lambda_g",
            self.lambda_g,
            f"{bound:.1f} or more, MagFace's bound at these settings (or loss.allow_unsafe_lambda)",
        )

    @property
    def lambda_bound(self) -> float:
        """Smallest lambda_g for which the loss has one optimal norm: s k u^2 l^2 / (u^2 - l^2), k the margin's slope.

        Meng et al., "MagFace: A Universal Representation for Face Recognition and Quality Assessment", CVPR 2021.
        """
        slope = (self.upper_margin - self.lower_margin) / (self.upper_norm - self.lower_norm)
        upper, lower = self.upper_norm**2, self.lower_norm**2
        return self.scale * slope * upper * lower / (upper - lower)


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer.

    Args:
        name: adamw, or sgd with Nesterov momentum.
        lr: largest learning rate, reached at the end of the warm-up.
        weight_decay: of weights; norms, biases and loss weights have none.
        momentum: of sgd.
        clip: largest norm of the gradient of a step; 0 for no limit.
        weighting_factor: learning rate of the learnt loss weights as a multiple of lr. They start at 1 and have to reach
            1 / (2 loss), and Adam moves a parameter by at most about lr a step.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    momentum: float = 0.9
    clip: float = 5.0
    weighting_factor: float = 50.0

    def __post_init__(self) -> None:
        _require_types(self, "optim.")
        _require(self.lr > 0, "optim.lr", self.lr, "above 0")
        _require(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "0 or more")
        _require(0 <= self.momentum < 1, "optim.momentum", self.momentum, "0 or more and below 1")
        _require(self.clip >= 0, "optim.clip", self.clip, "0 or more")
        _require(self.weighting_factor > 0, "optim.weighting_factor", self.weighting_factor, "above 0")


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the steps of a training.

    Args:
        name: polynomial: linear warm-up, then lr x (1 - progress)^power.
        warmup_epochs: epochs of the warm-up; may be a fraction.
        power: of the polynomial decay.
    """

    name: Literal["polynomial"] = "polynomial"
    warmup_epochs: float = 1.0
    power: float = 1.0

    def __post_init__(self) -> None:
        _require_types(self, "schedule.")
        _require(self.warmup_epochs >= 0, "schedule.warmup_epochs", self.warmup_epochs, "0 or more")
        _require(self.power > 0, "schedule.power", self.power, "above 0")


@dataclass(frozen=True)
class TrainConfig:
    """The training itself.

    Args:
        epochs: at most.
        seed: of weights, batches and augmentation.
        select: validation metric of the best checkpoint; higher is better, except for an eer.
        patience: stop after this many epochs without a better train.select; 0: never.
        threads: CPU threads of torch; 0: as many as torch takes by itself.
        scoring_batch: sessions a batch where a model is scored.
    """

    epochs: int = 20
    seed: int = 0
    select: str = "val/identity/auc"
    patience: int = 0
    threads: int = 0
    scoring_batch: int = 64

    def __post_init__(self) -> None:
        _require_types(self, "train.")
        _require(self.epochs >= 1, "train.epochs", self.epochs, "1 or more")
        _require(self.seed >= 0, "train.seed", self.seed, "0 or more")
        _require(self.select.startswith("val/"), "train.select", self.select, "a metric under val/, as val/identity/auc")
        _require(self.patience >= 0, "train.patience", self.patience, "0 or more")
        _require(self.threads >= 0, "train.threads", self.threads, "0 or more")
        _require(self.scoring_batch >= 1, "train.scoring_batch", self.scoring_batch, "1 or more")


@dataclass(frozen=True)
class Config:
    """Settings of a training.

    Args:
        name: of the run; empty: made from data, backbone and modality.
        device: where to compute; auto takes a GPU where there is one.
    """

    name: str = ""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    data: DataConfig = field(default_factory=DataConfig)
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass(frozen=True)
class PrepareConfig:
    """From raw captures to a prepared data set.

    Args:
        captures: folder of {id}/{session}/ with images and lights.csv, or Photoface's root folder as it is distributed.
        out: folder to write; what it holds already from the same pictures and settings is kept.
        labels: CSV of id, session, Gender, Spectacles, Facial_Hair, Pose, Emotion; without it, attributes are those of
            Photoface's metadataII.txt where there is one, else unknown.
        size: side of the square maps in pixels.
        align: which part of a picture the maps show. landmarks: the face, brought to its canonical place by the 11 points
            of metadata.txt; boxes: that of the table of boxes; none: the whole picture; auto: a box where there is one,
            else landmarks where there are any, else the whole picture.
        boxes: CSV of id, session, left, top, right, bottom in pixels.
        fit: of a box or picture that is not square: crop takes its central square, pad all of it with a margin, stretch
            all of it with the normals corrected for it.
        solver: least_squares; robust gives shadows, highlights and saturated pixels less weight; integrable also lets
            neighbouring pixels agree on one surface (prepare then takes about twice as long).
        prior: mean face normals that integrable leans on a little, a .npy as fr-ps data mean writes it.
        integration: of normals to depth.
        estimate_intensities: whether the lights' relative intensities are estimated from the pictures (four lights and more).
        estimate_ambient: whether light that is always there is estimated and subtracted (lights that allow it).
        light_axes: to which axes the first and second component go that a LightSource.m's zenith and azimuth give;
            "-xy" negates x, "yx" swaps the two.
        on_bad: fail at the first bad session, or skip it and list it.
        workers: processes.
        max_condition: largest condition number of a session's light directions.
    """

    captures: str
    out: str
    labels: str | None = None
    size: int = 112
    align: Align = "auto"
    boxes: str | None = None
    fit: Fit = "crop"
    solver: Solver = "robust"
    prior: str | None = None
    integration: Integration = "poisson"
    estimate_intensities: bool = False
    estimate_ambient: bool = False
    light_axes: LightAxes = "xy"
    on_bad: Literal["fail", "skip"] = "fail"
    workers: int = 1
    max_condition: float = 10.0

    def __post_init__(self) -> None:
        _require_types(self, "")
        _require(self.size >= 8, "size", self.size, "8 or more")
        _require(self.workers >= 1, "workers", self.workers, "1 or more")
        _require(self.max_condition > 1, "max_condition", self.max_condition, "above 1")
        _require(self.align != "boxes" or bool(self.boxes), "boxes", self.boxes, "a CSV of boxes, as align is boxes")
        asked = self.align in ("boxes", "auto")
        _require(not self.boxes or asked, "align", self.align, "boxes or auto, as a table of boxes is given")
        _require(not self.prior or self.solver == "integrable", "solver", self.solver, "integrable, the one that takes a prior")


def to_dict(config: Any) -> Any:
    """A config as nested dicts and lists that YAML and JSON can hold."""
    if is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_dict(getattr(config, f.name)) for f in fields(config)}
    return list(config) if isinstance(config, tuple) else config


def flatten(config: Config) -> dict[str, str]:
    """The resolved settings as `group/name` to text, as they stand in MLflow's params."""
    flat = {}
    for group, value in to_dict(config).items():
        for name, leaf in value.items() if isinstance(value, dict) else [("", value)]:
            flat[f"{group}/{name}" if name else group] = ",".join(map(str, leaf)) if isinstance(leaf, list) else str(leaf)
    return flat
