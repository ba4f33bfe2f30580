"""`search`: parse, call one function, print."""

from dataclasses import fields

from jsonargparse import ActionConfigFile, Namespace

from fr_ps.arguments import Command, Parser, Processes, training_config
from fr_ps.config import Config, SearchConfig
from fr_ps.progress import say


def _declare(search: Parser) -> None:
    search.description = "Search the best settings of a training: an Optuna study whose trials are MLflow runs."
    search.add_argument("--config", action=ActionConfigFile, help="YAML file of the study; flags override it")
    search.add_argument("--workers", type=Processes, default=1, help="processes here")
    search.add_class_arguments(SearchConfig, None)
    search.add_class_arguments(Config, None)


def _search(arguments: Namespace) -> None:
    from fr_ps.search.study.settled import settle

    config = SearchConfig(**{field.name: arguments[field.name] for field in fields(SearchConfig)})
    search = settle(config, training_config(arguments))

    from fr_ps.search.launch import run_study

    say(run_study(search, arguments.workers))


COMMANDS = {"search": Command(_declare, _search)}
