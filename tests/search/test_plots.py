"""The page and pictures of a study, read back: what stands in them, what is left out, and what odd studies come to."""

import base64
import json
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from matplotlib.collections import LineCollection
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from PIL import Image
from plotly.offline import get_plotlyjs

from fr_ps.errors import InputError
from fr_ps.search.outcome.figures import stills
from fr_ps.search.outcome.figures.finished import Objective, finished, grouped
from fr_ps.search.outcome.figures.text import shortened
from fr_ps.search.plots import importances, write_plots
from tests.pages import HtmlPage

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


def drawn(rng: np.random.Generator) -> dict[str, Any]:
    """A trial's settings, in a space where the margin is only there with one of the losses."""
    params: dict[str, Any] = {LR: float(10 ** rng.uniform(-5, -1)), "batch.people": int(rng.integers(2, 33))}
    for name in (FACTOR, "data.erasing", "model.normals", LOSS):
        choices = SPACE[name].choices  # type: ignore[attr-defined]
        params[name] = choices[rng.integers(len(choices))]
    return params | ({MARGIN: float(rng.uniform(0, 1))} if params[LOSS] == "adaface" else {})


def mixed() -> optuna.Study:
    """Finished, pruned and failed trials in that order, over and over, a running one and a waiting one."""
    rng, study = np.random.default_rng(0), new_study()
    space = SPACE | {MARGIN: FloatDistribution(0, 1)}
    for number in range(24):
        params = drawn(rng)
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


class Page:
    """search.html without plotly.js, its tables by caption, and what plotly is called with."""

    def __init__(self, folder: Path) -> None:
        self.whole = (folder / "search.html").read_text(encoding="utf-8")
        self.rest = self.whole.replace(get_plotlyjs(), "")
        self.reader = HtmlPage(self.rest)
        captions = self.reader.text.get("caption", [])
        self.tables = {caption: self.reader.cells(number) for number, caption in enumerate(captions)}

    def traces(self, name: str) -> list[dict[str, Any]]:
        start = re.search(rf'Plotly\.newPlot\(\s*"{name}",\s*', self.rest)
        assert start, f"no figure {name}"
        found: list[dict[str, Any]] = json.JSONDecoder().raw_decode(self.rest, start.end())[0]
        return found


def numbers(array: Any) -> np.ndarray:
    """An array as plotly writes it: a list, or base64 of its bytes."""
    if isinstance(array, dict):
        return np.frombuffer(base64.b64decode(array["bdata"]), dtype=array["dtype"]).astype(float)
    return np.array([np.nan if value is None else value for value in array], dtype=float)


def pictures_in(folder: Path) -> set[str]:
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


@pytest.fixture(scope="module")
def folder(study: optuna.Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures") / "made" / "here"
    assert write_plots(study, ["val/identity/auc"], folder) == []
    return folder


@pytest.fixture(scope="module")
def content(folder: Path) -> Page:
    return Page(folder)


def test_a_study_gives_a_page_and_a_picture_of_each_of_its_figures_and_nothing_else(folder: Path, content: Page) -> None:
    assert pictures_in(folder) == {*PER_OBJECTIVE, "curves"}
    assert {file.name for file in folder.iterdir()} == {"search.html", *(f"{name}.png" for name in pictures_in(folder))}
    divs = [attributes["id"] for tag, attributes in content.reader.tags if tag == "div" and "id" in attributes]
    assert divs == [*PER_OBJECTIVE, "curves"]
    assert all(content.traces(str(name)) for name in divs)
    assert len(content.reader.text["h2"]) == len(divs)


def test_the_page_has_plotly_once_and_asks_for_nothing_from_elsewhere(content: Page) -> None:
    assert content.whole.count(get_plotlyjs()) == 1
    assert not {"link", "iframe", "object", "embed", "base", "a", "form", "img"} & {tag for tag, _ in content.reader.tags}
    assert not any({"src", "href", "srcset", "action"} & set(attributes) for _, attributes in content.reader.tags)
    assert not any(word in content.rest for word in ("http:", "https:", "//", "url(", "@import"))
    # Without this plotly shows a button that sends the figure to its makers.
    assert content.rest.count('"showSendToCloud": false') == content.rest.count("Plotly.newPlot(") == 5


def test_the_page_counts_the_trials_and_tells_the_best_one_with_its_settings(study: optuna.Study, content: Page) -> None:
    assert content.reader.text["title"] == content.reader.text["h1"] == ["a study"]
    assert content.tables["Trials"] == [
        ["all", "complete", "pruned", "failed", "running", "waiting"],
        ["26", "12", "6", "6", "1", "1"],
    ]
    header, value, *settings = content.tables["Best"]
    assert header == ["", f"best val/identity/auc: trial {study.best_trial.number}"]
    assert (value[0], float(value[1])) == ("val/identity/auc", pytest.approx(study.best_value, rel=1e-5))
    told = dict(settings)
    assert list(told) == sorted(study.best_params)
    assert float(told[LR]) == pytest.approx(study.best_params[LR], rel=1e-5)
    assert told["data.erasing"] == study.best_params["data.erasing"]


def test_the_history_is_of_finished_trials_and_its_line_is_the_best_one_so_far(study: optuna.Study, content: Page) -> None:
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    points, line = content.traces("history")
    assert numbers(points["x"]).tolist() == [trial.number for trial in done]
    assert numbers(points["y"]).tolist() == [trial.value for trial in done]
    assert numbers(line["y"]).tolist() == [max(trial.value or 0 for trial in done[: end + 1]) for end in range(len(done))]


def test_the_importance_on_the_page_is_that_of_the_function_and_names_what_is_left_out(
    study: optuna.Study, content: Page
) -> None:
    (bars,) = content.traces("importance")
    shares = importances(study)
    assert bars["y"] == list(shares)
    assert numbers(bars["x"]).tolist() == list(shares.values())
    assert f"Left out, as not every finished trial has them: {MARGIN}." in content.reader.text["p"]
    assert any("fANOVA" in text for text in content.reader.text["p"])


def test_the_parallel_axes_hold_every_finished_trial_and_a_place_for_those_without_the_setting(
    study: optuna.Study, content: Page
) -> None:
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    (trace,) = content.traces("parallel")
    axes = {axis["label"].replace("<br>", ""): axis for axis in trace["dimensions"]}
    assert set(axes) == {"val/identity/auc", MARGIN, *SPACE}
    assert list(axes)[1] == LR
    values = {name: numbers(axis["values"]) for name, axis in axes.items()}
    assert values["val/identity/auc"].tolist() == [trial.value for trial in done]
    assert values[LR] == pytest.approx([math.log10(trial.params[LR]) for trial in done])
    assert axes[LR]["ticktext"] == ["1e-05", "0.0001", "0.001", "0.01", "0.1"]
    assert axes[FACTOR]["ticktext"] == ["0.1", "0.3", "1.0"]
    assert [(0.1, 0.3, 1.0)[int(place)] for place in values[FACTOR]] == [trial.params[FACTOR] for trial in done]
    has = np.array([MARGIN in trial.params for trial in done])
    assert axes[MARGIN]["ticktext"][0] == "not set"
    assert (values[MARGIN][~has] == axes[MARGIN]["tickvals"][0]).all()
    assert values[MARGIN][has].tolist() == [trial.params[MARGIN] for trial in done if MARGIN in trial.params]
    assert axes[MARGIN]["tickvals"][0] < 0 <= values[MARGIN][has].min()
    # The best one is darkest: the colours of Viridis go from dark to light.
    assert trace["line"]["reversescale"] is True


def test_a_panel_of_the_slices_shows_the_trials_that_have_the_setting(study: optuna.Study, content: Page) -> None:
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    panels = content.traces("slice")
    assert len(panels) == 7
    lacking = [panel for panel in panels if len(numbers(panel["x"])) < len(done)]
    assert len(lacking) == 1
    assert numbers(lacking[0]["x"]) == pytest.approx([trial.params[MARGIN] for trial in done if MARGIN in trial.params])
    assert numbers(panels[0]["x"]) == pytest.approx([trial.params[LR] for trial in done])
    assert numbers(panels[0]["y"]).tolist() == [trial.value for trial in done]
    assert panels[0]["text"][0].startswith("trial 0: ")


def test_learning_curves_are_of_finished_and_pruned_trials_only(study: optuna.Study, content: Page) -> None:
    traces = {trace["name"]: trace for trace in content.traces("curves")}
    best = f"best: trial {study.best_trial.number}"
    assert list(traces) == ["finished", "pruned", best]
    shown = {name: sorted(set(numbers(trace["customdata"]).astype(int).tolist())) for name, trace in traces.items()}
    states = {trial.number: trial.state for trial in study.trials}
    assert shown["pruned"] == [number for number, state in states.items() if state == TrialState.PRUNED]
    assert sorted(shown["finished"] + shown[best]) == [n for n, state in states.items() if state == TrialState.COMPLETE]
    line = numbers(traces[best]["y"])
    assert line[:-1].tolist() == list(study.best_trial.intermediate_values.values())
    # A gap, so that the end of a curve is not joined to the next one's beginning.
    assert np.isnan(line[-1])


def test_long_choices_are_told_whole_on_the_page(content: Page) -> None:
    header, *rows = content.tables["Shortened in the figures"]
    assert header == ["setting", "figures", "whole"]
    assert [(name, whole) for name, _, whole in rows] == [("data.erasing", choice) for choice in ERASING]
    assert [re.search(r"0\.\d+", short).group() for _, short, _ in rows] == ["0.1", "0.25", "0.5"]  # type: ignore[union-attr]


def test_text_of_the_study_is_never_markup(tmp_path: Path) -> None:
    evil = '</script><script>alert("x")</script><img src=x> & $\\frac{$'
    space = {evil: CategoricalDistribution((evil, "plain")), "plain": FloatDistribution(0, 1)}
    studies = {"plain": new_study(name="plain"), "evil": new_study(name=evil)}
    names = {}
    for kind, study in studies.items():
        for value in (0.1, 0.2, 0.3, 0.7):
            choice = evil if kind == "evil" and value > 0.2 else "plain"
            add(study, value, {evil if kind == "evil" else "plain": choice if kind == "evil" else value}, space, curve=[0.1])
        assert write_plots(study, [evil if kind == "evil" else "plain"], tmp_path / kind) == []
        assert pictures_in(tmp_path / kind) == {*PER_OBJECTIVE, "curves"}
        names[kind] = [tag for tag, _ in Page(tmp_path / kind).reader.tags if tag not in ("table", "tr", "td", "th", "caption")]
    page = Page(tmp_path / "evil")
    assert names["evil"] == names["plain"]
    assert page.reader.text["title"] == page.reader.text["h1"] == [evil]
    assert [evil, "0.7"] in page.tables["Best"]
    assert page.traces("importance")[0]["y"] == [
        '&lt;/script&gt;&lt;script&gt;alert("x")&lt;/script&gt;&lt;img src=x&gt; &amp; $\\frac{$'
    ]


def empty() -> optuna.Study:
    return new_study()


def one() -> optuna.Study:
    study = new_study()
    add(study, 0.5, {LR: 0.01, "model.normals": True})
    return study


def without(state: TrialState, curve: Sequence[float]) -> Callable[[], optuna.Study]:
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


def of(*trials: tuple[float, dict[str, Any]], space: dict[str, BaseDistribution] = SPACE) -> Callable[[], optuna.Study]:
    def build() -> optuna.Study:
        study = new_study("minimize")
        for value, params in trials:
            add(study, value, params, space, curve=[value])
        return study

    return build


def unnumbered() -> optuna.Study:
    """Choices that are equal to Python, one that is None, a name and values with the signs of formulas."""
    choices = (1, True, "1", "True", None, 1.5, "$\\frac{$", "_", "")
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


def test_choices_that_are_equal_to_python_stand_apart_and_differ_in_their_names() -> None:
    (choice, fixed, step) = finished(unnumbered().trials).settings
    assert choice.places.tolist() == list(range(9))
    assert choice.choices == ("1", "True", "'1'", "'True'", "None", "1.5", r"$\frac{$", "_", "")
    assert (fixed.varied, fixed.ticks()) == (False, [(3.0, "3")])
    assert [text for _, text in step.ticks()] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]


NONE = {
    "history": "no finished trial",
    "importance": "fewer than two finished trials",
    "parallel": "no finished trial",
    "slice": "no finished trial",
}
CURVES = {"curves": "no trial reported a value while it trained"}
ODD: dict[str, tuple[Callable[[], optuna.Study], dict[str, str]]] = {
    "empty": (empty, NONE | CURVES),
    "one trial": (one, {"importance": "fewer than two finished trials"} | CURVES),
    "all failed": (without(TrialState.FAIL, [0.5]), NONE | CURVES),
    "all pruned": (without(TrialState.PRUNED, [0.5, 0.6]), NONE),
    "pruned before the first value": (without(TrialState.PRUNED, []), NONE | CURVES),
    "waiting": (waiting, NONE | CURVES),
    "constant": (of((0.5, {LR: 0.01}), (0.5, {LR: 0.02})), {"importance": "all finished trials have the same value"}),
    "no settings": (
        of((0.5, {}), (0.6, {})),
        {"importance": "no setting that every trial has"}
        | dict.fromkeys(("parallel", "slice"), "the finished trials have no settings"),
    ),
    "nothing in common": (of((0.5, {LR: 0.01}), (0.6, {FACTOR: 0.3})), {"importance": "no setting that every trial has"}),
    "duplicates": (
        of((0.5, {LR: 0.01}), (0.6, {LR: 0.01}), (0.7, {LR: 0.01})),
        {"importance": "no setting differs between the finished trials"},
    ),
    "hardly varied": (
        of((0.5, {"x": 0.5}), (0.6, {"x": 0.5 + 1e-12}), space={"x": FloatDistribution(0, 1)}),
        {"importance": "no setting differs enough between the finished trials"},
    ),
    "tiny and huge": (of((1e-300, {LR: 0.01}), (1e-301, {LR: 0.05}), (1e30, {LR: 0.1})), {}),
    "infinite": (of((math.inf, {LR: 0.01}), (0.5, {LR: 0.01})), {"importance": "fewer than two finished trials"}),
    "odd choices": (unnumbered, {}),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_study_is_drawn_as_far_as_it_goes_with_the_reason_for_the_rest(kind: str, tmp_path: Path) -> None:
    build, missing = ODD[kind]
    assert write_plots(build(), ["val/identity/auc"], tmp_path) == [f"{name}: {reason}" for name, reason in missing.items()]
    assert pictures_in(tmp_path) == {*PER_OBJECTIVE, "curves"} - set(missing)
    page = Page(tmp_path)
    assert page.rest.count("Plotly.newPlot(") == 5 - len(missing)
    told = page.reader.text.get("p", [])
    assert all(f"Not drawn: {name}: {reason}." in told for name, reason in missing.items())
    assert ("Best" in page.tables) == ("history" not in missing)
    assert any("infinite" in text for text in told) == (kind == "infinite")


@pytest.mark.parametrize("directions", [("maximize", "minimize"), ("minimize", "maximize", "minimize")])
def test_several_objectives_have_their_figures_each_and_a_front(directions: tuple[str, ...], tmp_path: Path) -> None:
    rng, study = np.random.default_rng(0), new_study(*directions)
    for lr in 10 ** rng.uniform(-5, -1, 9):
        # Whole numbers, as some trials are then as good as others in one objective or in all.
        add(study, rng.integers(0, 4, len(directions)).tolist(), {LR: float(lr), FACTOR: 0.3})
    add(study, None, {LR: 0.01}, state=TrialState.FAIL)
    names = ["val/identity/auc", "seconds", "bytes"][: len(directions)]
    assert write_plots(study, names, tmp_path) == []
    each = {f"{name}_{index + 1}" for name in PER_OBJECTIVE for index in range(len(directions))}
    assert pictures_in(tmp_path) == {"pareto", *each}
    page = Page(tmp_path)
    best = {trial.number: trial for trial in study.best_trials}
    header, *rows = page.tables["Trials of the front"]
    assert header[: 1 + len(names)] == ["trial", *names]
    assert {int(row[0]) for row in rows} == set(best)
    for row in rows:
        assert [float(cell) for cell in row[1 : 1 + len(names)]] == pytest.approx(best[int(row[0])].values, rel=1e-5)
    firsts = [float(row[1]) for row in rows]
    assert firsts == sorted(firsts, reverse=directions[0] == "maximize")
    others, front = page.traces("pareto")[:2]
    assert set(numbers(front["customdata"]).astype(int)) == set(best)
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert set(numbers(others["customdata"]).astype(int)) == {trial.number for trial in done} - set(best)
    assert len(page.traces("pareto")) == 2 * math.comb(len(directions), 2)
    pick = [max if direction == "maximize" else min for direction in directions]
    for index, better in enumerate(pick):
        extreme = better(trial.values[index] for trial in done)
        assert numbers(page.traces(f"history_{index + 1}")[1]["y"])[-1] == extreme
        assert float(page.tables["Best"][1 + index][1 + index]) == pytest.approx(extreme, rel=1e-5)


def test_several_objectives_without_a_finished_trial(tmp_path: Path) -> None:
    each = [f"{name}_{index}: {reason}" for index in (1, 2) for name, reason in NONE.items()]
    assert write_plots(new_study("maximize", "minimize"), ["a", "b"], tmp_path) == ["pareto: no finished trial", *each]
    assert pictures_in(tmp_path) == set()


def test_an_objective_that_never_changes_costs_only_its_own_importance(tmp_path: Path) -> None:
    study = new_study("maximize", "minimize")
    for index in range(4):
        add(study, [0.1 * index, 7.0], {LR: 0.01 * (index + 1)})
    assert write_plots(study, ["a", "b"], tmp_path) == ["importance_2: all finished trials have the same value"]
    assert "importance_1" in pictures_in(tmp_path)


def test_a_picture_that_cannot_be_drawn_any_more_is_not_left_from_before(tmp_path: Path) -> None:
    for name in ("history", "history_1"):
        (tmp_path / f"{name}.png").write_text("of an earlier call")
    write_plots(empty(), ["a"], tmp_path)
    assert [file.name for file in tmp_path.glob("*.png")] == ["history_1.png"]


@pytest.mark.parametrize("build", [one, empty])
def test_a_folder_that_cannot_be_written_is_said(build: Callable[[], optuna.Study], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        write_plots(build(), ["a"], tmp_path / "file")


def deciding(name: str, count: int = 20) -> optuna.Study:
    """A study whose first objective only the setting `name` decides, by its rank in the range, and whose second the loss."""
    rng, study = np.random.default_rng(1), new_study("maximize", "minimize")
    for _ in range(count):
        params = {setting: value for setting, value in drawn(rng).items() if setting in SPACE}
        value = params[name]
        if name == LR:
            # Below 0.001, which is half of the searched range, and a hundredth of it where the logarithm is forgotten.
            value = min(0.0, math.log10(value) + 3)
        elif name == "data.erasing":
            value = ERASING.index(value)
        add(study, [float(value), float(params[LOSS] == "arcface")], params)
    return study


@pytest.mark.parametrize("name", [LR, FACTOR, "batch.people", "data.erasing", "model.normals"])
def test_the_setting_that_decides_everything_has_all_the_importance(name: str) -> None:
    study = deciding(name)
    shares = importances(study)
    assert set(shares) == set(SPACE)
    assert next(iter(shares)) == name
    assert shares[name] > 0.8
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert sum(shares.values()) == pytest.approx(1)
    assert next(iter(importances(study, 1))) == LOSS
    assert importances(study) == shares


def test_importance_needs_no_word_of_optuna_and_leaves_its_settings_alone(capfd: pytest.CaptureFixture[str]) -> None:
    study = deciding("batch.people", 6)
    optuna.logging.set_verbosity(optuna.logging.INFO)
    capfd.readouterr()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert importances(study)
        assert not caught
        optuna.importance.get_param_importances(study, target=lambda trial: trial.values[0], normalize=False)
        # Nor were warnings switched off for good.
        assert [one.category for one in caught if one.category is optuna.exceptions.ExperimentalWarning]
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    assert "study" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("kind", [name for name, (_, missing) in ODD.items() if "importance" in missing])
def test_importance_that_cannot_be_told_is_none(kind: str) -> None:
    assert importances(ODD[kind][0]()) == {}


def test_importance_is_of_settings_that_every_finished_trial_has_and_survives_a_changed_range() -> None:
    study = new_study()
    for index in range(12):
        space: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1 if index < 6 else 2), "y": FloatDistribution(0, 1)}
        add(study, index / 12, {"x": index / 12, **({"y": 0.5} if index else {})}, space)
    add(study, None, {}, state=TrialState.FAIL)
    add(study, None, {}, state=TrialState.PRUNED)
    assert importances(study) == {"x": 1.0}


@pytest.mark.parametrize("maximize", [True, False])
def test_the_still_parallel_axes_draw_the_best_trial_last_and_darkest(study: optuna.Study, maximize: bool) -> None:
    known = finished(study.trials)
    figure = stills.parallel(known, 0, Objective("auc", maximize), known.settings)
    (lines,) = figure.axes[0].collections
    assert isinstance(lines, LineCollection)
    heights = np.array(lines.get_segments())[:, :, 1]
    assert heights.shape == (len(known.numbers), 1 + len(known.settings))
    shown = heights[:, 0] if maximize else heights[::-1, 0]
    assert shown == pytest.approx(np.sort((known.values[:, 0] - known.values.min()) / np.ptp(known.values)))
    light = np.asarray(lines.get_colors())[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (light[-1], light[0]) == (light.min(), light.max())
    assert light[0] > light[-1]
    lacking = [MARGIN not in trial.params for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert (heights < 0).sum() == sum(lacking)


def test_the_still_curves_are_a_line_a_trial_and_the_legend_has_a_word_a_kind(study: optuna.Study) -> None:
    known = finished(study.trials)
    figure = stills.curves(known.curves, study.best_trial.number, Objective("auc", True))
    (axes,) = figure.axes
    reported = [
        trial for trial in study.trials if trial.intermediate_values and trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    ]
    lines = sorted(tuple(map(float, line.get_ydata())) for line in axes.lines)  # type: ignore[arg-type]
    assert lines == sorted(tuple(trial.intermediate_values.values()) for trial in reported)
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(grouped(known.curves, study.best_trial.number))


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        (("a", "b"), ("a", "b")),
        (("x" * 18, "y" * 19), ("x" * 18, "y" * 16 + "…")),
        (("a" * 30 + "1" + "b" * 30, "a" * 30 + "2" + "b" * 30), ("…aaaaaaaaa1bbbbbb…", "…aaaaaaaaa2bbbbbb…")),
        (("a" * 30, "a" * 31, "c"), ("…aaaaaaaaa #1", "…aaaaaaaaaa #2", "c")),
    ],
)
def test_shortened_choices_show_where_they_differ(choices: tuple[str, ...], expected: tuple[str, ...]) -> None:
    if len(choices) == 3:
        assert len(set(shortened(choices))) == 3
    else:
        assert shortened(choices) == expected
