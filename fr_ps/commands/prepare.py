"""The command `prepare`."""

from pathlib import Path

from jsonargparse import Namespace

from fr_ps.arguments import Command, Parser
from fr_ps.config import PrepareConfig


def _add_prepare_arguments(prepare: Parser) -> None:
    prepare.description = "Make a prepared data set from raw captures: albedo, normals, depth, labels."
    prepare.add_class_arguments(PrepareConfig, None)


def _prepare(arguments: Namespace) -> None:
    from tabulate import tabulate

    from fr_ps.data.prepare import prepare
    from fr_ps.data.prepare_report import REPORT_FILE, orientation_warning, summary_rows, white_level_warning
    from fr_ps.photometric.captures import list_sources
    from fr_ps.progress import progress

    config = PrepareConfig(**vars(arguments))
    with progress("prepare", len(list_sources(Path(config.captures), {})), "sessions") as advance:
        results = prepare(config, advance)
    counts, skipped, more = summary_rows(results)
    print(tabulate(counts, headers=["sessions", "number"]))
    if skipped:
        print("\n" + tabulate(skipped, headers=["id", "session", "reason for skipping"], disable_numparse=True))
    if more:
        print(f"... and {more} more, listed in {config.out}/{REPORT_FILE}")
    for warning in (orientation_warning(results, config.light_axes), white_level_warning(results)):
        if warning:
            print("\n" + warning)
    print(f"\nprepared data set: {config.out}")


COMMANDS = {"prepare": Command(_add_prepare_arguments, _prepare)}
