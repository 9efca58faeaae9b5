"""Settings for every test: no network, no competing threads, and the user's own runs untouched."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import sys

# set before torch, numpy or huggingface_hub is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")  # threads of runs in processes of their own
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["MPLBACKEND"] = "Agg"

from collections.abc import Iterator
from pathlib import Path

import pytest

# garbage collection would take a fifth of the import time
gc.disable()


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give the session a cache of its own, which its processes share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    folder.mkdir(exist_ok=True)
    os.environ["PALIMPSEST_CACHE"] = str(folder)


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Skip fsync, a twentieth of all time: what it protects from, a loss of power, happens in no test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _stores_from_one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Make an empty store once, with MLflow's migrations, and copy it wherever a test needs one."""
    template = tmp_path_factory.mktemp("store") / "mlflow.db"

    def copy(database: Path) -> None:
        from harness.tracking.store import connection

        if not template.exists():
            create(template)
        shutil.copyfile(template, database)
        assert connection._is_store(database)

    from harness.tracking.store import connection

    create = connection._create
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "_create", copy)
        yield


@pytest.fixture(autouse=True)
def _own_tracking_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture(autouse=True)
def _own_accelerator() -> Iterator[None]:
    """Reset what accelerate keeps per process, such as the precision."""
    yield
    if state := sys.modules.get("accelerate.state"):
        state.AcceleratorState._reset_state(reset_partial_state=True)


def pytest_collection_finish() -> None:
    # freeze imported objects: collecting garbage among them costs most of a second each time
    gc.freeze()
    gc.enable()
    # a twentieth of all time at Python's own thresholds, which are for programs of few objects
    gc.set_threshold(20_000, 20, 50)
    atexit.register(gc.unfreeze)  # or extensions report leaks when Python exits


# a file's tests stay in one process, which makes its fixtures once; processes end together only if the
# longest files come first
LONGEST = (
    "finetune",
    "tutorial",
    "track",
    "every_kind",
    "reuse",
    "export_hub",
    "sequences",
    "gpu_check",
    "report",
    "wheel",
    "simulated",
    "objectives",
    "export",
    "diffusion_backbone",
    "map",
    "launch",
    "wise_ft",
    "catalogue",
    "fitting",
    "tracking",
    "channel_grid",
    "launched",
    "pretrain",
    "readout",
    "through_time",
    "track_together",
    "mlflow_record",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONGEST)))
    for item in items:
        if item.get_closest_marker("network") and os.environ.get("PALIMPSEST_NETWORK") != "1":
            item.add_marker(pytest.mark.skip(reason="needs the network: set PALIMPSEST_NETWORK=1"))
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
