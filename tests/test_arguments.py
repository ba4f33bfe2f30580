"""The command line: flags in any order, with either dash, and errors in one line."""

import dataclasses
import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml

from fr_ps.arguments import Parser, training_config
from fr_ps.cli import main, parse_command_line
from fr_ps.commands import COMMAND_ENTRIES, load_command
from fr_ps.config import BACKBONES, Attribute, Config, DataConfig, OptimConfig, PrepareConfig, SearchConfig, to_dict
from fr_ps.errors import InputError
from tests.foreign import MARKUP_LIKE_TEXTS


def settings(*argv: str) -> Config:
    """The config of `train` with these arguments."""
    return training_config(parse_command_line(["train", *argv])["train"])


def prepared_with(*argv: str) -> Any:
    return parse_command_line(["prepare", "--captures", "a", "--out", "b", *argv])["prepare"]


def error_message(*argv: str) -> str:
    """The error message for `argv`."""
    with pytest.raises(InputError) as caught:
        parse_command_line(argv)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text("optim: {lr: 0.5, clip: 2}\ndata: {modalities: [normal]}\nmodel: {backbone: miresnet18}\n")
    return file


@pytest.mark.parametrize("form", ["--config {}", "--config={}"])
@pytest.mark.parametrize("order", ["before", "after", "between"])
def test_a_flag_overrides_the_config_in_any_order(config_file: Path, form: str, order: str) -> None:
    config = form.format(config_file).split(" ")
    lr, epochs = ["--optim.lr", "0.25"], ["--train.epochs=3"]
    lines = {"before": [*config, *lr, *epochs], "after": [*lr, *epochs, *config], "between": [*lr, *config, *epochs]}
    got = settings(*lines[order])
    assert (got.optim.lr, got.train.epochs) == (0.25, 3)
    assert (got.optim.clip, got.data.modalities, got.model.backbone) == (2, ("normal",), "miresnet18")


@pytest.mark.parametrize("words", [["--optim.weight_d", "0.1"], ["--conf", "FILE"], ["--train.ep=3"]], ids=str)
def test_flags_cannot_be_abbreviated(words: list[str], config_file: Path) -> None:
    """An abbreviated --config would not be moved before the flags, and so would override them."""
    message = error_message("train", "--optim.lr", "0.25", *(word.replace("FILE", str(config_file)) for word in words))
    assert words[0].partition("=")[0].removeprefix("--") in message


def test_of_two_configs_the_later_one_wins(config_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("optim: {lr: 0.125}\n")
    got = settings("--config", str(config_file), "--config", str(other)).optim
    assert (got.lr, got.clip) == (0.125, 2)
    first = settings("--config", str(config_file)).optim.lr
    assert settings("--config", str(config_file), "--config", str(other), "--config", str(config_file)).optim.lr == first != 0.125


@pytest.mark.parametrize("flag", ["--on-bad", "--on_bad"])
@pytest.mark.parametrize("equals", [True, False])
def test_dash_and_underscore_are_equal_in_a_flag(flag: str, equals: bool) -> None:
    words = [f"{flag}=skip"] if equals else [flag, "skip"]
    assert prepared_with(*words)["on_bad"] == "skip"


def test_dashes_in_values_stay() -> None:
    assert settings("--data.root", "a-b/c-d", "--name=x-y=z-1").data.root == "a-b/c-d"
    assert settings("--name=x-y=z-1").name == "x-y=z-1"


@pytest.mark.parametrize(
    ("words", "modalities"),
    [
        (["--data.modalities", "albedo"], ("albedo",)),
        (["--data.modalities", "normal"], ("normal",)),
        (["--data.modalities=depth"], ("depth",)),
        (["--data.modalities", "[normal]"], ("normal",)),
        (["--data.modalities=[normal]"], ("normal",)),
    ],
)
def test_modalities_may_be_written_with_or_without_brackets(words: list[str], modalities: tuple[str, ...]) -> None:
    assert settings(*words).data.modalities == modalities


@pytest.mark.parametrize("written", ["albedo,normal", "[albedo, normal]"])
def test_several_modalities_may_be_written_with_or_without_brackets_but_none_twice(written: str) -> None:
    assert settings("--data.modalities", written).data.modalities == ("albedo", "normal")
    message = error_message("train", f"--data.modalities={written.replace('normal', 'albedo')}")
    assert message.startswith("data.modalities is ['albedo', 'albedo']; expected one or more of albedo, normal, depth")


def test_parameters_appended_by_mlflow_run_are_parsed() -> None:
    """`mlflow run -P model.backbone=miresnet34` appends two words."""
    assert settings("--model.backbone", "miresnet34").model.backbone == "miresnet34"


def test_an_unknown_flag_lists_the_settings_of_its_group() -> None:
    message = error_message("train", "--optim.lrr", "0.1")
    assert "'optim.lrr'" in message
    assert all(f"optim.{name}" in message for name in to_dict(OptimConfig()))


def test_an_unknown_flag_outside_the_groups_lists_the_groups() -> None:
    message = error_message("train", "--learning-rate", "0.1")
    assert "learning_rate" in message
    assert all(name in message for name in to_dict(Config()))


@pytest.mark.parametrize("command", ["prepare", "evaluate"])
def test_an_unknown_flag_of_another_command_does_not_list_training_settings(command: str) -> None:
    required = {"prepare": ["--captures", "a", "--out", "b"], "evaluate": ["--model", "a", "--data", "b", "--out", "c"]}
    message = error_message(command, *required[command], "--nonsense", "1")
    assert "nonsense" in message
    assert "schedule" not in message


@pytest.mark.parametrize("command", ["summary", "split"])
def test_an_unknown_data_setting_lists_the_data_settings(command: str) -> None:
    message = error_message("data", command, "--data.rot", "x")
    assert "'data.rot'" in message
    assert all(f"data.{name}" in message for name in to_dict(DataConfig()))
    assert "synthetic.people" in error_message("data", command, "--synthetic.peeple", "3")
    for word in ("--nonsense", "--optim.lr"):
        message = error_message("data", command, word, "1")
        assert word in message
        assert f"fr-ps data {command} --help" in message


def test_data_check_takes_the_settings_of_reading_alone() -> None:
    message = error_message("data", "check", "--data.limits", "{a: 1}")
    assert "--data.limits" in message
    assert "fr-ps data check --help" in message


def test_columns_and_values_may_be_written_as_yaml_or_one_by_one(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("data:\n  only: {Quality: [ok], Pose: [1, 2]}\n  limits: {quality_residual: 0.15}\n")
    data = settings("--config", str(file)).data
    assert data.only == {"Quality": ["ok"], "Pose": ["1", "2"]}
    assert data.limits == {"quality_residual": 0.15}
    flags = ["--data.only", "{Quality: [ok], Pose: [1, 2]}", "--data.limits.quality_residual", "0.15"]
    assert settings(*flags).data == data
    assert "data.only" in error_message("train", "--data.only", "{Quality: ok}")
    assert "data.limits" in error_message("train", "--data.limits", "{quality_residual: low}")


CELLS = [
    ("only", "{Spectacles: [no, 01]}", {"Spectacles": ["no", "01"]}),
    ("only", "{Spectacles: [off, 'no', null, 1e3, 2008-02-23]}", {"Spectacles": ["off", "no", "null", "1e3", "2008-02-23"]}),
    (
        "classes",
        "{spectacles: {without: [no], with: [yes]}, pose: {no: [1, 2], yes: [3]}}",
        {"spectacles": {"without": ["no"], "with": ["yes"]}, "pose": {"no": ["1", "2"], "yes": ["3"]}},
    ),
]


@pytest.mark.parametrize(("name", "text", "expected"), CELLS, ids=lambda value: str(value)[:30])
def test_cells_of_a_table_stay_as_written(name: str, text: str, expected: dict[str, Any], tmp_path: Path) -> None:
    """In YAML `no` is false, 01 is 1 and a date is a date."""
    file = tmp_path / "config.yaml"
    file.write_text(f"data:\n  {name}: {text}\n")
    assert getattr(settings("--config", str(file)).data, name) == expected
    assert getattr(settings(f"--data.{name}", text).data, name) == expected
    assert getattr(settings(f"--data.{name}={text}").data, name) == expected
    (column, *_), inner = yaml.load(text, yaml.BaseLoader), text.strip("{}").partition(": ")[2]
    if name == "only":
        assert settings(f"--data.only.{column}", inner).data.only == expected


@pytest.mark.parametrize("written", ["", "no", "[no]", "{Spectacles: no}", "{Spectacles: [[no]]}"])
def test_cells_in_another_shape_are_an_error(written: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"data:\n  only: {written}\n")
    assert "data.only" in error_message("train", "--config", str(file))
    assert "data.only" in error_message("train", f"--data.only={written}")
    assert "data.only" in error_message("train", "--data.only", "{Spectacles: [no")


def test_an_unknown_key_in_a_config_is_an_error_with_file_and_choices(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("optim: {lrr: 0.5}\n")
    message = error_message("train", "--config", str(file))
    assert str(file) in message
    assert "'optim.lrr'" in message
    assert all(f"optim.{name}" in message for name in to_dict(OptimConfig()))
    file.write_text("optimm: {lr: 0.5}\n")
    message = error_message("train", "--config", str(file))
    assert str(file) in message
    assert "optimm" in message
    assert "optim," in message


def test_an_unknown_backbone_lists_the_backbones(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("model: {backbone: irse49}\n")
    from_flag, from_file = error_message("train", "--model.backbone", "irse49"), error_message("train", "--config", str(file))
    assert from_file == f"{file}: line 1: {from_flag}"
    for message in (from_flag, from_file):
        assert "model.backbone is 'irse49'; expected one of " in message
        listed = message.partition("expected one of ")[2]
        assert listed.startswith(", ".join(BACKBONES))
        assert "timm:NAME" in listed


@pytest.mark.parametrize(
    ("words", "key", "expected"),
    [
        (["--optim.lr", "fast"], "optim.lr is 'fast'", "a number"),
        (["--train.epochs", "1.5"], "train.epochs is '1.5'", "a whole number"),
        (["--loss.allow_unsafe_lambda", "maybe"], "loss.allow_unsafe_lambda is 'maybe'", "true or false"),
        (["--data.protocol", "random"], "data.protocol is 'random'", "one of subject_disjoint, session_disjoint"),
        (["--device", "tpu"], "device is 'tpu'", "one of auto, cpu, cuda, mps"),
        (["--data.modalities", "infrared"], "data.modalities is 'infrared'", "one of albedo, normal, depth"),
        (["--optim.lr", "-1"], "optim.lr is -1.0", "above 0"),
        (["--loss.lambda_g", "20"], "loss.lambda_g is 20.0", "22.6 or more"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_value_is_an_error_with_the_expected_values(words: list[str], key: str, expected: str) -> None:
    message = error_message("train", *words)
    assert message.startswith(f"{key}; expected ")
    assert expected in message


@pytest.mark.parametrize(
    "text",
    ["optim: {lr: fast}\n", "optim: {lr: -1}\n", "optim: 3\n", "data: {modalities: infrared}\n", "train: {epochs: [1, 2]}\n"],
)
def test_a_wrong_value_in_a_config_is_named_by_its_key(text: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    (group, inner), *_ = yaml.safe_load(text).items()
    key = f"{group}.{next(iter(inner))}" if isinstance(inner, dict) else group
    assert key in error_message("train", "--config", str(file))


def test_a_single_modality_in_a_config_needs_no_brackets(tmp_path: Path) -> None:
    """As on the command line."""
    file = tmp_path / "config.yaml"
    file.write_text("data: {modalities: normal}\n")
    assert settings("--config", str(file)).data.modalities == ("normal",)


def test_classes_of_an_unknown_attribute_list_the_attributes() -> None:
    message = error_message("train", "--data.classes", "{emotoin: {a: [blankstare], b: [positive]}}")
    assert "emotoin" in message
    assert all(name in message for name in get_args(Attribute))


@pytest.mark.parametrize(
    ("argv", "missing"),
    [
        (["prepare", "--captures", "a"], "--out"),
        (["prepare", "--out", "a"], "--captures"),
        (["evaluate", "--model", "a", "--out", "b"], "--data"),
        (["data", "synthetic"], "--out"),
    ],
    ids=lambda value: str(value),
)
def test_a_missing_required_argument_is_named(argv: list[str], missing: str) -> None:
    assert f"missing {missing}" in error_message(*argv)


@pytest.mark.parametrize(
    "words", [["train", "--config"], ["train", "--optim.lr"], ["train", "--data.modalities"], ["prepare", "--captures"]]
)
def test_a_flag_without_its_value_is_named(words: list[str]) -> None:
    assert words[-1] in error_message(*words)


@pytest.mark.parametrize(
    "content",
    [
        b"optim: {lr: [0.5\n",
        b"optim:\n\tlr: 0.5\n",
        b"- 1\n- 2\n",
        b"just words\n",
        b"\xff\xfe\x00\x01",
        b"\x89PNG\r\n\x1a\n\x00",
    ],
    ids=["unclosed", "tab", "list", "words", "not utf-8", "PNG"],
)
def test_a_broken_config_is_named(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    assert str(file) in error_message("train", "--config", str(file))


@pytest.mark.parametrize("text", ["", "# nothing yet\n"], ids=["empty", "a comment"])
def test_an_empty_config_changes_nothing(text: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert settings("--config", str(file)) == Config()


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "none.yaml") in error_message("train", "--config", str(tmp_path / "none.yaml"))
    assert str(tmp_path) in error_message("train", "--config", str(tmp_path))


def test_an_unknown_command_lists_the_commands() -> None:
    for message in (error_message("trian"), error_message()):
        assert all(name in message for name in ("train", "prepare", "evaluate", "data"))


def test_bad_input_ends_with_2_and_one_line_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--model.backbone", "irse49"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: model.backbone is 'irse49'; expected one of ")
    assert err.count("\n") == 1


def test_print_config_prints_yaml_that_parses_to_the_same(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data.val_people", "3", "--config", str(config_file), "--loss.weighting", "fixed"]
    with pytest.raises(SystemExit) as caught:
        parse_command_line(["train", *words, "--print_config"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["data"]["val_people"] == 3
    again = tmp_path / "printed.yaml"
    again.write_text(printed)
    got = settings("--config", str(again))
    assert got == settings(*words)
    assert got != Config()
    assert got.data == DataConfig(modalities=("normal",), val_people=3)


HEAVY = ("torch", "mlflow", "timm", "sklearn", "pandas", "matplotlib", "optuna")


HELP_AND_ERROR = f"""
import runpy, sys
import fr_ps
for argv in ([], ["--help"], ["train", "--help"], ["train", "--optim.lrr", "1"]):
    sys.argv = ["fr-ps", *argv]
    try:
        runpy.run_module("fr_ps", run_name="__main__") if argv else None
    except SystemExit:
        pass
    print("HEAVY", [name for name in {HEAVY} if name in sys.modules])
"""


def test_help_and_errors_import_no_heavy_library() -> None:
    done = subprocess.run([sys.executable, "-c", HELP_AND_ERROR], capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if line.startswith("HEAVY")] == ["HEAVY []"] * 4
    assert "unknown setting 'optim.lrr'" in done.stderr


def test_python_m_fr_ps_and_help_name_the_commands() -> None:
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "fr_ps", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("train", "prepare", "evaluate"))
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "fr_ps.cli" in imported
    assert not imported & {*HEAVY, "numpy", "jsonargparse", "yaml"}


def test_the_order_may_be_written_as_a_list_or_with_commas() -> None:
    order = ("gender", "pose", "emotion", "facial_hair", "spectacles")
    for written in (",".join(order), f"[{', '.join(order)}]"):
        assert settings("--model.order", written).model.order == order
    assert "model.order" in error_message("train", "--model.order", "gender,pose")


def test_an_empty_value_stays_one() -> None:
    got = settings("--name=", "--data.split=", "--train.epochs", "3")
    assert (got.name, got.data.split, got.train.epochs) == ("", "", 3)


STUDY = "study: {name: s}\nspace: {optim.lr: [0.1, 0.2]}\n"


def searched(*argv: str) -> tuple[Any, Config]:
    """The arguments of `search`, and the base training."""
    arguments = parse_command_line(["search", *argv])["search"]
    return arguments, training_config(arguments)


@pytest.fixture
def study_file(config_file: Path, tmp_path: Path) -> Path:
    """A study that starts from `config_file`."""
    file = tmp_path / "study.yaml"
    file.write_text(f"base: {config_file}\n{STUDY}optim: {{clip: 3}}\nbudget: {{trials: 7}}\n")
    return file


def test_a_study_overrides_its_base_and_flags_override_both(study_file: Path) -> None:
    arguments, base = searched("--config", str(study_file))
    assert (base.optim.lr, base.optim.clip, base.model.backbone) == (0.5, 3, "miresnet18")
    assert (arguments["study"].name, arguments["space"], arguments["budget"].trials) == ("s", {"optim.lr": [0.1, 0.2]}, 7)
    flags = ["--optim.lr", "0.25", "--optim.clip=4", "--budget.trials", "9"]
    for words in ([*flags, "--config", str(study_file)], ["--config", str(study_file), *flags]):
        arguments, base = searched(*words)
        assert (base.optim.lr, base.optim.clip, base.model.backbone) == (0.25, 4, "miresnet18")
        assert arguments["budget"].trials == 9


@pytest.mark.parametrize("form", ["--base {}", "--base={}"])
def test_a_base_flag_overrides_the_base_of_the_study(form: str, study_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("optim: {lr: 0.125, clip: 9}\n")
    words = form.format(other).split(" ")
    for argv in ([*words, "--config", str(study_file)], ["--config", str(study_file), *words]):
        arguments, base = searched(*argv)
        assert (base.optim.lr, base.optim.clip, base.model.backbone) == (0.125, 3, "convnextv2_atto")
        assert arguments["base"] == str(other)
    assert searched(*words, "--study.name", "s", "--optim.clip", "4")[1].optim == OptimConfig(lr=0.125, clip=4)


def test_the_last_of_several_base_flags_counts(study_file: Path, tmp_path: Path) -> None:
    files = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    for file, lr in zip(files, (0.125, 0.0625), strict=True):
        file.write_text(f"optim: {{lr: {lr}}}\n")
    one, two = map(str, files)
    for words, lr in (
        (["--base", one, f"--base={two}"], 0.0625),
        ([f"--base={two}", "--base", one], 0.125),
        (["--base", two, "--base", one], 0.125),
    ):
        arguments, base = searched("--config", str(study_file), *words)
        assert (base.optim.lr, arguments["base"]) == (lr, one if lr == 0.125 else two)


def test_a_study_without_a_base_starts_from_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    for base in ("", "base: ''\n"):
        file.write_text(base + STUDY)
        assert searched("--config", str(file))[1] == Config()


@pytest.mark.parametrize("written", ["[a, b]", "{a: b}"])
def test_a_base_that_is_not_text_is_an_error(written: str, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(f"base: {written}\n{STUDY}")
    assert error_message("search", "--config", str(file)) == (
        f"base is {yaml.safe_load(written)!r}; expected a config file of a training, as experiments/synthetic.yaml"
    )


def test_a_missing_or_invalid_base_is_an_error(tmp_path: Path) -> None:
    file, base = tmp_path / "study.yaml", tmp_path / "base.yaml"
    file.write_text(f"base: {base}\n{STUDY}")
    assert f"{base}: no such config file" in error_message("search", "--config", str(file))
    base.write_text("just words\n")
    assert str(base) in error_message("search", "--config", str(file))
    assert "--base" in error_message("search", "--study.name", "s", "--base")


@pytest.mark.parametrize(
    ("text", "key", "choices"),
    [
        ("stdy: {name: s}\n", "stdy", ["study", "space", "objectives", "budget", "optim"]),
        ("study: {nme: s}\n", "'study.nme'", ["study.name", "study.storage"]),
        ("sampler: {nme: tpe}\n", "'sampler.nme'", ["sampler.name", "sampler.startup"]),
        ("optim: {lrr: 1}\n", "'optim.lrr'", ["optim.lr", "optim.clip"]),
        ("workers_: 3\n", "'workers_'", ["study", "optim"]),
    ],
    ids=["a group", "of the study", "of the sampler", "of the training", "outside of groups"],
)
def test_an_unknown_key_in_a_study_is_named_with_file_and_choices(
    text: str, key: str, choices: list[str], study_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "unknown.yaml"
    file.write_text(text)
    message = error_message("search", "--config", str(study_file), "--config", str(file))
    assert str(file) in message
    assert key in message
    assert all(choice in message for choice in choices)


def test_an_unknown_key_in_the_base_is_named_with_that_file(study_file: Path, config_file: Path) -> None:
    config_file.write_text("optim: {lrr: 0.5}\n")
    assert error_message("search", "--config", str(study_file)).startswith(f"{config_file}: line 1: unknown setting 'optim.lrr'")


def test_an_unknown_flag_of_search_is_named_with_the_settings_of_its_group() -> None:
    message = error_message("search", "--study.nme", "s")
    assert "'study.nme'" in message
    assert "study.name" in message
    message = error_message("search", "--optim.lrr", "1")
    assert "'optim.lrr'" in message
    assert "optim.lr," in message


@pytest.mark.parametrize(
    ("written", "line", "error"),
    [
        ("optim:\n  clip: 2\n  lr: fast\n", 3, "optim.lr is 'fast'; expected a number"),
        ("optim:\n  clip: 2\n  lr: .inf\n", 3, "optim.lr is .inf; expected a finite number"),
        ("\noptim: {lr: -1}\n", 2, "optim.lr is -1.0; expected above 0"),
        ("# text\ntrain:\n  epochs: 1.5\n", 3, "train.epochs is '1.5'; expected a whole number"),
        ("data:\n  root: x\n  modalities: [infrared]\n", 3, "data.modalities is 'infrared'; expected one of albedo"),
        ("device: tpu\n", 1, "device is 'tpu'; expected one of"),
    ],
)
def test_a_wrong_value_in_a_config_is_an_error_with_file_and_line(tmp_path: Path, written: str, line: int, error: str) -> None:
    file, other = tmp_path / "config.yaml", tmp_path / "other.yaml"
    file.write_text(written)
    other.write_text("optim: {weight_decay: 0.1}\n")
    for files in ([file], [file, other], [other, file]):
        message = error_message("train", *(f"--config={one}" for one in files))
        assert message.startswith(f"{file}: line {line}: {error}")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "good.yaml"
    file.write_text("\n\noptim:\n  lr: 0.1\n")
    return file


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    file = tmp_path / "bad.yaml"
    file.write_text("# text\noptim: {lr: fast}\n")
    return file


def test_a_wrong_value_is_located_in_the_file_that_has_it(good: Path, bad: Path) -> None:
    for files in ([bad], [good, bad], [bad, good]):
        message = error_message("train", *(f"--config={file}" for file in files))
        assert message == f"{bad}: line 2: optim.lr is 'fast'; expected a number"
    assert error_message("train", f"--config={bad}", "--optim.lr=0.1").startswith(f"{bad}: line 2: optim.lr is 'fast'")
    bad.write_text("optim: {lr: -1}\n")
    last = bad.parent / "last.yaml"
    last.write_text("device: cpu\noptim: {lr: -1}\n")
    assert error_message("train", *(f"--config={file}" for file in (bad, good, last))).startswith(f"{last}: line 2: optim.lr is ")
    assert error_message("train", f"--config={bad}", f"--config={good}", "--optim.lr=-1").startswith("optim.lr is -1.0")


@pytest.mark.parametrize("flag", [["--optim.lr=-1"], ["--optim.lr", "-1"], ["--optim", '{"lr": -1}']], ids=str)
def test_a_wrong_value_of_a_flag_is_not_located_in_a_file(good: Path, flag: list[str]) -> None:
    assert error_message("train", f"--config={good}", *flag).startswith("optim.lr is -1.0; expected ")


@pytest.mark.parametrize(
    ("written", "line", "error"),
    [
        ("device: cpu\nbatch:\n  <<: {people: 0}\n", 3, "batch.people is 0; expected"),
        ("train:\n  compile: true\nloss:\n  weighting: mgda\n", 2, "train.compile is True; expected false"),
        ("device: cpu\noptim.lr: -1\n", 2, "optim.lr is -1.0; expected"),
        ("device: cpu\noptim: {lr: 1" + "0" * 400 + "}\n", 2, "optim.lr is 1000"),
        ("device: cpu\noptim: {lr: 1e999}\n", 2, "optim.lr is inf; expected a finite number"),
        ("data:\n  only:\n    pose: []\n", 3, "data.only.pose is []; expected"),
        ("data:\n  only:\n    hair style: []\n", 3, "data.only.hair style is []; expected"),
        ("synthetic: &all\n  people: 20\nbatch:\n  <<: *all\n  people: 0\n", 5, "batch.people is 0; expected"),
        ("train: {threads: &x 0}\nbatch:\n  people: *x\n", 3, "batch.people is 0; expected"),
        ("data:\n  modalities:\n    - albedo\n    - foo\n", 2, "data.modalities is 'foo'; expected"),
        ("optim: {lr: 0.1}\noptim.lr: -1\n", 2, "optim.lr is repeated, once within optim"),
        ("optim.lr: 0.1\noptim: {lr: 0.01}\n", 2, "optim.lr is repeated, once within optim"),
        ("train:\n  epochs: .inf\n", 2, "train.epochs is .inf; expected a finite number"),
        ("train:\n  epochs: 0x" + "f" * 5000 + "\n", 2, "train.epochs is not a valid value"),
        ("device: cpu\noptim:\n  lrr: 1\n", 3, "unknown setting 'optim.lrr'; "),
    ],
    ids=[
        "merge key",
        "other group",
        "dotted key",
        "huge integer",
        "infinite text",
        "key in a mapping",
        "key with a space",
        "overridden merge",
        "alias",
        "list",
        "dotted key after a group",
        "dotted key before a group",
        "infinity",
        "5000 digits",
        "unknown",
    ],
)
def test_the_line_is_that_of_the_value(tmp_path: Path, written: str, line: int, error: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(written)
    assert error_message("train", f"--config={file}").startswith(f"{file}: line {line}: {error}")


def test_a_repeated_setting_whose_line_is_not_kept_is_an_error_without_a_line(tmp_path: Path) -> None:
    file, name = tmp_path / "config.yaml", "a" * 200
    file.write_text(f"optim: {{{name}: 1}}\noptim.{name}: 2\n")
    assert error_message("train", f"--config={file}").startswith(f"{file}: optim.{name} is repeated, once within optim")


def test_a_misspelt_setting_with_an_infinite_value_is_unknown(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_text("data: {root: x}\noptim:\n  lrr: .inf\n")
    assert error_message("train", f"--config={file}").startswith(f"{file}: line 3: unknown setting 'optim.lrr'; ")


def test_a_data_command_locates_a_wrong_value_and_reads_dotted_keys(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("data: {root: x}\nsynthetic:\n  people: -1\n")
    for words in (["check"], ["show", "1/2"], ["summary"]):
        message = error_message("data", *words, f"--config={file}")
        assert message.startswith(f"{file}: line 3: synthetic.people is -1; ")
    file.write_text("data.root: x\n")
    assert parse_command_line(["data", "summary", f"--config={file}"]).data.summary.data.root == "x"
    file.write_text("data.rot: x\n")
    assert error_message("data", "summary", f"--config={file}").startswith(f"{file}: line 1: unknown setting 'data.rot'; ")


def test_the_rows_of_a_long_key_take_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("zz:\n  ? " + "k" * 900_000 + "\n  : {" + ", ".join(f"a{i}: 1" for i in range(5000)) + "}\n")
    tracemalloc.start()
    error_message("train", f"--config={file}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_a_file_is_read_once(tmp_path: Path) -> None:
    """A second read of a named pipe would wait for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=["optim: {lr: fast}\n"])
    writer.start()
    assert error_message("train", f"--config={pipe}").startswith(f"{pipe}: line 1: optim.lr is 'fast'")
    writer.join()


def test_a_wrong_value_of_the_base_file_of_a_study_is_located(tmp_path: Path) -> None:
    base, study = tmp_path / "base.yaml", tmp_path / "study.yaml"
    base.write_text("train:\n  epochs: many\n")
    study.write_text(f"base: {base}\n\nbudget: {{trials: 0}}\n")
    assert error_message("search", f"--config={study}").startswith(f"{base}: line 2: train.epochs is 'many'; ")
    base.write_text("train:\n  epochs: 2\n")
    assert error_message("search", f"--config={study}").startswith(f"{study}: line 3: budget.trials is 0; ")
    study.write_text(f"base: {base}\n\nafter: {{register: x}}\n")
    assert error_message("search", f"--config={study}", "--after.seeds=0").startswith(f"{study}: line 3: after.register is 'x'; ")
    study.write_text(f"base: {base}\nspace:\n  optim.lr: {{low: .nan, high: 0.1}}\n")
    assert error_message("search", f"--config={study}").startswith(
        f"{study}: line 3: space.optim.lr.low is .nan; expected a finite"
    )
    study.write_text(f"base: {base}\n\nworkers: 0\n")
    assert error_message("search", f"--config={study}").startswith(f"{study}: line 3: workers is 0; ")


@pytest.mark.parametrize(
    ("words", "key", "expected"),
    [
        (["--sampler.name", "tpee"], "sampler.name is 'tpee'", "one of tpe, gp, cmaes, nsgaii, random, grid"),
        (["--pruner.name", "mean"], "pruner.name is 'mean'", "one of none, median, hyperband, successive_halving, wilcoxon"),
        (["--budget.trials", "0"], "budget.trials is 0", "1 to 100000"),
        (["--budget.trials", "many"], "budget.trials is 'many'", "a whole number"),
        (["--study.storage", "studies.db"], "study.storage is 'studies.db'", "sqlite:///studies.db"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_value_of_a_study_is_named_with_what_it_may_be(words: list[str], key: str, expected: str) -> None:
    message = error_message("search", *words)
    assert message.startswith(f"{key}; expected ")
    assert expected in message


@pytest.mark.parametrize("workers", ["0", "-1", "two", "1.5"])
def test_workers_are_one_or_more(workers: str) -> None:
    assert "workers" in error_message("search", "--workers", workers)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["study.name is ''", "a name"]),
        (["--study.name", "s"], ["space is {}", "optim.lr"]),
        (["--study.name", "s", "--space", "{optim.lrr: [1]}"], ["space", "'optim.lrr'", "optim.lr,"]),
        (["--study.name", "s", "--space", "{optim.lr: {low: 2, high: 1}}"], ["space.optim.lr", "low 2", "high 1"]),
        (["--study.name", "s", "--space", "{optim.lr: [1]}", "--objectives", "{test/identity/auc: maximize}"], ["never test/"]),
        (["--study.name", "s", "--space", "{optim.lr: [1]}", "--objectives", "{val/identity/eer: maximize}"], ["minimize"]),
    ],
    ids=["no name", "no space", "a misspelt setting", "low above high", "test", "a direction"],
)
def test_an_invalid_search_ends_with_2_and_one_line_before_anything_is_created(
    argv: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["search", *argv]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = [line for line in err.splitlines() if not line.startswith("loading ")]
    assert line.startswith("error: ")
    assert all(word in line for word in words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [*MARKUP_LIKE_TEXTS, "null", "~", "true", "- x", "{a: 1}"])
def test_names_on_the_command_line_stay_as_written(text: str) -> None:
    """Read as None, `--session null` would remove all sessions of the subject."""
    read = parse_command_line(["forget", "--gallery", text, f"--person={text}", f"--session={text}"])["forget"]
    assert (read.gallery, read.person, read.session) == (text, text, text)


@pytest.mark.parametrize("flag", ["resume: x", "allow_changed: true", "config: other.yaml"])
def test_a_flag_in_a_file_is_an_error(flag: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(flag)
    message = error_message("train", "--config", str(file))
    name = flag.partition(":")[0]
    assert message == f"{file}: {name} is not a setting; use the flag --{name.replace('_', '-')}"


def test_text_settings_stay_text_where_yaml_reads_a_boolean_or_a_date(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("name: 2026-11-28\nmodel: {adversaries: off}\n")
    got = settings("--config", str(file))
    assert (got.name, got.model.adversaries) == ("2026-11-28", "off")
    assert searched("--study.name=s", "--space={model.adversaries: [off, rest]}")[0].space == {
        "model.adversaries": ["off", "rest"]
    }


REQUIRED = {
    "search": ("--study.name=s", "--space={optim.lr: [0.1, 0.2]}"),
    "promote": ("--model=models:/a/1",),
    "evaluate": ("--model=a", "--data=b", "--out=c"),
    "compare": ("--model=a", "--data=b"),
    "export": ("--model=a", "--out=b"),
    "predict": ("--model=a", "--out=b"),
    "enroll": ("--model=a", "--gallery=b"),
    "identify": ("--model=a", "--gallery=b"),
    "verify": ("--model=a", "--gallery=b"),
}
FLAGS = {
    ("train", "processes"),
    ("search", "workers"),
    ("models", "size"),
    ("promote", "limit"),
    ("promote", "batch"),
    ("export", "batch"),
    ("evaluate", "batch"),
    ("compare", "batch"),
    ("predict", "batch"),
    ("enroll", "batch"),
    ("identify", "batch"),
    ("identify", "top"),
    ("identify", "fmr"),
    ("identify", "threshold"),
    ("demo", "port"),
    ("verify", "batch"),
    ("verify", "fmr"),
    ("verify", "threshold"),
}
"""Command and flag of every number that is in no config; tests/test_config.py has those that are."""


def test_the_list_of_number_flags_is_complete() -> None:
    found = set()
    for command in COMMAND_ENTRIES:
        declared = Parser()
        load_command(command).add_arguments(declared)
        for action in declared._actions:
            options = {getattr(action, "_typehint", None) or action.type, *get_args(getattr(action, "_typehint", None))}
            if any(isinstance(one, type) and issubclass(one, (int, float)) and one is not bool for one in options):
                found.add((command, action.dest))
    in_configs = {name for kind in (Config, SearchConfig, PrepareConfig) for name in setting_names(kind)}
    assert {(command, flag) for command, flag in found if flag not in in_configs or (command, flag) in FLAGS} == FLAGS


def setting_names(kind: type) -> list[str]:
    """The settings of a config, as `optim.lr`."""
    hints = get_type_hints(kind)
    return [
        f"{name}.{inner}" if dataclasses.is_dataclass(hint) else name
        for name, hint in hints.items()
        for inner in (get_type_hints(hint) if dataclasses.is_dataclass(hint) else [name])
    ]


@pytest.mark.parametrize(("command", "flag"), sorted(FLAGS))
def test_every_number_among_the_flags_has_bounds(command: str, flag: str) -> None:
    for value in ("1e20", "nan", "1" * 5000) + (() if flag == "threshold" else ("-1",)):
        message = error_message(command, *REQUIRED.get(command, ()), f"--{flag}={value}")
        assert flag in message
        assert len(message) < 500


@pytest.mark.parametrize(
    ("command", "words", "expected"),
    [
        ("search", "--workers=1000000", "--workers is 1000000; expected a number >=1 and <=1024"),
        ("models", "--size=1000000000", "--size is 1000000000; expected a number >=8 and <=4096"),
        ("train", "--train.threads=100000", "train.threads is 100000; expected 0 to 1024"),
        ("train", "--batch.sessions=1000000000000", "batch.sessions is 1000000000000; expected 1 to 65536"),
        ("train", "--batch.people=60000 --batch.sessions=60000", "batch.people is 60000; expected a batch (people x sessions)"),
        ("train", "--model.channels=1000000000", "model.channels is 1000000000; expected 8 to 8192"),
        ("train", "--synthetic.size=1000000000", "synthetic.size is 1000000000; expected 32 to 1024"),
    ],
)
def test_a_number_that_is_out_of_bounds_is_named_with_them(command: str, words: str, expected: str) -> None:
    assert error_message(command, *REQUIRED.get(command, ()), *words.split()).startswith(expected)


def test_train_prints_a_note_about_a_setting_without_effect(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--loss.cagrad_c=0.4", "--loss.scale=32", "--data.root=missing"]  # the last of which is rejected
    assert main(words) == 2
    assert capsys.readouterr().out.splitlines() == [
        "note: loss.cagrad_c has no effect; it applies only if loss.weighting is cagrad"
    ]
