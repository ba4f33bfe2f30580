"""The groups of settings, and the data settings that each `fr-ps data` command accepts."""

from dataclasses import fields, is_dataclass

from fr_ps.config import Config, SearchConfig


def _groups(config: type) -> dict[str, list[str]]:
    """Mapping from group to the names of its settings.

    A group is a field of `config` whose default factory is a config class, such as `OptimConfig`.
    """
    return {
        field.name: [inner.name for inner in fields(field.default_factory)]  # type: ignore[arg-type]
        for field in fields(config)
        if is_dataclass(field.default_factory)
    }


SETTING_GROUPS, SEARCH_SETTING_GROUPS = _groups(Config), _groups(SearchConfig)
"""Mapping from group to the names of its settings: the groups of a training, and those that a search adds."""
TABLE_SETTINGS = ("root", "labels", "classes")
"""The data settings that apply to reading the labels table."""
TABLE_COMMANDS = ("data check", "data show")
DATA_COMMANDS = {f"data {what}": SETTING_GROUPS["data"] for what in ("summary", "split", "mean")} | {
    command: list(TABLE_SETTINGS) for command in TABLE_COMMANDS
}
"""Mapping from command to the names of the data settings that it accepts."""
