"""The end of a search: results and page, final runs, their comparison with the base, registration."""

import textwrap
from dataclasses import replace
from pathlib import Path

from fr_ps.data.builtin import resolve_root
from fr_ps.device import pick_device
from fr_ps.errors import InputError
from fr_ps.files import write_text
from fr_ps.markdown import markdown_lines
from fr_ps.models.inference import BATCH_SIZE
from fr_ps.progress import echo, no_progress, progress
from fr_ps.report.table import table_text
from fr_ps.search.final_runs import FinalRuns, train_final_runs, validation_score
from fr_ps.search.improvement import Improvement, measure_improvement
from fr_ps.search.page import PAGE_FILE, Comparison, write_page
from fr_ps.search.plots import draw_plots
from fr_ps.search.results import BEST_FILE, TRIALS_FILE, WIDTH, best_trial, fitted_settings_table, trials_line, write_results
from fr_ps.search.running_search import RunningSearch
from fr_ps.search.spec import StudySpec, first_metric
from fr_ps.search.trial import TRIAL_TAG, trial_run_id
from fr_ps.serving.registry import register
from fr_ps.tables import format_csv
from fr_ps.tracking.run import Run
from fr_ps.tracking.run_folder import read_run_info
from fr_ps.tracking.run_lock import is_locked
from fr_ps.tracking.sync import pending_runs, sync


def finish_search(search: RunningSearch, run: Run) -> None:
    """Write and print the results, and train the final runs.

    Raises:
        InputError: no trial is complete.
    """
    spec, study, report = search.spec, search.study, run.folder / "report"
    _sync_trial_runs(search)
    write_results(spec, study, report)
    drawn = draw_plots(study, spec.objectives)
    drawn.write(report)
    links = {trial.number: search.run_address(trial_run_id(trial)) for trial in study.get_trials(deepcopy=False)}

    def publish(comparison: Comparison) -> None:
        write_page(spec, study, drawn, links, comparison, report)
        run.log_artifact(report, "report")

    publish(Comparison(reason=_not_compared(spec)))
    for name, reason in drawn.missing.items():
        echo(f"plot not drawn: {name}: {reason}")
    best = best_trial(study)
    if best is None:
        raise InputError(f"study {study.study_name!r} has no complete trial; see the reasons in {report / TRIALS_FILE}")
    echo(f"\n{trials_line(study)}\n\n{table_text(fitted_settings_table(spec, study, drawn.shares[0]))}")
    values = ", ".join(f"{name} {value:.4f}" for name, value in zip(spec.objectives, best.values))
    note = [f"best: trial {best.number}, {values}"]
    echo(f"\n{note[0]}")
    run.set_tags({f"{TRIAL_TAG}.best": str(best.number)})
    if spec.config.after.seeds:
        comparison, lines = _train_and_report_final_runs(search, run, report)
        publish(comparison)
        note = [*lines[:1], *note, *lines[1:]]
    note.append(f"report: Artifacts, report/{PAGE_FILE}")
    run.set_tags({"mlflow.note.content": markdown_lines(note)})
    echo(f"best settings: {report / BEST_FILE}\nresults: {report / PAGE_FILE}")


def _not_compared(spec: StudySpec) -> str:
    """Why the report does not compare the best settings with the base settings (yet)."""
    if not spec.config.after.seeds:
        return "after.seeds is 0: the best settings were not trained and tested beside the base settings."
    if not _has_test_subjects(spec):
        return "data.test_people is 0: there are no subjects to test on."
    return "The trainings of the best settings and of the base settings, which are tested, have not ended yet."


def _has_test_subjects(spec: StudySpec) -> bool:
    data = spec.base.data
    return bool(data.test_people or data.folds or data.split)


def _sync_trial_runs(search: RunningSearch) -> None:
    """Deliver the pending events of the trial runs on this machine to MLflow, including runs of killed workers."""
    ids = dict.fromkeys(trial_run_id(trial) for trial in search.study.get_trials(deepcopy=False))
    folders = [search.runs / run_id for run_id in ids if run_id]
    present = [folder for folder in folders if folder.is_dir() and not is_locked(folder)]
    pending = [folder for folder in pending_runs(search.runs) if folder in present]
    undelivered: dict[str, int] = {}
    for result in sync(pending, no_progress):
        if result.remaining:  # 0 for a damaged folder, which `fr-ps runs` reports
            undelivered[result.reason] = undelivered.get(result.reason, 0) + result.remaining
    for reason, events in undelivered.items():
        echo(f"{events} events of trials are buffered and not yet in MLflow ({reason}); later: fr-ps sync")


def _train_and_report_final_runs(search: RunningSearch, run: Run, report: Path) -> tuple[Comparison, list[str]]:
    """Train the final runs, measure the improvement, register the best run; returns the comparison and a line for each result."""
    spec, after = search.spec, search.spec.config.after
    echo(f"\ntraining the best settings and the base settings with {after.seeds} seeds each")
    final_runs = train_final_runs(spec, search.study, search.study_run, search.runs, run.folder, search.workers, search.threads)
    comparison = Comparison(reason=_not_compared(spec))
    lines = ["no test subjects (data.test_people is 0): improvement over the base not measured"]
    if _has_test_subjects(spec):
        improvement = _report_improvement(spec, final_runs, run, report)
        lines = [improvement.summary()]
        folders = {f"best, seed {seed}": folder for seed, folder in enumerate(final_runs.best)}
        folders |= {f"base, seed {seed}": folder for seed, folder in enumerate(final_runs.base)}
        comparison = Comparison(improvement, runs={name: search.run_address(folder.name) for name, folder in folders.items()})
    if after.register:
        lines.append(_register_best(spec, final_runs, after.register))
    echo("\n".join(textwrap.fill(line, WIDTH) for line in lines))
    return comparison, lines


def _report_improvement(spec: StudySpec, final_runs: FinalRuns, run: Run, report: Path) -> Improvement:
    config = spec.base
    with progress("score on test", len(final_runs.best) + len(final_runs.base), "models") as advance:
        root = resolve_root(config.data.root, config.synthetic)
        device = pick_device(config.device)
        improvement = measure_improvement(final_runs, first_metric(spec.config), root, device, BATCH_SIZE, advance)
    table = improvement.table()
    write_text(report / f"{table.name}.csv", format_csv(table.header, table.rows))
    run.log_metrics(improvement.tracked_metrics(), 0)
    echo("\n" + table_text(replace(table, note=textwrap.fill(table.note, WIDTH))) + "\n")
    return improvement


def _register_best(spec: StudySpec, final_runs: FinalRuns, name: str) -> str:
    """Register the final run with the best settings and the best validation; returns a line with the model's version."""
    metric = first_metric(spec.config)
    best = max(final_runs.best, key=lambda folder: validation_score(folder, metric))
    if not read_run_info(best).mlflow_id:
        return f"not registered: run {best.name} is not in MLflow yet; run fr-ps sync, and start the search again"
    tags = {"fr_ps.study": spec.config.study.name, TRIAL_TAG: str(final_runs.trial)}
    return f"registered as {register(best.name, name, tags, runs=best.parent).uri}: run {best.name}"
