"""Does effective robustness find a network that is invariant to a shift by construction?

    OMP_NUM_THREADS=1 python benchmarks/invariant_network.py --output benchmarks/results/invariant_network

The mini backbones, whole and with noise in their weights, make the line of accuracy under a corruption on
clean accuracy. Judged against it: a network that standardises every image's channels before it looks, and so
sees the same picture at every contrast; a copy of one of the line's networks; and the standardising network
under a corruption to which it is not invariant. Linear probes are fitted on clean images, as in a run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine, write_figures
from matplotlib.figure import Figure
from PIL import Image

from harness.backbones import Backbone, load_backbone
from harness.config import load_config
from harness.measures import ModelHits, Robustness, effective_robustness
from harness.measures.probes.linear import apply_layer, train_layer
from tasks import corrupt_images, load_task

NOISES = (0.0, 0.1, 0.2, 0.3, 0.4)
CORRUPTIONS = ("contrast", "gaussian_noise")
SEVERITIES = (1, 2, 3, 4, 5)
BATCH, PROBE_STEPS = 100, 300
INVARIANT, COPY = "mini_supervised, standardised images", "copy of mini_supervised"


class Network:
    """A backbone, with noise in its weights or with images standardised."""

    def __init__(self, backbone: Backbone, standardised: bool = False) -> None:
        self._backbone, self._standardised = backbone.eval(), standardised

    @torch.no_grad()
    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Features [n_images, n_channels]."""
        found = []
        for start in range(0, len(images), BATCH):
            inputs = self._backbone.preprocessing(list(images[start : start + BATCH]))
            if self._standardised:
                mean, sd = inputs.mean(dim=(2, 3), keepdim=True), inputs.std(dim=(2, 3), keepdim=True)
                # to the range that the network was trained on
                inputs = (inputs - mean) / sd.clamp(min=1e-6)
            found.append(self._backbone(inputs).float())
        return torch.cat(found).numpy()


def make_networks() -> dict[str, Network]:
    """Networks by name; the last two are not of the line."""
    networks = {}
    for name in ("mini_clip", "mini_supervised"):
        for noise in NOISES:
            backbone = load_backbone(load_config([f"backbone={name}"]).backbone)
            generator = torch.Generator().manual_seed(round(100 * noise))
            with torch.no_grad():
                for weight in backbone.encoder.parameters():
                    if weight.ndim > 1:
                        weight += noise * weight.std() * torch.randn(weight.shape, generator=generator)
            networks[f"{name}, noise {noise:g}"] = Network(backbone)
    supervised = load_backbone(load_config(["backbone=mini_supervised"]).backbone)
    return networks | {INVARIANT: Network(supervised, standardised=True), COPY: Network(supervised)}


def measure(networks: dict[str, Network], n_train: int, n_test: int) -> dict[str, list[ModelHits]]:
    """Which test images every network gets right, clean and under every corruption."""
    task = load_task("shapes", n_train=n_train, n_test=n_test)
    train, test = (np.array(split["label"], dtype=np.int64) for split in (task.train, task.test))
    clean = list(task.test["image"])
    corrupted = {name: corrupt_images(clean, name, SEVERITIES) for name in CORRUPTIONS}
    hits: dict[str, list[ModelHits]] = {name: [] for name in CORRUPTIONS}
    for model, network in networks.items():
        features = network.features(list(task.train["image"]))
        layer, _ = train_layer(features, train, len(task.class_names), 0, steps=PROBE_STEPS)

        def right(images: Sequence[Image.Image]) -> np.ndarray:
            return apply_layer(layer, network.features(images)).argmax(axis=1) == test  # noqa: B023

        unchanged = right(clean)
        for name, parts in corrupted.items():
            shifted = tuple(right(images) for images in parts.values())
            hits[name].append(
                ModelHits(model, (unchanged,), shifted, ("clean", name), True, model not in (INVARIANT, COPY))
            )
        print(f"{model}: clean {unchanged.mean():.3f}", flush=True)
    return hits


def draw(found: dict[str, list[Robustness]]) -> Figure:
    """Draw accuracy under each corruption over clean accuracy."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    for ax, (name, judged) in zip(figure.subplots(1, len(found)), found.items(), strict=True):
        for one in judged:
            special = {INVARIANT: ("*", "#d55e00", 14), COPY: ("o", "#0072b2", 9)}
            marker, colour, size = special.get(one.name, ("o", "#888888", 5))
            label = one.name if one.name in special else None
            ax.plot(one.clean[0], one.shifted, marker, color=colour, markersize=size, label=label)
            if label:
                ends = [one.expected + one.low, one.expected + one.high]
                ax.plot([one.clean[0]] * 2, ends, color=colour, linewidth=1.2)
            ax.plot(one.clean[0], one.expected, "_", color="#444444", markersize=9)
        ax.set_title(name.replace("_", " "))
        ax.set_xlabel("clean accuracy")
        ax.set_ylabel("accuracy under the corruption")
    handles, labels = ax.get_legend_handles_labels()
    handles.append(ax.plot([], [], "_", color="#444444")[0])
    figure.legend(
        handles, [*labels, "line of the other networks"], loc="outside upper left", ncols=3, fontsize=8
    )
    return figure


def main() -> None:
    """Judge all networks and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--train", type=int, default=200)
    parser.add_argument("--test", type=int, default=300)
    parser.add_argument("--output", type=Path, help="path without suffix; writes a .json and a .png")
    arguments = parser.parse_args()
    hits = measure(make_networks(), arguments.train, arguments.test)
    found = {name: effective_robustness(models) for name, models in hits.items()}
    for name, judged in found.items():
        for one in judged:
            print(
                f"{name}, {one.name}: clean {one.clean[0]:.3f}, shifted {one.shifted:.3f}, "
                f"effective robustness {one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"
            )
    if arguments.output:
        rows = {name: [vars(one) for one in judged] for name, judged in found.items()}
        write_figures({"machine": describe_machine(), **rows}, arguments.output.with_suffix(".json"))
        draw(found).savefig(arguments.output.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
