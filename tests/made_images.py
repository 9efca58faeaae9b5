"""Small labelled images on disk, in common layouts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

FINDINGS = ("effusion", "mass", "hernia")


def make_image(seed: int, level: int = 128) -> Image.Image:
    """Make noise around a grey level."""
    pixels = np.random.default_rng(seed).integers(-40, 40, (9, 11, 3)) + level
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_folders(root: Path, counts: dict[str, int], first: int = 0) -> Path:
    """Write a folder per class with that many images."""
    for place, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            make_image(first + 100 * place + index).save(root / name / f"{index:03d}.png")
    return root


def write_findings(root: Path, n_images: int, first: int = 0, name: str = "table.csv") -> Path:
    """Write images with several labels or none, shown by colour, and a table with both kinds of columns."""
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(n_images):
        has = [(index >> bit) & 1 for bit in range(3)]
        pixels = np.full((12, 12, 3), 30) + 180 * np.array(has)
        pixels = pixels + np.random.default_rng(first + index).integers(-20, 20, pixels.shape)
        file = f"images/{first + index:04d}.png"
        (root / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / file)
        found = [finding for finding, there in zip(FINDINGS, has, strict=True) if there]
        columns = dict(zip(FINDINGS, has, strict=True))
        rows.append(
            {"file": file, "findings": "|".join(found) or "No Finding", "patient": index // 3} | columns
        )
    pd.DataFrame(rows).to_csv(root / name, index=False)
    return root / name


def write_hub_copy(
    root: Path, splits: dict[str, Sequence[int]], names: Sequence[str], columns: tuple[str, str]
) -> Path:
    """Write a repository as `push_to_hub` does: parquet files in data/, and a card describing them."""
    import datasets

    image, label = columns
    (root / "data").mkdir(parents=True)
    features = datasets.Features({image: datasets.Image(), label: datasets.ClassLabel(names=list(names))})
    card = ["---", "configs:", "- config_name: default", "  data_files:"]
    for place, (split, labels) in enumerate(splits.items()):
        images = [make_image(1000 * place + index, 60 + 40 * value) for index, value in enumerate(labels)]
        data = datasets.Dataset.from_dict({image: images, label: list(labels)}, features=features)
        data.to_parquet(root / "data" / f"{split}-00000-of-00001.parquet")
        card += [f"  - split: {split}", f"    path: data/{split}-*"]
    card += ["dataset_info:", "  features:", f"  - name: {image}", "    dtype: image", f"  - name: {label}"]
    card += ["    dtype:", "      class_label:", "        names:"]
    card += [f"          '{index}': {name}" for index, name in enumerate(names)]
    (root / "README.md").write_text("\n".join([*card, "---", ""]))
    return root
