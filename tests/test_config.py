"""Configuration: valid compositions, errors, and names of runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from pydantic import ValidationError

from harness.config.brain import Algonauts2023Config
from harness.config.compose import (
    config_hash,
    flatten,
    load_config,
    read_config,
    to_yaml,
)
from harness.config.folders import (
    CONFIGS,
    GROUPS,
    group_options,
)
from harness.config.mapping import FactorTopyConfig
from harness.config.overrides import settings
from harness.config.run import Config
from harness.storage.errors import InputError
from tasks.load import NAMES

# settings without a default: only the user knows them
ROOTS = {
    "algonauts2023": "/data/subj01",
    "arrays": "/data",
    "nsd": "/data/nsd",
    "grayordinates": "/data/maps",
}
NEEDED = {name: [f"brain.root={root}"] for name, root in ROOTS.items()} | {
    "imagefolder": ["task.root=/data/birds"],
    "table": ["task.table=/data/birds.csv"],
    "hub": ["task.repository=someone/birds"],
    "imagenet": ["task.root=/data/imagenet"],
}
NEEDED["mocov3_b16"] = ["backbone.checkpoint=/data/vit-b-300ep.pth.tar"]
for library in ("timm", "open_clip"):  # any of their networks
    NEEDED[library] = ["backbone.model=some", f"backbone.name={library}", "backbone.weights=some"]


def test_every_embedded_task_has_an_option_and_other_options_have_another_source() -> None:
    assert set(NAMES) <= set(group_options("task"))
    for name in group_options("task"):
        needed = ["task.function=a.b:c"] if name == "python" else NEEDED.get(name, [])
        config = load_config([f"task={name}", *needed]).task
        assert (config.source == "embedded") == (name in NAMES)


@pytest.mark.parametrize(
    ("group", "option"), [(group, option) for group in GROUPS for option in group_options(group)]
)
def test_every_option_of_every_group_composes(group: str, option: str) -> None:
    needed = NEEDED.get(option, [])
    if option == "python":
        named = [f"{group}.name=python"] if group in ("task", "backbone") else []
        needed = [f"{group}.function=a.b:c", *named]
    config = load_config([f"{group}={option}", *needed])
    if group != "mapping":
        assert getattr(config, group).name == option
    assert isinstance(config, Config)


def test_groups_are_the_folders_and_the_sections() -> None:
    assert {path.name for path in CONFIGS.iterdir() if path.is_dir()} == set(GROUPS)
    assert set(GROUPS) <= set(Config.model_fields)


def test_overrides_reach_values_that_no_file_mentions() -> None:
    config = load_config(["backbone=mini_supervised", "seed=3", "finetune.lr=1e-4", "task.n_train=null"])
    assert (config.backbone.library, config.seed, config.finetune.lr) == ("timm", 3, 1e-4)
    assert config.task.n_train is None
    assert load_config(["method=lora", "method.rank=4"]).method.model_dump()["rank"] == 4
    assert load_config(["finetune.precision=no"]).finetune.precision == "no"


def test_a_study_overrides_any_setting_and_the_command_line_the_study() -> None:
    demo = load_config(["study=demo"])
    assert demo.study.grid == {
        "backbone": [
            "mini_clip",
            "mini_supervised",
            {"backbone": "mini_random", "finetune.lr": 1e-5},
        ]
    }
    assert demo.mapping.steps != load_config([]).mapping.steps
    assert load_config(["study=demo", "mapping.steps=7"]).mapping.steps == 7
    assert load_config(["mapping.steps=7", "study=demo"]).mapping.steps == 7


def test_a_grid_can_name_settings_with_dots() -> None:
    config = load_config(["study.grid={finetune.lr:[1e-4,1e-3],seed:[0,1]}"])
    assert config.study.grid == {"finetune.lr": [1e-4, 1e-3], "seed": [0, 1]}


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("backbone=mini_clp", ["backbone", "'mini_clp'", "mini_random", "did you mean 'mini_clip'"]),
        ("backbone=null", ["unknown backbone 'None'", "expected one of"]),
        ("study=dmo", ["study", "did you mean 'demo'"]),
        ("finetune.lrr=1", ["'finetune.lrr'", "did you mean 'finetune.lr'"]),
        ("finetun.lr=1", ["'finetun.lr'", "did you mean 'finetune.lr'"]),
        ("lr=1", ["'lr'", "finetune.lr", "mapping.lr"]),
        ("hydra.job.name=x", ["'hydra.job.name'"]),
        ("method.rank=4", ["method.rank", "not a setting of the chosen method"]),
        ("method.name=lorra", ["method.name", '"lorra"', "'lora'", "'linear_probe'"]),
        ("brain=simulatd", ["brain", "'simulatd'", "algonauts2023", "did you mean 'simulated'"]),
        ("brain.name=simulatd", ["brain.name", '"simulatd"', "'simulated'", "'arrays'"]),
        ("brain.subject=1", ["brain.subject", "not a setting of the chosen brain"]),
        ("brain=arrays", ["brain.root", "nothing", "npz"]),
        ("brain.rois=[]", ["brain.rois", "at least 1"]),
        ("brain.rois=V1", ["brain.rois", '"V1"', "array"]),
        ("brain.min_ceiling=2", ["brain.min_ceiling", "less than or equal to 1"]),
        (
            "mapping.held_out_by=sed",
            ["mapping.held_out_by", '"sed"', "'seed', 'session', 'shared' or 'list'"],
        ),
        ("mapping.held_out_by=list", ["mapping:", "held_out_by list and held_out_list null"]),
        ("mapping.held_out_list=x.txt", ["mapping:", "held_out_by seed and held_out_list x.txt"]),
        ("finetune.lr=-1", ["finetune.lr", "-1", "greater than 0"]),
        ("finetune.lr=nan", ["finetune.lr", "NaN", "finite"]),
        ("finetune.lr=", ["finetune.lr", '""', "number"]),
        ("finetune.epochs=2.5", ["finetune.epochs", "2.5", "integer"]),
        ("seed=true", ["seed", "true", "integer"]),
        ("finetune.precision=fp8", ["finetune.precision", '"fp8"', "'no', 'fp16' or 'bf16'"]),
        ("finetune.accumulation=3", ["finetune:", "accumulation 3", "divisor", "32"]),
        ("finetune=3", ["finetune", "3", "section"]),
        ("task.name=a/b", ["task.name", '"a/b"']),
        ("probes.tasks=shapes", ["probes.tasks", '"shapes"', "array"]),
        ("mapping.floor_refits=1", ["mapping.floor_refits", "1", "greater than or equal to 2"]),
        ("study.grid.backbne=[mini_clip]", ["study.grid", "did you mean 'backbone'"]),
        ("study.grid.backbone=[mini_clp]", ["backbone", "did you mean 'mini_clip'"]),
        ("study.grid.seed=[]", ["study.grid.seed", "one value or more"]),
        ("study.grid.runs_dir=[a]", ["study.grid", "runs_dir"]),
        ("seed", ["'seed'", "key=value"]),
        ("~seed", ["'~seed'", "key=value"]),
        ("seed=1,2", ["'seed=1,2'", "key=value"]),
        ("backbone@x=mini_clip", ["key=value"]),
        ("task.class_names=[a=b,c]", ["key=value", "quote a value that contains ="]),
        ("=", ["key=value"]),
        ("seed=${nowhere}", ["nowhere"]),
    ],
)
def test_bad_input_ends_in_one_line(override: str, parts: list[str]) -> None:
    with pytest.raises(InputError) as raised:
        load_config([override])
    message = str(raised.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    config = load_config(["study=demo", "method=lora", "finetune.lr=1e-5", "finetune.clip_norm=null"])
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert read_config(path) == config


@pytest.mark.parametrize(
    "text", ["seed: [", "seed: 0\n", "seed: x\n", "", "seed: 2020-01-01\n", "a: &a [*a]\n"]
)
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    with pytest.raises(InputError, match=r"config\.yaml: no such file"):
        read_config(path)
    path.write_text(text)
    with pytest.raises(InputError, match=r"config\.yaml: ") as raised:
        read_config(path)
    assert "\n" not in str(raised.value)


def test_hash_has_what_determines_the_result_and_nothing_else() -> None:
    reference = load_config([])
    for same in (
        "runs_dir=/elsewhere",
        "finetune.num_workers=2",
        "study.name=x",
        "snapshots.resume_every=7",
        "mapping.voxels_per_pass=10",
    ):
        assert config_hash(load_config([same])) == config_hash(reference)
    for other in ("seed=1", "finetune.lr=1e-4", "backbone.seed=1", "brain.n_voxels=300", "mapping.beta=0.2"):
        assert config_hash(load_config([other])) != config_hash(reference)
    # equal numbers, spelt differently
    assert config_hash(load_config(["mapping.lr=0.0010"])) == config_hash(load_config(["mapping.lr=1e-3"]))
    assert config_hash(load_config(["snapshots.ratio=2"])) == config_hash(
        load_config(["snapshots.ratio=2.0"])
    )


def test_flattened_settings_are_overrides_that_give_the_same_run() -> None:
    config = load_config(["method=lora", "method.rank=4", "finetune.clip_norm=null", "probes.tasks=[shapes]"])
    flat = flatten(config)
    assert flat["method.rank"] == "4"
    assert flat["backbone.name"] == "mini_clip"
    assert not [name for name in flat if name.startswith(("study", "runs_dir"))]
    assert config_hash(load_config([f"{name}={value}" for name, value in flat.items()])) == config_hash(
        config
    )


def test_a_mistyped_setting_is_named_before_the_one_that_is_missing_for_it() -> None:
    with pytest.raises(InputError, match=r"'brain\.rot': .* mean 'brain\.root'"):
        load_config(["brain=arrays", "brain.rot=/data"])


def test_brains_are_compared_and_written_like_other_settings(tmp_path: Path) -> None:
    overrides = ["brain=algonauts2023", "brain.root=/data/alg23", "brain.subject=3", "brain.rois=[V1,hV4]"]
    config = load_config(overrides)
    assert isinstance(config.brain, Algonauts2023Config)
    assert (config.brain.rois, config.brain.subject) == (("V1", "hV4"), 3)
    assert {config.brain: "one", load_config(overrides).brain: "again"} == {config.brain: "again"}
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert read_config(tmp_path / "config.yaml") == config
    assert config_hash(config) != config_hash(load_config([*overrides, "brain.subject=4"]))


def test_configurations_do_not_change_and_hydra_is_left_as_found() -> None:
    config = load_config([])
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1  # type: ignore[misc]
    with pytest.raises(InputError):
        load_config(["seed=${nowhere}"])
    assert load_config([]) == config
    assert not GlobalHydra.instance().is_initialized()


def test_sections_are_checked_when_made_in_code() -> None:
    assert (FactorTopyConfig().n_channels, FactorTopyConfig().token_size) == (32, 8)
    with pytest.raises(ValidationError, match="extra"):
        FactorTopyConfig(n_chanels=3)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="integer"):
        FactorTopyConfig(steps="3")  # type: ignore[arg-type]


def test_all_settings_are_named_once_per_option() -> None:
    names = set(settings())
    assert {"seed", "method.rank", "finetune.lr", "study.grid"} <= names
    assert "lr" not in names


def test_a_missing_setting_says_what_it_is() -> None:
    with pytest.raises(
        InputError, match=r"^brain.root: found nothing, expected the folder that holds nsddata"
    ):
        load_config(["brain=nsd"])
    with pytest.raises(InputError, match=r"^task.root: found nothing, expected \w+"):
        load_config(["task=imagefolder"])
