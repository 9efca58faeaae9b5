"""Overrides: text is taken literally, Hydra's grammar still works, and grids write what is read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from harness.config.compose import load_config, load_option
from harness.config.overrides import parse_override, text_settings, write_override
from harness.runs.layout import run_folder
from harness.storage.errors import InputError
from harness.studies.grid import expand_grid

HARD = '/data/my photos (1), [new]/é#=x & it\'s "100%" {a:b}/$HOME/~'
# every setting that names a file or folder, with the option that has it
PATHS = {
    "runs_dir": [],
    "study.plan": [],
    "task.root": ["task=imagefolder"],
    "task.table": ["task=table"],
    "task.test_table": ["task=table", "task.table=/data/a.csv"],
    "backbone.checkpoint": ["backbone=imagenet_b16"],
    "brain.root": ["brain=arrays"],
    "brain.stimuli": ["brain=nsd", "brain.root=/data"],
    "brain.maps": ["brain=grayordinates", "brain.root=/data"],
    "brain.table": ["brain=grayordinates", "brain.root=/data"],
    "brain.images": ["brain=grayordinates", "brain.root=/data"],
    "mapping.held_out_list": ["mapping.held_out_by=list"],
}


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("path", [HARD, "2024", "[a", "it's"])
def test_paths_are_taken_literally(name: str, path: str) -> None:
    found: object = load_config([*PATHS[name], f"{name}={path}"])
    for part in name.split("."):
        found = getattr(found, part)
    assert found == path


def test_settings_of_text_are_found_by_their_type() -> None:
    assert set(PATHS) < text_settings()
    # lists, numbers and choices keep Hydra's grammar
    assert (
        not {"brain.rois", "seed", "finetune.precision", "study.grid", "task", "task.n_train"}
        & text_settings()
    )


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("null", None),
        ("NULL", None),
        ("'a, b'", "a, b"),
        ('"a = \\"b\\""', 'a = "b"'),
        ("/data/my\\ photos\\ \\(1\\)", "/data/my photos (1)"),
        ("'tis", "'tis"),
        ("'a','b'", "'a','b'"),
        ("", ""),
    ],
)
def test_hydras_grammar_of_one_text_still_works(written: str, value: str | None) -> None:
    assert parse_override(f"task.root={written}") == ("task.root", value)
    assert parse_override(f"++task.root={written}") == ("task.root", value)


def test_a_list_is_no_text() -> None:
    with pytest.raises(InputError, match=r'task.root: found \["a", "b"\], expected a valid string'):
        load_config(["task=imagefolder", "task.root=[a,b]"])


def test_interpolations_still_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "/data/é")
    config = load_config(["runs_dir=${oc.env:PLACE}/my runs (1), #=${seed}", "seed=3"])
    assert config.runs_dir == "/data/é/my runs (1), #=3"


def test_arguments_of_functions_may_be_text() -> None:
    given = ["task=python", "task.function=a.b:c"]
    names = {"task.arguments.root": HARD, "task.arguments.comma": "a,b"}
    config = load_config([*given, *(f"{name}={value}" for name, value in names.items())])
    assert config.task.arguments == {"root": HARD, "comma": "a,b"}
    config = load_config([*given, "task.arguments.sizes=[1,2]", "task.arguments.n=3"])
    assert config.task.arguments == {"sizes": [1, 2], "n": 3}


@pytest.mark.parametrize("text", ["~task.root", "task.root", "task.root@here=/data", "=x", "seed=1,2"])
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected key=value"):
        parse_override(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("task.root", text) for text in (HARD, "null", "'a'", "a\\b", 'a\\"', "~/a", "0")),
        *(("task.train", text) for text in ("0", "null")),
        ("task.templates", ['ein Foto, "grün", {}.', "it's a \\ {}"]),
        ("task.n_train", 3),
        ("finetune.lr", 1e-5),
        ("finetune.precision", "no"),
        ("task.n_train", None),
        ("task.leaks", "a, b"),
    ],
)
def test_what_is_written_is_read_back(name: str, value: object) -> None:
    assert parse_override(write_override(name, value)) == (name, value)


def test_a_grid_of_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [
        "/data/my photos (1), new/é#=x",
        {"task.root": 'it\'s "new"', "task.templates": ["ein Grün {}"]},
    ]
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "two.yaml").write_text(
        "# @package _global_\n"
        + yaml.safe_dump(
            {
                "study": {"name": "two", "grid": {"task.root": places}},
                "task": {"root": "/data"},  # a grid alone does not make a configuration
            }
        ),
        encoding="utf-8",
    )
    monkeypatch.setenv("PALIMPSEST_CONFIGS", str(tmp_path))
    given = ["study=two", "task=imagefolder"]
    runs = list(expand_grid(given))
    assert [config.task.root for _, config in runs] == ["/data/my photos (1), new/é#=x", 'it\'s "new"']
    assert runs[1][1].task.templates == ("ein Grün {}",)
    for overrides, config in runs:  # as the study's processes read them
        assert load_config(overrides) == config
    # a value of the grid brings what the grid ties to it, however it is written
    for written in ('it\'s "new"', "'it\\'s \"new\"'"):
        (_, chosen), *others = expand_grid([*given, f"task.root={written}"])
        assert not others and chosen.task.templates == ("ein Grün {}",)


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_folder(load_config(["runs_dir=~/my runs"])).parent == tmp_path / "my runs" / "default"
    # no such user: a file of this name
    assert run_folder(load_config(["runs_dir=~nobody-here/x"])).parts[0] == "~nobody-here"


def test_a_path_as_a_path() -> None:
    assert load_option("task", "imagefolder", {"root": Path("/data/a b")}).root == "/data/a b"
