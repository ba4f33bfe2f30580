"""`prepare`: parse, call one function, print."""

from pathlib import Path

from jsonargparse import Namespace

from fr_ps.arguments import Command, Parser
from fr_ps.config import PrepareConfig


def _add_prepare_arguments(prepare: Parser) -> None:
    prepare.description = "Raw captures to a prepared data set: albedo, normals, depth, labels."
    prepare.add_class_arguments(PrepareConfig, None)


def _prepare(arguments: Namespace) -> None:
    from tabulate import tabulate

    from fr_ps.data.prepare import orientation_warning, prepare, summary_rows, white_level_warning
    from fr_ps.photometric.captures import list_sources
    from fr_ps.progress import progress

    config = PrepareConfig(**vars(arguments))
    with progress("prepare", len(list_sources(Path(config.captures), {})), "sessions") as advance:
        outcomes = prepare(config, advance)
    counts, skipped, more = summary_rows(outcomes)
    print(tabulate(counts, headers=["sessions", "number"]))
    if skipped:
        print("\n" + tabulate(skipped, headers=["id", "session", "skipped because"], disable_numparse=True))
    if more:
        print(f"... and {more} more, in {config.out}/prepare.csv")
    for warning in (orientation_warning(outcomes, config.light_axes), white_level_warning(outcomes)):
        if warning:
            print("\n" + warning)
    print(f"\nprepared data set: {config.out}")


COMMANDS = {"prepare": Command(_add_prepare_arguments, _prepare)}
