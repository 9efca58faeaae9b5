"""A run of each kind: every family of networks and every method, from the weight file to a query.

Networks are small with random weights, in files as their authors publish them, under the options of
``configs/backbone/``. Not every pair is run, but each family and each method at least once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import yaml
from catalogued import check_rows
from made_backbones import add_tiny_resnet, add_tiny_siglip, add_tiny_vit, register_small
from made_images import write_folders
from made_recordings import make_arrays, write_arrays
from made_weights import (
    State,
    as_convnext,
    as_dinov2,
    as_dinov2_reg,
    as_dinov3,
    as_dinov3_convnext,
    as_ijepa,
    as_mae,
    as_moco_v3,
    as_open_clip,
    as_sam,
    perturb,
    write_weights,
)
from safetensors.torch import save_file

from harness.backbones.backbone import Backbone
from harness.backbones.load import load_backbone
from harness.backbones.timm_backbone import load_timm
from harness.commands.finetune import run
from harness.commands.graft import main as graft
from harness.config.compose import (
    CONFIGS,
    group_options,
    load_config,
    read_config,
)
from harness.config.run import Config
from harness.mappings.mapping import load_mapping
from harness.runs.journal import read_rows
from harness.runs.layout import (
    list_snapshots,
    mapping_folder,
    probes_file,
    run_folder,
    snapshot_folder,
)
from harness.runs.records import read_probes
from harness.storage.errors import InputError
from harness.storage.files import read_record, read_weights
from harness.storage.locks import hold_lock
from harness.tracking.curves import metric_curves
from harness.tracking.graft_measuring import Grafter
from harness.tracking.graft_records import read_summary

STEPS = (0, 1, 3)
TINY = [
    "task.n_train=8",
    "task.n_test=6",
    "finetune.batch_size=4",
    "finetune.max_steps=3",
    "snapshots.ratio=3",
    "snapshots.at_epoch_ends=false",
    "brain=arrays",
    "mapping.steps=2",
    "mapping.floor_refits=2",
    "mapping.n_channels=2",
    "mapping.token_size=2",
    "probes.tasks=[shapes]",
    "probes.n_train=16",
    "probes.n_test=6",
    "probes.steps=2",
]
SHIFTED = (
    "task.shifts=[fog]",
    "probes.shifts=[textures]",
    "shifts.severities=[2]",
    "shifts.n_corrupted=4",
)
# the parts of a network's name that give its size
SIZE = re.compile(r"tiny|small|base|large|huge|giant|plus|[BLHg]|bigG|gopt|SO400M|\d+|patch\d+")


@dataclass(frozen=True)
class Kind:
    """A run: an option of ``configs/backbone/``, a method, and further settings.

    Attributes
    ----------
    network : str
        The small network that replaces the option's.
    image_size : int or None
        Size of the images shown; None: the network's own.
    publish : callable or None
        Converts weights to the content of their file; None: safetensors.
    """

    backbone: str
    method: str
    network: str | None = None
    image_size: int | None = None
    publish: Callable[[State], Any] | None = None
    settings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "-".join([self.backbone, self.method, *self.settings])


KINDS = (
    Kind("clip_b16", "flyp", "clip", None, as_open_clip),
    Kind("clip_rn50_openai", "full", "clip_resnet", 64, settings=("backbone.text=false",)),
    Kind("siglip_b16", "lwf", "siglip", 32, settings=("method.n_proxy=8", "backbone.text=false")),
    Kind("siglip2_b16", "lora", "siglip", 32),
    Kind("imagenet_s16", "full", "vit", 32, settings=("method.layer_decay=0.5",)),
    Kind("dino_s16", "lp_ft", "vit", 32),
    Kind("mae_b16", "l2_sp", "vit", 32, as_mae),
    Kind("mocov3_b16", "linear_probe", "vit", 32, as_moco_v3),
    Kind("ijepa_h14", "l2_sp_ldifs", "vit_gap", 28, as_ijepa),
    Kind("dinov2_s14", "bitfit", "dinov2", 28, as_dinov2),
    Kind("dinov2_reg_s14", "lora", "dinov2_reg", 28, as_dinov2_reg),
    Kind("dinov3_s16", "ewc", "dinov3", 32, as_dinov3, ("method.n_proxy=8",)),
    Kind("sam_b16", "full", "sam", 48, as_sam, ("method.frozen_blocks=1",)),
    Kind("convnext_t", "ldifs", "convnext", 64, as_convnext),
    Kind("dinov3_convnext_t", "lwf", "convnext", 64, as_dinov3_convnext, ("method.n_proxy=8",)),
    Kind(
        "resnet50",
        "brain_anchor",
        "resnet",
        64,
        settings=("method.images=<root>/images", "method.n_images=6"),
    ),
    Kind("mini_clip", "ldifs", settings=SHIFTED),
    Kind("mini_supervised", "bitfit"),
    Kind("mini_random", "linear_probe"),
)
WITH_PENALTY = ("l2_sp", "l2_sp_ldifs", "ldifs", "ewc", "lwf", "brain_anchor")


def family(option: str) -> tuple[str, str, str]:
    """Return the library, the architecture without its size, and the pretraining objective."""
    said = yaml.safe_load((CONFIGS / "backbone" / f"{option}.yaml").read_text(encoding="utf-8"))
    parts = [part for part in re.split(r"[-_]", said["model"]) if not SIZE.fullmatch(part)]
    return said["library"], "-".join(parts), said["objective"]


def test_every_family_and_every_method_has_a_run() -> None:
    # `python` stands for code of the user's own: test_python_sources.py and test_python_method.py run it
    # and Stable Diffusion is mapped, not fine-tuned: test_diffusion_backbone.py
    named = ("timm", "open_clip", "python", "stable_diffusion")
    options = [option for option in group_options("backbone") if option not in named]
    families = {option: family(option) for option in options}
    assert sorted(families[kind.backbone] for kind in KINDS) == sorted(set(families.values()))
    # replay needs a sequence: test_replay.py
    assert {kind.method for kind in KINDS} == set(group_options("method")) - {"python", "replay"}
    # optional settings of methods
    assert {"method.layer_decay", "method.frozen_blocks"} <= {
        setting.partition("=")[0] for kind in KINDS for setting in kind.settings
    }


# small networks


def name_network(kind: Kind, folder: Path) -> str:
    """Register a kind's small network with its library and return the name."""
    assert kind.network is not None
    if kind.network == "clip":
        return add_tiny_vit(folder, 48)
    if kind.network == "siglip":
        return add_tiny_siglip(folder)
    return add_tiny_resnet(folder) if kind.network == "clip_resnet" else register_small(kind.network)


def make_weights(name: str) -> tuple[State, State]:
    """Make the weights of a small network's image tower, and all its weights (with any text tower)."""
    if not name.startswith("palimpsest_tiny"):
        encoder = load_timm(name, None, 0).encoder
        perturb(encoder)
        return encoder.state_dict(), encoder.state_dict()
    torch.manual_seed(0)
    network = open_clip.create_model(name)
    perturb(network.visual)
    return network.visual.state_dict(), network.state_dict()


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Return the folder that all test processes share: each run is done by one of them."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "kinds"
    folder.mkdir(exist_ok=True)
    with hold_lock(folder / "recording.lock"):
        if not (folder / "recording").exists():
            write_arrays(folder / "recording", make_arrays(), 8)
            write_folders(folder / "images", {"some": 6}, first=1000)
    return folder


@pytest.fixture(autouse=True)
def one_store(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")


def finish(kind: Kind, root: Path) -> Path:
    """Return the folder of a kind's run, after doing the run if it is missing."""
    folder = root / kind.backbone
    with hold_lock(root / f"{kind.backbone}.lock"):
        if not (folder / "run").exists():
            config = configure(kind, root)
            run(config)
            (folder / "run").symlink_to(run_folder(config))
    return (folder / "run").resolve()


def configure(kind: Kind, root: Path) -> Config:
    """Compose the settings of a kind's run; make its small network and weight file."""
    folder = root / kind.backbone
    folder.mkdir()
    overrides = [*TINY, f"backbone={kind.backbone}", f"method={kind.method}"]
    overrides += [setting.replace("<root>", str(root)) for setting in kind.settings]
    if kind.network is not None:
        name = name_network(kind, folder)
        encoder, weights = make_weights(name)
        save_file(encoder, folder / "made.safetensors")
        path = write_weights(folder / "weights", weights, kind.publish)
        size = "null" if kind.image_size is None else kind.image_size
        overrides += [f"backbone.model={name}", "backbone.weights=null", f"backbone.checkpoint={path}"]
        overrides += [f"backbone.image_size={size}"]
    return load_config([*overrides, f"brain.root={root / 'recording'}", f"runs_dir={root}/runs"])


# parameters that a method may change


def may_change(kind: Kind, backbone: Backbone) -> set[str]:
    """Name the entries of a snapshot that the method, by its definition, may change."""
    names = {name for name, _ in backbone.encoder.named_parameters()}
    head = {"head.weight", "head.bias"}
    if kind.method == "linear_probe":
        return head
    if kind.method == "bitfit":
        return head | {f"backbone.encoder.{name}" for name in names if name.endswith("bias")}
    if kind.method == "lora":
        prefix = "trunk.blocks" if kind.network == "siglip" else "blocks"
        parts = [f"{prefix}.{block}.{part}" for block in (0, 1) for part in ("attn.qkv", "attn.proj")]
        parts += [f"{prefix}.{block}.mlp.{part}" for block in (0, 1) for part in ("fc1", "fc2")]
        return head | {
            f"backbone.encoder.{part}.lora_{factor}.default.weight" for part in parts for factor in "AB"
        }
    if "method.frozen_blocks=1" in kind.settings:
        names = {name for name in names if not name.startswith(("pos_embed", "patch_embed.", "blocks.0."))}
    # batch statistics, if any
    names |= backbone.encoder.state_dict().keys() - dict(backbone.encoder.named_parameters()).keys()
    found = {f"backbone.encoder.{name}" for name in names}
    if kind.method != "flyp":
        return found | head
    return found | {f"texts.encoder.{name}" for name, _ in backbone.text.copy_to_train().named_parameters()}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_run(kind: Kind, root: Path) -> None:
    folder = finish(kind, root)
    assert tuple(list_snapshots(folder)) == STEPS

    # weights equal those in the file, up to resampled position embeddings
    if kind.network is not None:
        name_network(kind, root / kind.backbone)  # the library knows it only in the process that made the run
    backbone = load_backbone(read_config(folder / "config.yaml").backbone)
    encoder = backbone.encoder.state_dict()
    if kind.network is not None:
        made = read_weights(root / kind.backbone / "made.safetensors")
        assert made.keys() == encoder.keys()
        other = {name for name in encoder if not torch.equal(encoder[name], made[name])}
        assert all("pos_embed" in name for name in other)

    # only what the method may change differs from the pretrained weights
    first, *_, last = (read_weights(snapshot_folder(folder, step) / "weights.safetensors") for step in STEPS)
    assert first.keys() == last.keys()
    assert {name for name in first if not torch.equal(first[name], last[name])} == may_change(kind, backbone)
    for name, part in first.items():
        own = name.removeprefix("backbone.encoder.")
        if own in encoder:
            assert torch.equal(part, encoder[own]), name
        elif name.startswith("head.") or ".lora_B." in name:
            assert not part.any(), name
    if "method.layer_decay=0.5" in kind.settings:
        moved = {
            block: max(
                float((last[name] - first[name]).abs().max()) for name in first if f".blocks.{block}." in name
            )
            for block in (0, 1)
        }
        assert moved[0] == pytest.approx(moved[1] / 2, rel=0.2)

    # every measure has a row at every step
    rows = {(row["name"], row["step"]): row["value"] for row in read_rows(folder / "results.jsonl")[0]}
    assert np.isfinite(list(rows.values())).all()
    layer = backbone.layers[-1]
    for step in STEPS:
        assert load_mapping(mapping_folder(folder, step)).layers == backbone.layers
        assert probes_file(folder, step).exists()
        for name in ("brain/V1/r2", "selectors/all/expected_depth", "task/digits/accuracy"):
            assert (name, step) in rows
        for name in ("probe/shapes/linear_accuracy", "probe/shapes/knn_accuracy", f"drift/{layer}/cka"):
            assert (name, step) in rows
        assert (("probe/shapes/zero_shot_accuracy", step) in rows) == (backbone.text is not None)
        assert (("rewiring/all/n_predicted", step) in rows) == (step > 0)
        # nothing has moved at the start, nor ever when only a head is trained
        still = step == 0 or kind.method == "linear_probe"
        distances = [rows[f"drift/{place}/distance", step] for place in backbone.layers]
        assert all(distance == 0 for distance in distances) if still else step == 1 or distances[-1] > 0
        if still:
            assert rows["forgetting/shapes/delta_lp", step] == 0

    # under shifts only where they are asked for
    shifted = {name.removeprefix("shift/") for name, step in rows if name.startswith("shift/") and step == 3}
    if "task.shifts=[fog]" in kind.settings:
        assert {"digits/fog/head_accuracy", "digits/fog/corruption_error", "digits/fog/accuracy_2"} <= shifted
        assert {"shapes/textures/accuracy", "shapes/textures/zero_shot_ece"} <= shifted
        assert rows["shift/digits/fog/corruption_error", 0] == 1 and rows["shift/digits/fog/n_test", 3] == 4
    else:
        assert not shifted

    assert "train/<term>" in check_rows(folder) or kind.method not in WITH_PENALTY

    # penalties start at exactly 0; a step's row describes the weights before it
    penalties = [rows[name, 1] for name in ("train/penalty", "train/head_penalty") if (name, 1) in rows]
    assert penalties == [0.0] * (kind.method in WITH_PENALTY) + [0.0] * (kind.method == "l2_sp")
    if penalties:
        assert rows["train/penalty", 3] > 0
    if kind.method == "brain_anchor":
        # tracking takes over the mapping of step 0, which is fitted before training
        first_made = mapping_folder(folder, 0).stat().st_mtime_ns
        assert first_made < snapshot_folder(folder, 0).stat().st_mtime_ns


# units whose pretrained weights are put back
GRAFTED = {
    "siglip2_b16": ("blocks.0", "blocks.1"),
    "imagenet_s16": ("stem", "blocks.0", "blocks.1"),
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.backbone in GRAFTED], ids=str)
def test_grafts(
    kind: Kind, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finish(kind, root)
    assert kind.network is not None
    name_network(kind, root / kind.backbone)
    graft([str(folder), "--orders", "1"])
    assert f"palimpsest report {folder.parent}" in capsys.readouterr().out
    summary = read_summary(folder)
    assert summary is not None and tuple(summary["units"]) == GRAFTED[kind.backbone]
    adapted = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2") if kind.method == "lora" else ()
    adapters = {f"trunk.{layer}.{module}" for layer in GRAFTED[kind.backbone] for module in adapted}
    assert set(summary["adapters"]) == adapters

    # with nothing put back the last snapshot, with everything the pretrained backbone
    measured = {
        tuple(found["units"]): found
        for found in (read_record(path, "") for path in (folder / "graft/sets").glob("*.json"))
    }
    first, last = (read_probes(folder, step) for step in (STEPS[0], STEPS[-1]))
    for units, probes in (((), last), (GRAFTED[kind.backbone], first)):
        assert measured[units]["probe"] == {"shapes": probes["probe"]["shapes"]}
        assert measured[units]["images"]["shapes"] == probes["images"]["shapes"]
    assert measured[()]["task"]["digits"] == last["task"]

    # its rows are in the journal, the catalogue and MLflow
    own = {row["name"]: row["value"] for row in read_rows(folder / "results.jsonl")[0]}
    assert own["graft/all/repair"] == pytest.approx(-own_change(folder, "delta_lp"))
    assert all(f"graft/{unit}/weight_distance" in own for unit in GRAFTED[kind.backbone])
    assert {"graft/<layer>/gradient_share", "graft/<layer>/cka_added"} <= check_rows(folder)
    curves = metric_curves("graft", study="default", measure="repair")
    assert set(curves[curves["run"] == folder.name]["place"]) == {"all", *GRAFTED[kind.backbone], *adapters}

    # what is there is not measured again, what is missing is
    lost = folder / "graft/sets/0000001.json"
    lost.unlink()
    (folder / "graft/summary.json").unlink()
    made: list[tuple[str, ...]] = []
    measure = Grafter.measure

    def count(self: Grafter, chosen: tuple[str, ...], label: str) -> Any:
        made.append(chosen)
        return measure(self, chosen, label)

    monkeypatch.setattr(Grafter, "measure", count)
    graft([str(folder), "--orders", "1"])
    assert made == [GRAFTED[kind.backbone][:1]] and read_summary(folder) == summary

    # a changed file is named
    lost.write_text(lost.read_text().replace('"r2"', '"r3"'))
    with pytest.raises(InputError, match=r"0000001.json: content does not match the hash in it"):
        graft([str(folder), "--orders", "1"])
    lost.unlink()


def own_change(folder: Path, measure: str) -> float:
    """A change of the last snapshot of a run."""
    rows = {(row["name"], row["step"]): row["value"] for row in read_rows(folder / "results.jsonl")[0]}
    return rows[f"forgetting/shapes/{measure}", STEPS[-1]]


def test_a_method_that_leaves_the_backbone_has_no_grafts(root: Path) -> None:
    (kind,) = (kind for kind in KINDS if kind.backbone == "mini_random")
    with pytest.raises(InputError, match=r"found no weight of the backbone that linear_probe has changed"):
        graft([str(finish(kind, root))])
    with pytest.raises(InputError, match=r"--orders: found -1, expected 0 or more"):
        graft(["runs/x", "--orders", "-1"])


def test_a_query_has_every_run_at_every_step(root: Path) -> None:
    expected = []
    for kind in KINDS:
        name = finish(kind, root).name
        _, _, objective = family(kind.backbone)
        expected += [(name, kind.backbone, objective, kind.method, step) for step in STEPS]
    places = {"brain": ("r2", "roi", "all"), "probe": ("linear_accuracy", "place", "shapes")}
    for stage, (measure, column, place) in places.items():
        curves = metric_curves(stage, study="default", measure=measure)  # type: ignore[arg-type]
        curves = curves[curves[column] == place]
        assert np.isfinite(curves["value"]).all()
        found = curves[["run", "backbone", "objective", "method", "step"]].itertuples(index=False)
        assert sorted(map(tuple, found)) == sorted(expected)
