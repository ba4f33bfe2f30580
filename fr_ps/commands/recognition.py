"""The command `predict` and the gallery commands `enroll`, `identify`, `verify` and `forget`."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser, Namespace

from fr_ps.arguments import (
    Command,
    Cosine,
    Count,
    Parser,
    UnitInterval,
    add_batch_flag,
    add_device_flag,
    add_engine_flag,
    add_model_flag,
    add_overwrite_flag,
    add_shard_flags,
)
from fr_ps.config import CaptureLayout
from fr_ps.errors import InputError
from fr_ps.progress import echo, progress
from fr_ps.shards import Shard, parse_shard_flags
from fr_ps.tables import to_nfc
from fr_ps.terminal import echo_loading, echo_model

if TYPE_CHECKING:
    from fr_ps.serving.gallery import Gallery
    from fr_ps.serving.predict import FailedSession, PredictionResult, SessionInput
    from fr_ps.serving.recognizer import Recognizer

_MAX_ROWS = 20
_FAILURES = "failed"
"""Kind of output of the list of failures, which `write_output` records."""


def _add_predict_arguments(predict: Parser) -> None:
    predict.description = "Compute embedding, quality and attributes with probabilities of each session."
    _add_inference_arguments(predict)
    predict.add_argument("--out", type=str, required=True, help="file to write: .parquet, .csv or .npz")
    add_overwrite_flag(predict)
    predict.add_argument("--split", type=str, default=None, help="train, val, test or gallery of the model's own split")
    add_shard_flags(predict)


def _add_enroll_arguments(enroll: Parser) -> None:
    enroll.description = "Add sessions to a gallery; a new gallery is created if needed."
    _add_inference_arguments(enroll)
    _add_gallery_argument(enroll)


def _add_identify_arguments(identify: Parser) -> None:
    identify.description = "Search each session in a gallery, and report the subject or no match."
    _add_inference_arguments(identify)
    _add_gallery_argument(identify)
    _add_threshold_arguments(identify)
    identify.add_argument("--top", type=Count, default=3, help="number of listed candidates")
    identify.add_argument("--out", type=str, default=None, help="CSV to write, with one row per session")
    add_overwrite_flag(identify)


def _add_verify_arguments(verify: Parser) -> None:
    verify.description = "Compare each session with its claimed subject, and accept or reject the claim."
    _add_inference_arguments(verify)
    _add_gallery_argument(verify)
    _add_threshold_arguments(verify)
    verify.add_argument("--person", type=str, default=None, help="claimed subject; default: the id of each session")
    verify.add_argument("--out", type=str, default=None, help="CSV to write, with one row per session")
    add_overwrite_flag(verify)


def _add_forget_arguments(forget: Parser) -> None:
    forget.description = "Remove a subject from a gallery, and overwrite the embeddings."
    _add_gallery_argument(forget)
    forget.add_argument("--person", type=str, required=True, help="subject to remove")
    forget.add_argument("--session", type=str, default=None, help="remove this session only")


def _predict(arguments: Namespace) -> None:
    _check_input_flags(arguments)
    echo_loading(f"PyTorch, then {arguments.model}")
    from fr_ps.serving.prediction_shards import remove_shards
    from fr_ps.serving.results import PREDICTIONS, check_suffix, prediction_table, write_table

    out = Path(arguments.out)
    check_suffix(out)
    shard = parse_shard_flags(arguments.shard, arguments.merge)
    recognizer = _load_recognizer(arguments)
    _check_output(arguments, PREDICTIONS, recognizer)
    if shard:
        _predict_shard(arguments, recognizer, shard)
        return
    if arguments.merge:
        result = _merge_shards(arguments, recognizer)
    else:
        result = _infer(arguments, recognizer, "predict", arguments.split)
    write_table(out, prediction_table(recognizer, result.predictions, result.keys))
    _report_failures(result.failures, out)
    if arguments.merge:
        remove_shards(out)
    echo(f"{len(result.keys)} sessions: {out}")


def _predict_shard(arguments: Namespace, recognizer: "Recognizer", shard: Shard) -> None:
    from fr_ps.serving.prediction_shards import predict_shard, select_batches

    sessions = _list_sessions(arguments, recognizer, arguments.split)
    count = len(select_batches(sessions, arguments.batch, shard))
    with progress("predict", count, "sessions") as advance:
        file, result = predict_shard(recognizer, sessions, shard, **_shard_settings(arguments), advance=advance)
    if result.warning:
        echo(result.warning)
    _report_failures(result.failures, None)
    echo(
        f"shard {shard}, {len(result.keys)} sessions: {file}; when all are done, run the command with --merge instead of --shard"
    )


def _merge_shards(arguments: Namespace, recognizer: "Recognizer") -> "PredictionResult":
    from fr_ps.serving.prediction_shards import merge_shards

    sessions = _list_sessions(arguments, recognizer, arguments.split)
    result = merge_shards(recognizer, sessions, **_shard_settings(arguments))
    if result.warning:
        echo(result.warning)
    return result


def _shard_settings(arguments: Namespace) -> dict[str, Any]:
    return {"out": Path(arguments.out), "source": Path(arguments.data or arguments.captures), "batch": arguments.batch}


def _enroll(arguments: Namespace) -> None:
    _check_input_flags(arguments)
    echo_loading(f"PyTorch, then {arguments.model}")
    from fr_ps.serving.enrolment import check_empty, enroll
    from fr_ps.serving.gallery import INFO_FILE, read_gallery

    folder = Path(arguments.gallery)
    recognizer = _load_recognizer(arguments)
    _check_gallery_inputs(arguments, recognizer)
    if (folder / INFO_FILE).exists():
        read_gallery(folder).check_model(recognizer.digest)
    else:
        check_empty(folder)
    result = _infer(arguments, recognizer, "enroll")
    gallery = enroll(folder, recognizer.digest, result.keys, result.predictions.embeddings)
    _report_failures(result.failures, None)
    subjects = {subject for subject, _ in result.keys}
    echo(f"enrolled {len(result.keys)} sessions of {len(subjects)} subjects")
    echo(f"gallery {gallery.folder}: {len(gallery.table)} sessions of {len(gallery.subjects)} subjects")


def _identify(arguments: Namespace) -> None:
    _check_input_flags(arguments)
    echo_loading(f"PyTorch, then {arguments.model}")
    from fr_ps.serving.results import identification_rows, identification_summary

    gallery, recognizer, threshold = _open_gallery(arguments)
    _check_output(arguments, "identify", recognizer)
    result = _infer(arguments, recognizer, "identify")
    with progress("search", len(result.keys), "sessions") as advance:
        matches = gallery.search(result.predictions.embeddings, threshold, arguments.top, advance)
    _report_rows(identification_rows(result.keys, matches), result, arguments.out, "identify")
    echo(identification_summary(result.keys, matches, gallery, threshold))


def _verify(arguments: Namespace) -> None:
    _check_input_flags(arguments)
    echo_loading(f"PyTorch, then {arguments.model}")
    from fr_ps.serving.results import verification_rows

    gallery, recognizer, threshold = _open_gallery(arguments)
    claimed = None if arguments.person is None else to_nfc(arguments.person)
    if claimed is not None and claimed not in gallery.subjects:
        raise InputError(f"--person {claimed}: not enrolled in {gallery.folder}; choose a subject of its table")
    _check_output(arguments, "verify", recognizer)
    result = _infer(arguments, recognizer, "verify")
    rows = verification_rows(result.keys, result.predictions.embeddings, gallery, claimed, threshold)
    _report_rows(rows, result, arguments.out, "verify")
    accepted = sum(row["accepted"] == "yes" for row in rows)
    echo(f"{accepted} of {len(rows)} claims accepted at a cosine threshold of {threshold:.4f}")


def _forget(arguments: Namespace) -> None:
    from fr_ps.serving.enrolment import forget
    from fr_ps.serving.gallery import read_gallery

    folder, person = Path(arguments.gallery), to_nfc(arguments.person)
    session = None if arguments.session is None else to_nfc(arguments.session)
    names = []
    with suppress(InputError):  # `forget` reports it
        table = read_gallery(folder).table
        names = [name for name in table["session"][table["id"] == person] if session in (None, name)]
    removed = forget(folder, person, session)
    listed = ", ".join(names[:_MAX_ROWS]) + (", ..." if len(names) > _MAX_ROWS else "")
    echo(f"removed {removed} sessions of {person} from {arguments.gallery}: {listed}")


def _add_inference_arguments(parser: ArgumentParser) -> None:
    add_model_flag(parser)
    parser.add_argument("--data", type=str, default=None, help="prepared data set")
    parser.add_argument("--captures", type=str, default=None, help="raw captures, instead of --data")
    parser.add_argument("--labels", type=str, default=None, help="CSV of id,session: use these sessions only")
    parser.add_argument("--prior", type=str, default=None, help="with --captures: the mean face that prepare used")
    parser.add_argument(
        "--layout", type=Literal["auto", CaptureLayout], default="auto", help="with --captures: their layout; auto: detected."
    )
    add_batch_flag(parser)
    add_device_flag(parser)
    add_engine_flag(parser)


def _add_gallery_argument(parser: ArgumentParser) -> None:
    parser.add_argument("--gallery", type=str, required=True, help="gallery folder")


def _add_threshold_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--fmr",
        type=UnitInterval,
        default=None,
        help="false match rate of a comparison; default: the lowest that the validation set supports",
    )
    parser.add_argument("--threshold", type=Cosine, default=None, help="cosine threshold, instead of --fmr")


def _check_input_flags(arguments: Namespace) -> None:
    """Check that there is one input."""
    if bool(arguments.data) == bool(arguments.captures):
        raise InputError("expected either --data or --captures: a prepared data set, or raw captures")


def _load_recognizer(arguments: Namespace) -> "Recognizer":
    from fr_ps.serving.recognizer import load_recognizer

    recognizer = load_recognizer(arguments.model, arguments.device, arguments.engine)
    echo_model("model", arguments.model, recognizer.folder)
    if recognizer.onnx:
        echo(recognizer.onnx.summary())
    return recognizer


def _input_paths(arguments: Namespace, recognizer: "Recognizer") -> dict[str, str | Path | None]:
    """Flag to the path of each input."""
    return {"--model": recognizer.folder} | {f"--{name}": arguments[name] for name in ("data", "captures", "labels", "prior")}


def _check_output(arguments: Namespace, kind: str, recognizer: "Recognizer") -> None:
    """Check that --out, and the list of failures beside it, replace neither an input nor a file that fr-ps did not write."""
    from fr_ps.outputs import check_output_file

    if not arguments.out:
        return
    inputs = _input_paths(arguments, recognizer) | {"--gallery": arguments.get("gallery")}
    check_output_file(Path(arguments.out), kind, inputs, arguments.overwrite)
    check_output_file(_failures_file(Path(arguments.out)), _FAILURES, inputs, arguments.overwrite)


def _check_gallery_inputs(arguments: Namespace, recognizer: "Recognizer") -> None:
    """Check that no file of the gallery is an input of the command."""
    from fr_ps.outputs import check_not_input
    from fr_ps.serving.gallery import EMBEDDINGS_FILE, INFO_FILE
    from fr_ps.serving.gallery_table import PEOPLE_FILE

    folder = Path(arguments.gallery)
    for path in (folder, *(folder / name for name in (EMBEDDINGS_FILE, INFO_FILE, PEOPLE_FILE))):
        check_not_input(path, _input_paths(arguments, recognizer))


def _open_gallery(arguments: Namespace) -> tuple["Gallery", "Recognizer", float]:
    """The gallery, the model of --model, and the cosine threshold.

    Raises:
        InputError: another model made the gallery.
    """
    from fr_ps.serving.gallery import read_gallery

    gallery = read_gallery(Path(arguments.gallery))
    recognizer = _load_recognizer(arguments)
    gallery.check_searchable(recognizer.digest)
    return gallery, recognizer, _resolve_threshold(arguments, recognizer)


def _list_sessions(arguments: Namespace, recognizer: "Recognizer", part: str | None = None) -> "list[SessionInput]":
    """The sessions of --data or --captures."""
    from fr_ps.data.preparation import format_warning
    from fr_ps.serving.predict import list_capture_sessions, list_prepared_sessions

    if arguments.captures and part:
        raise InputError("--split needs --data, a prepared data set; remove --split or --captures")
    table = Path(arguments.labels) if arguments.labels else None
    if not arguments.captures:
        return list_prepared_sessions(recognizer, Path(arguments.data), table, part)
    sessions = list_capture_sessions(recognizer, Path(arguments.captures), table, arguments.prior, arguments.layout)
    if warning := format_warning(recognizer.info.preparation):
        echo(warning)
    return sessions


def _infer(arguments: Namespace, recognizer: "Recognizer", progress_label: str, part: str | None = None) -> "PredictionResult":
    """Run the model on the sessions of --data or --captures."""
    from fr_ps.serving.predict import predict_sessions

    sessions = _list_sessions(arguments, recognizer, part)
    with progress(progress_label, len(sessions), "sessions") as advance:
        result = predict_sessions(recognizer, sessions, arguments.batch, advance)
    if result.warning:
        echo(result.warning)
    return result


def _resolve_threshold(arguments: Namespace, recognizer: "Recognizer") -> float:
    """The cosine threshold of --threshold, or the one of --fmr from validation, which is printed with its support."""
    if arguments.threshold is not None:
        if arguments.fmr is not None:
            raise InputError("--fmr and --threshold: expected one of them")
        return float(arguments.threshold)
    if arguments.fmr is not None and not 0 < arguments.fmr < 1:
        raise InputError(f"--fmr {arguments.fmr}: expected a rate between 0 and 1, as 0.01")
    point = recognizer.validation_threshold(arguments.fmr)
    matches = f"{point.false_matches} of {point.impostors} impostor pairs of the validation set reach it"
    echo(f"threshold: cosine {point.threshold:.4f} for a false match rate of {point.fmr:g} ({matches})")
    if point.support:
        echo(f"threshold: {point.support}")
    return point.threshold


def _report_rows(rows: list[dict[str, str]], result: "PredictionResult", out: str | None, kind: str) -> None:
    """Print the first rows, write all rows, and list the failures."""
    from tabulate import tabulate

    from fr_ps.serving.results import write_rows

    print(tabulate(rows[:_MAX_ROWS], headers="keys", disable_numparse=True))
    if len(rows) > _MAX_ROWS:
        print(f"... and {len(rows) - _MAX_ROWS} more" + (f", in {out}" if out else "; --out FILE writes all"))
    if out:
        write_rows(Path(out), rows, kind)
    _report_failures(result.failures, Path(out) if out else None)


def _failures_file(out: Path) -> Path:
    return out.with_name(f"{out.stem}.failed.csv")


def _report_failures(failures: "list[FailedSession]", out: Path | None) -> None:
    """Print the first failed sessions, and write all of them beside the output."""
    from tabulate import tabulate

    from fr_ps.outputs import write_output
    from fr_ps.tables import format_csv

    file = _failures_file(out) if out else None
    if file:
        file.unlink(missing_ok=True)
    if not failures:
        return
    rows = [[one.id, one.session, one.reason] for one in failures]
    print("\n" + tabulate(rows[:_MAX_ROWS], headers=["id", "session", "reason for the failure"], disable_numparse=True))
    if file:
        write_output(file, _FAILURES, format_csv(["id", "session", "reason"], rows).encode())
    print(f"{len(rows)} sessions failed{f'; full list: {file}' if file else ''}\n")


COMMANDS = {
    "predict": Command(_add_predict_arguments, _predict),
    "enroll": Command(_add_enroll_arguments, _enroll),
    "identify": Command(_add_identify_arguments, _identify),
    "verify": Command(_add_verify_arguments, _verify),
    "forget": Command(_add_forget_arguments, _forget),
}
