"""search.html: verdict, tables with links, plots; it loads nothing, and text from outside is never markup."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from plotly.offline import get_plotlyjs

from fr_ps.config import DataConfig
from fr_ps.evaluation.metrics import Metrics
from fr_ps.search.improvement import Improvement, compare_seeds
from fr_ps.search.page import Comparison, evidence, first_sentence, write_page
from fr_ps.search.plots import draw_plots
from fr_ps.search.spec import StudySpec
from tests.forked import empty_png
from tests.pages import HtmlPage
from tests.search.test_results import TWO, add, mixed, quiet, spec_of, two_sided

__all__ = ["quiet"]
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
AUC = "identity/auc"
EVIL = '</script><script>alert("x")</script><img src=x> & "'


def improvement_of(best: float, base: float, spread: float = 0.001, noise: float = 0.0) -> Improvement:
    """Two seeds each, `noise` apart; replicates of 40 subjects with that spread."""
    rng = np.random.default_rng(0)
    seeds = [
        [Metrics({AUC: mean + sign * noise}, {}, {}, {AUC: mean + spread * rng.normal(size=200)}) for sign in (-0.5, 0.5)]
        for mean in (best, base)
    ]
    return compare_seeds(*seeds, f"val/{AUC}", 40)


def page_of(
    spec: StudySpec, study: optuna.Study, folder: Path, comparison: Comparison | None = None, links: dict[int, str] | None = None
) -> tuple[str, HtmlPage]:
    """The text of search.html without plotly.js, and its parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fr_ps.search.plots.plot_png", empty_png)
        drawn = draw_plots(study, spec.objectives)
    write_page(spec, study, drawn, links or {}, comparison or Comparison(reason="Not compared here."), folder)
    content = (folder / "search.html").read_text(encoding="utf-8")
    assert content.count(get_plotlyjs()) == 1
    text = content.replace(get_plotlyjs(), "")
    return text, HtmlPage(text)


@pytest.mark.parametrize(
    ("improvement", "outcome", "words"),
    [
        (improvement_of(0.95, 0.90), "better", "The best settings are better than the base settings."),
        (improvement_of(0.90, 0.95), "worse", "The best settings are worse than the base settings."),
        (improvement_of(0.95, 0.90, spread=0.5), "neither", "The best settings are not measurably better than the base"),
        (improvement_of(0.95, 0.90, noise=0.1), "neither", "perhaps only by the random seed."),
    ],
    ids=["better", "worse", "interval", "seeds"],
)
def test_the_first_sentence_is_the_verdict(improvement: Improvement, outcome: str, words: str) -> None:
    assert first_sentence(mixed(spec_of()), Comparison(improvement))[0] == outcome
    assert words in first_sentence(mixed(spec_of()), Comparison(improvement))[1]
    assert words[4:].rstrip(".") in improvement.summary()
    text = evidence(Comparison(improvement), 4, DataConfig())
    one = improvement.differences[0]
    assert f"{one.first:.4f} with the best settings (trial 4) and {one.second:.4f} with the base settings" in text
    assert f"difference {one.value:+.4f}, 95 % interval {one.low:+.4f} to {one.high:+.4f}" in text
    assert "On 40 test subjects (subjects not in training), " in text
    of_sessions = evidence(Comparison(improvement), 4, DataConfig(protocol="session_disjoint"))
    assert "On 40 test subjects (other sessions of the training subjects), " in of_sessions


def test_without_an_interval_or_a_comparison_the_sentences_claim_nothing() -> None:
    one_seed = compare_seeds([Metrics({AUC: 0.9})], [Metrics({AUC: 0.8})], "", 40)
    outcome, sentence = first_sentence(mixed(spec_of()), Comparison(one_seed))
    assert outcome == "neither"
    assert "is unknown, as there is no interval" in sentence
    text = evidence(Comparison(one_seed), 4, DataConfig())
    assert "interval" not in text
    assert "another seed would change is unknown" in text
    undefined = compare_seeds([Metrics({AUC: None})], [Metrics({AUC: None})], "", 40)
    assert "no metric is defined on the test subjects." in first_sentence(mixed(spec_of()), Comparison(undefined))[1]
    assert "is not measured" in first_sentence(mixed(spec_of()), Comparison(reason="why"))[1]
    assert evidence(Comparison(reason="why"), 4, DataConfig()) == "why"
    nothing = optuna.create_study(direction="maximize")
    assert first_sentence(nothing, Comparison(improvement_of(0.9, 0.8)))[1].startswith("No trial is complete")


def test_the_page_has_verdict_tables_links_and_plots(tmp_path: Path) -> None:
    spec = spec_of()
    study = mixed(spec)
    links = {4: "https://host/#/experiments/1/runs/m4", 1: "../../r1/"}
    comparison = Comparison(improvement_of(0.95, 0.90), runs={"best, seed 0": "../../b0/", "base, seed 0": ""})
    text, page = page_of(spec, study, tmp_path, comparison, links)
    titles = [
        *("Comparison with the base settings", "Best settings", "Trials", "History", "Importance", "Settings together"),
        *("Settings one by one", "Not drawn"),
    ]
    assert page.text["h2"] == titles
    linked = {attributes["href"]: content for (tag, attributes), content in zip(page.tags_of("a"), page.text["a"], strict=True)}
    assert linked == {f"#s{index}": title for index, title in enumerate(titles)} | {
        links[4]: "4",
        links[1]: "1",
        "../../b0/": "best, seed 0",
    }
    assert page.text["title"] == page.text["h1"] == ["Search mine"]
    trials = page.cells(2)
    assert [row[1:3] for row in trials[1:4]] == [["complete", "0.9000"], ["complete", "0.8000"], ["pruned", "0.7000"]]
    assert "curves: no trial reported a value." in page.text["p"][-1]
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "div" and "id" in attributes]
    assert ids[:3] == ["history", "importance", "parallel"]
    assert len(ids) == text.count("Plotly.newPlot(") == 3 + len(spec.space.dimensions)


def test_many_trials_are_folded_with_their_reasons(tmp_path: Path) -> None:
    spec = spec_of()
    study = mixed(spec)
    for _ in range(6):
        add(study, spec, TrialState.PRUNED, [0.1], 0.02, outcome="pruned", epochs=2, reason="by median")
    _, page = page_of(spec, study, tmp_path)
    top, everything = page.cells(1), page.cells(2)
    assert ([len(top), len(everything)], "reason" in top[0]) == ([11, 13], False)
    assert [row[0] for row in everything[1:]] == [
        str(trial.number) for trial in study.trials if trial.state != TrialState.WAITING
    ]
    assert everything[-1][-1] == "by median"
    assert len(page.tags_of("details")) == 1


def test_the_page_loads_nothing_and_uploads_nothing(tmp_path: Path) -> None:
    text, page = page_of(spec_of(), mixed(spec_of()), tmp_path)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    assert all(attributes["src"].startswith("data:image/png") for _, attributes in page.tags_of("img"))
    assert not any(word in text for word in ("http:", "https:", "url(", "@import"))
    assert "default-src 'none'" in text
    assert text.count('"showSendToCloud": false') == text.count("Plotly.newPlot(") > 0


def test_text_of_the_study_is_never_markup(tmp_path: Path) -> None:
    tags = []
    for number, text in enumerate(("plain", EVIL)):
        spec = spec_of()
        study = optuna.create_study(study_name=text, direction="maximize")
        add(study, spec, TrialState.COMPLETE, [0.8], 0.01, outcome="complete", reason=text)
        for _ in range(10):
            add(study, spec, TrialState.FAIL, (), 0.02, outcome="failed", reason=text)
        spec = replace(spec, base=replace(spec.base, data=replace(spec.base.data, root=text)))
        folder = tmp_path / str(number)
        folder.mkdir()
        _, page = page_of(spec, study, folder, Comparison(reason=text), {0: text})
        tags.append([tag for tag, _ in page.tags])
        assert page.text["h1"] == [f"Search {text}"]
        assert {attributes["href"] for _, attributes in page.tags_of("a")} >= {text}
    assert tags[0] == tags[1]


def test_several_objectives_have_a_column_each(tmp_path: Path) -> None:
    spec = spec_of(TWO)
    _, page = page_of(spec, two_sided(spec), tmp_path)
    assert page.cells(0)[1:3] == [["val/identity/eer", "0.1000", "", ""], ["cost/latency", "20.0000", "", ""]]
    assert [row[2:4] for row in page.cells(1)[1:3]] == [["0.1000", "20.0000"], ["0.2000", "10.0000"]]
    assert "Pareto front" in page.text["h2"]
    assert {"History of val/identity/eer", "History of cost/latency"} <= set(page.text["h2"])
