"""Cost and benefit of a fit's settings: precision and location of the tokens, and validation stimuli.

    OMP_NUM_THREADS=2 python benchmarks/fit_choices.py --output benchmarks/results/fit_choices

Each row is a mean over seeds, the same for all settings. The first setting is the default.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from earlier_recipe import DESCENT_ALONE
from machine import describe_machine, write_figures

from harness.backbones.load import load_backbone
from harness.brains.load import load_brain
from harness.config.compose import load_config
from harness.mappings.data import FitData
from harness.mappings.fit import (
    fit_mapping,
    prepare_tokens,
)
from harness.mappings.splits import (
    Split,
    split_stimuli,
)

STORES = (
    {},
    {"token_precision": "float16"},
    {"token_precision": "bfloat16"},
    {"token_place": "disk"},
    {"token_precision": "float16", "token_place": "disk"},
)
STATES = tuple(
    {"steps": steps, "regularization_steps": steps // 2, **state}
    for steps in (100, 400)
    for state in ({}, {"validation": 0.1}, {"validation": 0.1, "patience": 4})
)
SMALL = 200  # training stimuli: few enough for long fits to overfit


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure R² and seconds of every setting."""
    config = load_config(
        [
            f"backbone={arguments.backbone}",
            "mapping.anchor=none",
            *DESCENT_ALONE,
            f"brain.n_voxels={arguments.voxels}",
            f"brain.n_stimuli={arguments.stimuli}",
        ]
    )
    backbone, brain = load_backbone(config.backbone), load_brain(config.brain)
    whole = split_stimuli(len(brain.stimuli), config.mapping.held_out, config.seed)
    small = Split(whole.train[:: max(1, len(whole.train) // SMALL)], whole.held_out)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for table, choices, split in (
            ("store", STORES, whole), ("state", STATES, whole), ("state, few stimuli", STATES, small),
        ):  # fmt: skip
            for choice in choices:
                settings = config.mapping.model_copy(update=choice)
                tokens = prepare_tokens(backbone, brain.stimuli, split, settings, 128, "cpu", Path(folder))
                data = FitData(tokens, brain.responses, brain.coords, brain.bounding_box, split)
                mappings, start = [], time.perf_counter()
                for seed in range(arguments.seeds):
                    mappings.append(fit_mapping(data, settings, seed=seed))
                seconds = (time.perf_counter() - start) / arguments.seeds
                rows.append(
                    {
                        "table": table,
                        "stimuli": len(split.train),
                        "choice": choice,
                        "r2": float(np.mean([mapping.r2.mean() for mapping in mappings])),
                        "r2_sd_of_seeds": float(np.std([mapping.r2.mean() for mapping in mappings])),
                        "steps_kept": float(np.mean([mapping.steps for mapping in mappings])),
                        "seconds": seconds,
                        "bytes": sum(layer.nbytes for layer in (*tokens.local, *tokens.global_)),
                    }
                )
                print(rows[-1], flush=True)
    sizes = {name: getattr(arguments, name) for name in ("backbone", "voxels", "stimuli", "seeds")}
    return {"sizes": sizes, "machine": describe_machine(), "rows": rows}


def main() -> None:
    """Measure, and print each row when it is done."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="mini_supervised")
    parser.add_argument("--voxels", type=int, default=2000)
    parser.add_argument("--stimuli", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="path without suffix; writes a .json")
    arguments = parser.parse_args()
    figures = measure(arguments)
    if arguments.output:
        write_figures(figures, arguments.output.with_suffix(".json"))


if __name__ == "__main__":
    main()
