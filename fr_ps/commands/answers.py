"""`predict`, and the commands of a gallery: parse, call one function, print."""

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from fr_ps.arguments import BatchSize, Command, Cosine, Count, Parser, Share, add_overwrite
from fr_ps.errors import InputError
from fr_ps.progress import progress, say
from fr_ps.tables import composed

if TYPE_CHECKING:
    from fr_ps.serving.gallery import Gallery
    from fr_ps.serving.recognizer import Recognizer
    from fr_ps.serving.sessions import Answered, Failure

_SHOWN = 20
_FAILED = "failed"
"""The kind of the list of failures for `fr_ps.outputs`."""


def _declare_predict(predict: Parser) -> None:
    predict.description = "What a model says of each session: embedding, quality, attributes with probabilities."
    _add_asking_arguments(predict)
    predict.add_argument("--out", type=str, required=True, help="file to write: .parquet, .csv or .npz")
    add_overwrite(predict)
    predict.add_argument("--split", type=str, default=None, help="train, val, test or gallery of the model's own split")


def _declare_enroll(enroll: Parser) -> None:
    enroll.description = "Add sessions to a gallery, which is made where there is none."
    _add_asking_arguments(enroll)
    _add_gallery(enroll)


def _declare_identify(identify: Parser) -> None:
    identify.description = "Who of a gallery each session is, or that it is nobody of them."
    _add_asking_arguments(identify)
    _add_gallery(identify)
    _add_threshold(identify)
    identify.add_argument("--top", type=Count, default=3, help="how many of the most alike people are listed")
    identify.add_argument("--out", type=str, default=None, help="CSV to write, a row a session")
    add_overwrite(identify)


def _declare_verify(verify: Parser) -> None:
    verify.description = "Whether each session is of the person that it claims."
    _add_asking_arguments(verify)
    _add_gallery(verify)
    _add_threshold(verify)
    verify.add_argument("--person", type=str, default=None, help="who is claimed; else each session's own id")
    verify.add_argument("--out", type=str, default=None, help="CSV to write, a row a session")
    add_overwrite(verify)


def _declare_forget(forget: Parser) -> None:
    forget.description = "Remove a person from a gallery, and overwrite the embeddings."
    _add_gallery(forget)
    forget.add_argument("--person", type=str, required=True, help="who")
    forget.add_argument("--session", type=str, default=None, help="only this session of theirs")


def _predict(arguments: Namespace) -> None:
    """Answer, and write the table."""
    from fr_ps.serving.table import PREDICTIONS, check_ending, table_of, with_keys, write_table

    out = Path(arguments.out)
    check_ending(out)
    recognizer = _load(arguments)
    _check_out(arguments, PREDICTIONS, recognizer)
    answered = _ask(arguments, recognizer, "predict", arguments.split)
    write_table(out, with_keys(table_of(recognizer, answered.answers), answered.keys))
    _say_failures(answered.failures, out)
    say(f"{len(answered.keys)} sessions: {out}")


def _enroll(arguments: Namespace) -> None:
    """Answer, and add the embeddings to the gallery."""
    from fr_ps.serving.gallery import INFO_FILE, enroll, read_gallery, require_empty

    folder = Path(arguments.gallery)
    recognizer = _load(arguments)
    _check_gallery(arguments, recognizer)
    if (folder / INFO_FILE).exists():
        read_gallery(folder).require_model(recognizer.digest)
    else:
        require_empty(folder)
    answered = _ask(arguments, recognizer, "enroll")
    gallery = enroll(folder, recognizer.digest, answered.keys, answered.answers.embeddings)
    _say_failures(answered.failures, None)
    people = len({person for person, _ in answered.keys})
    say(f"enrolled {len(answered.keys)} sessions of {people} people")
    say(f"gallery {gallery.folder}: {len(gallery.sessions)} sessions of {len(gallery.people)} people")


def _identify(arguments: Namespace) -> None:
    """Answer, search the gallery, and print and write who it is."""
    from fr_ps.serving.gallery_rows import identification_rows, summary

    gallery, recognizer, threshold = _opened(arguments)
    _check_out(arguments, "identify", recognizer)
    answered = _ask(arguments, recognizer, "identify")
    matches = gallery.search(answered.answers.embeddings, threshold, arguments.top)
    _tell_rows(identification_rows(answered, matches), answered, arguments.out, "identify")
    say(summary(answered.keys, matches, gallery, threshold))


def _verify(arguments: Namespace) -> None:
    """Answer, compare with the gallery, and print and write whether the claims hold."""
    from fr_ps.serving.gallery_rows import verification_rows

    gallery, recognizer, threshold = _opened(arguments)
    claimed = None if arguments.person is None else composed(arguments.person)
    if claimed is not None and claimed not in gallery.people:
        raise InputError(f"--person {claimed}: is not enrolled in {gallery.folder}; name somebody of its table")
    _check_out(arguments, "verify", recognizer)
    answered = _ask(arguments, recognizer, "verify")
    rows = verification_rows(answered, gallery, claimed, threshold)
    _tell_rows(rows, answered, arguments.out, "verify")
    accepted = sum(row["accepted"] == "yes" for row in rows)
    say(f"{accepted} of {len(rows)} claims accepted at a cosine of {threshold:.4f}")


def _forget(arguments: Namespace) -> None:
    """Remove somebody from a gallery."""
    from fr_ps.serving.gallery import forget

    session = None if arguments.session is None else composed(arguments.session)
    gone = forget(Path(arguments.gallery), composed(arguments.person), session)
    say(f"removed {gone} sessions of {arguments.person} from {arguments.gallery}")


def _add_asking_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--model", type=str, required=True, help="run id, models:/NAME/VERSION, models:/NAME@ALIAS, or folder")
    parser.add_argument("--data", type=str, default=None, help="prepared data set")
    parser.add_argument("--captures", type=str, default=None, help="raw captures instead: from light to answer")
    parser.add_argument("--labels", type=str, default=None, help="CSV of id,session: only these sessions")
    parser.add_argument("--prior", type=str, default=None, help="with --captures: the mean face that prepare had")
    parser.add_argument("--batch", type=BatchSize, default=64, help="sessions a batch")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")


def _add_gallery(parser: ArgumentParser) -> None:
    parser.add_argument("--gallery", type=str, required=True, help="folder of the gallery")


def _add_threshold(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--fmr",
        type=Share | None,
        default=None,
        help="wanted false match rate of a comparison, by the model's validation; else the smallest that it could tell",
    )
    parser.add_argument("--threshold", type=Cosine | None, default=None, help="cosine instead: accepted from here on")


def _load(arguments: Namespace) -> "Recognizer":
    from fr_ps.serving.load import load

    if bool(arguments.data) == bool(arguments.captures):
        raise InputError("expected either --data or --captures: a prepared data set, or raw captures")
    return load(arguments.model, arguments.device)


def _inputs(arguments: Namespace, recognizer: "Recognizer") -> dict[str, str | Path | None]:
    named = {f"--{name}": arguments[name] for name in ("data", "captures", "labels", "prior")}
    return {"--model": recognizer.folder, **named}


def _check_out(arguments: Namespace, kind: str, recognizer: "Recognizer") -> None:
    """Refuse an --out that would replace an input, or what fr-ps did not write; also for the list of failures beside it."""
    from fr_ps.outputs import check_file

    if not arguments.out:
        return
    inputs = _inputs(arguments, recognizer) | {"--gallery": arguments.get("gallery")}
    check_file(Path(arguments.out), kind, inputs, arguments.overwrite)
    check_file(_failures_file(Path(arguments.out)), _FAILED, inputs, arguments.overwrite)


def _check_gallery(arguments: Namespace, recognizer: "Recognizer") -> None:
    """Refuse a gallery in the place of an input."""
    from fr_ps.outputs import check_apart
    from fr_ps.serving.gallery import EMBEDDINGS_FILE, INFO_FILE, PEOPLE_FILE

    folder = Path(arguments.gallery)
    for path in (folder, *(folder / name for name in (EMBEDDINGS_FILE, INFO_FILE, PEOPLE_FILE))):
        check_apart(path, _inputs(arguments, recognizer))


def _opened(arguments: Namespace) -> tuple["Gallery", "Recognizer", float]:
    """The gallery, its model, and the cosine from which two are taken for one."""
    from fr_ps.serving.gallery import read_gallery

    gallery = read_gallery(Path(arguments.gallery))
    recognizer = _load(arguments)
    gallery.require(recognizer.digest)
    return gallery, recognizer, _threshold(arguments, recognizer)


def _ask(arguments: Namespace, recognizer: "Recognizer", what: str, part: str | None = None) -> "Answered":
    from fr_ps.data.maps_of import format_warning
    from fr_ps.serving.sessions import ask, captured_sessions, prepared_sessions

    if arguments.captures and part:
        raise InputError("--split: goes with --data, a prepared data set")
    table = Path(arguments.labels) if arguments.labels else None
    if arguments.captures:
        sessions = captured_sessions(recognizer, Path(arguments.captures), table, arguments.prior)
        if warning := format_warning(recognizer.info.preparation):
            say(warning)
    else:
        sessions = prepared_sessions(recognizer, Path(arguments.data), table, part)
    with progress(what, len(sessions), "sessions") as advance:
        answered = ask(recognizer, sessions, arguments.batch, advance)
    if answered.warning:
        say(answered.warning)
    return answered


def _threshold(arguments: Namespace, recognizer: "Recognizer") -> float:
    """The cosine from which two are taken for one, and a line about where it comes from."""
    if arguments.threshold is not None:
        if arguments.fmr is not None:
            raise InputError("--fmr and --threshold: expected one of them")
        if not -1 <= arguments.threshold <= 1:
            raise InputError(f"--threshold {arguments.threshold}: is a cosine; expected -1 .. 1")
        return float(arguments.threshold)
    if arguments.fmr is not None and not 0 < arguments.fmr < 1:
        raise InputError(f"--fmr {arguments.fmr}: expected a rate between 0 and 1, as 0.01")
    point = recognizer.threshold(arguments.fmr)
    told = f"{point.false_matches} of {point.impostors} impostor pairs of validation reach it"
    say(f"threshold: cosine {point.threshold:.4f}, for a false match rate of {point.fmr:g}: {told}")
    if point.support:
        say(f"threshold: {point.support}")
    return point.threshold


def _tell_rows(rows: list[dict[str, str]], answered: "Answered", out: str | None, kind: str) -> None:
    """Print the first rows, write all of them, and list what could not be answered."""
    from tabulate import tabulate

    from fr_ps.serving.gallery_rows import write_rows

    print(tabulate(rows[:_SHOWN], headers="keys", disable_numparse=True))
    if len(rows) > _SHOWN:
        print(f"... and {len(rows) - _SHOWN} more" + (f", in {out}" if out else "; --out FILE writes all"))
    if out:
        write_rows(Path(out), rows, kind)
    _say_failures(answered.failures, Path(out) if out else None)


def _failures_file(out: Path) -> Path:
    return out.with_name(f"{out.stem}.failed.csv")


def _say_failures(failures: "list[Failure]", out: Path | None) -> None:
    """List what could not be answered: the first in the terminal, all of them beside the output."""
    from tabulate import tabulate

    from fr_ps.outputs import write_file
    from fr_ps.tables import csv_text

    listing = _failures_file(out) if out else None
    if listing:
        listing.unlink(missing_ok=True)
    if not failures:
        return
    rows = [[one.id, one.session, one.reason] for one in failures]
    print("\n" + tabulate(rows[:_SHOWN], headers=["id", "session", "not answered because"], disable_numparse=True))
    if listing:
        write_file(listing, _FAILED, csv_text(["id", "session", "reason"], rows).encode())
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    print(f"{len(rows)} sessions were not answered{more and f' ({more.strip()})'}{f'; all in {listing}' if listing else ''}\n")


COMMANDS = {
    "predict": Command(_declare_predict, _predict),
    "enroll": Command(_declare_enroll, _enroll),
    "identify": Command(_declare_identify, _identify),
    "verify": Command(_declare_verify, _verify),
    "forget": Command(_declare_forget, _forget),
}
