"""The command `data` and its subcommands."""

import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ActionConfigFile, Namespace

from fr_ps.arguments import Command, Parser, add_overwrite_flag
from fr_ps.config import SYNTHETIC_ROOT, DataConfig, NormalConvention, SyntheticConfig, SyntheticLayout
from fr_ps.config.groups import TABLE_SETTINGS
from fr_ps.errors import InputError
from fr_ps.terminal import echo_loading

if TYPE_CHECKING:
    from fr_ps.data.dataset import LabelTable

_CONTACT_SHEET = "contact_sheet.png"
_ROOT_HELP = "data.root names a prepared data set or a labels table (CSV)"


def _add_arguments(data: Parser) -> None:
    data.description = "Inspect, split and create data sets."
    subcommands = data.add_subcommands(dest="what")

    summary = Parser(description=f"Summarize a data set: tables, and a contact sheet of some sessions' maps. {_ROOT_HELP}.")
    summary.add_argument(
        "--out",
        type=str,
        default=None,
        help=f"PNG to write, if the data set has maps; default: {_CONTACT_SHEET} in the data folder, or NAME_{_CONTACT_SHEET} in "
        "the current folder for the built-in faces and for a read-only data set",
    )
    add_overwrite_flag(summary)
    _add_data_settings(summary)
    subcommands.add_subcommand("summary", summary, help="summarize a data set")

    check = Parser(description="Read every map of every row of a prepared data set and list every bad file.")
    _add_data_settings(check, only=TABLE_SETTINGS)
    subcommands.add_subcommand("check", check, help="list every bad file of a data set")

    show = Parser(
        description="Write one session of a prepared data set as pictures, as a page on which sliders move the light, and as a "
        "surface for other programs (PLY, OBJ, normal map)."
    )
    show.add_argument("session", type=str, help="ID/SESSION")
    show.add_argument("--out", type=str, default=None, help="folder to write; default: ID_SESSION in the current folder")
    show.add_argument(
        "--captures",
        type=str,
        default=None,
        help="captures from which the data set was prepared: also show the recorded pictures and the residual",
    )
    show.add_argument(
        "--normal_map",
        type=NormalConvention,
        default="opengl",
        help="convention of normals.png: green is y up in opengl, y down in directx",
    )
    add_overwrite_flag(show)
    _add_data_settings(show, only=TABLE_SETTINGS)
    subcommands.add_subcommand("show", show, help="pictures, a page and the surface of one session")

    split = Parser(description=f"Write the split that a training with the same settings draws. {_ROOT_HELP}.")
    split.add_argument("--out", type=str, default="split.csv", help="CSV to write: id, session, part")
    add_overwrite_flag(split)
    _add_data_settings(split)
    subcommands.add_subcommand("split", split, help="write the train, val, test and gallery parts")

    mean = Parser(description="Write the mean normals over the subjects of a prepared data set, for fr-ps prepare --prior.")
    mean.add_argument("--out", type=str, default="mean_face.npy", help=".npy to write: side x side x 3")
    mean.add_argument(
        "--part", type=Literal["train", "all"], default="train", help="average the train part of the split, or all sessions"
    )
    add_overwrite_flag(mean)
    _add_data_settings(mean)
    subcommands.add_subcommand("mean", mean, help="write the mean face, a prior for fr-ps prepare")

    synthetic = Parser(description="Write the built-in synthetic faces as raw captures.")
    synthetic.add_argument("--out", type=str, required=True, help="new folder to write")
    synthetic.add_argument(
        "--layout",
        type=SyntheticLayout,
        default="plain",
        help="plain: captures/ with lights.csv, and labels.csv; diligent, lp: likewise in the layouts of DiLiGenT, with masks, "
        "and of light domes, with one .lp file for all sessions; photoface: the layout in which Photoface is distributed",
    )
    synthetic.add_class_arguments(SyntheticConfig, None)
    subcommands.add_subcommand("synthetic", synthetic, help="write synthetic faces as raw captures")


def _add_data_settings(parser: Parser, only: Sequence[str] = ()) -> None:
    skip = {field.name for field in fields(DataConfig)} - set(only) if only else set()
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file of a training, whose data settings are used")
    parser.add_class_arguments(DataConfig, "data", skip=skip)
    parser.add_class_arguments(SyntheticConfig, "synthetic")


def _run(arguments: Namespace) -> None:
    given = arguments[arguments.what]
    if arguments.what != "synthetic":
        echo_loading(f"the data {given.data.root}", "pandas")
    _SUBCOMMANDS[arguments.what](given)


def _summary(arguments: Namespace) -> None:
    from fr_ps.data.contact_sheet import CONTACT_SHEET, pick_sessions, write_contact_sheet
    from fr_ps.data.summary import summary

    root, table = _open_table(arguments)
    for title, frame in summary(table.labels):
        _print_table(title, frame)
    if root.is_file():
        print("\nno contact sheet: data.root is a table without maps")
        return
    out = Path(arguments.out) if arguments.out else _default_contact_sheet(root, is_builtin=arguments.data.root == SYNTHETIC_ROOT)
    _check_not_among_inputs(arguments, out)
    _check_output(arguments, CONTACT_SHEET, out)
    rows = pick_sessions(table.labels, num_subjects=12, seed=arguments.data.split_seed)
    replaced = ", replaces the previous one" if out.exists() else ""
    write_contact_sheet(out, root, table.labels, rows)
    print(f"\ncontact sheet: {out}, {len(rows)} sessions{replaced}")


def _default_contact_sheet(root: Path, *, is_builtin: bool) -> Path:
    """In the data folder, so that the sheet of one data set does not replace that of another, but never in the cache."""
    is_beside = is_builtin or not os.access(root, os.W_OK)
    return Path(f"{root.name}_{_CONTACT_SHEET}") if is_beside else root / _CONTACT_SHEET


def _check(arguments: Namespace) -> None:
    from tabulate import tabulate

    from fr_ps.data.check import check_maps
    from fr_ps.data.dataset import find_labels_file
    from fr_ps.progress import progress

    root, table = _open_table(arguments)
    find_labels_file(root)
    with progress("check", len(table.labels), "sessions") as advance:
        found = check_maps(root, table.labels, advance)
    if found.warning:
        print(f"\n{found.warning}")
    if found.bad:
        print("\n" + tabulate(found.bad, headers=["file", "error"], disable_numparse=True))
        raise InputError(
            f"{root}: {len(found.bad)} bad files of {found.files}, listed above; prepare them again, or remove their rows"
        )
    result = "are readable, but see the warning" if found.warning else "are valid"
    print(f"\nall {found.files} maps {result} ({', '.join(found.modalities)})")


def _show(arguments: Namespace) -> None:
    from fr_ps.data.dataset import find_labels_file
    from fr_ps.data.layout import session_folder
    from fr_ps.data.session_files import FILES, NORMAL_MAP_FILE, SESSION_FILES, session_files
    from fr_ps.data.session_view import find_session, view_session
    from fr_ps.outputs import check_outside, write_output
    from fr_ps.photometric.surface_files import AXES, describe_convention

    root, table = _open_table(arguments)
    find_labels_file(root)
    row = find_session(table.labels, arguments.session, str(root))
    out = Path(arguments.out or arguments.session.replace("/", "_"))
    maps = session_folder(root, *table.labels.row_keys()[row]).parent.parent
    check_outside(out, {"data.root": maps, "--captures": arguments.captures})
    for name in FILES:
        _check_output(arguments, SESSION_FILES, out / name)
    captures = Path(arguments.captures) if arguments.captures else None
    view = view_session(root, table.labels, row, captures)
    if not view.recorded:
        print(f"without recorded pictures and residual: {view.no_recorded}")
    for name, content in session_files(view, arguments.normal_map).items():
        write_output(out / name, SESSION_FILES, content)
    print(f"surface: {AXES}\n{NORMAL_MAP_FILE}: {describe_convention(arguments.normal_map)}")
    print(f"{view.name}: {out} ({', '.join(FILES)})")


def _split(arguments: Namespace) -> None:
    from fr_ps.data.split_files import split_text
    from fr_ps.data.splits import describe_split, make_split
    from fr_ps.data.summary import parts_table
    from fr_ps.outputs import write_output

    _check_not_among_inputs(arguments, Path(arguments.out))
    _check_output(arguments, "split")
    _, table = _open_table(arguments)
    split = make_split(table.labels, arguments.data, table.left_out)
    write_output(Path(arguments.out), "split", split_text(table.labels, split).encode())
    _print_table("sessions (subjects) of each part", parts_table(table.labels, split))
    print("\n" + "\n".join([*describe_split(table.labels, split), f"split: {arguments.out}"]))


def _mean(arguments: Namespace) -> None:
    import numpy as np

    from fr_ps.data.builtin import resolve_root
    from fr_ps.data.dataset import open_dataset
    from fr_ps.data.mean_face import MEAN_FACE, compute_mean_face, write_mean_face
    from fr_ps.data.splits import make_split

    _check_not_among_inputs(arguments, Path(arguments.out))
    _check_output(arguments, MEAN_FACE)
    data: DataConfig = arguments.data
    dataset = open_dataset(resolve_root(data.root, arguments.synthetic), ["normal"], data)
    for note in dataset.notes:
        print(note)
    all_rows = np.arange(len(dataset.labels))
    rows = all_rows if arguments.part == "all" else make_split(dataset.labels, data, dataset.left_out).train
    ids = dataset.labels.ids[rows]
    write_mean_face(Path(arguments.out), compute_mean_face(dataset.store, rows, ids))
    print(f"mean face of {len(np.unique(ids))} subjects, {len(rows)} sessions: {arguments.out}")


def _synthetic(arguments: Namespace) -> None:
    from fr_ps.files import atomic_folder
    from fr_ps.progress import progress
    from fr_ps.synthetic.captures import write_synthetic_captures

    settings: dict[str, Any] = vars(arguments)
    out, layout = Path(settings.pop("out")), settings.pop("layout")
    config = SyntheticConfig(**settings)
    if out.exists():
        raise InputError(f"{out}: already exists; name a new folder")
    with progress("make faces", config.people * config.sessions, "sessions") as advance, atomic_folder(out) as temporary:
        write_synthetic_captures(temporary, **vars(config), layout=layout, advance=advance)
    print(f"captures: {out}" if layout == "photoface" else f"captures: {out / 'captures'}\nlabels: {out / 'labels.csv'}")


def _check_output(arguments: Namespace, kind: str, out: Path | None = None) -> None:
    """Check that `out`, by default --out, replaces neither an input nor a file that fr-ps did not write."""
    from fr_ps.outputs import check_output_file

    data: DataConfig = arguments.data
    inputs = {"data.root": data.root, "data.split": data.split}
    inputs |= {"--captures": arguments.get("captures")}
    inputs |= {f"--config ({number})": path for number, path in enumerate(arguments.config or (), start=1)}
    check_output_file(out or Path(arguments.out), kind, inputs, arguments.overwrite)


def _check_not_among_inputs(arguments: Namespace, out: Path) -> None:
    """Check that `out` is in no folder of an input; it may stand in data.root itself, beside labels.csv."""
    from fr_ps.outputs import check_outside

    data: DataConfig = arguments.data
    root, split, path = Path(data.root).resolve(), Path(data.split), out.resolve()
    if path.is_relative_to(root) and path.parent != root:
        check_outside(out, {"data.root": root / path.relative_to(root).parts[0]})
    if data.split and split.is_dir():
        check_outside(out, {"data.split": split})


def _open_table(arguments: Namespace) -> tuple[Path, "LabelTable"]:
    """The path and the table of `data.root`; prints a summary line and the table's notes."""
    from fr_ps.data.builtin import resolve_root
    from fr_ps.data.dataset import open_table
    from fr_ps.data.summary import sessions_per_subject

    data: DataConfig = arguments.data
    root = resolve_root(data.root, arguments.synthetic)
    table = open_table(root, data)
    labels = table.labels
    print(f"data: {root}: {len(labels)} sessions of {len(sessions_per_subject(labels))} subjects, {labels.encoding} labels")
    for note in table.notes:
        print(note)
    return root, table


def _print_table(title: str, frame: Any) -> None:
    """Print a table in the width of a terminal: cells of the last column are wrapped."""
    from tabulate import tabulate

    from fr_ps.report.table import TERMINAL_WIDTH

    align = ["right" if dtype.kind == "i" else "left" for dtype in frame.dtypes]

    def text(widths: list[int | None] | None) -> str:
        return tabulate(frame, headers="keys", showindex=False, disable_numparse=True, colalign=align, maxcolwidths=widths)

    excess = max(map(len, text(None).splitlines())) - TERMINAL_WIDTH
    last = max(len(str(cell)) for cell in frame.iloc[:, -1]) if len(frame) else 0
    width = max(last - excess, len(str(frame.columns[-1])), 1)
    print(f"\n{title}\n" + text([*[None] * (len(align) - 1), width] if excess > 0 else None))


_SUBCOMMANDS = {"summary": _summary, "check": _check, "show": _show, "split": _split, "mean": _mean, "synthetic": _synthetic}
COMMANDS = {"data": Command(_add_arguments, _run)}
