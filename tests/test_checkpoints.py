from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from harness.finetuning import checkpoints
from harness.finetuning.checkpoints import (
    find_checkpoint,
    read_checkpoint,
    remove_checkpoints,
    seed_step,
    write_checkpoint,
)
from harness.storage.errors import InputError

FIXED = ("0.weight", "0.bias")


class Training:
    """A tiny training setup with dropout, batch statistics, a frozen layer and two optimizers."""

    def __init__(self, initialisation: int = 0) -> None:
        torch.manual_seed(0)
        fixed = nn.Conv2d(2, 4, 3).requires_grad_(False)
        torch.manual_seed(initialisation)
        self.model = nn.Sequential(
            fixed, nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.Dropout(0.4), nn.Flatten(), nn.Linear(4, 3)
        ).to(memory_format=torch.channels_last)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizers = [
            torch.optim.AdamW(trained[:-2], lr=1e-2),
            torch.optim.SGD(trained[-2:], lr=1e-2, momentum=0.9),
        ]

    def run(self, start: int, end: int) -> None:
        for step in range(start, end):
            images = torch.randn(6, 2, 5, 5, generator=torch.Generator().manual_seed(step))
            seed_step(3, step, 0)
            nn.functional.cross_entropy(self.model(images), torch.arange(6) % 3).backward()
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()

    def changing(self) -> dict[str, Tensor]:
        return {name: part for name, part in self.model.state_dict().items() if name not in FIXED}

    def write(self, folder: Path, step: int) -> None:
        write_checkpoint(folder, step, self.changing(), self.optimizers)

    def read(self, path: Path) -> int:
        return read_checkpoint(path, self.model, self.optimizers)


def assert_same(one: Training, other: Training) -> None:
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name]), name
    for first, second in zip(one.optimizers, other.optimizers, strict=True):
        state, found = first.state_dict()["state"], second.state_dict()["state"]
        assert state and state.keys() == found.keys()
        for parameter, entries in state.items():
            assert entries.keys() == found[parameter].keys()
            for key, part in entries.items():
                assert torch.equal(torch.as_tensor(part), torch.as_tensor(found[parameter][key]))


def test_a_resumed_training_is_bit_for_bit_the_same(tmp_path: Path) -> None:
    straight = Training()
    straight.run(0, 6)
    first = Training()
    first.run(0, 3)
    first.write(tmp_path, 3)
    resumed = Training(initialisation=9)
    assert resumed.read(tmp_path / "step-00000003") == 3
    assert_same(first, resumed)
    resumed.run(3, 6)
    assert_same(straight, resumed)
    # the comparison can fail: without the optimizers' state it does
    forgetful = Training()
    forgetful.model.load_state_dict(first.model.state_dict())
    forgetful.run(3, 6)
    assert not torch.equal(forgetful.model[5].weight, straight.model[5].weight)


def test_the_newest_is_found(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path / "absent") is None
    for name in ("step-00000009", "step-00000010", ".step-00000011.5.partial"):
        (tmp_path / name).mkdir()
    assert find_checkpoint(tmp_path) == tmp_path / "step-00000010"


def test_older_ones_go_when_the_new_one_is_whole(tmp_path: Path) -> None:
    training = Training()
    training.run(0, 1)
    training.write(tmp_path, 1)
    (tmp_path / ".step-00000002.77.partial").mkdir()  # left by a killed process
    training.write(tmp_path, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]
    training.write(tmp_path, 3)  # the same step again
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


def test_the_folder_may_be_a_link(tmp_path: Path) -> None:
    disk, folder = tmp_path / "disk", tmp_path / "checkpoints"
    (disk / "of-others").mkdir(parents=True)
    folder.symlink_to(disk)
    training = Training()
    training.run(0, 1)
    training.write(folder, 1)
    (disk / ".step-00000002.77.partial").mkdir()
    training.write(folder, 3)
    assert sorted(path.name for path in disk.iterdir()) == ["of-others", "step-00000003"]
    remove_checkpoints(folder)
    assert [path.name for path in disk.iterdir()] == ["of-others"]
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]
    training.write(folder, 3)
    remove_checkpoints(folder)
    remove_checkpoints(folder)
    assert not folder.exists()


def test_a_failed_write_keeps_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training()
    training.run(0, 1)
    training.write(tmp_path, 1)

    def fail(path: Path, content: object, place: str) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(checkpoints, "write_record", fail)
    with pytest.raises(OSError, match="disk full"):
        training.write(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert Training().read(tmp_path / "step-00000001") == 1


@pytest.fixture
def written(tmp_path: Path) -> Path:
    training = Training()
    training.run(0, 2)
    training.write(tmp_path, 2)
    return tmp_path / "step-00000002"


@pytest.mark.parametrize("name", ["state.safetensors", "progress.json"])
def test_a_damaged_file_is_named(written: Path, name: str) -> None:
    path = written / name
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError) as error:
        Training().read(written)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        Training().read(written)


@pytest.mark.parametrize("content", ["[]", "{}", '{"step": "2"}', "3"])
def test_progress_of_something_else(written: Path, content: str) -> None:
    (written / "progress.json").write_text(content)
    with pytest.raises(InputError, match=r"progress.json: not a checkpoint's progress; remove"):
        Training().read(written)


def test_a_checkpoint_of_another_model(written: Path) -> None:
    other = Training()
    for model in (
        nn.Sequential(other.model, nn.Linear(3, 3)),  # different names
        nn.Sequential(*other.model[:5], nn.Linear(4, 7)),  # a different shape
        nn.Sequential(*other.model, nn.Linear(3, 3)),  # a trained layer that the checkpoint lacks
    ):
        with pytest.raises(InputError, match="remove it to start over") as error:
            read_checkpoint(written, model, [])
        assert str(error.value).startswith(f"{written}: ") and "\n" not in str(error.value)


def test_the_scaler_of_float16_is_kept(tmp_path: Path) -> None:
    training = Training()
    training.run(0, 1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**9, growth_interval=7)
    scaler.scale(torch.zeros(1))  # its state is created on first use
    write_checkpoint(tmp_path, 1, training.changing(), training.optimizers, scaler)
    other = torch.amp.GradScaler("cpu")
    read_checkpoint(tmp_path / "step-00000001", Training().model, Training().optimizers, other)
    assert other.state_dict() == scaler.state_dict()
    assert other.get_scale() == 512


def test_steps_and_processes_draw_differently() -> None:
    def draw(*place: int) -> tuple[float, ...]:
        seed_step(*place)
        return tuple(torch.rand(3).tolist())

    places = [(0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0), (0, 10_000, 0), (2**31 - 1, 0, 0)]
    assert len({draw(*place) for place in places}) == len(places)
    assert draw(0, 1, 0) == draw(0, 1, 0)
