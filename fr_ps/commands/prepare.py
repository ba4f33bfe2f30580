"""The command `prepare`."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from fr_ps.arguments import Command, Parser, add_shard_flags
from fr_ps.config import PrepareConfig
from fr_ps.progress import progress
from fr_ps.shards import Shard, parse_shard_flags
from fr_ps.terminal import echo_loading

if TYPE_CHECKING:
    from fr_ps.data.prepare_report import SessionResult


def _add_prepare_arguments(prepare: Parser) -> None:
    prepare.description = "Make a prepared data set from raw captures: albedo, normals, depth, labels."
    prepare.add_class_arguments(PrepareConfig, None)
    add_shard_flags(prepare)


def _prepare(arguments: Namespace) -> None:
    echo_loading(f"the captures {arguments.captures}", "scipy")
    from tabulate import tabulate

    from fr_ps.data.prepare_report import (
        REPORT_FILE,
        failed_lights_warning,
        orientation_warning,
        response_warning,
        summary_rows,
        white_level_warning,
    )

    settings = vars(arguments)
    shard = parse_shard_flags(settings.pop("shard"), merge := settings.pop("merge"))
    config = PrepareConfig(**settings)
    results = _run(config, shard, merge)
    counts, skipped, more = summary_rows(results)
    layouts = Counter(result.details["layout"] for result in results if result.details.get("layout"))
    if layouts:
        print("layout: " + ", ".join(f"{layout} ({count} sessions)" for layout, count in sorted(layouts.items())))
    if paired := [result for result in results if result.details.get("paired_by_order")]:
        first = f"{paired[0].id}/{paired[0].session}"
        print(f"images of {len(paired)} sessions were paired with the lights by the order of their names, e.g. {first}")
    print(tabulate(counts, headers=["sessions", "number"]))
    if skipped:
        print("\n" + tabulate(skipped, headers=["id", "session", "reason for skipping"], disable_numparse=True))
    if more:
        print(f"... and {more} more" + ("" if shard else f", listed in {config.out}/{REPORT_FILE}"))
    warnings = (
        failed_lights_warning(results),
        orientation_warning(results, config.light_axes),
        white_level_warning(results),
        response_warning(results, config.response),
    )
    for warning in warnings:
        if warning:
            print("\n" + warning)
    if shard:
        print(f"\nshard {shard} of {config.out} is done; when all are, run the command with --merge instead of --shard")
    else:
        print(f"\nprepared data set: {config.out}")


def _run(config: PrepareConfig, shard: Shard | None, merge: bool) -> "list[SessionResult]":
    from fr_ps.data.prepare import prepare
    from fr_ps.data.prepare_shards import merge_prepared, prepare_shard
    from fr_ps.photometric.sources import list_sources

    sources = list_sources(Path(config.captures), {})
    with progress("merge" if merge else "prepare", len(shard.select(sources) if shard else sources), "sessions") as advance:
        if shard:
            return prepare_shard(config, shard, advance)
        return merge_prepared(config, advance) if merge else prepare(config, advance)


COMMANDS = {"prepare": Command(_add_prepare_arguments, _prepare)}
