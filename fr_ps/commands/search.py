"""The command `search`."""

from dataclasses import fields

from jsonargparse import ActionConfigFile, Namespace

from fr_ps.arguments import Command, Parser, Processes, training_config
from fr_ps.config import Config, SearchConfig
from fr_ps.terminal import echo_loading, echo_run_id


def _add_search_arguments(search: Parser) -> None:
    search.description = "Search for the best training settings, with an Optuna study whose trials are MLflow runs."
    search.add_argument("--config", action=ActionConfigFile, help="YAML file of the study; flags override it")
    search.add_argument("--workers", type=Processes, default=1, help="worker processes on this machine")
    search.add_class_arguments(SearchConfig, None)
    search.add_class_arguments(Config, None)


def _search(arguments: Namespace) -> None:
    echo_loading(f"PyTorch, MLflow and Optuna for the study {arguments.study.name}")
    from fr_ps.search.spec import build_study_spec

    config = SearchConfig(**{field.name: arguments[field.name] for field in fields(SearchConfig)})
    spec = build_study_spec(config, training_config(arguments))  # `arguments` already contain the settings of the `base` file

    from fr_ps.search.launcher import run_study  # imports torch; errors of the settings come before that

    echo_run_id(run_study(spec, arguments.workers))


COMMANDS = {"search": Command(_add_search_arguments, _search)}
