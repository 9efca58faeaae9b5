from __future__ import annotations

from pathlib import Path

import pytest
import torch
from catalogued import check_rows
from equality import assert_equal
from made_training import values
from overrides import SMALL_TRACKING, TINY

from harness.backbones.backbone import encoder_hash
from harness.backbones.load import load_backbone
from harness.backbones.timm_backbone import load_timm
from harness.commands.finetune import run
from harness.commands.wise_ft import main
from harness.config.compose import load_config
from harness.config.method import LoraConfig
from harness.finetuning.methods.tuned import tune
from harness.finetuning.snapshots import read_snapshot
from harness.mappings.mapping import load_mapping
from harness.runs.layout import (
    list_snapshots,
    mapping_folder,
    run_folder,
    snapshot_folder,
    wise_ft_folder,
)
from harness.runs.records import read_probes
from harness.storage.errors import InputError
from harness.storage.files import (
    read_weights,
)
from harness.tracking import wise_ft
from harness.tracking.store.histories import read_histories


def test_the_ends_are_exact_and_the_middle_is_between() -> None:
    start = {"a": torch.tensor([0.1, -3.0]), "n": torch.tensor(0)}
    end = {"a": torch.tensor([0.7, 5.0]), "n": torch.tensor(9)}
    for alpha, expected in ((0.0, start["a"]), (1.0, end["a"])):
        assert torch.equal(wise_ft.interpolate(start, end, alpha)["a"], expected)
    found = wise_ft.interpolate(start, end, 0.25)
    torch.testing.assert_close(found["a"], torch.tensor([0.25, -1.0]))
    assert found["n"].item() == 9


def test_of_lora_the_additions_are_scaled() -> None:
    backbone = load_timm("test_vit", None, 0).eval()
    model = tune(backbone, 3, LoraConfig(rank=2), 0).eval()
    start = {name: part.clone() for name, part in model.changing_state().items()}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    end = {name: part.clone() for name, part in model.changing_state().items()}

    def merged(alpha: float) -> dict[str, torch.Tensor]:
        model.load_changing_state(wise_ft.interpolate(start, end, alpha))
        return model.merged_backbone().encoder.state_dict()

    first, quarter, last = merged(0.0), merged(0.25), merged(1.0)
    for name in last:
        expected = backbone.encoder.state_dict()[name]
        torch.testing.assert_close(first[name], expected, rtol=0, atol=1e-7)
        torch.testing.assert_close(quarter[name], 0.75 * expected + 0.25 * last[name], rtol=1e-5, atol=1e-6)
    assert not torch.equal(first["blocks.0.attn.qkv.weight"], last["blocks.0.attn.qkv.weight"])


def test_alphas_are_percents_and_have_both_ends() -> None:
    assert wise_ft.percents(wise_ft.ALPHAS) == list(range(0, 101, 10))
    assert wise_ft.percents([0.29]) == [0, 29, 100]
    for alpha in (-0.1, 1.5, 0.125, float("nan")):
        with pytest.raises(InputError, match=r"--alphas: found .*, expected 0 to 1 in steps of 0.01"):
            wise_ft.percents([alpha])


def test_a_run_is_measured_between_its_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    config = load_config(
        [
            *(*TINY, *SMALL_TRACKING, "backbone=mini_clip", "finetune.max_steps=2", "snapshots.first=2"),
            *("brain.n_voxels=150", "mapping.steps=30"),  # enough predicted voxels for measures of rewiring
            f"runs_dir={tmp_path}",
        ]
    )
    folder = run_folder(config)
    folder.mkdir(parents=True)
    monkeypatch.setattr("sys.argv", ["wise_ft", str(folder), "--alphas", "0.5"])
    with pytest.raises(InputError, match=r"config.yaml: no such file"):
        main()
    run(config)
    (folder / "finished.json").rename(folder / "kept.json")
    with pytest.raises(InputError, match="found an unfinished run"):
        main()
    (folder / "kept.json").rename(folder / "finished.json")
    before = values(folder)
    capsys.readouterr()
    main()

    head, _, *table = capsys.readouterr().out.splitlines()
    curve = wise_ft_folder(folder)
    assert list_snapshots(curve) == [0, 50, 100]
    for step, own in ((0, 0), (100, 2)):  # the end points are the run's, in weights and measurements
        weights = [read_weights(snapshot_folder(*place) / "weights.safetensors")
                   for place in ((curve, step), (folder, own))]  # fmt: skip
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
        assert read_probes(curve, step) == read_probes(folder, own)
        ours, theirs = (load_mapping(mapping_folder(*place)) for place in ((curve, step), (folder, own)))
        assert_equal(ours, theirs)
    backbone = load_backbone(config.backbone)
    model = tune(backbone, 10, config.method, 0)
    read_snapshot(snapshot_folder(curve, 50), model, encoder_hash(backbone))
    ends = [read_weights(snapshot_folder(folder, step) / "weights.safetensors") for step in (0, 2)]
    name = "backbone.encoder.trunk.blocks.3.mlp.fc1.weight"
    torch.testing.assert_close(model.state_dict()[name], (ends[0][name] + ends[1][name]) / 2)

    columns = [list(cells) for cells in zip(*(line.split() for line in table[:3]), strict=True)]
    rows = values(folder)
    assert {key: rows[key] for key in before} == before
    for name in ("task/digits/accuracy", "probe/shapes/linear_accuracy", "forgetting/shapes/delta_zs",
                 "brain/all/r2", "rewiring/all/wasserstein_excess"):  # fmt: skip
        found = {step: value for (key, step), value in rows.items() if key == f"wise_ft.{name}"}
        assert found.keys() == ({50, 100} if name.startswith("rewiring") else {0, 50, 100})
        assert found[100] == rows[name, 2]
        if not name.startswith("probe"):
            column = [f"{found[step]:.3f}" if step in found else "–" for step in (0, 50, 100)]
            assert column in columns
    assert columns[0] == ["0.00", "0.50", "1.00"]
    assert head.split()[:2] == ["digits", "accuracy"] and "palimpsest report" in table[-2]
    ((_, stored),) = read_histories(f"sqlite:///{tmp_path}/mlflow.db", "default", lambda name: True)
    assert {(row.name, row.step): row.value for row in stored.itertuples(index=False)} == rows
    check_rows(folder)
    main()  # again: nothing new
    assert values(folder) == rows
