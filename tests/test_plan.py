import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models._hub import get_cache_dir

from harness.backbones.load import load_backbone
from harness.commands.study import main
from harness.config.compose import (
    group_options,
    load_config,
)
from harness.config.mapping import LayerRidgeConfig, ThroughTimeConfig
from harness.finetuning.methods.ewc import Ewc
from harness.finetuning.methods.l2_sp import L2Sp
from harness.finetuning.methods.ldifs import Ldifs
from harness.finetuning.methods.lwf import Lwf
from harness.finetuning.methods.objective import Objective
from harness.finetuning.methods.tuned import tune
from harness.mappings.data import FitData
from harness.mappings.fit import fit_mapping
from harness.mappings.splits import split_stimuli
from harness.runs.layout import run_folder
from harness.storage import hub
from harness.storage.errors import InputError
from harness.storage.files import write_json
from harness.studies import (
    availability,
    plan,
)
from harness.studies.availability import (
    DOWNLOAD,
    HERE,
    MISSING,
    Need,
)
from harness.studies.costs import (
    FitSpeed,
    Speed,
    count_classes,
    count_fit_steps,
    count_fits,
    count_images_seen,
    count_training_images,
    mapping_bytes,
    numbers_kept,
    plan_steps,
    token_bytes,
    tracking_seconds,
    training_bytes,
    tuning_seconds,
)
from harness.studies.grid import expand_grid
from harness.studies.timing import (
    measure_fit,
    measure_layer_evidence,
    measure_network,
)
from harness.tokens.extraction import LayerTokens
from tasks.load import NAMES, load_task

SMALL = ["backbone=mini_supervised", "task=digits"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments, **more):
        raise AssertionError("a plan asked the network")

    monkeypatch.setattr(hub, "answers", refuse)
    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


def test_training_images_are_known_from_settings_or_not_at_all():
    def count(*overrides):
        return count_training_images(load_config(list(overrides)).task)

    assert count("task=digits") == 1257
    assert count("task=shapes", "task.n_train=64") == 64
    assert count("task=counts", "task.n_per_class=7") == 21
    assert count("task=dermamnist", "task.n_per_class=10") == 70
    assert count("task=eurosat") is None
    assert count("task=eurosat", "task.n_per_class=10") is None
    assert count("task=chestmnist", "task.n_per_class=10") is None  # multi-label


def test_steps_and_snapshots_by_hand():
    sizes = ["task.n_train=100", "finetune.batch_size=30", "finetune.epochs=4"]
    settings = [*SMALL, *sizes, "snapshots.first=2", "snapshots.ratio=2"]
    # 3 steps an epoch; steps 2, 4, 8 and the ends of epochs
    assert plan_steps(load_config(settings)) == (12, [0, 2, 3, 4, 6, 8, 9, 12])
    unknown = ["task=eurosat", "finetune.epochs=8", "snapshots.first=2", "snapshots.ratio=2"]
    assert plan_steps(load_config(unknown)) == (None, None)
    assert plan_steps(load_config([*unknown, "finetune.max_steps=9"])) == (None, None)
    assert plan_steps(load_config([*unknown, "finetune.max_steps=8"])) == (8, None)
    without = [*unknown, "finetune.max_steps=8", "snapshots.at_epoch_ends=false"]
    assert plan_steps(load_config(without)) == (8, [0, 2, 4, 8])
    with pytest.raises(InputError, match="at most 20, the training images of task 'digits'"):
        plan_steps(load_config([*SMALL, "task.n_train=20"]))


def test_fits_by_hand():
    settings = [*SMALL, "mapping.floor_refits=3", "mapping.steps=100"]
    assert count_fits(load_config(settings), 5) == 8
    assert count_fit_steps(load_config(settings), 8) == 800
    warm = load_config([*settings, "mapping.warm_steps=10", "brain.subjects=[1,2]"])
    assert count_fits(warm, 5) == 2 * (1 + 3 + 5)
    assert count_fit_steps(warm, 18) == 2 * 100 + 16 * 10
    assert count_fit_steps(load_config([*SMALL, "mapping=layer_ridge"]), 8) is None


def test_bytes_by_hand():
    mapping = load_config(["mapping.n_channels=4", "mapping.token_size=3"]).mapping
    # 2 bytes of float16, 9 places and the global token
    assert token_bytes(100, (8, 16), mapping) == 100 * 24 * 10 * 2
    assert token_bytes(100, (8, 16), LayerRidgeConfig(token_size=3)) == 100 * 24 * 10 * 4
    # a family that fits all snapshots together holds the tokens of all
    assert token_bytes(100, (8, 16), mapping, 5) == 100 * 24 * 10 * 2
    together = ThroughTimeConfig(token_size=3)
    assert token_bytes(100, (8, 16), together, 5) == 5 * 100 * 24 * 10 * 2
    assert token_bytes(100, (8, 16), together) is None
    # layer 2, place 2, scale 1, weights 4, bias 1, scores 2; two projections of 24 to 4
    assert mapping_bytes(50, (8, 16), mapping) == 4 * (50 * 12 + 2 * 24 * 4)
    assert mapping_bytes(50, (8, 16), LayerRidgeConfig()) == 4 * 50 * 4
    assert training_bytes(100, 60, 10) == 4 * (100 + 100 + 3 * 60 + 10)
    assert [numbers_kept(name, 9, 5) for name in ("full", "ldifs", "l2_sp", "ewc")] == [0, 9, 5, 10]


def test_seconds_by_hand():
    speed = Speed(forward=0.25, train=1.0, update=0.5, evidence=7.0)
    assert tuning_seconds(speed, 10, 4, "full") == 10 * (4 * 1.0 + 0.5)
    assert tuning_seconds(speed, 10, 4, "lwf") == 10 * (4 * 1.25 + 0.5)
    settings = ["probes.tasks=[shapes,digits]", "probes.n_train=20", "probes.n_test=10", "task.n_test=5"]
    # 1,257 and 5 images of the task, 30 of the only probe that is a different task
    config = load_config([*SMALL, *settings, "mapping.steps=6", "evidence.n_draws=2"])
    seen = 100 + 1257 + 5 + 30
    assert count_images_seen(config, 100) == seen
    assert tracking_seconds(config, speed, 100, 3, 5) is None
    fit = FitSpeed(
        step=2.0, start=3.0, stimulus=0.01, compared=0.02, ridge=5.0, ridge_stimuli=50, n_features=400
    )
    speed = replace(speed, fit=fit)
    fits = 5 * (3.0 + 100 * (0.01 + 0.02) + 6 * 2.0)
    # 10 penalties, step 0 with its noise, two draws of two kinds of noise at four levels, two snapshots
    evidence = (10 + 2 + 2 * 2 * 4 + 2) * 7.0
    ridges = 3 * 5.0 * (100 / 50) ** 2
    assert tracking_seconds(config, speed, 100, 3, 5) == pytest.approx(
        3 * seen * 0.25 + fits + evidence + ridges
    )
    # step 0 of another run: its images, controls and fits
    assert tracking_seconds(config, speed, 100, 3, 2, from_others=True) == pytest.approx(
        2 * seen * 0.25 + fits * 2 / 5 + 2 * 7.0 + ridges
    )
    # 800 stimuli outnumber 400 features
    assert fit.ridge_seconds(800) == 5.0 * (800 * 400) / (50 * 50)
    # closed forms compare 2,000 training stimuli at most, a fifth is held out
    assert fit.seconds(1, 0, 10_000, 0.2) == pytest.approx(3.0 + 100.0 + 2500 * 0.02)


@pytest.mark.parametrize("name", group_options("study"))
def test_every_study_resolves_without_a_network(name, monkeypatch, tmp_path):
    monkeypatch.setenv("PALIMPSEST_MOCOV3_B16", str(tmp_path / "vit-b-300ep.pth.tar"))
    configs = [config for _, config in expand_grid([f"study={name}"])]
    assert {config.study.name for config in configs} == {name}
    needs = availability.list_needs(configs)
    assert {need.what for need in needs if need.state == MISSING} == (
        {"weights of mocov3_b16"} if name == "objectives" else set()
    )
    for config in configs:
        steps, snapshots = plan_steps(config)
        assert steps is not None and snapshots is not None and snapshots[-1] == steps


def test_networks_are_counted_without_memory():
    # docs/backbones.md: 86 M parameters and 63 M for text, 12 layers of width 768
    clip = plan.describe_network(load_config(["backbone=clip_b16"]).backbone)
    assert round(clip.n_encoder / 1e6) == 86 and round((clip.n_all - clip.n_encoder) / 1e6) == 63
    assert clip.widths == (768,) * 12
    giant = plan.describe_network(load_config(["backbone=dinov2_g14"]).backbone)
    assert giant.n_all == giant.n_encoder > 1.1e9
    config = load_config([*SMALL, "method=linear_probe"])
    network = plan.describe_network(config.backbone)
    # a head of 10 classes on 128 features
    assert plan.count_trained(config, network) == (1290, 4 * 1290)
    with pytest.raises(InputError, match="flyp with backbone mini_supervised, which has no text tower"):
        flyp = load_config([*SMALL, "method=flyp"])
        plan.count_trained(flyp, network)


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "vit_tinyy"])
def test_weights_that_timm_does_not_know(model):
    settings = ["backbone=timm", f"backbone.model={model}", "backbone.weights=none"]
    with pytest.raises(InputError, match=rf"^backbone.weights: timm knows no weights of {model}.none$"):
        availability.find_weights(load_config(settings).backbone)


def test_caches_and_files_are_looked_at(monkeypatch, tmp_path):
    found = availability.find_weights(load_config(["backbone=imagenet_b16"]).backbone)
    repository = "timm/vit_base_patch16_224.augreg_in21k_ft_in1k"
    asked = []

    def look(repo, file, revision=None):
        asked.append((repo, file))
        return "path" if file == "model.safetensors" else None

    assert [need.place for need in found] == [f"hub: {repository}"]
    monkeypatch.setattr(availability, "try_to_load_from_cache", look)
    (need,) = availability.find_weights(load_config(["backbone=imagenet_b16"]).backbone)
    assert need.state == HERE and asked == [(repository, "model.safetensors")]
    (need,) = availability.find_weights(load_config(["backbone=clip_b16"]).backbone)
    assert need.state == DOWNLOAD and asked[-1][0] == "laion/CLIP-ViT-B-16-DataComp.L-s1B-b8K"
    _, tokenizer = availability.find_weights(load_config(["backbone=siglip_b16"]).backbone)
    assert tokenizer.what == "tokenizer of siglip_b16" and tokenizer.state == DOWNLOAD
    (need,) = availability.find_weights(load_config(["backbone=mini_clip"]).backbone)
    assert need.state == HERE
    assert availability.find_images(load_config(["task=digits"]).task) == []
    medical = ["task=bloodmnist", f"task.root={tmp_path}"]
    (need,) = availability.find_images(load_config(medical).task)
    assert need.state == MISSING and need.place == str(tmp_path / "bloodmnist.npz")
    (tmp_path / "bloodmnist.npz").touch()
    (need,) = availability.find_images(load_config(medical).task)
    assert need.state == HERE
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    (need,) = availability.find_images(load_config(["task=eurosat"]).task)
    assert need == Need("images of eurosat", DOWNLOAD, "hub: tanganke/eurosat")
    (tmp_path / "tanganke___eurosat" / "default").mkdir(parents=True)
    (need,) = availability.find_images(load_config(["task=eurosat"]).task)
    assert need.state == HERE


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_caches_lie_where_the_libraries_have_them(monkeypatch, tmp_path):
    for name in ("HF_HOME", "HF_DATASETS_CACHE", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME", "HF_DATASETS_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
        assert availability.torch_cache() == Path(get_cache_dir())
        theirs = runpy.run_module("datasets.config")["HF_DATASETS_CACHE"]
        assert availability.datasets_cache() == theirs


def test_plan_is_printed_and_nothing_is_run(monkeypatch, tmp_path, capsys):
    settings = ["study=demo", f"runs_dir={tmp_path}"]
    folders = [run_folder(config) for _, config in expand_grid(settings)]
    write_json(folders[0] / "finished.json", {"steps": [0]})
    monkeypatch.setattr("harness.studies.study.launch", lambda combination: pytest.fail("a run was launched"))
    monkeypatch.setattr("sys.argv", ["study", "--plan=quick", *settings])
    main()
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 110
    row = next(line for line in said.splitlines() if line.startswith("mini_supervised")).split()
    # 300 images, 15 steps an epoch, 5 epochs; 0, 15 and 75, 3 refits
    assert row[1:4] == ["75", "3", "6"] and row[-2:] == ["to", "do"]
    assert "3 runs, 1 finished" in said and "fits: 12" in said and "Time was not measured" in said
    assert "missing, and no run can download it: none" in said
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [folders[0] / "finished.json"]
    monkeypatch.setattr("sys.argv", ["study", "--plam", *settings])
    with pytest.raises(InputError, match=r"unknown option '--plam': .* mean '--plan'"):
        main()


def test_time_is_estimated_from_measured_pieces(tmp_path, monkeypatch, capsys):
    speed = Speed(forward=0.001, train=0.01, update=0.0, fit=FitSpeed(step=0.1), begin=4.0)
    monkeypatch.setattr(plan.Stopwatch, "speed", lambda self, config, size: speed)
    (config,) = (run for _, run in expand_grid(["study=demo", "backbone=mini_supervised"]))
    config = config.model_copy(update={"runs_dir": str(tmp_path)})  # not where a finished demo may be
    plan.print_plan([config])
    # 75 steps of 20 images; 3 times 800 stimuli, 500 images of the task, 350 of 3 probes; 6 fits of 50
    seconds = 4.0 + 75 * 20 * 0.01 + 3 * (800 + 500 + 1050) * 0.001 + 300 * 0.1
    said = capsys.readouterr().out
    assert f"{seconds:.0f} s  to do" in said and "estimated on this machine" in said


def test_pieces_can_be_measured():
    config = load_config([*SMALL, "mapping.batch_size=4"])
    device = torch.device("cpu")
    speed = measure_network(config.backbone, config.method, "no", device)
    assert 0 < speed.forward < speed.train and speed.update > 0
    fit = measure_fit((8, 8), 100, config.mapping, device)
    assert fit is not None and fit.seconds(1, 1, 100, 0.2) > 0 and fit.ridge > 0
    assert measure_layer_evidence((8, 8), (60, 100), 4, config.evidence, device) > 0
    assert measure_fit((8, 8), 100, LayerRidgeConfig(), device) is None


def test_sizes_of_built_in_tasks_are_those_that_are_known(monkeypatch):
    rng = np.random.default_rng(0)

    def draw_noise(scenes):
        return rng.integers(0, 256, (len(scenes), 8, 8, 3), np.uint8)

    # rendering takes seconds, and only the number of images matters
    monkeypatch.setattr("tasks.shape_tasks.render_scenes", draw_noise)
    for name in NAMES:
        config = load_config([f"task={name}"]).task
        task = load_task(name, n_test=10, image_size=8)
        assert (count_training_images(config), count_classes(config)) == (len(task.train), task.n_classes)


def test_classes_are_known_from_settings_or_not_at_all():
    def count(*overrides):
        return count_classes(load_config(list(overrides)).task)

    several = ["task=table", "task.table=x.csv", "task.multi_label=true"]
    assert count("task=dermamnist") == 7
    assert count("task=eurosat") is None
    assert count("task=python", "task.function=my_lab.tasks:load") is None
    assert count("task=table", "task.table=x.csv", "task.classes=[cat,dog,owl]") == 3
    assert count(*several, "task.label_columns=[mass,nodule]") == 2
    # a label for "no label" is not a class
    assert count("task=chest_xray") == 14
    assert count(*several, "task.classes=[mass,none,nodule]", "task.no_label=none") == 2
    assert count(*several, "task.label_columns=[mass,nodule]", "task.no_label=none") == 2


def test_steps_of_tasks_of_known_and_unknown_size():
    # 1,257 and 1,000 images: the second has too few for a batch
    with pytest.raises(InputError, match="at most 1000, the training images of task 'textures'"):
        plan_steps(load_config(["task=[digits,textures]", "finetune.batch_size=1100"]))
    odd = [*SMALL, "task.n_train=75", "finetune.batch_size=25", "finetune.epochs=2", "snapshots.first=4"]
    assert plan_steps(load_config(odd)) == (6, [0, 3, 4, 6])
    # an epoch has at least one step, so 9 epochs reach 4 steps
    unknown = ["task=eurosat", "finetune.epochs=9", "finetune.max_steps=4", "snapshots.at_epoch_ends=false"]
    assert plan_steps(load_config([*unknown, "snapshots.first=2"])) == (4, [0, 2, 4])


def test_images_seen_of_several_subjects_and_of_a_task_of_unknown_size():
    settings = ["probes.tasks=[shapes,counts]", "probes.n_train=20", "probes.n_test=10"]
    assert count_images_seen(load_config(["task=eurosat", *settings]), 100) == 100 + 2 * 30
    assert count_images_seen(load_config(["task=eurosat", "task.n_test=5", *settings]), 100) == 165
    two = load_config(["task=eurosat", "brain.subjects=[1,2]", *settings])
    assert count_images_seen(two, 100) == 2 * 100 + 2 * 30


@pytest.mark.parametrize(("precision", "n_bytes"), [("float32", 4), ("float16", 2), ("bfloat16", 2)])
def test_bytes_of_tokens_go_by_their_precision(precision, n_bytes):
    mapping = load_config([f"mapping.token_precision={precision}", "mapping.token_size=3"]).mapping
    assert token_bytes(100, (8, 16), mapping) == 100 * 24 * 10 * n_bytes


@pytest.mark.parametrize("family", group_options("mapping"))
def test_bytes_of_a_mapping_are_those_of_one_that_was_fitted(family):
    settings = ["mapping.token_size=2", "mapping.n_channels=3", "mapping.steps=1", "mapping.batch_size=8"]
    config = load_config([f"mapping={family}", *settings[: 1 if family == "layer_ridge" else 4]]).mapping
    rng, split = np.random.default_rng(0), split_stimuli(16, 0.25, 0)

    def measure(n_voxels, widths):
        tokens = LayerTokens(
            tuple(torch.from_numpy(rng.standard_normal((16, n, 2, 2), np.float32)) for n in widths),
            tuple(torch.from_numpy(rng.standard_normal((16, n), np.float32)) for n in widths),
            tuple(map(str, widths)),
        )
        box = np.array([[-1.0] * 3, [1.0] * 3], np.float32)
        places = rng.uniform(-1, 1, (n_voxels, 3)).astype(np.float32)
        responses = rng.standard_normal((16, n_voxels), np.float32)
        mapping = fit_mapping(FitData(tokens, responses, places, box, split), config, seed=0)
        arrays = [array for array in vars(mapping).values() if isinstance(array, np.ndarray)]
        learned = mapping.learned or {}
        arrays += [array for name, array in learned.items() if not name.startswith("frame.")]
        return sum(array.nbytes for array in arrays)

    # the plan omits what depends on neither voxels nor layer widths, such as the selector networks
    few = measure(20, (4, 6))
    for n_voxels, widths in ((30, (4, 6)), (20, (4, 9))):
        planned = mapping_bytes(n_voxels, widths, config) - mapping_bytes(20, (4, 6), config)
        assert measure(n_voxels, widths) - few == planned
    voxel = mapping_bytes(21, (4, 6), config) - mapping_bytes(20, (4, 6), config)
    assert mapping_bytes(20, (4, 6), config) - 20 * voxel == {
        "layer_ridge": 0,
        "attention": 4 * 4 * 10 * 3,
    }.get(family, 4 * 2 * 10 * 3)


# for an encoder of 9 numbers, 5 of them trained
KEPT = {
    "full": 0, "linear_probe": 0, "lp_ft": 0, "lora": 0, "bitfit": 0, "flyp": 0, "python": 0, "replay": 0,
    "ldifs": 9, "lwf": 9, "brain_anchor": 9, "l2_sp": 5, "l2_sp_ldifs": 5, "ewc": 10,
}  # fmt: skip


def test_every_method_has_its_cost_by_hand():
    assert set(KEPT) == set(group_options("method"))  # a new method needs a row
    speed = Speed(forward=0.25, train=1.0, update=0.5)
    for method, kept in KEPT.items():
        assert numbers_kept(method, 9, 5) == kept, method
        # only teachers see the images once more
        image = 1.25 if method in ("ldifs", "lwf") else 1.0
        assert tuning_seconds(speed, 10, 4, method) == 10 * (4 * image + 0.5), method


@pytest.mark.parametrize("method", ["full", "ldifs", "lwf", "l2_sp", "l2_sp_ldifs", "ewc"])
def test_numbers_kept_are_those_that_an_objective_holds(method):
    config = load_config([*SMALL, f"method={method}", "method.frozen_blocks=2"])
    backbone, task = load_backbone(config.backbone), load_task("digits", 10, 2, image_size=64)
    model = tune(backbone, 10, config.method, 0)
    head = sum(part.numel() for part in model.current_head.parameters())
    n_encoder = sum(part.numel() for part in backbone.encoder.parameters())
    n_trained = sum(part.numel() for part in model.parameters() if part.requires_grad)
    assert n_trained < 0.8 * n_encoder
    common = (model, task, backbone, config.method)
    objective = {
        "full": lambda: Objective(model, task),
        "ldifs": lambda: Ldifs(*common, "cpu"),
        "lwf": lambda: Lwf(*common, task, "cpu"),
        "ewc": lambda: Ewc(*common, task, "cpu", 0),
    }.get(method, lambda: L2Sp(*common, "cpu"))()

    def find(value):
        if isinstance(value, torch.nn.Module):
            return list(value.parameters())
        if isinstance(value, dict | tuple):
            parts = value.values() if isinstance(value, dict) else value
            return [tensor for part in parts for tensor in find(part)]
        return [value] if isinstance(value, torch.Tensor) else []

    own = {id(part) for part in model.parameters()}
    held = sum(part.numel() for part in find(vars(objective)) if id(part) not in own)
    # the head has no initial state to keep, but counts as trained
    assert 0 <= numbers_kept(method, n_encoder, n_trained) - held <= 2 * head


def test_a_label_for_none_is_counted_out_once():
    several = ["task=table", "task.table=x.csv", "task.multi_label=true", "task.no_label=none"]
    listed = "task.classes=[mass,none,nodule]"
    for names in ("[mass,none,nodule]", "[a mass,nothing,a nodule]"):
        config = load_config([*several, listed, f"task.class_names={names}"])
        assert count_classes(config.task) == 2
    named = load_config([*several, "task.classes=[m,x,n]", "task.class_names=[mass,none,nodule]"])
    assert count_classes(named.task) == 2


def test_a_list_of_classes_overrides_columns():
    columns = ["task=table", "task.table=x.csv", "task.multi_label=true", "task.label_columns=[a,b,none]"]
    for more in ([], ["task.no_label=none"]):
        assert count_classes(load_config([*columns, "task.classes=[a,b]", *more]).task) == 2


def test_weights_of_a_method_that_keeps_nothing_by_hand():
    assert training_bytes(100, 60) == 4 * (100 + 100 + 3 * 60)


def test_a_batch_that_the_gpus_cannot_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config([*SMALL, "finetune.batch_size=32", "finetune.accumulation=2"])
    monkeypatch.setattr(plan, "count_processes", lambda: 4)
    plan.plan_run(config, None)
    monkeypatch.setattr(plan, "count_processes", lambda: 3)
    with pytest.raises(InputError, match="batch_size: found 32, expected a multiple of 6, 3 process"):
        plan.plan_run(config, None)
