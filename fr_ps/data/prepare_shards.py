"""`prepare` on several machines: each shard prepares a part of the sessions, and a merge writes the tables of all.

The shards write their sessions into one output folder, and what a merge must know of them into `.shards` there. The merge does
what a run without shards does after the last session; it finds the maps by their records.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fr_ps.config import PrepareConfig
from fr_ps.data.layout import DATA_FOLDER, output_folder
from fr_ps.data.preparation import FORMAT, preparation_settings
from fr_ps.data.prepare import (
    Preparation,
    SessionJob,
    bad_session_message,
    find_complete,
    plan_preparation,
    prepare_sessions,
    write_tables,
)
from fr_ps.data.prepare_report import SessionResult
from fr_ps.errors import InputError
from fr_ps.files import read_bytes, remove_stale_temp, write_json
from fr_ps.json_files import parse_json
from fr_ps.progress import OnProgress, no_progress
from fr_ps.shards import (
    Job,
    Setting,
    Shard,
    check_all_done,
    check_same_job,
    check_startable,
    digest,
    find_shard_files,
    remove_shard_files,
    shard_file,
)
from fr_ps.tables import SessionKey

SHARDS_FOLDER = ".shards"
_SUFFIX = ".json"
_MAX_BYTES = 256 << 20
"""Largest size of a record, which lists sessions."""


@dataclass(frozen=True)
class _ShardRecord:
    """The file of a shard.

    Attributes:
        job: the settings and data of all shards.
        done: whether every session of the shard was prepared or skipped.
        kept: (id, session) of the sessions that were complete before the shard started for the first time. A shard that is
            run again after a failure keeps the list, so that the tables do not depend on failures.
        skipped: id, session and reason of each session that could not be prepared.
    """

    job: dict[str, Setting]
    done: bool
    kept: list[tuple[str, str]]
    skipped: list[tuple[str, str, str]]


def prepare_shard(config: PrepareConfig, shard: Shard, advance: OnProgress = no_progress) -> list[SessionResult]:
    """Prepare the sessions of `shard`; returns their results. Takes no lock: other shards may write to `config.out` meanwhile.

    Args:
        config: the settings, the same for all shards.
        shard: which part of the sessions.
        advance: see `prepare`.

    Raises:
        InputError: as `prepare`; a shard of another number, of other settings or of other sessions wrote to `config.out`.
    """
    plan = plan_preparation(config, shard)
    folder = Path(config.out) / SHARDS_FOLDER
    file = shard_file(folder, shard, _SUFFIX)
    record = _first_record(plan, shard)
    write_json(file, asdict(record))
    advance(len(shard.select(plan.sources)) - len(plan.jobs))
    kept = set(record.kept)
    results = []
    for result in prepare_sessions(plan, advance):
        results.append(_relative_to_start(result, kept))
    skipped = [(result.id, result.session, result.reason) for result in results if result.status == "skipped"]
    write_json(file, asdict(replace(record, done=True, skipped=skipped)))
    return results


def merge_prepared(config: PrepareConfig, advance: OnProgress = no_progress) -> list[SessionResult]:
    """Write the tables of the data set that all shards prepared, as `prepare` does; returns the results of all sessions, sorted.

    Reads the record of each session, and then removes those of the shards.

    Args:
        config: the settings of the shards.
        advance: called once per session.

    Raises:
        InputError: a shard is missing, not finished, or of other settings or data; a session was removed or changed since; with
            `on_bad="fail"`, a shard skipped a session; or as `prepare`.
    """
    plan = plan_preparation(config)
    folder = Path(config.out) / SHARDS_FOLDER
    files = find_shard_files(folder, _SUFFIX)
    records = {shard: _read_record(file) for shard, file in files.items()}
    job = _job(plan)
    for shard, record in records.items():
        check_same_job(files[shard], record.job, job)
    check_all_done(folder, records, [shard for shard, record in records.items() if record.done])
    kept = {key for record in records.values() for key in record.kept}
    reasons = {(subject, session): reason for record in records.values() for subject, session, reason in record.skipped}
    if reasons and config.on_bad == "fail":
        raise InputError(bad_session_message(*next(iter(reasons.items()))))
    unlabelled = set(plan.labels.unlabelled)
    owners = {key: shard for shard in records for key in shard.select(plan.order)}
    advance(len(plan.sources) - len(plan.jobs))
    results = list(plan.rejected)
    for one in plan.jobs:
        if one.key in reasons:
            result = SessionResult(*one.key, "skipped", reasons[one.key])
        else:
            result = _relative_to_start(_prepared_result(one, plan, owners[one.key]), kept)
        results.append(replace(result, labelled=one.key not in unlabelled))
        advance(1)
    remove_stale_temp(Path(config.out) / DATA_FOLDER)
    results = write_tables(plan, results)
    remove_shard_files(folder)
    return results


def _prepared_result(job: SessionJob, plan: Preparation, owner: Shard) -> SessionResult:
    details = find_complete(job, plan.config, plan.mean_face)
    if details is None:
        raise InputError(
            f"{output_folder(Path(plan.config.out), *job.key)}: incomplete, or its capture {job.source.folder} changed since; "
            f"run --shard {owner} again, then merge"
        )
    return SessionResult(*job.key, "kept", details=details)


def _relative_to_start(result: SessionResult, kept: set[SessionKey]) -> SessionResult:
    """A complete session is `written` if it was not yet complete when its shard started for the first time."""
    if result.status == "kept" and (result.id, result.session) not in kept:
        return replace(result, status="written")
    return result


def _first_record(plan: Preparation, shard: Shard) -> _ShardRecord:
    """The record of `shard` at its start.

    Raises:
        InputError: another shard is of another number, or of other settings or data.
    """
    folder, job = Path(plan.config.out) / SHARDS_FOLDER, _job(plan)
    files = find_shard_files(folder, _SUFFIX)
    check_startable(files, shard, job, lambda file: _read_record(file).job)
    kept = _read_record(files[shard]).kept if shard in files else sorted(plan.unchanged)
    return _ShardRecord(dict(job), False, kept, [])


def _read_record(file: Path) -> _ShardRecord:
    remedy = "remove it, and run that shard again"
    return parse_json(read_bytes(file, _MAX_BYTES, remedy), _ShardRecord, str(file), remedy)


def _job(plan: Preparation) -> Job:
    """What must be equal in all shards: the settings, and the names of the sessions and their labels and boxes."""
    table = [plan.labels.header, [list(row.values()) for row in plan.labels.rows.values()]] if plan.config.labels else None
    return {
        "format": FORMAT,
        **preparation_settings(plan.config, plan.mean_face),
        "captures": digest([[source.id, source.session] for source in plan.sources]),
        "labels": digest(table),
        "boxes": digest(sorted([*key, *box] for key, box in plan.boxes.items())),
    }
