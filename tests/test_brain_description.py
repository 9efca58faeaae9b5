"""A brain's description says what is present, what is missing, and what a study will need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_study import make_brain

from harness.brains.brain import Roi
from harness.brains.description import (
    describe_brain,
)
from harness.commands import brains as command
from harness.commands.brains import look
from harness.config.compose import load_config
from harness.plot.brain_maps import draw_brain


def test_parts_that_are_known_are_counted() -> None:
    made = make_brain(n_rois=3, n_voxels_per_roi=16)
    n_images = 5
    brain = replace(
        made,
        responses=np.zeros((n_images, 48), np.float32),
        stimuli=[made.stimuli[0]] * n_images,
        stimulus_ids=np.arange(n_images) // 2,
    )
    rois = (*brain.rois[:2], Roi("patch", np.array([0, 40]), None))
    known = replace(
        brain,
        rois=rois,
        n_repeats=np.where(np.arange(n_images) < 1, 3, 2),
        session=np.arange(n_images) % 2,
        shared=np.arange(n_images) == 1,
        noise_ceiling=np.linspace(0, 1, 48, dtype=np.float32),
    )
    lines = describe_brain(known)
    found = dict(reversed(lines))
    assert found["stimuli"].startswith(f"{n_images} rows of {-(-n_images // 2)} pictures, ")
    assert found["repeats"] == f"1 rows of 3 presentations, {n_images - 1} rows of 2 presentations"
    assert found["sessions"] == "2"
    assert found["shared"] == "1 rows show pictures that all subjects saw"
    assert found["ceiling"] == "quartiles 0.25, 0.50, 0.75 (0.00 to 1.00)"
    assert found["unknown"] == "nothing"
    regions = [text for _, text in lines]
    # by rank; those without one come last
    assert next(text for text in regions if "patch" in text).split() == [
        *("patch", "2", "voxels,", "no", "rank,", "median", "ceiling", "0.43"),
    ]
    assert regions.index(next(t for t in regions if "patch" in t)) == len(regions) - 2
    assert regions[-1] == "15 voxels are in no region"


def test_parts_that_are_not_known_are_named() -> None:
    brain = replace(make_brain(), noise_ceiling=None, surface=None, rois=())
    found = dict(describe_brain(brain))
    assert found["unknown"] == (
        "noise ceiling, repeats, sessions, pictures that all subjects saw, surface to draw on"
    )
    assert found["regions"] == "none"
    assert "ceiling" not in found and "sessions" not in found


def test_look_names_memory_and_writes_a_picture(tmp_path: Path) -> None:
    overrides = [f"runs_dir={tmp_path}", "brain.n_voxels=100", "brain.n_stimuli=20", "backbone=mini_random"]
    found = look(load_config(overrides))
    texts = [text for _, text in found]
    assert ("memory", "8.0 kB for responses") in found
    # 20 images, 8 layers, 128 channels, 8 × 8 places plus one global token, 2 bytes each
    n_bytes = 20 * 8 * 128 * 65 * 2
    assert f"{n_bytes / 1e6:.1f} MB (mini_random, float16) for the tokens of one snapshot" in texts
    path = tmp_path / "brains" / "simulated-0.png"
    assert found[-1] == ("picture", str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    wide = look(load_config([*overrides, "mapping.token_precision=float32"]))
    assert f"{2 * n_bytes / 1e6:.1f} MB (mini_random, float32) for the tokens of one snapshot" in [
        text for _, text in wide
    ]


def test_whatever_a_picture_shows_draws_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brain = make_brain()
    assert brain.noise_ceiling is not None and brain.surface is not None
    # none of these is in the fingerprint
    changes = [
        {},
        {"name": "another"},
        {"noise_ceiling": np.linspace(0.1, 0.6, brain.n_voxels, dtype=np.float32)},
        {"rois": brain.rois[:1]},
        {"surface": None},
    ]
    config = load_config([f"runs_dir={tmp_path}", "backbone=mini_random"])
    pictures = []
    for change in changes:
        changed = replace(brain, **change)
        monkeypatch.setattr(command, "load_brain", lambda alone, changed=changed: changed)
        pictures.append(Path(look(config)[-1][1]).read_bytes())
    assert len(set(pictures)) == len(changes)


def test_a_backbone_that_cannot_be_loaded_is_no_obstacle(tmp_path: Path) -> None:
    missing = tmp_path / "none.safetensors"
    overrides = [f"runs_dir={tmp_path}", "brain.n_voxels=100", "brain.n_stimuli=20", "backbone=mini_clip"]
    texts = [text for _, text in look(load_config([*overrides, f"backbone.checkpoint={missing}"]))]
    assert any("an unknown amount" in text and str(missing) in text for text in texts)


@pytest.mark.parametrize("known", [True, False])
def test_picture_has_a_map_of_what_is_known(known: bool) -> None:
    brain = make_brain()
    figure = draw_brain(brain if known else replace(brain, noise_ceiling=None))
    titles = [ax.get_title("left") for ax in figure.axes]
    assert ("Noise ceiling" in titles) == known and "Regions" in titles
