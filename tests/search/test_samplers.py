"""Samplers and pruners on real studies: which settings are drawn, which trials are pruned and when."""

from typing import Any, get_args, get_type_hints

import optuna
import pytest
from optuna.pruners import NopPruner
from optuna.trial import FrozenTrial, TrialState

from fr_ps.config import Config, with_settings
from fr_ps.config.search import PrunerConfig, SamplerConfig
from fr_ps.search.samplers import build_pruner, build_sampler
from fr_ps.search.space import params_to_settings
from fr_ps.search.space_parser import parse_space
from tests.conftest import AssertRejected

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
SAMPLERS = get_args(get_type_hints(SamplerConfig)["name"])
PRUNERS = [name for name in get_args(get_type_hints(PrunerConfig)["name"]) if name != "none"]
LEARNING = ("tpe", "gp", "cmaes", "nsgaii")
STARTUP = 4
SPACE = parse_space(
    {
        "optim.lr": {"low": 1e-4, "high": 1e-1, "log": True},
        "optim.weight_decay": {"low": 0, "high": 1},
        "batch.people": {"low": 2, "high": 64},
        "schedule.name": ["polynomial", "cosine"],
        "schedule.power": {"low": 0.5, "high": 2.0, "when": {"schedule.name": "polynomial"}},
        "schedule.lowest": {"low": 0, "high": 1e-4, "when": {"schedule.name": "cosine"}},
    },
    Config(),
)
CONTINUOUS = "optim.lr"


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def objective_value(params: dict[str, Any]) -> float:
    return -((params["optim.weight_decay"] - 0.3) ** 2) + 0.1 * params.get("schedule.power", 0)


def searched(name: str, count: int, seed: int = 0, directions: tuple[str, ...] = ("maximize",)) -> list[FrozenTrial]:
    """The trials of a study in which each trial has its own sampler, as in a worker."""
    study = optuna.create_study(directions=directions)
    for number in range(count):
        study.sampler = build_sampler(SamplerConfig(name=name, startup=STARTUP), SPACE, seed, number)  # type: ignore[arg-type]
        trial = study.ask()
        params = SPACE.suggest(trial)
        study.tell(trial, [objective_value(params), -objective_value(params)][: len(directions)])
    return study.get_trials()


def suggested(name: str, history: list[FrozenTrial], seed: int, number: int) -> dict[str, Any]:
    """The settings of the next trial after that history."""
    study = optuna.create_study(direction="maximize")
    study.add_trials(history)
    study.sampler = build_sampler(SamplerConfig(name=name, startup=STARTUP), SPACE, seed, number)  # type: ignore[arg-type]
    return SPACE.suggest(study.ask())


def test_the_registry_has_samplers() -> None:
    assert set(SAMPLERS) > set(LEARNING)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_searches_a_space_with_conditions(name: str) -> None:
    trials = searched(name, STARTUP + (1 if name == "gp" else 8))
    for trial in trials:
        config = with_settings(Config(), params_to_settings(trial.params))
        assert ("schedule.power" in trial.params) == (config.schedule.name == "polynomial")
        assert ("schedule.lowest" in trial.params) == (config.schedule.name == "cosine")
        assert type(trial.params["batch.people"]) is int
        assert 2 <= config.batch.people <= 64


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in ("cmaes", "gp")])
def test_a_sampler_searches_for_two_objectives(name: str) -> None:
    """Except CMA-ES, which supports one objective, and the Gaussian process, which takes seconds for each trial."""
    trials = searched(name, STARTUP + 4, directions=("maximize", "minimize"))
    assert len({trial.params[CONTINUOUS] for trial in trials}) >= STARTUP


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_seed_number_and_history_give_the_same_suggestion_and_another_number_another(name: str) -> None:
    count = STARTUP + 1 if name == "gp" else STARTUP + 3
    history = searched("random" if name == "gp" else name, count)
    first = suggested(name, history, seed=5, number=count)
    assert suggested(name, history, seed=5, number=count) == first
    if name != "nsgaii":  # its children combine settings of their parents
        others = [
            suggested(name, history, *other) for other in ([(5, count + 1)] if name == "gp" else [(5, count + 1), (6, count)])
        ]
        assert all(other[CONTINUOUS] != first[CONTINUOUS] for other in others)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "gp"])
def test_a_repeated_study_has_the_same_trials_and_repeats_no_draw(name: str) -> None:
    one, again, other = ([trial.params for trial in searched(name, 10, seed)] for seed in (3, 3, 4))
    assert one == again
    assert not {params[CONTINUOUS] for params in one} & {params[CONTINUOUS] for params in other}
    drawn = [params[CONTINUOUS] for params in one[:STARTUP] if name == "nsgaii"] or [params[CONTINUOUS] for params in one]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("name", ["tpe", "cmaes", "nsgaii"])
def test_a_sampler_learns_from_earlier_trials(name: str) -> None:
    """Also with a sampler for each trial: the last of sixty trials are better than random ones."""
    learnt, drawn = (sum(objective_value(trial.params) for trial in searched(kind, 60)[40:]) / 20 for kind in (name, "random"))
    assert learnt > drawn + 0.05


def curve_value(epoch: int, value: float) -> float:
    """A curve that rises to `value`, without ties between differences of two curves."""
    return value * (1 - 0.8**epoch)


def study_with(config: PrunerConfig, epochs: int, curves: int) -> optuna.Study:
    """A study whose complete trials all rise to about 0.9."""
    study = optuna.create_study(
        study_name="s",
        direction="maximize",
        pruner=build_pruner(config, 1, epochs),
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    for index in range(curves):
        trial = study.ask()
        for epoch in range(1, epochs + 1):
            trial.report(curve_value(epoch, 0.9 + 0.001 * index), epoch)
        study.tell(trial, 0.9 + 0.001 * index)
    return study


def pruned_after(study: optuna.Study, epochs: int, value: float) -> int | None:
    """The epoch after which a trial that rises to `value` is pruned; None where it is not."""
    trial = study.ask()
    for epoch in range(1, epochs + 1):
        trial.report(curve_value(epoch, value), epoch)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return epoch
    study.tell(trial, value)
    return None


@pytest.mark.parametrize("least", [1, 2, 5])
def test_median_prunes_a_bad_trial_after_pruner_epochs(least: int) -> None:
    config = PrunerConfig(name="median", startup=3, epochs=least)
    study = study_with(config, epochs=8, curves=3)
    assert pruned_after(study, 8, 0.1) == least
    assert pruned_after(study, 8, 0.95) is None


def test_median_prunes_nothing_before_pruner_startup_trials() -> None:
    config = PrunerConfig(name="median", startup=4, epochs=2)
    assert pruned_after(study_with(config, epochs=8, curves=3), 8, 0.1) is None
    assert pruned_after(study_with(config, epochs=8, curves=4), 8, 0.1) == 2


@pytest.mark.parametrize("least", [1, 2, 4])
@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_prunes_bad_trials_and_none_before_pruner_epochs(name: str, least: int) -> None:
    config = PrunerConfig(name=name, startup=3, epochs=least)  # type: ignore[arg-type]
    study = study_with(config, epochs=13, curves=8)
    found = [pruned_after(study, 13, 0.1 - 0.001 * index) for index in range(6)]
    epochs = [epoch for epoch in found if epoch is not None]
    assert len(epochs) >= 2  # a bracket of hyperband prunes nothing
    assert min(epochs) >= least
    assert pruned_after(study, 13, 0.99) is None


@pytest.mark.parametrize("name", PRUNERS)
def test_with_several_objectives_nothing_is_pruned(name: str) -> None:
    assert isinstance(build_pruner(PrunerConfig(name=name, epochs=9), 2, 3), NopPruner)  # type: ignore[arg-type]


def test_the_pruner_none_prunes_nothing() -> None:
    assert isinstance(build_pruner(PrunerConfig(name="none", epochs=9), 1, 3), NopPruner)


@pytest.mark.parametrize("name", PRUNERS)
def test_a_pruner_without_epochs_to_prune_after_is_an_error(name: str, rejected: AssertRejected) -> None:
    for least in (5, 6):
        with rejected(f"pruner.epochs is {least}", "train.epochs (5)", "pruner.name none"):
            build_pruner(PrunerConfig(name=name, epochs=least), 1, 5)  # type: ignore[arg-type]
    assert not isinstance(build_pruner(PrunerConfig(name=name, epochs=4), 1, 5), NopPruner)  # type: ignore[arg-type]
