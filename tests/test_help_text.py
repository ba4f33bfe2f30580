"""`--help`, `--help-all`, completion, and the first line of a command."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fr_ps.arguments import Parser
from fr_ps.cli import main, overview
from fr_ps.commands import COMMAND_ENTRIES, COMMAND_GROUPS, load_command
from fr_ps.help_text import help_text

BLOCKED_IMPORTS = """
import os, sys
from importlib.abc import MetaPathFinder
class Stop(MetaPathFinder):
    def find_spec(self, name, *_):
        if name in ("torch", "mlflow", "scipy", "pandas"):
            print("import", flush=True)
            os._exit(0)
sys.meta_path.insert(0, Stop())
from fr_ps.cli import main
main(sys.argv[1:])
"""
COMPLETED = """
source fr-ps.bash
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
_shtab_fr_ps "$1" "${!#}"
echo "${COMPREPLY[@]}"
"""


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_help_of_train_is_short_and_help_all_explains_every_setting(capsys):
    short, whole = printed(capsys, "train", "--help"), printed(capsys, "train", "--help-all")
    assert len(short.splitlines()) < 150
    assert "  --optim.lr " in short
    assert "  --loss.scale " not in short
    assert "loss.scale" in short
    for text in (short, whole):
        assert not re.search(r"usage:|type:|Literal", text)
        assert max(map(len, text.splitlines())) <= 100
    parser = Parser()
    load_command("train").add_arguments(parser)
    flags = [flag for flag in parser._option_string_actions if "." in flag]
    assert len(flags) > 90
    assert all(re.search(rf"^  {re.escape(flag)}(\s|$)", whole, re.MULTILINE) for flag in flags)


@pytest.mark.parametrize("command", COMMAND_ENTRIES)
def test_help_has_all_flags_of_a_command_in_100_columns(command):
    parser = Parser()
    load_command(command).add_arguments(parser)
    text = help_text(parser)
    assert max(map(len, text.splitlines())) <= 100
    assert not any(line.endswith("fr-") for line in text.splitlines())
    groups = {flag.partition(".")[0] for flag in parser._option_string_actions if "." in flag}
    flags = {flag for flag in parser._option_string_actions if flag.startswith("--") and "." not in flag}
    flags -= groups | {"--help_all", "--print_config"}
    assert all(re.search(rf"^  {flag.replace('_', '-')}(\s|$)", text, re.MULTILINE) for flag in flags)


def test_the_overview_has_every_command_in_one_group():
    assert len(COMMAND_ENTRIES) == sum(map(len, COMMAND_GROUPS.values()))
    assert all(f"\n  {name} " in overview() for name in COMMAND_ENTRIES)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("trian", "train"),
        ("train --optim.lrr=1", "optim.lr"),
        ("train --epochs=3", "train.epochs"),
        ("train --allow-change", "allow_changed"),
        ("predict --modl=x", "--model"),
        ("data sumary", "summary"),
    ],
)
def test_an_unknown_name_gets_the_most_similar_one(words, meant, capsys):
    assert main(words.split()) == 2
    assert f"; did you mean {meant}? " in capsys.readouterr().err


def test_an_unknown_key_of_a_file_gets_the_most_similar_one(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("loss: {weightng: dwa}\n")
    assert main(["train", f"--config={tmp_path / 'a.yaml'}"]) == 2
    assert "did you mean loss.weighting? " in capsys.readouterr().err


def test_bash_completes_commands_flags_and_values(tmp_path, capsys):
    assert main(["completion", "bash"]) == 0
    (tmp_path / "fr-ps.bash").write_text(capsys.readouterr().out)

    def complete(*words: str) -> list[str]:
        command = ["bash", "-c", COMPLETED, "bash", "fr-ps", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()

    assert complete("ev") == ["evaluate"]
    assert complete("data", "su") == ["summary"]
    assert complete("train", "--optim.l") == ["--optim.lr"]
    assert complete("train", "--allow") == ["--allow-changed"]
    assert complete("train", "--data.protocol", "sub") == ["subject_disjoint"]


@pytest.mark.parametrize(
    "words",
    [
        "train --data.root=a",
        "evaluate --model=a --data=b --out=c",
        "compare --model=a --model=b --data=c",
        "search --study.name=a --space={optim.lr:[0.1,0.2]}",
        "promote --model=models:/a/1",
        "register --model=a --name=b",
        "export --model=a --out=b",
        "predict --model=a --data=b --out=c.csv",
        "enroll --model=a --data=b --gallery=c",
        "identify --model=a --data=b --gallery=c",
        "verify --model=a --data=b --gallery=c",
        "models",
        "sync",
        "prepare --captures=a --out=b",
        "calibrate --sphere=a",
        "data summary",
        "data mean",
    ],
)
def test_the_first_line_is_printed_before_large_libraries_are_imported(words, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED_IMPORTS, *words.split()],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.startswith("loading ")
    assert done.stdout.splitlines()[-1] == "import"
    assert "loading " not in done.stdout  # which has results only
