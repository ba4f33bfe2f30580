"""The files of the project agree with each other, and its packages import only what the architecture allows."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml

from fr_ps import __version__
from fr_ps.arguments import training_config
from fr_ps.cli import parse_command_line
from fr_ps.commands import COMMAND_ENTRIES, load_command
from fr_ps.config import SYNTHETIC_ROOT, Config, ModelConfig
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.data.layout import CHANNELS
from fr_ps.models import build_network
from fr_ps.tracking.run import Run
from fr_ps.training.train import train
from tests.conftest import LONGEST_FILES

ROOT = Path(__file__).parents[1]
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))
ALLOWED_PACKAGES = {"mlflow": {"tracking", "serving"}, "optuna": {"search"}}


def experiment(file: Path) -> Config:
    return training_config(parse_command_line(["train", "--config", str(file)])["train"])


def test_every_experiment_is_parsed_and_its_network_is_built():
    assert len(EXPERIMENTS) == 23
    networks = set()
    for file in EXPERIMENTS:
        config = experiment(file)
        data, _, maps = file.stem.removesuffix("_gpu").partition("_")
        fused = ("albedo", "normal") if data == "yale" else tuple(CHANNELS)  # depth did not help there
        expected = fused if maps == "fusion" else tuple(maps.split("_")) if maps else ("albedo", "normal")
        assert config.data.modalities == expected, file
        assert config.data.root == {"synthetic": SYNTHETIC_ROOT, "yale": "data/yale_b", "photoface": "data/photoface"}[data], file
        networks.add((config.model, config.fusion.name))
    for model, fusion in networks:
        with torch.device("meta"):
            network = build_network(dict.fromkeys(CHANNELS, model), fusion, dict.fromkeys(ATTRIBUTES, 2), size=112)
        assert network.modalities == tuple(CHANNELS)


@pytest.mark.parametrize("name", ["synthetic_fusion", "yale_albedo_normal", "photoface_normal"])
def test_an_experiment_trains_at_tiny_size(name, prepared, tmp_path, undrawn):
    config = experiment(ROOT / "experiments" / f"{name}.yaml")
    tiny = replace(
        config,
        data=replace(config.data, root=str(prepared), val_people=2, test_people=2),
        model=ModelConfig(backbone=config.model.backbone, channels=16, reduction=8),
        train=replace(config.train, epochs=1),
    )
    result = train(tiny, Run(tmp_path), echo=lambda line: None)
    assert result.metrics.values["test/identity/auc"] is not None


def test_every_command_is_an_entry_point_of_mlproject():
    project = yaml.safe_load((ROOT / "MLproject").read_text())
    assert project["entry_points"].keys() == COMMAND_ENTRIES.keys() | {"main", "resume"}
    for name, entry in project["entry_points"].items():
        words = entry["command"].split()
        assert words[:3] == ["python", "-m", "fr_ps"]
        assert words[3] in COMMAND_ENTRIES
        assert words[3] == {"main": "train", "resume": "train"}.get(name, name)
    assert project["entry_points"]["main"] == project["entry_points"]["train"]
    assert (ROOT / project["conda_env"]).is_file()


def test_every_command_is_in_the_module_that_the_list_names():
    for name, (text, module) in COMMAND_ENTRIES.items():
        assert text
        assert load_command(name) is import_module(f"fr_ps.commands.{module}").COMMANDS[name]
    modules = {file.stem for file in (ROOT / "fr_ps" / "commands").glob("*.py")} - {"__init__"}
    assert {name for module in modules for name in import_module(f"fr_ps.commands.{module}").COMMANDS} == COMMAND_ENTRIES.keys()


def test_conda_installs_the_project_on_a_supported_python():
    environment = yaml.safe_load((ROOT / "conda.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pip,) = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    assert pip == ["-e ."]
    (python,) = [item for item in environment["dependencies"] if isinstance(item, str) and item.startswith("python=")]
    assert tuple(map(int, python.split("=")[1].split("."))) >= tuple(map(int, project["requires-python"].lstrip(">=").split(".")))


def test_the_citation_and_the_changelog_have_the_version_of_the_package():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert versions[1:2] in ([], [__version__])


def modules() -> dict[str, Path]:
    files = (ROOT / "fr_ps").rglob("*.py")
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


@cache
def imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_only_tracking_and_serving_import_mlflow_and_only_search_optuna():
    for name, file in modules().items():
        package = name.split(".")[1] if "." in name else ""
        for library, packages in ALLOWED_PACKAGES.items():
            used = any(imported.split(".")[0] == library for imported in imports(file))
            assert not used or package in packages, f"{name} imports {library}"


def test_imports_have_no_cycle():
    known = modules()
    edges = {
        name: {imported for imported in imports(file) if imported in known and imported != name} for name, file in known.items()
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path, name])
        if name not in done:
            for other in edges[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in edges:
        visit(name, ())


@pytest.mark.slow
def test_mlflow_run_trains_with_an_undeclared_parameter(prepared, tmp_path):
    copy = tmp_path / "project"
    copy.mkdir()
    for name in ("MLproject", "conda.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, copy / name)
    for name in ("fr_ps", "experiments"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    settings = {"data.root": prepared, "data.test_people": 2, "data.val_people": 2, "train.epochs": 1}
    settings |= {"model.channels": 16, "model.reduction": 8, "batch.people": 3, "model.backbone": "convnextv2_femto"}
    command = [sys.executable, "-m", "mlflow", "run", ".", "-e", "train", "--env-manager", "local", "--experiment-name", "fr-ps"]
    for name, value in settings.items():
        command += ["-P", f"{name}={value}"]
    bin_first = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | {"PATH": bin_first}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{copy}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("fr-ps").experiment_id])
    assert done.stdout.strip().splitlines()[-1] == run.info.run_id
    assert run.info.status == "FINISHED"
    assert run.data.params["model/backbone"] == run.data.params["model.backbone"] == "convnextv2_femto"
    assert run.info.run_name.endswith("convnextv2_femto")


OLD_NAMES = re.compile(
    r"\b_?(Answered|AxesError|BadNumbers|Compared|Fitted|Keeper|Learner|MeanOfCosines|NoRoom|Outbox|Scored|SessionDeal"
    r"|StoppedEarly|TimmMap|WeightAverage)\b"
    r"|(?<![.\w])(betray\w*|crew|culprits?|hears?|heard|judg(e|es|ed|ing)|keeper|learner|minds?|nobody|outbox|said|says?|somebody|story|tells?|told|whom)\b"
    r"|\b(came to nothing|faults? of ours|go(es|ne)? on|its words|taken for dead|who (is|are|was|were))\b",
)
"""Names and phrases that were replaced by standard terms: CONTRIBUTING.md, "Code"."""


def test_code_and_documents_use_the_standard_terms():
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "CITATION.cff", ROOT / "MLproject"]
    for folder, pattern in (("fr_ps", "*.py"), ("docs", "*.md"), ("benchmarks", "*.py"), ("experiments", "*.yaml")):
        files += (ROOT / folder).rglob(pattern)
    hits = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in files
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        if OLD_NAMES.search(line)
    ]
    assert not hits, "\n".join(hits)


def test_documents_name_files_and_modules_that_exist():
    for file in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        text = file.read_text()
        paths = re.findall(r"`((?:fr_ps|tests|experiments|benchmarks|docs)/[\w./]*\w)`", text)
        paths += re.findall(r"\]\(((?!http)[^)#]+)\)", text)
        for path in paths:
            assert (ROOT / path).exists() or (file.parent / path).exists(), f"{file.name}: {path}"
        for name in re.findall(r"`(fr_ps\.\w+\.[\w.]+)`", text):
            module, _, attribute = name.rpartition(".")
            assert hasattr(import_module(module), attribute) or import_module(name), f"{file.name}: {name}"


def test_the_test_files_that_start_first_exist():
    assert not [name for name in LONGEST_FILES if not (ROOT / "tests" / name).is_file()]
