"""The command `palimpsest`: subcommands, help, versions, errors."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from harness.cli import (
    COMMANDS,
    dispatch,
)
from harness.config.compose import load_config
from harness.config.folders import (
    GROUPS,
    REPOSITORY,
    group_options,
)
from harness.finetuning.sizes import count_opened
from harness.runs.networks import describe_network
from harness.storage.errors import InputError

NAMES = [command.name for group in COMMANDS.values() for command in group]
WITH_OVERRIDES = ["study", "plan", "map", "finetune", "config", "brains"]


def show_help(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        dispatch([*arguments, "--help"])
    assert ended.value.code == 0
    found = capsys.readouterr()
    assert found.err == ""
    return found.out


def test_every_module_of_a_command_can_be_asked_for() -> None:
    modules = {path.stem for path in (REPOSITORY / "harness" / "commands").glob("*.py")}
    assert {name.replace("-", "_") for name in NAMES} == modules - {"__init__", "arguments"}
    launched = {command.module for group in COMMANDS.values() for command in group if command.launched}
    assert launched == {"finetune", "track", "wise_ft", "graft", "pretrain"}
    for module in launched:  # processes are launched from its file
        assert (REPOSITORY / "harness" / f"{module}.py").exists()


def test_help_at_the_top_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    text = show_help(capsys)
    for name in NAMES:
        assert re.search(rf"^  {name} +\w", text, re.MULTILINE), name
    dispatch([])
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("name", NAMES)
def test_help_of_every_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = show_help(capsys, name)
    assert text.startswith(f"usage: palimpsest {name} ")
    assert f"  palimpsest {name} " in text.partition("\nexamples:\n")[2]
    assert ("--config-dir" in text) == (name in WITH_OVERRIDES)


@pytest.mark.parametrize("name", WITH_OVERRIDES)
def test_help_names_groups_and_settings_and_its_examples_compose(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = show_help(capsys, name)
    for group in GROUPS:
        assert re.search(rf"^  {group} +\w", text, re.MULTILINE), group
    assert "palimpsest config --list GROUP" in text
    assert "runs_dir=runs " in text
    examples = re.findall(rf"^  palimpsest {name} (.*)", text, re.MULTILINE)
    assert examples
    for example in examples:
        overrides = [word for word in shlex.split(example, comments=True) if "=" in word and word[0] != "-"]
        load_config(overrides)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        dispatch(["--version"])
    assert capsys.readouterr().out == f"palimpsest {version('palimpsest')}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["qeury"], r"unknown command 'qeury': .* did you mean 'query'\?"),
        (["query", "rewiring", "--stduy=x"], r"unknown option '--stduy': .* did you mean '--study'\?"),
        (
            ["query", "rewirin"],
            r"palimpsest query: KIND: invalid choice: 'rewirin' .*palimpsest query --help",
        ),
        (["report"], r"palimpsest report: .* required: STUDY_FOLDER; see palimpsest report --help"),
        (["config", "--list", "bakcbone"], r"palimpsest config: --list: invalid choice: 'bakcbone'"),
        (["config", "seed"], r"override 'seed': expected key=value"),
        (["study", "--plan=qick"], r"palimpsest study: --plan: invalid choice: 'qick'"),
        (["finetune", "--lr=3"], r"unknown option '--lr'"),
        (["pretrain", "objective"], r"'objective': expected key=value"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        dispatch(arguments)
    assert "\n" not in str(raised.value)


def test_options_of_groups_and_settings_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    dispatch(["config", "--list", "backbone"])
    assert capsys.readouterr().out.splitlines() == group_options("backbone")
    dispatch(["config", "--settings", "finetune", "method.rank"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("finetune.epochs=10 ")
    assert re.match(r"method\.rank=\d+ ", lines[-1])
    assert all(re.match(r"(finetune|method)\.\w+=", line) for line in lines)
    dispatch(["config", "--settings"])
    assert any(line.startswith("brain.min_ceiling=null ") for line in capsys.readouterr().out.splitlines())


def test_overrides_and_options_may_be_mixed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    settings = ["study=demo", "--plan=quick", f"runs_dir={tmp_path}"]
    dispatch(["study", *settings])
    plan = capsys.readouterr().out
    assert "3 runs, 0 finished" in plan
    dispatch(["plan", settings[0], "--quick", settings[2]])
    assert capsys.readouterr().out == plan


# each takes a second or more to import
NETWORKS = {"torch", "torchvision", "timm", "open_clip", "transformers", "peft", "accelerate"}
HEAVY = NETWORKS | {
    "datasets",
    "mlflow",
    "himalaya",
    "sklearn",
    "scipy.stats",
    "seaborn",
    "matplotlib.pyplot",
}


def run_alone(*arguments: str, heavy: set[str]) -> list[str]:
    """Run a command in a process of its own; return its lines, and last the heavy modules it has imported."""
    ending = f"print(*{heavy} & {{*sys.modules}})"
    code = f"import sys; from harness.cli import main\ntry:\n main()\nfinally: {ending}"
    command = [sys.executable, "-c", code, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("arguments", [["--help"], ["query", "--help"]], ids=["top", "query"])
def test_help_imports_nothing_that_takes_seconds(arguments: list[str]) -> None:
    assert run_alone(*arguments, heavy={*HEAVY, "hydra"})[-1] == ""


def test_help_of_no_command_imports_what_takes_seconds() -> None:
    code = f"""
import contextlib, io, sys
from harness.cli import dispatch
for name in {NAMES}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        dispatch([name, "--help"])
    print(name, *{HEAVY} & {{*sys.modules}})
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == NAMES, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "--quick", "study=demo"],
        ["study", "--plan=quick", "study=demo", "backbone=imagenet_s16", "task=eurosat"],
        ["brains", "brain=simulated", "backbone=mini_supervised", "brain.n_voxels=100", "brain.n_stimuli=40"],
        ["config", "study=demo"],
    ],
    ids=["plan", "study", "brains", "config"],
)
def test_known_networks_are_described_without_torch(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    overrides = [*arguments, f"runs_dir={tmp_path}"]
    describe_network.cache_clear()
    count_opened.cache_clear()
    # the first call counts parameters and tokens, the second knows them
    dispatch(overrides)
    first = capsys.readouterr().out.splitlines()
    pictures = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    assert bool(pictures) == (arguments[0] == "brains")
    for path in pictures:
        path.unlink()
    assert run_alone(*overrides, heavy=HEAVY | {"matplotlib"}) == [*first, ""]
    assert all(path.read_bytes() == picture for path, picture in pictures.items())


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("harness", ""),
        ("harness.finetune", " finetune"),
        ("harness.brains", " brains"),
        ("harness.config", " config"),
    ],
)
def test_modules_show_the_same_help(module: str, name: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: palimpsest{name} ")
