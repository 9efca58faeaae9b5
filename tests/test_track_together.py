"""A run whose snapshots share one fit: files, rows, and what is done again after a loss."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from catalogued import check_rows
from equality import assert_equal
from overrides import SMALL_TRACKING, TINY

from harness.commands.finetune import run
from harness.config.compose import load_config
from harness.config.run import Config
from harness.mappings.mapping import Mapping, load_mapping
from harness.measures.velocity import region_velocity
from harness.runs.journal import read_rows
from harness.runs.layout import mapping_folder, probes_file, run_folder

STEPS = (0, 1, 2, 3)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    config = load_config(
        [
            *(*TINY, *SMALL_TRACKING, "mapping=through_time", "mapping.steps=10", "finetune.epochs=1"),
            f"runs_dir={tmp_path_factory.mktemp('runs')}",
        ]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run(config)
    return config, run_folder(config)


def mappings_of(folder: Path) -> dict[tuple[int, int], Mapping]:
    places = [*((step, 0) for step in STEPS), (0, 1), (0, 2)]
    return {place: load_mapping(mapping_folder(folder, *place), with_learned=True) for place in places}


def test_snapshots_and_refits_share_all_but_their_layers_and_gain(tracked: tuple[Config, Path]) -> None:
    found = mappings_of(tracked[1])
    first = found[0, 0]
    assert first.weights is not None and first.learned is not None
    for place, mapping in found.items():
        assert mapping.family == "through_time" and mapping.steps == 10
        assert mapping.weights is not None and mapping.learned is not None
        np.testing.assert_array_equal(mapping.space, first.space)
        np.testing.assert_array_equal(mapping.bias, first.bias)
        ratio = mapping.weights / first.weights
        np.testing.assert_allclose(ratio, np.repeat(ratio[:, :1], ratio.shape[1], axis=1), rtol=1e-3)
        if place != (0, 0):
            assert not np.array_equal(mapping.layer, first.layer)
        if place[0] == 0:
            # refits read step 0's tokens in the same frame, through the same bottlenecks
            for name in ("frame.local_scale", "model.local_bottleneck.0.weight"):
                np.testing.assert_allclose(mapping.learned[name], first.learned[name], atol=1e-6)


def test_rows_have_velocity(tracked: tuple[Config, Path]) -> None:
    _, folder = tracked
    assert {"selectors/<place>/velocity", "rewiring/<place>/n_predicted"} <= check_rows(folder)
    rows = {(row["name"], row["step"]): row["value"] for row in read_rows(folder / "results.jsonl")[0]}
    layers = {step: mappings_of(folder)[step, 0].layer for step in STEPS}
    for step, velocity in region_velocity(layers, slice(None)).items():
        assert rows["selectors/all/velocity", step] == pytest.approx(velocity)
    assert ("selectors/all/velocity", 0) not in rows
    for (name, step), value in rows.items():
        if name.endswith("/change_step"):
            assert 0 < value <= step


def test_a_lost_mapping_is_restored_by_the_same_fit(tracked: tuple[Config, Path], tmp_path: Path) -> None:
    config, folder = tracked
    copy = config.model_copy(update={"runs_dir": str(tmp_path / "runs")})
    shutil.copytree(folder, run_folder(copy))
    before, journal = mappings_of(folder), (folder / "results.jsonl").read_bytes()
    shutil.rmtree(mapping_folder(run_folder(copy), 2))
    probes_file(run_folder(copy), 1).unlink()
    run(copy)
    for place, mapping in mappings_of(run_folder(copy)).items():
        assert_equal(mapping, before[place])
    assert (run_folder(copy) / "results.jsonl").read_bytes() == journal
