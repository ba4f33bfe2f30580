"""Table of the settings that have an effect only with certain values of other settings."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fr_ps.config import SYNTHETIC_ROOT, Config, flatten_dict, to_dict
from fr_ps.config.names import PEELING_ORDER
from fr_ps.errors import InputError


@dataclass(frozen=True)
class Condition:
    """Condition under which a setting has an effect.

    Attributes:
        text: the condition as text after "only if".
        settings: the settings that the condition depends on.
        holds: whether a config meets the condition.
    """

    text: str
    settings: tuple[str, ...]
    holds: Callable[[Config], bool]


def inactive_settings(config: Config) -> Iterator[tuple[str, Condition]]:
    """The settings that differ from their defaults but have no effect, each with its unmet condition."""
    given, default = flatten_dict(to_dict(config)), flatten_dict(to_dict(Config()))
    for name, value in given.items():
        setting = name.replace("/", ".")
        if value != default[name] and (condition := unmet_condition(config, setting)):
            yield setting, condition


def unmet_condition(config: Config, setting: str) -> Condition | None:
    """The first unmet condition of `setting`; None if it has an effect."""
    return next((condition for condition in CONDITIONS.get(setting, ()) if not condition.holds(config)), None)


def check_selected_metric_is_trainable(config: Config) -> None:
    """Reject a training that cannot change the metric `train.select`: all branches are frozen, and the fusion has no weights.

    Raises:
        InputError: names the settings.
    """
    fusion, select = config.fusion, config.train.select
    all_frozen = fusion.frozen and set(config.branch_names) <= set(fusion.branches)
    fusion_has_weights = len(config.branch_names) > 1 and fusion.name in ("fc", "gated")
    if not all_frozen or fusion_has_weights or config.train.epochs == 1:
        return
    if _HAS_VALIDATION.holds(config) and select.startswith("val/identity/"):
        raise InputError(
            f"all branches are frozen, so training cannot change {select}: fusion.name {fusion.name} adds no weights to the "
            "embedding; set fusion.name to fc or gated, fusion.frozen to false, train.select to an attribute's metric, or "
            "train.epochs to 1"
        )


def get_setting(config: Config, setting: str) -> object:
    """The value of a setting by name, as `optim.lr`."""
    group, _, name = setting.partition(".")
    return getattr(getattr(config, group), name)


def _is(setting: str, *values: str) -> Condition:
    return Condition(f"{setting} is {' or '.join(values)}", (setting,), lambda config: get_setting(config, setting) in values)


def _is_not(setting: str, *values: str) -> Condition:
    return Condition(
        f"{setting} is not {' or '.join(values)}", (setting,), lambda config: get_setting(config, setting) not in values
    )


def _has_adversaries(config: Config) -> bool:
    branches = config.fusion.branches
    if branches and not config.fusion.frozen:
        return True  # unknown here: it depends on the settings of the branches' runs
    if set(config.branch_names) <= set(branches):
        return False  # all branches are frozen
    return config.model.fsm and config.model.adversaries != "off"


_HAS_NEW_BRANCH = Condition(
    "the network has a branch that fusion.branches does not name (see data.modalities, fusion.joint)",
    ("fusion.branches", "fusion.joint", "data.modalities"),
    lambda config: not set(config.branch_names) <= set(config.fusion.branches),
)
_HAS_FSM = Condition("model.fsm is true", ("model.fsm",), lambda config: config.model.fsm)
_HAS_ADVERSARIES = Condition(
    "there are adversaries (model.fsm, model.adversaries, fusion.frozen)",
    ("model.fsm", "model.adversaries", "fusion.branches", "fusion.frozen", "fusion.joint", "data.modalities"),
    _has_adversaries,
)
_ADVERSARIES_WEIGHTED = Condition(
    "loss.adversarial is above 0, or loss.weighting is uncertainty",
    ("loss.adversarial", "loss.weighting"),
    lambda config: config.loss.adversarial > 0 or config.loss.weighting == "uncertainty",
)
_MULTIPLE_MODALITIES = Condition(
    "data.modalities names two or more", ("data.modalities",), lambda config: len(config.data.modalities) > 1
)
_HAS_ALBEDO = Condition(
    "data.modalities contains albedo", ("data.modalities",), lambda config: "albedo" in config.data.modalities
)
_HAS_VALIDATION = Condition(
    "there is a validation set (data.val_people, data.split)",
    ("data.val_people", "data.split"),
    lambda config: config.data.val_people > 0 or bool(config.data.split),
)
_HAS_LINEAR = Condition("model.linear is above 0", ("model.linear",), lambda config: config.model.linear > 0)
_FIXED_WEIGHTS = _is_not("loss.weighting", "uncertainty", "dwa")

CONDITIONS: dict[str, tuple[Condition, ...]] = {
    **dict.fromkeys(
        ("synthetic.people", "synthetic.sessions", "synthetic.seed", "synthetic.size"), (_is("data.root", SYNTHETIC_ROOT),)
    ),
    "data.fold": (Condition("data.folds is 2 or more", ("data.folds",), lambda config: config.data.folds > 1),),
    "data.test_people": (
        Condition(
            "data.folds is 0 and data.split is empty",
            ("data.folds", "data.split"),
            lambda config: not config.data.folds and not config.data.split,
        ),
    ),
    "batch.attribute": (_is("batch.balance", "class"),),
    **dict.fromkeys(
        ("model.backbone", "model.weights", "model.fsm", "model.attribute_channels", "model.embedding", "model.input_size"),
        (_HAS_NEW_BRANCH,),
    ),
    "model.albedo": (_HAS_NEW_BRANCH, _HAS_ALBEDO),
    **dict.fromkeys(("model.identity_channels", "model.dropout"), (_HAS_NEW_BRANCH, _is("model.embedding", "flatten"))),
    **dict.fromkeys(("model.order", "model.reduction", "model.adversaries"), (_HAS_NEW_BRANCH, _HAS_FSM)),
    "fusion.name": (_MULTIPLE_MODALITIES, _is_not("fusion.joint", "only")),
    "fusion.joint": (_MULTIPLE_MODALITIES,),
    "fusion.dropout": (_MULTIPLE_MODALITIES,),
    "fusion.frozen": (
        Condition("fusion.branches names a run", ("fusion.branches",), lambda config: bool(config.fusion.branches)),
    ),
    "loss.identity": (_FIXED_WEIGHTS,),
    "model.linear_attributes": (_HAS_LINEAR,),
    "model.registration": (
        _HAS_LINEAR,
        Condition(
            "data.modalities names albedo or normal", ("data.modalities",), lambda config: config.data.modalities != ("depth",)
        ),
    ),
    "loss.attribute": (_FIXED_WEIGHTS,),
    "loss.adversarial": (_is_not("loss.weighting", "uncertainty"), _HAS_ADVERSARIES),
    "loss.reversal": (_HAS_ADVERSARIES, _ADVERSARIES_WEIGHTED),
    "loss.reversal_ramp": (
        _HAS_ADVERSARIES,
        _ADVERSARIES_WEIGHTED,
        Condition("loss.reversal is above 0", ("loss.reversal",), lambda config: config.loss.reversal > 0),
    ),
    "loss.dwa_temperature": (_is("loss.weighting", "dwa"),),
    "loss.contrastive_temperature": (
        Condition("loss.contrastive is above 0", ("loss.contrastive",), lambda config: config.loss.contrastive > 0),
    ),
    "loss.branches": (
        _MULTIPLE_MODALITIES,
        _is_not("fusion.joint", "only"),
        Condition(
            "a branch is trained (fusion.branches, fusion.frozen)",
            ("fusion.branches", "fusion.frozen", "fusion.joint", "data.modalities"),
            lambda config: not (config.fusion.frozen and set(config.branch_names) <= set(config.fusion.branches)),
        ),
    ),
    "loss.cagrad_c": (_is("loss.weighting", "cagrad"),),
    "loss.focal_gamma": (
        _is("loss.attribute_loss", "focal"),
        Condition(
            "loss.focal_gammas lacks an attribute",
            ("loss.focal_gammas",),
            lambda config: not set(PEELING_ORDER) <= set(config.loss.focal_gammas),
        ),
    ),
    "loss.focal_gammas": (_is("loss.attribute_loss", "focal"),),
    "loss.label_smoothing": (_is("loss.attribute_loss", "cross_entropy"),),
    **dict.fromkeys(
        (
            "loss.lower_norm",
            "loss.upper_norm",
            "loss.lower_margin",
            "loss.upper_margin",
            "loss.lambda_g",
            "loss.allow_unsafe_lambda",
        ),
        (_is("loss.identity_loss", "magface"),),
    ),
    "loss.arcface_margin": (_is("loss.identity_loss", "arcface"),),
    "loss.cosface_margin": (_is("loss.identity_loss", "cosface"),),
    "loss.adaface_margin": (_is("loss.identity_loss", "adaface"),),
    "optim.momentum": (_is("optim.name", "sgd"),),
    "schedule.power": (_is("schedule.name", "polynomial"),),
    "schedule.lowest": (_is("schedule.name", "cosine"),),
    "schedule.restart_epochs": (_is("schedule.name", "cosine"),),
    "schedule.restart_factor": (
        _is("schedule.name", "cosine"),
        Condition(
            "schedule.restart_epochs is above 0",
            ("schedule.restart_epochs",),
            lambda config: config.schedule.restart_epochs > 0,
        ),
    ),
    "train.patience": (_HAS_VALIDATION,),
    "train.watch": (_HAS_VALIDATION,),
}
"""Setting to its conditions: it has an effect if all of them hold. Other settings always have an effect."""
