from __future__ import annotations

import pytest
import torch
from made_backbones import make_tiny_clip
from torch.nn import functional

from harness.backbones.backbone import Backbone
from harness.backbones.clip_backbone import load_clip
from harness.backbones.timm_backbone import load_timm
from harness.config.method import FlypConfig
from harness.finetuning.methods.flyp import Flyp
from harness.finetuning.methods.tuned import tune
from harness.storage.errors import InputError
from tasks.load import load_task
from tasks.task import Task


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("digits", 12, 4)


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Backbone]:
    return {
        "mini_clip": load_clip("palimpsest_mini_clip", None, 0).eval(),
        "tiny_clip": make_tiny_clip(tmp_path_factory.mktemp("open_clip"), image_size=64),
    }


def images(n_images: int = 4) -> torch.Tensor:
    return torch.randn(n_images, 3, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", ["mini_clip", "tiny_clip"])
def test_it_starts_as_the_zero_shot_classifier(backbones: dict[str, Backbone], task: Task, name: str) -> None:
    backbone = backbones[name]
    model = tune(backbone, task.n_classes, FlypConfig(), 0, task).eval()
    with torch.no_grad():
        features = functional.normalize(backbone(images()), dim=1)
        head = backbone.text.embed_classes(task.class_names, task.templates)
        expected = backbone.text.logit_scale * features @ head.T
        torch.testing.assert_close(model(images()), expected, rtol=1e-4, atol=1e-4)


def test_the_loss_is_clips_by_hand(backbones: dict[str, Backbone], task: Task) -> None:
    backbone = backbones["mini_clip"]
    one = Task(**{**vars(task), "templates": task.templates[:1]})
    model = tune(backbone, task.n_classes, FlypConfig(), 0, one).train()
    labels = torch.tensor([3, 1, 3, 7])  # two images of one class, each other's negatives
    terms = Flyp(model, one, 0, 1)(images(), labels)
    assert list(terms) == ["contrastive_loss"]
    with torch.no_grad():
        x = functional.normalize(backbone(images()), dim=1)
        t = backbone.text.embed([task.templates[0].format(task.class_names[label]) for label in labels])
        logits = backbone.text.logit_scale * x @ t.T
    by_image, by_text = logits.log_softmax(1).diagonal().mean(), logits.log_softmax(0).diagonal().mean()
    assert terms["contrastive_loss"].item() == pytest.approx(-(by_image + by_text).item() / 2, rel=1e-4)


def test_templates_are_drawn_by_the_step(backbones: dict[str, Backbone], task: Task) -> None:
    model = tune(backbones["mini_clip"], task.n_classes, FlypConfig(), 0, task)
    assert model.texts.ids.shape[:2] == (10, 2)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(model.texts(torch.arange(10)))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert found[0].norm(dim=1).tolist() == pytest.approx([1] * 10)


@pytest.mark.parametrize("name", ["mini_clip", "tiny_clip"])
def test_both_towers_are_trained_and_the_head_made_of_the_tuned_text(
    backbones: dict[str, Backbone], task: Task, name: str
) -> None:
    backbone = backbones[name]
    kept = [part.state_dict() for part in (backbone, backbone.text.copy_to_train())]
    kept = [{key: part.clone() for key, part in state.items()} for state in kept]
    model = tune(backbone, task.n_classes, FlypConfig(), 0, task)
    before = {key: part.clone() for key, part in model.state_dict().items()}
    objective = Flyp(model, task, 0, 1).train()
    optimizer = torch.optim.AdamW([part for part in model.parameters() if part.requires_grad], lr=1e-3)
    for _ in range(2):
        objective(images(), torch.tensor([0, 1, 2, 3]))["contrastive_loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    trained = {key for key, part in model.named_parameters() if part.requires_grad}
    changed = {key for key, part in model.state_dict().items() if not torch.equal(part, before[key])}
    assert changed == trained
    assert "texts.encoder.model.logit_scale" in trained and not trained & {"head.weight", "head.bias"}
    # zero-shot probes use the pretrained text tower
    for state, part in zip(kept, (backbone, backbone.text.copy_to_train()), strict=True):
        assert state.keys() == part.state_dict().keys()
        assert all(torch.equal(state[key], now) for key, now in part.state_dict().items())

    state = {key: part.clone() for key, part in model.changing_state().items()}
    assert state.keys() == trained
    other = tune(backbone, task.n_classes, FlypConfig(), 1, task)
    other.load_changing_state(state)
    with torch.no_grad():
        texts = [
            torch.stack([model.texts.encoder(ids[None])[0] for ids in rows]).mean(0)
            for rows in model.texts.ids
        ]
        expected = model.texts.encoder.scale() * functional.normalize(torch.stack(texts), dim=1)
    torch.testing.assert_close(other.head.weight, expected, rtol=1e-4, atol=1e-4)
    assert (other.head.weight - before["head.weight"]).abs().max() > 1e-3


def test_what_flyp_cannot_do_is_said(backbones: dict[str, Backbone], task: Task) -> None:
    with pytest.raises(InputError, match=r"^method: found flyp with a backbone without a text tower"):
        tune(load_timm("test_vit", None, 0), 10, FlypConfig(), 0, task)
    counts = load_task("counts", 4, 1)
    with pytest.raises(InputError, match=r"^method: found flyp with task counts, expected a task with"):
        tune(backbones["mini_clip"], 3, FlypConfig(), 0, counts)
    model = tune(backbones["mini_clip"], 10, FlypConfig(), 0, task)
    with pytest.raises(InputError, match="multi-label task"):
        Flyp(model, task, 0, 1)(images(), torch.ones(4, 10))
