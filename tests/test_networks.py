"""Sizes of networks are kept, unless they may be others next time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.config.backbone import (
    BackboneConfig,
    PythonBackboneConfig,
)
from harness.config.compose import load_config
from harness.config.folders import REPOSITORY
from harness.config.method import (
    FullConfig,
    LoraConfig,
    PythonMethodConfig,
)
from harness.finetuning import sizes
from harness.runs import networks
from harness.runs.networks import (
    count_token_bytes,
    describe_network,
    remember_network,
)

MINI = load_config(["backbone=mini_supervised"]).backbone
WEIGHTS = REPOSITORY / "harness" / "backbones" / "weights" / "mini_supervised.safetensors"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return an empty cache folder; nothing is known in this process either."""
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    forget()
    yield tmp_path / "cache" / "facts"
    forget()


def forget() -> None:
    describe_network.cache_clear()
    sizes.count_opened.cache_clear()


def counter() -> Callable[[], int]:
    """Return a function that counts its calls."""
    calls: list[int] = []

    def count() -> int:
        calls.append(1)
        return len(calls)

    return count


def test_the_next_process_knows_the_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    network = describe_network(MINI)
    opened = [sizes.count_opened(MINI, method, (10,)) for method in (FullConfig(), LoraConfig())]
    assert network.widths == (128,) * 8 and opened[0][0] > 1e6 > opened[1][0] > 1290
    forget()
    for module in (networks, sizes):
        monkeypatch.setattr(module, "_count", lambda *given: pytest.fail("counted again"))
    assert describe_network(MINI) == network
    assert [sizes.count_opened(MINI, method, (10,)) for method in (FullConfig(), LoraConfig())] == opened


def test_other_settings_packages_or_sources_are_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    count = counter()
    assert isinstance(MINI, BackboneConfig)
    other = MINI.model_copy(update={"image_size": 96})
    given = [(MINI, {}), (MINI, {"size": 1}), (other, {})]
    assert [remember_network("fact", config, key, count) for config, key in given * 2] == [1, 2, 3] * 2
    monkeypatch.setattr(networks, "package_version", lambda name: "next")
    assert remember_network("fact", MINI, {}, count) == 4
    monkeypatch.setattr(networks, "hash_sources", lambda: "next")
    assert remember_network("fact", MINI, {}, count) == 5


def test_nothing_is_kept_of_a_function_of_the_user(cache: Path) -> None:
    count = counter()
    own = PythonBackboneConfig(name="own", function="my_lab.networks:build")
    assert [remember_network("fact", own, {}, count) for _ in range(2)] == [1, 2]
    describe_network(MINI)
    kept = sorted(cache.iterdir())
    method = PythonMethodConfig(name="python", function="my_lab.methods:build")
    assert sizes.count_opened(MINI, method, (10,)) == sizes.count_opened(MINI, FullConfig(), (10,))
    forget()
    sizes.count_opened(MINI, method, (10,))
    assert len(kept) == 1 and len(list(cache.iterdir())) == 2


def test_changed_weights_are_loaded_again(tmp_path: Path) -> None:
    count, file = counter(), tmp_path / "weights.safetensors"
    config = MINI.model_copy(update={"checkpoint": str(file)})
    # a missing file may be there next time
    assert [count_token_bytes(config, 4, count) for _ in range(2)] == [1, 2]
    shutil.copyfile(WEIGHTS, file)
    assert [count_token_bytes(config, size, count) for size in (4, 4, 8, 4)] == [3, 3, 4, 3]
    os.utime(file, ns=(1, 1))
    assert [count_token_bytes(config, 4, count) for _ in range(2)] == [5, 5]
