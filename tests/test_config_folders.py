"""A user's configuration folder adds options to the built-in ones and hides none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from harness.cli import dispatch
from harness.config.compose import (
    config_hash,
    load_config,
    probe_tasks,
    read_config,
    to_yaml,
)
from harness.config.folders import (
    VARIABLE,
    group_options,
    locate_option,
)
from harness.runs.inputs import load_probes
from harness.storage.errors import InputError
from harness.studies.grid import expand_grid

FILES = {
    "backbone/mine.yaml": {"defaults": ["mini_random"], "name": "mine", "seed": 4},
    "task/twos.yaml": {"source": "embedded", "name": "digits", "n_train": 12, "n_test": 7},
    "study/own.yaml": {
        "defaults": [{"override /backbone": "mine"}, {"override /method": "lora"}],
        "study": {"name": "own", "grid": {"backbone": ["mine", "mini_clip"], "seed": [0, 1]}},
        "finetune": {"epochs": 2},
    },
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "my, 'own' configs"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        head = "# @package _global_\n" if name.startswith("study") else ""
        (folder / name).write_text(head + yaml.safe_dump(content))
    monkeypatch.setenv(VARIABLE, "")  # so that --config-dir is undone
    return folder


@pytest.fixture
def used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(folder))
    return folder


def test_options_add_to_ours_and_build_on_them(used: Path) -> None:
    config = load_config(["study=own"])
    assert (config.backbone.name, config.backbone.model, config.backbone.seed) == (
        "mine",
        "palimpsest_mini",
        4,
    )
    assert (config.method.name, config.study.name, config.finetune.epochs) == ("lora", "own", 2)
    assert load_config(["study=own", "backbone=mini_clip"]).backbone.name == "mini_clip"
    runs = [(config.backbone.name, config.seed) for _, config in expand_grid(["study=own"])]
    assert runs == [("mine", 0), ("mine", 1), ("mini_clip", 0), ("mini_clip", 1)]
    assert {"mine", "mini_clip"} <= set(group_options("backbone"))
    assert locate_option("backbone", "mine") == used / "backbone" / "mine.yaml"
    assert locate_option("backbone", "mini_clip") == Path("configs/backbone/mini_clip.yaml")


def test_a_changed_file_is_composed_again(used: Path) -> None:
    assert load_config(["backbone=mine"]).backbone.seed == 4
    (used / "backbone" / "mine.yaml").write_text("defaults: [mini_random]\nname: mine\nseed: 55\n")
    assert load_config(["backbone=mine"]).backbone.seed == 55


def test_without_the_folder_there_are_ours_only(folder: Path) -> None:
    assert "mine" not in group_options("backbone")
    with pytest.raises(InputError, match="unknown backbone 'mine'"):
        load_config(["backbone=mine"])


def test_a_run_is_read_without_the_folder(
    used: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(["study=own", "task=textures", "probes.tasks=[twos,shapes]", "probes.n_train=9"])
    assert config.probes.names == ("digits", "shapes")
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    monkeypatch.delenv(VARIABLE)
    again = read_config(tmp_path / "config.yaml")
    assert again == config and config_hash(again) == config_hash(config)
    assert [task.name for task in probe_tasks(again)] == ["digits", "shapes"]
    digits, shapes = load_probes(again)
    assert (len(digits.train), len(digits.test), len(shapes.train)) == (12, 7, 9)
    # a task used for fine-tuning is not a probe
    trained = again.model_copy(update={"task": load_config(["task=digits"]).task})
    assert [task.name for task in probe_tasks(trained)] == ["shapes"]


def test_probes_of_ours_stay_names(used: Path) -> None:
    assert load_config([]).probes.tasks == ["shapes", "textures", "counts"]
    with pytest.raises(InputError, match=r"^probes.tasks: unknown task 'two': .* did you mean 'twos'\?"):
        load_config(["probes.tasks=[two]"])


def test_names_nearest_to_a_wrong_one_include_them(used: Path) -> None:
    with pytest.raises(InputError, match=r"unknown backbone 'minee': .* did you mean 'mine'\?"):
        load_config(["backbone=minee"])
    with pytest.raises(InputError, match=r"unknown study 'owm': .* did you mean 'own'\?"):
        load_config(["study=owm"])


def test_a_broken_file_is_named(used: Path) -> None:
    (used / "backbone" / "broken.yaml").write_text("defaults: [nowhere]\n")
    with pytest.raises(InputError, match=r"configuration in .*own. configs/backbone/broken\.yaml: .*nowhere"):
        load_config(["backbone=broken"])
    (used / "method").mkdir()
    broken = used / "method" / "mine.yaml"
    for text in ("name: [\n", "defaults:\n- \n", "defaults:\n- {1: 2}\n", "3\n", "a: &a [*a]\n", "\xff"):
        broken.write_text(text, encoding="latin1")
        with pytest.raises(
            InputError, match=r"configuration in .*own. configs/method/mine\.yaml: "
        ) as raised:
            load_config(["method=mine"])
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["backbone/mini_clip.yaml", "config.yaml"])
def test_a_file_that_hides_one_of_ours_is_an_error_naming_both(used: Path, name: str) -> None:
    (used / name).write_text("name: mini_clip\n")
    with pytest.raises(InputError) as raised:
        load_config([])
    assert str(raised.value).startswith(f"{used / name}: hides ")
    assert f"configs/{name}, expected" in str(raised.value)


def test_two_folders_add_up_and_may_not_hide_each_other(
    used: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    (other / "backbone").mkdir(parents=True)
    (other / "backbone" / "more.yaml").write_text("defaults: [mine]\nname: more\n")
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(used), str(other), str(used)]))
    assert load_config(["backbone=more"]).backbone.seed == 4
    (other / "backbone" / "mine.yaml").write_text("defaults: [mini_clip]\nname: mine\n")
    with pytest.raises(
        InputError, match=r"other/backbone/mine.yaml: hides .*own. configs/backbone/mine.yaml"
    ):
        load_config([])


def test_folders_that_are_not_there_or_hold_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    with pytest.raises(InputError, match=r"^--config-dir: found .*/none, expected an existing folder$"):
        dispatch(["config", "--config-dir", str(tmp_path / "none")])
    (tmp_path / "backbones").mkdir()
    with pytest.raises(
        InputError, match=r"^--config-dir: found .* without groups, expected .* backbone, task"
    ):
        dispatch(["config", "--config-dir", str(tmp_path)])
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    with pytest.raises(InputError, match=rf"^{VARIABLE}: found .*/none, expected an existing folder"):
        load_config([])


def test_commands_take_the_folder_and_hand_it_to_processes_they_start(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    dispatch(["config", "backbone=mine", "--config-dir", folder.name])
    assert yaml.safe_load(capsys.readouterr().out)["backbone"]["seed"] == 4
    assert os.environ[VARIABLE] == str(folder)  # absolute, for processes started in other folders
    dispatch(["config", "--list", "backbone", f"--config-dir={folder}"])
    assert "mine" in capsys.readouterr().out.splitlines()
    dispatch(["plan", "--quick", "study=own", "task=digits"])
    assert "4 runs, 0 finished" in capsys.readouterr().out
