"""Does a graft find the block that noise was planted into, and do predictors keep their level without any?

    python benchmarks/graft_validity.py --output benchmarks/results/graft_validity.json

Fine-tunes the mini backbones on digits for a few steps, with the demo's settings. **Planted**: noise in one
random block of the fine-tuned network, with a standard deviation of `SIZES` times that of every weight
tensor. Each block in turn gets its pretrained weights back; the graft finds the block if no other repairs
as much. **Null**: noise of one size in all blocks, so nothing tells one from another but its place. Repair
is the linear probe's on shapes, as in `palimpsest graft`, on fewer images.

Blocks before the first changed one are not run again, so a trial takes seconds. Trials in the output file are
not done again. About 12 minutes on one core.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine
from torch import Tensor, nn

from harness.backbones import Backbone
from harness.brains.load import load_brain
from harness.config.compose import load_config
from harness.finetuning.devices import build_accelerator
from harness.finetuning.loop import finetune
from harness.finetuning.snapshots import read_backbone
from harness.mappings.layer_evidence import (
    MIN_R2,
    Region,
    choose_penalties,
    measure_evidence,
    pool_tokens,
)
from harness.measures.controls import degrade
from harness.measures.drift import linear_cka, weight_distance
from harness.measures.graft import added_drift, changed_shares, foretell
from harness.measures.predicted import counted_places
from harness.measures.probes.linear import linear_probe
from harness.measures.rank_tests import rank_test
from harness.runs.inputs import load_inputs
from harness.runs.layout import list_snapshots
from harness.storage.files import write_atomically
from harness.tokens.extraction import LayerTokens

BACKBONES = ("mini_clip", "mini_supervised")
SIZES = (2.0, 4.0, 8.0)
"""Standard deviation of the noise over that of a weight tensor."""
NULL_SIZE = 1.0
STEPS = 15
"""Optimizer steps of the fine-tuning behind the noise; the demo takes 75."""
N_PLANTED, N_NULL = 34, 20
"""Trials per backbone, of each size and without a planted block."""
MAP_EVERY = 3
"""Evidence per layer is computed in one of so many planted trials, and in all others."""
HARM = 0.1
"""Accuracy that planted noise must cost for there to be much to find."""
N_SHUFFLES = 50
PREDICTORS = ("map", "weight_distance", "cka_lost", "cka_added")
POOL, PROBE_STEPS = 2, 100


class Network:
    """One mini backbone before and after fine-tuning, run block by block.

    Parameters
    ----------
    name : str
        Of the backbone.
    folder : Path
        For snapshots.
    """

    def __init__(self, name: str, folder: Path) -> None:
        settings = ["probes.tasks=[shapes]", "probes.n_train=80", "probes.n_test=100"]
        settings += ["brain.n_voxels=400", "brain.n_stimuli=160", f"backbone={name}", f"runs_dir={folder}"]
        settings += [f"finetune.max_steps={STEPS}"]
        config = load_config(["study=demo", *settings])
        inputs = load_inputs(config, folder)
        finetune(config, folder, inputs.tasks, inputs.backbone, build_accelerator(config.finetune))
        self.tuned = read_backbone(config, folder, list_snapshots(folder)[-1])
        self.before, self.after = _blocks(inputs.backbone), _blocks(self.tuned)
        self.layers = inputs.backbone.layers
        (shapes,) = inputs.probes
        images = [*shapes.train["image"], *shapes.test["image"]]
        self._labels = np.array(shapes.train["label"]), np.array(shapes.test["label"])
        self.inputs = self._stem(images)
        self._check(images)
        # inputs of every block of the fine-tuned network, and with one block pretrained
        self.path = self.run(self.after, self.inputs, 0)
        self.grafted = [
            [*self.path[:place], *self.run(self.swap(self.after, place), self.path[place], place)]
            for place in range(len(self.after))
        ]
        self.start = self.run(self.before, self._stem(images, inputs.backbone), 0)
        self.brain = load_brain(config.brain)
        self.seen = self._stem(list(self.brain.stimuli))
        self._seen_start = self._stem(list(self.brain.stimuli), inputs.backbone)
        self._prepare_map()

    def swap(self, blocks: list[nn.Module], place: int) -> list[nn.Module]:
        """Put one pretrained block into a list of blocks."""
        return [*blocks[:place], self.before[place], *blocks[place + 1 :]]

    @torch.no_grad()
    def run(self, blocks: list[nn.Module], tokens: Tensor, place: int) -> list[Tensor]:
        """Inputs of block `place` and all later ones, and last the output."""
        found = [tokens]
        for block in blocks[place:]:
            found.append(block(found[-1]))
        return found

    @torch.no_grad()
    def score(self, output: Tensor) -> float:
        """Accuracy of the linear probe on shapes, fine-tuned weights after the blocks."""
        features, (train, test) = _head(self.tuned, output).numpy(), self._labels
        n_train, settings = len(train), {"steps": PROBE_STEPS, "learning_rates": (0.5,)}
        found = linear_probe(features[:n_train], train, features[n_train:], test, 0, **settings)
        assert found.scores.accuracy is not None
        return found.scores.accuracy

    def predict(self, blocks: list[nn.Module], path: list[Tensor], with_map: bool) -> dict[str, list[float]]:
        """Predictors of repair, one number per block."""
        lost = [
            1 - linear_cka(_mean(first), _mean(second), unbiased=True)
            for first, second in zip(self.start[1:], path[1:], strict=True)
        ]
        moved = []
        for first, second in zip(self.before, blocks, strict=True):
            old, new = (
                {name: part.detach().numpy() for name, part in block.named_parameters()}
                for block in (first, second)
            )
            found = weight_distance(old, new, dict.fromkeys(old, "block"))
            moved.append(found["block"]["weight_distance_relative"])
        predictors = {"weight_distance": moved, "cka_lost": lost, "cka_added": added_drift(lost)}
        if with_map:
            predictors["map"] = self._map(blocks)
        return predictors

    def _map(self, blocks: list[nn.Module]) -> list[float]:
        pooled = self._pool(self.run(blocks, self.seen, 0))
        after = measure_evidence(pooled.features, self._responses, self._regions, self._penalties)
        return changed_shares(self._controls, after, self._weights).tolist()

    def _prepare_map(self) -> None:
        pooled = self._pool(self.run(self.before, self._seen_start, 0))
        self._responses = torch.as_tensor(self.brain.responses)
        self._penalties, r2 = choose_penalties(pooled, self._responses)
        places = counted_places(self.brain.rois, r2 > MIN_R2)
        self._regions = [Region(name, voxels) for name, voxels in places.items() if name != "all"]
        ceiling = self.brain.noise_ceiling
        assert ceiling is not None
        self._weights = np.array([ceiling[region.voxels].sum() for region in self._regions], dtype=float)
        self._controls = degrade(pooled, self._responses, self._regions, self._penalties, seed=0)

    def _pool(self, path: list[Tensor]) -> Any:
        outputs = path[1:]
        grids = tuple(one[:, 1:].transpose(1, 2).unflatten(2, (8, 8)) for one in outputs)
        tokens = LayerTokens(grids, tuple(one[:, 0] for one in outputs), self.layers)
        return pool_tokens(tokens, np.arange(len(outputs[0])), POOL)

    @torch.no_grad()
    def _stem(self, images: list[Any], backbone: Backbone | None = None) -> Tensor:
        backbone = backbone or self.tuned
        trunk = _trunk(backbone)
        tokens = trunk.patch_embed(backbone.preprocessing(images))
        return trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(tokens)))

    @torch.no_grad()
    def _check(self, images: list[Any]) -> None:
        own = _head(self.tuned, self.run(self.after, self.inputs[:4], 0)[-1])
        torch.testing.assert_close(own, self.tuned(self.tuned.preprocessing(images[:4])))


def _trunk(backbone: Backbone) -> Any:
    return getattr(backbone.encoder, "trunk", backbone.encoder)


def _blocks(backbone: Backbone) -> list[nn.Module]:
    return list(_trunk(backbone).blocks)


def _head(backbone: Backbone, output: Tensor) -> Tensor:
    trunk = _trunk(backbone)
    features = trunk.forward_head(trunk.norm(output))
    return features if trunk is backbone.encoder else backbone.encoder.head(features)


def _mean(tokens: Tensor) -> np.ndarray:
    return tokens[:, 1:].mean(dim=1).numpy()


@torch.no_grad()
def add_noise(block: nn.Module, size: float, generator: torch.Generator) -> nn.Module:
    """Copy a block and add noise to each of its weight tensors."""
    noisy = copy.deepcopy(block)
    for part in noisy.parameters():
        deviation = part.std(correction=0)
        part += size * deviation * torch.randn(part.shape, generator=generator)
    return noisy


def try_planted(network: Network, size: float, trial: int) -> dict[str, Any]:
    """Plant noise into a random block; repair of every block's graft, and predictors."""
    seed = 1000 * trial + round(100 * size)
    planted = int(np.random.default_rng(seed).integers(len(network.after)))
    noisy = add_noise(network.after[planted], size, torch.Generator().manual_seed(seed))
    blocks = [*network.after[:planted], noisy, *network.after[planted + 1 :]]
    path = [*network.path[:planted], *network.run(blocks, network.path[planted], planted)]
    outputs = []
    for place in range(len(blocks)):
        grafted = network.grafted[place]
        if place < planted:
            outputs.append(network.run(blocks, grafted[planted], planted)[-1])
        elif place == planted:
            outputs.append(grafted[-1])
        else:
            outputs.append(network.run(network.swap(blocks, place), path[place], place)[-1])
    return {"planted": planted, "size": size} | describe(
        network, blocks, path, outputs, trial % MAP_EVERY == 0
    )


def try_null(network: Network, trial: int) -> dict[str, Any]:
    """Add noise of one size to all blocks."""
    generator = torch.Generator().manual_seed(trial)
    blocks = [add_noise(block, NULL_SIZE, generator) for block in network.after]
    path = network.run(blocks, network.inputs, 0)
    outputs = [
        network.run(network.swap(blocks, place), path[place], place)[-1] for place in range(len(blocks))
    ]
    return {"planted": None, "size": NULL_SIZE} | describe(network, blocks, path, outputs, True)


def describe(
    network: Network, blocks: list[nn.Module], path: list[Tensor], outputs: list[Tensor], with_map: bool
) -> dict[str, Any]:
    """Repair and predictors of one trial."""
    damaged = network.score(path[-1])
    return {
        "damaged": damaged,
        "repair": [network.score(output) - damaged for output in outputs],
        "predictors": network.predict(blocks, path, with_map),
    }


def summarise(tuned: dict[str, float], trials: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Shares of trials by backbone, kind and size; `tuned`: the probe's accuracy before any noise."""
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = {}
    for key, trial in trials.items():
        backbone, kind, _, _ = key.split("/")
        groups.setdefault((backbone, kind, trial["size"]), []).append(trial)
    rows = []
    for (backbone, kind, size), own in sorted(groups.items()):
        row: dict[str, Any] = {"backbone": backbone, "kind": kind, "size": size, "n": len(own)}
        row["damaged"] = float(np.mean([trial["damaged"] for trial in own]))
        if kind == "planted":
            row["found_by_graft"] = float(np.mean([_is_first(trial["repair"], trial) for trial in own]))
            row["repair"] = float(np.mean([trial["repair"][trial["planted"]] for trial in own]))
            harmed = [trial for trial in own if tuned[backbone] - trial["damaged"] >= HARM]
            row["n_harmed"] = len(harmed)
            found = [_is_first(trial["repair"], trial) for trial in harmed]
            row["found_where_harmed"] = float(np.mean(found)) if found else None
        rng = np.random.default_rng(0)
        for name in PREDICTORS:
            known = [trial for trial in own if name in trial["predictors"]]
            tests = [foretell(trial["predictors"][name], trial["repair"]) for trial in known]
            kept = [test for test in tests if test is not None]
            one: dict[str, float | None] = {"n": len(kept)}
            one["rho"] = float(np.mean([test.rho for test in kept])) if kept else None
            one["p_below_05"] = float(np.mean([test.p <= 0.05 for test in kept])) if kept else None
            plain = [_permute_blocks(trial["predictors"][name], trial["repair"]) for trial in known]
            one["p_without_depth_below_05"] = float(np.mean(np.array(plain) <= 0.05)) if plain else None
            if kind == "planted":
                one["found"] = float(
                    np.mean([_is_first(trial["predictors"][name], trial) for trial in known])
                )
            row[name] = one
        if kind == "null":
            shuffled = [
                foretell(rng.permutation(len(trial["repair"])), trial["repair"])
                for trial in own
                for _ in range(N_SHUFFLES)
            ]
            below = [test.p <= 0.05 for test in shuffled if test is not None]
            row["shuffled"] = {"n": len(below), "p_below_05": float(np.mean(below))}
        rows.append(row)
    return rows


def _permute_blocks(predictor: list[float], repair: list[float]) -> float:
    """P of Spearman's ρ by permuted blocks, which forgets that early and late blocks differ."""
    return rank_test(np.array(predictor), np.array(repair), ["block"] * len(repair)).p


def _is_first(values: list[float], trial: dict[str, Any]) -> bool:
    """Whether the planted block alone has the largest value."""
    planted = trial["planted"]
    return all(values[planted] > value for place, value in enumerate(values) if place != planted)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw how often the planted block is found, by size and by whom; and rejections without one."""
    from matplotlib.figure import Figure

    from harness.plot import figure_style
    from harness.plot.style import save_png

    colours = {"graft": "#000000", "map": "#0173b2", "weight_distance": "#de8f05"}
    colours |= {"cka_lost": "#029e73", "cka_added": "#cc78bc", "shuffled": "#949494"}
    with figure_style():
        figure = Figure(figsize=(10.8, 3.6), layout="constrained")
        axes = figure.subplots(1, len(BACKBONES) + 1)
        for ax, backbone in zip(axes, BACKBONES, strict=False):
            own = [row for row in rows if row["backbone"] == backbone and row["kind"] == "planted"]
            sizes = [row["size"] for row in own]
            for name in (*PREDICTORS, "graft"):
                style = {"marker": "s", "linestyle": "--"} if name == "graft" else {"marker": "o"}
                share = [row["found_by_graft"] if name == "graft" else row[name]["found"] for row in own]
                ax.plot(sizes, share, color=colours[name], label=name.replace("_", " "), **style)
            ax.axhline(0.9, color="#6b6b6b", linewidth=0.8, linestyle=":")
            ax.set_xscale("log")
            ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
            ax.set_xticks([], minor=True)
            ax.set_ylim(-0.03, 1.03)
            ax.set_xlabel("noise, standard deviations of a weight tensor")
            ax.set_title(f"{backbone}: planted block found first")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=5)
        ax, names = axes[-1], (*PREDICTORS, "shuffled")
        for shift, backbone in zip((-0.2, 0.2), BACKBONES, strict=True):
            own = [row for row in rows if row["backbone"] == backbone and row["kind"] == "null"]
            heights = [own[0][name]["p_below_05"] for name in names] if own else []
            bars = ax.bar(np.arange(len(heights)) + shift, heights, 0.36, label=backbone)
            for bar, name in zip(bars, names, strict=False):
                bar.set_color(colours[name])
                bar.set_alpha(1.0 if shift < 0 else 0.55)
        ax.axhline(0.05, color="#6b6b6b", linewidth=0.8, linestyle=":")
        ax.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names])
        ax.set_ylim(0, 1.03)
        ax.set_title("Nothing planted: share of p ≤ .05")
        ax.set_xlabel("dark: mini_clip, light: mini_supervised")
        save_png(figure, path)


def main() -> None:
    """Do the trials that are missing, then summarise and draw all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="JSON; trials in it are not done again")
    parser.add_argument("--trials", type=int, default=N_PLANTED, help="planted, per backbone and size")
    parser.add_argument("--null", type=int, default=N_NULL, help="without a planted block, per backbone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path: Path = arguments.output
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    trials: dict[str, dict[str, Any]] = known.get("trials", {})
    tuned: dict[str, float] = known.get("tuned", {})
    for backbone in BACKBONES:
        wanted = [
            (f"{backbone}/planted/{size:g}/{trial}", size, trial)
            for trial in range(arguments.trials)
            for size in SIZES
        ]
        wanted += [(f"{backbone}/null/{NULL_SIZE:g}/{trial}", None, trial) for trial in range(arguments.null)]
        missing = [one for one in wanted if one[0] not in trials]
        if not missing and backbone in tuned:
            continue
        with tempfile.TemporaryDirectory() as folder:
            network = Network(backbone, Path(folder))
        tuned[backbone] = network.score(network.path[-1])
        for place, (key, size, trial) in enumerate(missing, 1):
            found = try_null(network, trial) if size is None else try_planted(network, size, trial)
            trials[key] = found
            if place % 5 == 0 or place == len(missing):
                _write(path, tuned, trials)
                print(f"{backbone}: {place}/{len(missing)}", flush=True)
    _write(path, tuned, trials)
    rows = summarise(tuned, trials)
    draw(rows, path.with_suffix(".png"))
    for row in rows:
        print(json.dumps(row))


def _write(path: Path, tuned: dict[str, float], trials: dict[str, dict[str, Any]]) -> None:
    """Write trials with numbers of a few digits, and what they amount to."""
    rounded = json.loads(json.dumps(trials), parse_float=lambda text: round(float(text), 5))
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(trial)}" for key, trial in rounded.items())
    head = {"machine": describe_machine(), "tuned": tuned, "summary": summarise(tuned, trials)}
    with write_atomically(path) as temporary:
        temporary.write_text(f'{json.dumps(head)[:-1]}, "trials": {{\n{lines}\n}}}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
