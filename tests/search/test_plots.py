"""Plots of a study: the PNG files, the copy of the study that Optuna draws, importances, and odd studies."""

import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from PIL import Image

from fr_ps.errors import InputError
from fr_ps.search import plots
from fr_ps.search.plots import Plot, draw_plots, importances

LR, FACTOR, MARGIN, LOSS = "train.learning_rate", "loss.weighting_factor", "loss.margin", "loss.name"
ERASING = tuple(json.dumps({"name": "random_erasing", "probability": p, "scale": [0.02, 0.33]}) for p in (0.1, 0.25, 0.5))
SPACE: dict[str, BaseDistribution] = {
    LR: FloatDistribution(1e-5, 0.1, log=True),
    FACTOR: CategoricalDistribution((0.1, 0.3, 1.0)),
    "batch.people": IntDistribution(2, 32),
    "data.erasing": CategoricalDistribution(ERASING),
    "model.normals": CategoricalDistribution((True, False)),
    LOSS: CategoricalDistribution(("arcface", "adaface")),
}
PER_OBJECTIVE = ("history", "importance", "parallel", "slice")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(verbosity)


def new_study(*directions: Any, name: str = "a study") -> optuna.Study:
    return optuna.create_study(study_name=name, directions=directions or ("maximize",))


def add(
    study: optuna.Study,
    values: float | Sequence[float] | None,
    params: dict[str, Any] | None = None,
    space: dict[str, BaseDistribution] = SPACE,
    state: TrialState = TrialState.COMPLETE,
    curve: Sequence[float] = (),
) -> None:
    params = params or {}
    values = [values] if isinstance(values, float) else values
    distributions = {setting: space[setting] for setting in params}
    reported = dict(enumerate(curve))
    study.add_trial(
        create_trial(state=state, values=values, params=params, distributions=distributions, intermediate_values=reported)
    )


def sampled(rng: np.random.Generator) -> dict[str, Any]:
    """Settings of a trial; the margin exists only for one of the losses."""
    params: dict[str, Any] = {LR: float(10 ** rng.uniform(-5, -1)), "batch.people": int(rng.integers(2, 33))}
    for name in (FACTOR, "data.erasing", "model.normals", LOSS):
        choices = SPACE[name].choices  # type: ignore[attr-defined]
        params[name] = choices[rng.integers(len(choices))]
    return params | ({MARGIN: float(rng.uniform(0, 1))} if params[LOSS] == "adaface" else {})


def mixed() -> optuna.Study:
    """Complete, pruned, failed and complete trials in turn, a running one and a waiting one."""
    rng, study = np.random.default_rng(0), new_study()
    space = SPACE | {MARGIN: FloatDistribution(0, 1)}
    for number in range(24):
        params = sampled(rng)
        value = 0.9 - 0.05 * (math.log10(params[LR]) + 3) ** 2 + 0.001 * rng.normal()
        curve = [value * (1 - 0.5**step) for step in range(1, 6)]
        if number % 4 == 1:
            add(study, None, params, space, TrialState.PRUNED, curve[:2])
        elif number % 4 == 2:
            add(study, None, params, space, TrialState.FAIL, curve[:3])
        else:
            add(study, value, params, space, curve=curve)
    running = study.ask({LR: SPACE[LR]})
    running.report(0.123, 0)
    study.enqueue_trial({"batch.people": 4})
    return study


def plots_of(study: optuna.Study, objectives: Sequence[str]) -> tuple[list[Plot], dict[str, str]]:
    """The plots for the page, without their PNG; name to reason of those that cannot be drawn."""
    return plots._plots(study, objectives, [importances(study, index) for index in range(len(objectives))])


def images_in(folder: Path) -> set[str]:
    """The names of the PNG files, each of which can be opened and shows something."""
    found = set()
    for file in folder.glob("*.png"):
        with Image.open(file) as image:
            shades = np.asarray(image.convert("L"))
        assert min(shades.shape) > 100
        assert (shades < 128).mean() > 0.002, f"{file.name} is blank"
        found.add(file.stem)
    return found


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    return mixed()


def test_each_plot_has_a_png_and_names_from_outside_are_no_formulas(tmp_path: Path) -> None:
    evil = "</script><img src=x> & $\\frac{$"
    study = new_study(name=evil)
    for value in (0.1, 0.2, 0.3, 0.7):
        choice = {evil: evil if value > 0.2 else "plain"}
        add(study, value, choice, {evil: CategoricalDistribution((evil, "plain"))}, curve=[0.1])
    drawn = draw_plots(study, [evil])
    drawn.write(tmp_path)
    names = {*PER_OBJECTIVE, "curves"}
    assert ({plot.name for plot in drawn.plots}, images_in(tmp_path), drawn.missing) == (names, names, {})


def test_a_slice_plot_has_a_figure_for_each_setting_with_readable_labels(study: optuna.Study) -> None:
    (slices,) = [plot for plot in plots_of(study, ["auc"])[0] if plot.name == "slice"]
    shown = {figure.layout.xaxis.title.text: figure.layout.xaxis for figure in slices.figures}
    assert shown.keys() == SPACE.keys() | {MARGIN}
    assert shown[LOSS].ticktext == ("arcface", "adaface")
    rates = [float(text) for text in shown[LR].ticktext]
    assert len(rates) == 3
    assert rates[1] == pytest.approx(math.sqrt(rates[0] * rates[2]), rel=0.1)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_best_line_of_the_parallel_plot_has_the_strongest_colour(direction: str) -> None:
    study = new_study(direction)
    for value in (0.1, 0.9, 0.5):
        add(study, value, {LR: value / 10})
    (parallel,) = [plot for plot in plots_of(study, ["auc"])[0] if plot.name == "parallel"]
    *lines, _ = parallel.figures[0].data
    (best,) = [line for line in lines if line.line.width == max(line.line.width for line in lines)]
    assert best.line.color == "rgb(8, 48, 107)"
    assert best.customdata[0][1] == str(study.best_value)


def test_the_copy_keeps_numbers_values_and_curves_and_drops_what_has_no_finite_value(study: optuna.Study) -> None:
    copy = plots._copy(study, [0], log10=True)
    for old, new in zip(study.trials, copy.trials, strict=True):
        assert new.number == old.number
        if old.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            assert (new.state, new.params) == (TrialState.FAIL, {})
            continue
        assert (new.state, new.intermediate_values) == (old.state, old.intermediate_values)
        assert new.values == (old.values if old.state == TrialState.COMPLETE else None)
        assert new.params[LR] == pytest.approx(math.log10(old.params[LR]))
        assert new.distributions[LR] == FloatDistribution(-5, -1)
        assert {name: new.params[name] for name in new.params if name != LR} == {n: v for n, v in old.params.items() if n != LR}
    assert plots._copy(study, [0]).best_trial.params[LR] == study.best_params[LR]


def test_the_copy_of_one_objective_has_its_direction_and_short_choices() -> None:
    study = new_study("maximize", "minimize")
    space = {"modalities": CategoricalDistribution(('["albedo"]', '["albedo", "normal"]', "[", 2))}
    for value, choice in enumerate(space["modalities"].choices):
        add(study, [float(value), math.inf if value == 3 else value + 10.0], {"modalities": choice}, space)
    copy = plots._copy(study, [1])
    assert copy.direction == study.directions[1]
    assert [trial.values for trial in copy.trials] == [[10.0], [11.0], [12.0], None]
    assert [trial.params["modalities"] for trial in copy.trials[:3]] == ["albedo", "albedo+normal", "["]
    assert copy.trials[0].distributions["modalities"].choices == ("albedo", "albedo+normal", "[", 2)  # type: ignore[attr-defined]


def test_curves_have_the_colour_of_the_state(study: optuna.Study) -> None:
    (curves,) = [plot for plot in plots_of(study, ["auc"])[0] if plot.name == "curves"]
    shown = {int(trace.name.removeprefix("Trial")): trace.line.color for trace in curves.figures[0].data}
    reported = {TrialState.COMPLETE: "#7d8792", TrialState.PRUNED: "#e08e00"}
    expected = {trial.number: reported[trial.state] for trial in study.trials if trial.state in reported}
    assert shown == expected | {study.best_trial.number: "#c8102e"}
    assert curves.figures[0].data[-1].name == f"Trial{study.best_trial.number}"  # above the others
    assert [line.get_color() for line in curves.axes().lines] == [shown[number] for number in sorted(shown)]


def empty() -> optuna.Study:
    return new_study()


def one_trial() -> optuna.Study:
    study = new_study()
    add(study, 0.5, {LR: 0.01, "model.normals": True})
    return study


def trials_in_state(state: TrialState, curve: Sequence[float]) -> Callable[[], optuna.Study]:
    def build() -> optuna.Study:
        study = new_study("minimize")
        for lr in (0.01, 0.02, 0.03):
            add(study, None, {LR: lr}, state=state, curve=curve)
        return study

    return build


def waiting() -> optuna.Study:
    study = new_study()
    study.enqueue_trial({LR: 0.01})
    study.enqueue_trial({})
    return study


def complete_trials(
    *trials: tuple[float, dict[str, Any]], space: dict[str, BaseDistribution] = SPACE
) -> Callable[[], optuna.Study]:
    def build() -> optuna.Study:
        study = new_study("minimize")
        for value, params in trials:
            add(study, value, params, space, curve=[value])
        return study

    return build


def odd_choices() -> optuna.Study:
    """Choices of several types, None among them. One name and one choice look like formulas."""
    choices = (1, True, "2", "True", None, 1.5, "$\\frac{$", "_", "")
    space = {
        r"$\frac{$.c": CategoricalDistribution(choices),
        "fixed": IntDistribution(3, 3),
        "step": FloatDistribution(0, 1, step=0.25),
    }
    study = new_study()
    for index, choice in enumerate(choices):
        params = {r"$\frac{$.c": choice, "fixed": 3, "step": 0.25 * (index % 5)}
        add(study, float(index), params, space, curve=[float("nan"), math.inf, float(index)])
    return study


NONE = {
    "history": "no complete trial",
    "importance": "no complete trial",
    "parallel": "no complete trial",
    "slice": "no complete trial",
}
CURVES = {"curves": "no trial reported a value"}
CONSTANT = {"importance": "fewer than two complete trials differ in value and settings"}
ODD: dict[str, tuple[Callable[[], optuna.Study], dict[str, str]]] = {
    "empty": (empty, NONE | CURVES),
    "one trial": (one_trial, CONSTANT | CURVES),
    "all failed": (trials_in_state(TrialState.FAIL, [0.5]), NONE | CURVES),
    "all pruned": (trials_in_state(TrialState.PRUNED, [0.5, 0.6]), NONE),
    "pruned before the first value": (trials_in_state(TrialState.PRUNED, []), NONE | CURVES),
    "waiting": (waiting, NONE | CURVES),
    "constant": (complete_trials((0.5, {LR: 0.01}), (0.5, {LR: 0.02})), CONSTANT),
    "no settings": (
        complete_trials((0.5, {}), (0.6, {})),
        CONSTANT | dict.fromkeys(("parallel", "slice"), "the complete trials have no settings"),
    ),
    "nothing in common": (complete_trials((0.5, {LR: 0.01}), (0.6, {FACTOR: 0.3})), CONSTANT),
    "duplicates": (complete_trials((0.5, {LR: 0.01}), (0.6, {LR: 0.01}), (0.7, {LR: 0.01})), CONSTANT),
    "hardly varied": (
        complete_trials((0.5, {"x": 0.5}), (0.6, {"x": 0.5 + 1e-12}), space={"x": FloatDistribution(0, 1)}),
        CONSTANT,
    ),
    "tiny and huge": (complete_trials((1e-300, {LR: 0.01}), (1e-301, {LR: 0.05}), (1e30, {LR: 0.1})), {}),
    "infinite": (complete_trials((math.inf, {LR: 0.01}), (0.5, {LR: 0.01})), CONSTANT),
    "odd choices": (odd_choices, {}),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_study_has_the_plots_that_are_possible_and_a_reason_for_the_others(kind: str) -> None:
    build, missing = ODD[kind]
    drawn, reasons = plots_of(build(), ["val/identity/auc"])
    assert reasons == missing
    assert [plot.name for plot in drawn] == [name for name in (*PER_OBJECTIVE, "curves") if name not in missing]
    assert bool(importances(build())) == ("importance" not in missing)


@pytest.mark.parametrize("directions", [("maximize", "minimize"), ("minimize", "maximize", "minimize")])
def test_several_objectives_have_plots_each_and_a_front(directions: tuple[str, ...], tmp_path: Path) -> None:
    rng, study = np.random.default_rng(0), new_study(*directions)
    for lr in 10 ** rng.uniform(-5, -1, 9):
        add(study, rng.integers(0, 4, len(directions)).tolist(), {LR: float(lr), FACTOR: 0.3})
    add(study, None, {LR: 0.01}, state=TrialState.FAIL)
    objectives = ["val/identity/auc", "seconds", "bytes"][: len(directions)]
    drawn, missing = plots_of(study, objectives)
    names = ["pareto", *(f"{name}_{index + 1}" for index in range(len(directions)) for name in PER_OBJECTIVE)]
    assert ([plot.name for plot in drawn], missing) == (names, {})
    values = {trial.number: trial.values for trial in study.trials if trial.state == TrialState.COMPLETE}
    for index, direction in enumerate(directions):
        (history,) = [plot for plot in drawn if plot.name == f"history_{index + 1}"]
        best_so_far = history.figures[0].data[1].y
        assert best_so_far[-1] == (max if direction == "maximize" else min)(value[index] for value in values.values())
    if len(directions) == 2:
        draw_plots(study, objectives).write(tmp_path)
        assert images_in(tmp_path) == set(names)


@pytest.mark.parametrize(("trials", "ticks"), [(3, 1), (20, None)])
def test_the_history_of_few_trials_has_one_tick_for_each(trials: int, ticks: int | None) -> None:
    study = new_study()
    for number in range(trials):
        add(study, number / trials, {LR: 0.001 * (number + 1)})
    (history,) = [plot for plot in plots_of(study, ["auc"])[0] if plot.name == "history"]
    assert history.figures[0].layout.xaxis.dtick == ticks


def test_a_front_of_four_objectives_is_not_drawn() -> None:
    study = new_study(*["maximize"] * 4)
    add(study, [0.1, 0.2, 0.3, 0.4], {LR: 0.01})
    assert plots_of(study, list("abcd"))[1]["pareto"] == "Optuna draws fronts of two or three objectives"


def test_a_constant_objective_lacks_only_its_importance() -> None:
    study = new_study("maximize", "minimize")
    for index in range(4):
        add(study, [0.1 * index, 7.0], {LR: 0.01 * (index + 1)})
    assert plots_of(study, ["a", "b"])[1] == {"importance_2": CONSTANT["importance"]}


def test_an_earlier_png_of_a_plot_that_cannot_be_drawn_is_removed(tmp_path: Path) -> None:
    for name in ("history", "history_1"):
        (tmp_path / f"{name}.png").write_text("of an earlier call")
    drawn = draw_plots(empty(), ["a"])
    drawn.write(tmp_path)
    assert drawn.missing == NONE | CURVES
    assert [file.name for file in tmp_path.glob("*.png")] == ["history_1.png"]


def test_a_folder_that_is_not_writable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        draw_plots(one_trial(), ["a"]).write(tmp_path / "file")


def deciding(name: str, count: int = 20) -> optuna.Study:
    """A study with two objectives: the setting `name` alone decides the first, the loss the second."""
    rng, study = np.random.default_rng(1), new_study("maximize", "minimize")
    for _ in range(count):
        params = {setting: value for setting, value in sampled(rng).items() if setting in SPACE}
        value = params[name]
        if name == LR:
            # Varies below 0.001: half of the range on a logarithmic axis, a hundredth of it on a linear one.
            value = min(0.0, math.log10(value) + 3)
        elif name == "data.erasing":
            value = ERASING.index(value)
        add(study, [float(value), float(params[LOSS] == "arcface")], params)
    return study


@pytest.mark.parametrize("name", [LR, FACTOR, "batch.people", "data.erasing", "model.normals"])
def test_the_setting_that_decides_the_objective_has_the_largest_share(name: str) -> None:
    study = deciding(name)
    shares = importances(study)
    assert set(shares) == set(SPACE)
    assert next(iter(shares)) == name
    assert shares[name] > 0.8
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert sum(shares.values()) == pytest.approx(1)
    assert next(iter(importances(study, 1))) == LOSS
    assert importances(study) == shares


def test_importances_print_nothing_and_leave_warnings_and_verbosity_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    study = deciding("batch.people", 6)
    optuna.logging.set_verbosity(optuna.logging.INFO)
    capfd.readouterr()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert importances(study)
        assert not caught
        optuna.importance.get_param_importances(study, target=lambda trial: trial.values[0], normalize=False)
        # The filter for warnings ends with the call.
        assert [one.category for one in caught if one.category is optuna.exceptions.ExperimentalWarning]
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    assert "study" not in "".join(capfd.readouterr())


def test_importances_cover_the_settings_that_all_complete_trials_have() -> None:
    study = new_study()
    for index in range(12):
        space: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}
        add(study, index / 12, {"x": index / 12, **({"y": 0.5} if index else {})}, space)
    add(study, None, {}, state=TrialState.FAIL)
    add(study, None, {}, state=TrialState.PRUNED)
    assert importances(study) == {"x": 1.0}


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_setting_with_one_value_prints_no_warning() -> None:
    study = optuna.create_study(direction="maximize")
    for value in (0.1, 0.2):
        distributions = {
            "lr": optuna.distributions.FloatDistribution(0, 1),
            "power": optuna.distributions.FloatDistribution(0, 2),
        }
        params = {"lr": value, "power": 1.5} if value == 0.1 else {"lr": value}
        used = {name: distributions[name] for name in params}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=used, value=value))
    assert "slice" in draw_plots(study, ["val/identity/auc"]).images
