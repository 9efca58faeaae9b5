"""The brain as an anchor: frozen mappings, the penalty and its controls, and training that can be stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_training import SMALL, interrupted, load_once, values
from overrides import SMALL_TRACKING, TINY
from PIL import Image
from torch import nn

from harness.backbones.backbone import Backbone
from harness.backbones.timm_backbone import load_timm
from harness.brains.simulated.stimuli import ShownScenes
from harness.brains.simulated.subject import WORLD as STIMULI_WORLD
from harness.config.compose import load_config
from harness.config.mapping import FactorTopyConfig, MappingConfig
from harness.config.method import BrainAnchorConfig
from harness.config.run import Config
from harness.finetuning.devices import build_accelerator
from harness.finetuning.loop import finetune
from harness.finetuning.methods.anchor_images import choose_images, fingerprint
from harness.finetuning.methods.brain_anchor import (
    BrainAnchor,
    anchor_penalty,
    evaluation,
)
from harness.finetuning.methods.objective import Anchor
from harness.finetuning.methods.records import check_anchor
from harness.finetuning.methods.tuned import TunedModel, tune
from harness.finetuning.reuse import PACKAGES, training_note
from harness.mappings.data import FitData
from harness.mappings.fit import fit_mapping
from harness.mappings.frozen import FrozenMapping, randomise_mapping, shuffle_selectors
from harness.mappings.mapping import Mapping
from harness.mappings.splits import Split
from harness.runs.inputs import load_inputs
from harness.runs.layout import list_snapshots, mapping_folder, snapshot_folder
from harness.storage.errors import InputError
from harness.storage.files import read_weights
from harness.storage.image_files import hash_pixels
from harness.studies.costs import count_images_per_step, numbers_kept
from harness.tokens.extraction import extract_tokens
from harness.tracking.start_mappings import prepare_start

QUICK = FactorTopyConfig(steps=2, n_channels=3, token_size=2, batch_size=8)
ANCHOR = [
    *TINY,
    *SMALL_TRACKING,
    *SMALL,
    "backbone.image_size=64",
    "snapshots.first=2",
    "method=brain_anchor",
    "method.n_images=12",
    "method.weight=10",
]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_timm("test_vit", None, 0, image_size=32).eval()


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(24)]


@pytest.fixture(scope="module")
def data(backbone: Backbone, images: list[Image.Image]) -> FitData:
    rng = np.random.default_rng(1)
    coords = rng.uniform(-1, 1, (9, 3)).astype(np.float32)
    split = Split(np.arange(16), np.arange(16, 24))
    tokens = extract_tokens(backbone, images, 2, 8)
    responses = rng.standard_normal((24, 9)).astype(np.float32)
    return FitData(tokens, responses, coords, np.stack([coords.min(0), coords.max(0)]), split)


@pytest.fixture(scope="module")
def mapping(data: FitData) -> Mapping:
    return fit_mapping(data, QUICK, seed=0)


def make(
    backbone: Backbone, anchors: list[Anchor], images: list[Image.Image], batch: int = 4, **settings: object
) -> tuple[TunedModel, BrainAnchor]:
    method = BrainAnchorConfig(**settings)  # type: ignore[arg-type]
    model = tune(backbone, 3, method, 0).train()
    task = load_once("digits", 24, 10)
    return model, BrainAnchor(model, task, backbone, method, anchors, images, batch, 0, "cpu").train()


# the frozen mapping


@pytest.mark.parametrize("family", ["factortopy", "free_selectors"])
def test_a_frozen_mapping_predicts_as_the_fit_did(
    family: str, data: FitData, backbone: Backbone, images: list[Image.Image]
) -> None:
    config: MappingConfig = load_config([f"mapping={family}"]).mapping.model_copy(
        update=QUICK.model_dump(include={"steps", "n_channels", "token_size", "batch_size"})
    )
    fitted = fit_mapping(data, config, seed=0)
    with torch.no_grad():
        predicted = FrozenMapping(fitted, 2).predict(*backbone.tokens(backbone.preprocessing(images)))
    held_out = data.split.held_out
    truth, guess = data.responses[held_out], predicted.numpy()[held_out]
    r2 = 1 - ((truth - guess) ** 2).sum(0) / ((truth - truth.mean(0)) ** 2).sum(0)
    np.testing.assert_allclose(r2, fitted.r2, rtol=1e-3, atol=1e-4)


def test_a_prediction_by_hand() -> None:
    # one layer, one channel, one place: read 0.25 local (3 − 1)/2 and 0.75 global (6 − 2)/4 through 2 and 4
    found = Mapping(
        layers=("only",),
        layer=np.ones((1, 1), np.float32),
        space=np.zeros((1, 2), np.float32),
        scale=np.full(1, 0.75, np.float32),
        weights=np.full((1, 1), 5, np.float32),
        bias=np.full(1, 0.5, np.float32),
        r2=np.zeros(1, np.float32),
        correlation=np.zeros(1, np.float32),
        steps=1,
        learned={
            "model.local_bottleneck.0.weight": np.full((1, 1), 2, np.float32),
            "model.global_bottleneck.0.weight": np.full((1, 1), 4, np.float32),
            "frame.local_centre.0": np.ones(1, np.float32),
            "frame.local_scale": np.full(1, 2, np.float32),
            "frame.global_centre.0": np.full(1, 2, np.float32),
            "frame.global_scale": np.full(1, 4, np.float32),
        },
    )
    frozen = FrozenMapping(found, 1)
    local = torch.full((1, 1, 1, 1), 3.0, requires_grad=True)
    global_ = torch.full((1, 1), 6.0, requires_grad=True)
    predicted = frozen.predict([local], [global_])
    assert predicted.item() == pytest.approx(5 * (0.25 * 2 * 1 + 0.75 * 4 * 1) + 0.5)
    predicted.backward()
    assert local.grad is not None and local.grad.item() == pytest.approx(5 * 0.25 * 2 / 2)
    assert global_.grad is not None and global_.grad.item() == pytest.approx(5 * 0.75 * 4 / 4)
    assert all(part.grad is None for part in frozen.parameters())
    # a larger grid is resized
    grid = torch.tensor([[[[1.0, 5.0], [3.0, 3.0]]]])
    assert frozen.predict([grid], [global_]).item() == pytest.approx(predicted.item())


def test_shuffled_selectors_change_voxels_and_nothing_else(mapping: Mapping) -> None:
    unlike = replace(mapping, scale=np.linspace(0, 1, len(mapping.r2), dtype=np.float32))
    assert unlike.scale is not None and mapping.space is not None
    shuffled = shuffle_selectors(unlike, 3)
    assert shuffled.scale is not None and shuffled.space is not None
    # nobody keeps its own, and all are there
    assert (shuffled.scale != unlike.scale).all() and sorted(shuffled.scale) == sorted(unlike.scale)
    # place, layers and scale move together
    came_from = [int(np.flatnonzero(unlike.scale == scale)[0]) for scale in shuffled.scale]
    np.testing.assert_array_equal(shuffled.space, mapping.space[came_from])
    np.testing.assert_array_equal(shuffled.layer, mapping.layer[came_from])
    for name in ("weights", "bias"):
        np.testing.assert_array_equal(getattr(shuffled, name), getattr(mapping, name))
    assert shuffled.learned is mapping.learned
    again, other = shuffle_selectors(unlike, 3).scale, shuffle_selectors(unlike, 4).scale
    np.testing.assert_array_equal(again, shuffled.scale)
    assert (other != shuffled.scale).any()


def test_a_random_mapping_is_as_large_and_keeps_the_frame(mapping: Mapping) -> None:
    drawn = randomise_mapping(mapping, 0)
    for name in ("space", "layer", "scale", "weights"):
        one, other = getattr(drawn, name), getattr(mapping, name)
        assert one.shape == other.shape and one.dtype == np.float32 and (one != other).all(), name
    np.testing.assert_allclose(drawn.layer.sum(1), 1, rtol=1e-5)
    assert drawn.learned is not None and mapping.learned is not None
    assert drawn.learned.keys() == mapping.learned.keys()
    for name, array in mapping.learned.items():
        kept = np.array_equal(array, drawn.learned[name])
        assert kept == ("bottleneck" not in name), name


# the penalty


def test_the_penalty_by_hand() -> None:
    # voxel 1 changes by half and three deviations, voxel 2 by one, voxel 3 does not count
    now = torch.tensor([[1.0, 2.0, 9.0], [6.0, 0.0, 9.0]])
    before = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    deviation, ceiling = torch.tensor([2.0, 2.0, torch.inf]), torch.tensor([0.8, 0.5, 1.0])
    first, second = (0.5**2 / 2 + 3 - 0.5) / 2, (1 / 2 + 0) / 2
    expected = (0.8 * first + 0.5 * second + 0) / 3
    assert anchor_penalty(now, before, deviation, ceiling).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "control"), [("test_vit", "random"), ("test_convnext", "shuffled"), ("test_resnet", "none")]
)
def test_penalty_and_gradient_are_exactly_0_at_the_start(
    name: str, control: str, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with batch norm, whose statistics in training are those of the batch."""
    network = load_timm(name, None, 0, image_size=64).eval()
    tokens = extract_tokens(network, images[:8], 2, 8)
    coords = np.random.default_rng(0).uniform(-1, 1, (5, 3)).astype(np.float32)
    responses = np.random.default_rng(1).standard_normal((8, 5)).astype(np.float32)
    whole = FitData(
        tokens,
        responses,
        coords,
        np.stack([coords.min(0), coords.max(0)]),
        Split(np.arange(6), np.arange(6, 8)),
    )
    anchor = Anchor(fit_mapping(whole, QUICK, seed=0), np.ones(5, np.float32), 2)
    model, objective = make(network, [anchor], images[8:14], control=control, weight=1e4)
    shown, labels = (
        torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)),
        torch.tensor([0, 2]),
    )
    training = [module.training for module in model.modules()]
    running = {name: part.clone() for name, part in model.named_buffers()}
    terms = objective(shown, labels)
    assert terms["penalty"].item() == 0
    assert [module.training for module in model.modules()] == training
    terms["penalty"].backward()
    gradients = [part.grad for part in model.backbone.parameters() if part.grad is not None]
    assert gradients and not any(gradient.any() for gradient in gradients)
    # batch norm has seen the task's images, once, and no others
    if running:
        alone = tune(network, 3, BrainAnchorConfig(), 0).train()
        alone(shown)
        for name, part in alone.named_buffers():
            assert torch.equal(part, dict(model.named_buffers())[name]), name
    with torch.no_grad():
        for part in model.backbone.parameters():
            part += 0.05 * torch.randn(part.shape, generator=torch.Generator().manual_seed(2))
    moved = objective(shown, labels)["penalty"]
    assert moved.item() > 0
    moved.backward()
    assert any(part.grad.any() for part in model.backbone.parameters() if part.grad is not None)


def test_the_term_is_what_the_mappings_predict(
    backbone: Backbone, mapping: Mapping, images: list[Image.Image]
) -> None:
    """Two subjects, of which the second has other ceilings and one constant voxel."""
    still = replace(mapping, weights=mapping.weights * (np.arange(9) > 0)[:, None])  # type: ignore[operator]
    ceilings = [np.linspace(0, 1, 9, dtype=np.float32), np.ones(9, np.float32)]
    anchors = [Anchor(mapping, ceilings[0], 2), Anchor(still, ceilings[1], 2)]
    model, objective = make(backbone, anchors, images[:6], batch=6, weight=3.0)
    shown, labels = torch.zeros(1, 3, 32, 32), torch.tensor([0])
    objective(shown, labels)
    with torch.no_grad():
        for part in model.parameters():
            part.mul_(1.1)
        found = objective(shown, labels)["penalty"].item()
        inputs = backbone.preprocessing(images[:6])
        expected = []
        for which, ceiling in zip((mapping, still), ceilings, strict=True):
            frozen = FrozenMapping(which, 2)
            with evaluation(model):
                now = frozen.predict(*model.backbone.tokens(inputs)).numpy()
            before = frozen.predict(*backbone.tokens(inputs)).numpy()
            voxels = before.std(0) > 1e-5 * before.std(0).max()
            d = np.abs(now - before)[:, voxels] / before.std(0)[voxels]
            error = np.where(d < 1, d**2 / 2, d - 0.5).mean(0)
            expected.append((ceiling[voxels] * error).sum() / 9)
    assert voxels.tolist() == [False] + [True] * 8
    assert found == pytest.approx(3 * np.mean(expected), rel=1e-3) and found > 1e-4


def test_every_image_is_kept_and_drawn(
    backbone: Backbone, mapping: Mapping, images: list[Image.Image]
) -> None:
    anchor = Anchor(mapping, np.ones(9, np.float32), 2)
    _, objective = make(backbone, [anchor], images[:7], batch=3)
    assert sorted(map(len, objective._batches)) == [2, 2, 3]
    whole = torch.cat(objective._batches)
    expected = backbone.preprocessing(images[:7])
    assert sorted(part.sum().item() for part in whole) == sorted(part.sum().item() for part in expected)
    flat = [image.point(lambda _: 7) for image in images[:3]]
    _, objective = make(backbone, [anchor], flat)
    with pytest.raises(InputError, match=r"method\.images: the mapping of step 0 predicts the same response"):
        objective(torch.zeros(1, 3, 32, 32), torch.tensor([0]))


# images


def test_stimuli_and_test_images_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(6):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
    Image.new("RGB", (4, 4), (1, 0, 0)).save(tmp_path / "9.bmp")
    seen = {hash_pixels(Image.new("RGB", (4, 4), (number, 0, 0))) for number in (2, 5)}
    method = BrainAnchorConfig(images=str(tmp_path), n_images=7)
    kept = choose_images(method, 0, seen)
    # the second copy of 1 is left out too
    assert [image.getpixel((0, 0))[0] for image in kept] == [0, 1, 3, 4]  # type: ignore[index]
    assert "2 of 7 images" in caplog.text
    spread = choose_images(method.model_copy(update={"n_images": 3}), 0, ())
    assert [image.getpixel((0, 0))[0] for image in spread] == [0, 2, 4]  # type: ignore[index]
    with pytest.raises(InputError, match=f"method.n_images: found 8, but 7 images in {tmp_path}"):
        choose_images(method.model_copy(update={"n_images": 8}), 0, ())
    with pytest.raises(InputError, match=r"method\.images: found none in"):
        choose_images(method, 0, {hash_pixels(image) for image in kept} | seen)
    before = fingerprint(method)
    Image.new("RGB", (4, 4), (8, 8, 8)).save(tmp_path / "0.png")
    assert before.keys() == {"method images"} and fingerprint(method) != before


def test_scenes_are_of_a_world_of_their_own() -> None:
    method = BrainAnchorConfig(n_images=4)
    stimuli = {hash_pixels(image) for image in ShownScenes(STIMULI_WORLD, 20).stimuli}
    one, other = ({hash_pixels(image) for image in choose_images(method, seed, stimuli)} for seed in (0, 1))
    assert len(one) == len(other) == 4 and not one & other and not one & stimuli


# what it goes with


def test_what_it_cannot_be_used_with(tmp_path: Path) -> None:
    check_anchor(load_config(["method=brain_anchor"]))
    check_anchor(load_config(["method=brain_anchor", "mapping=free_selectors"]))
    check_anchor(load_config(["method=full", "mapping=layer_ridge"]))
    for family in ("layer_ridge", "attention", "through_time"):
        with pytest.raises(
            InputError, match=f"mapping.family: found {family} .*factortopy or free_selectors"
        ):
            check_anchor(load_config(["method=brain_anchor", f"mapping={family}"]))
    measured = ["method=brain_anchor", "brain=arrays", f"brain.root={tmp_path}"]
    with pytest.raises(InputError, match=r"method.images: found null .*expected a folder of images"):
        check_anchor(load_config(measured))
    check_anchor(load_config([*measured, "method.images=somewhere"]))


def test_a_plan_counts_the_unlabelled_images() -> None:
    config = load_config([*TINY, "method=brain_anchor"])
    assert count_images_per_step(config) == 8 + 8
    assert count_images_per_step(load_config([*TINY, "method=brain_anchor", "finetune.accumulation=2"])) == 16
    assert count_images_per_step(load_config([*TINY, "method=brain_anchor", "method.batch=3"])) == 11
    assert numbers_kept("brain_anchor", 100, 90) == 100


def test_without_a_mapping_it_says_what_is_missing(tmp_path: Path) -> None:
    from made_training import train

    with pytest.raises(InputError, match="method: found brain_anchor without the brain's mapping of step 0"):
        train(tmp_path, *SMALL, "method=brain_anchor")


# runs


def train_anchored(folder: Path, *overrides: str) -> Config:
    """Fit step 0 and fine-tune into a folder, as `palimpsest finetune` does."""
    config = load_config([*ANCHOR, *overrides])
    inputs, accelerator = load_inputs(config, folder), build_accelerator(config.finetune)
    start = prepare_start(config, folder, inputs, accelerator)
    finetune(config, folder, inputs.tasks, inputs.backbone, accelerator, start)
    return config


def test_training_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_anchored(tmp_path / "whole")
    rows = values(tmp_path / "whole")
    assert rows["train/penalty", 1] == 0 and rows["train/penalty", 4] > 0
    with interrupted(4, monkeypatch):
        train_anchored(tmp_path / "stopped")
    kept = mapping_folder(tmp_path / "stopped", 0).stat().st_mtime_ns
    train_anchored(tmp_path / "stopped")
    # step 0 is not fitted again, and every bit is the same
    assert mapping_folder(tmp_path / "stopped", 0).stat().st_mtime_ns == kept
    assert values(tmp_path / "stopped") == rows
    for step in list_snapshots(tmp_path / "whole"):
        one, other = (
            read_weights(snapshot_folder(tmp_path / name, step) / "weights.safetensors")
            for name in ("whole", "stopped")
        )
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_brain_or_mapping_is_another_training(tmp_path: Path) -> None:
    prints = {"brain": "one", "task": "two"}
    manifest = {"fingerprints": prints, "packages": dict.fromkeys(PACKAGES, "1")}

    def note(*overrides: str, **changed: str) -> Path:
        config = load_config([*ANCHOR, *overrides])
        return training_note(
            config, tmp_path / "study" / "run", manifest | {"fingerprints": prints | changed}
        )

    for change in ("mapping.steps=5", "brain.n_stimuli=21", "probes.n_test=9", "method.control=shuffled"):
        assert note(change) != note(), change
    assert note(brain="another") != note()
    # what no training reads is left out, which is more without an anchor
    assert note("evidence.n_voxels=50") == note()


def test_a_weight_of_0_trains_as_full_does(
    backbone: Backbone, mapping: Mapping, images: list[Image.Image]
) -> None:
    model, objective = make(backbone, [Anchor(mapping, np.ones(9, np.float32), 2)], images[:6], weight=0.0)
    nn.init.normal_(model.current_head.weight)
    shown, labels = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    torch.stack(list(objective(shown, labels).values())).sum().backward()
    found = [part.grad.clone() for part in model.backbone.parameters() if part.grad is not None]
    model.zero_grad()
    objective.task_loss(model(shown), labels).backward()
    assert all(
        torch.equal(one, part.grad)
        for one, part in zip(
            found, [part for part in model.backbone.parameters() if part.grad is not None], strict=True
        )
        if part.grad is not None
    )


def test_a_mapping_that_cannot_be_frozen(mapping: Mapping) -> None:
    with pytest.raises(InputError, match="without its learned parameters"):
        FrozenMapping(replace(mapping, learned=None), 2)
    with pytest.raises(InputError, match="found one of through_time, expected factortopy or free_selectors"):
        FrozenMapping(replace(mapping, family="through_time"), 2)
