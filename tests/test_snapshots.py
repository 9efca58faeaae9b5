from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from harness.backbones.backbone import (
    Backbone,
    encoder_hash,
)
from harness.backbones.timm_backbone import load_timm
from harness.config.method import (
    FullConfig,
    LinearProbeConfig,
    LoraConfig,
)
from harness.config.run import SnapshotsConfig
from harness.finetuning.methods.tuned import (
    TunedModel,
    tune,
)
from harness.finetuning.snapshot_steps import snapshot_steps
from harness.finetuning.snapshots import (
    SnapshotManifest,
    describe,
    read_manifest,
    read_snapshot,
    write_snapshot,
)
from harness.runs.layout import (
    list_snapshots,
    snapshot_folder,
)
from harness.storage.errors import InputError
from harness.storage.files import (
    content_hash,
    write_json,
)

METHODS = {"full": FullConfig(), "linear_probe": LinearProbeConfig(), "lora": LoraConfig(rank=2)}
ARCHITECTURE = {"library": "timm", "model": "palimpsest_mini"}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_timm("palimpsest_mini", None, 0).eval()


def fine_tuned(backbone: Backbone, method: str) -> TunedModel:
    """Tune a model and perturb its trainable parameters."""
    model = tune(backbone, 3, METHODS[method], 0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def write(backbone: Backbone, folder: Path, method: str = "lora", step: int = 4) -> TunedModel:
    model = fine_tuned(backbone, method)
    write_snapshot(folder, model, describe(model, step, method, encoder_hash(backbone), ARCHITECTURE))
    return model


# snapshot steps


def test_schedule_by_hand() -> None:
    config = SnapshotsConfig(first=3, ratio=2.0, at_epoch_ends=False)
    assert snapshot_steps(config, 50, 10) == [0, 3, 6, 12, 24, 48, 50]
    config = SnapshotsConfig(first=3, ratio=2.0, at_epoch_ends=True)
    assert snapshot_steps(config, 50, 20) == [0, 3, 6, 12, 20, 24, 40, 48, 50]
    config = SnapshotsConfig(first=1, ratio=1.5, at_epoch_ends=False)
    assert snapshot_steps(config, 10, 10) == [0, 1, 2, 3, 5, 8, 10]  # 1 1.5 2.25 3.4 5.1 7.6, then 11.4
    assert snapshot_steps(SnapshotsConfig(first=100), 4, 2) == [0, 2, 4]


@given(st.integers(1, 50), st.floats(1.01, 10), st.booleans(), st.integers(1, 500), st.integers(1, 60))
def test_schedule(first: int, ratio: float, at_ends: bool, n_steps: int, per_epoch: int) -> None:
    steps = snapshot_steps(
        SnapshotsConfig(first=first, ratio=ratio, at_epoch_ends=at_ends), n_steps, per_epoch
    )
    assert steps[0] == 0 and steps[-1] == n_steps
    assert steps == sorted(set(steps))
    assert first >= n_steps or first in steps
    if at_ends:
        assert set(range(per_epoch, n_steps, per_epoch)) <= set(steps)


# round trips


@pytest.mark.parametrize("method", METHODS)
def test_round_trip(backbone: Backbone, tmp_path: Path, method: str) -> None:
    written = write(backbone, tmp_path / "step-000004", method)
    read = tune(backbone, 3, METHODS[method], 1)
    manifest = read_snapshot(tmp_path / "step-000004", read, encoder_hash(backbone))
    expected, found = written.state_dict(), read.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert (manifest.step, manifest.method, manifest.n_classes) == (4, method, 3)
    assert manifest.architecture == ARCHITECTURE
    assert manifest.preprocessing["mean"] == [0.5, 0.5, 0.5]
    assert manifest.preprocessing["size"] == 64
    assert manifest == read_manifest(tmp_path / "step-000004")


def test_only_what_changes_is_stored(backbone: Backbone, tmp_path: Path) -> None:
    for method in METHODS:
        write(backbone, tmp_path / method, method)
    names = {method: set(load_file(tmp_path / method / "weights.safetensors")) for method in METHODS}
    assert names["linear_probe"] == {"head.weight", "head.bias"}
    assert all("lora" in name or name.startswith("head.") for name in names["lora"])
    assert len(names["full"]) == len(backbone.state_dict()) + 2


def test_the_hash_of_an_encoder_is_that_of_its_weights(backbone: Backbone) -> None:
    assert encoder_hash(backbone) == encoder_hash(load_timm("palimpsest_mini", None, 0))
    assert encoder_hash(backbone) != encoder_hash(load_timm("palimpsest_mini", None, 1))


# listing


def test_whole_snapshots_are_listed_in_the_order_of_steps(backbone: Backbone, tmp_path: Path) -> None:
    assert list_snapshots(tmp_path) == []
    for step in (128, 0, 1_500_000, 16):
        write(backbone, snapshot_folder(tmp_path, step), "linear_probe", step)
    assert list_snapshots(tmp_path) == [0, 16, 128, 1_500_000]


def test_a_half_written_snapshot_is_not_listed(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def fail(path: Path, content: object) -> None:
        seen.extend(path.parent.iterdir())
        assert list_snapshots(tmp_path) == []
        raise OSError("disk full")

    monkeypatch.setattr("harness.finetuning.snapshots.write_json", fail)
    with pytest.raises(OSError, match="disk full"):
        write(backbone, snapshot_folder(tmp_path, 8))
    assert [path.name for path in seen] == ["weights.safetensors"]
    assert list((tmp_path / "snapshots").iterdir()) == []
    # left by a killed process
    (tmp_path / "snapshots" / ".step-000008.77.partial").mkdir()
    assert list_snapshots(tmp_path) == []


# errors


def refused(folder: Path, backbone: Backbone, problem: str, pretrained: str | None = None) -> str:
    with pytest.raises(InputError, match=problem) as error:
        read_snapshot(folder, tune(backbone, 3, METHODS["lora"], 0), pretrained or encoder_hash(backbone))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_damaged_weights(backbone: Backbone, tmp_path: Path) -> None:
    write(backbone, tmp_path)
    path = tmp_path / "weights.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    assert str(path) in refused(tmp_path, backbone, "not a readable safetensors file")
    path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    assert str(path) in refused(tmp_path, backbone, "does not match the hash in its manifest")
    path.unlink()
    assert str(path) in refused(tmp_path, backbone, "no such file")


def test_another_pretrained_backbone(backbone: Backbone, tmp_path: Path) -> None:
    write(backbone, tmp_path)
    message = refused(tmp_path, backbone, "other pretrained weights", content_hash("other"))
    assert str(tmp_path) in message and encoder_hash(backbone)[:8] in message


def test_edited_manifests(backbone: Backbone, tmp_path: Path) -> None:
    write(backbone, tmp_path)
    path = tmp_path / "manifest.json"
    content = json.loads(path.read_text())
    fewer = {name: value for name, value in content.items() if name != "step"}
    for edited, problem in (
        (content | {"weights_hash": "0" * 64}, "does not match the hash"),
        (content | {"pretrained_hash": "0" * 64}, "other pretrained weights"),
        (content | {"colour": "red"}, "not a snapshot's manifest"),
        (fewer, "not a snapshot's manifest"),
        ([content], "not a snapshot's manifest"),
    ):
        write_json(path, edited)
        assert str(tmp_path) in refused(tmp_path, backbone, problem)
    path.write_text("{")
    assert str(path) in refused(tmp_path, backbone, "not valid JSON")
    path.unlink()
    assert str(path) in refused(tmp_path, backbone, "no such file")


def test_another_method(backbone: Backbone, tmp_path: Path) -> None:
    write(backbone, tmp_path, "linear_probe")
    assert str(tmp_path / "weights.safetensors") in refused(
        tmp_path, backbone, "does not fit the model: names"
    )


def test_another_number_of_classes(backbone: Backbone, tmp_path: Path) -> None:
    state = tune(backbone, 5, METHODS["lora"], 0).changing_state()
    save_file(state, tmp_path / "weights.safetensors")
    manifest = SnapshotManifest(1, content_hash(state), encoder_hash(backbone), "lora", 5, {}, {})
    write_json(tmp_path / "manifest.json", vars(manifest))
    refused(tmp_path, backbone, "does not fit the model: .*size mismatch for head.weight")
