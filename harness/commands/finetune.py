"""Fine-tune a backbone on a task, take snapshots, then track whatever is not tracked yet."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

from harness.config import (
    Config,
    load_config,
    to_yaml,
)
from harness.finetuning import (
    build_accelerator,
    finetune,
    fingerprint_method,
    use_all_cores,
)
from harness.runs import (
    describe_run,
    hold_run,
    list_snapshots,
    load_inputs,
    run_folder,
)
from harness.storage import (
    write_atomically,
    write_json,
)
from harness.tracking import track


def run(config: Config) -> Path:
    """Fine-tune, snapshot and track one run; returns its folder."""
    accelerator = build_accelerator(config.finetune)
    folder = run_folder(config)
    with hold_run(folder) if accelerator.is_main_process else nullcontext():
        inputs = load_inputs(config, folder)
        manifest = describe_run(inputs)  # before hours of training: brains may not be as they should be
        manifest["fingerprints"] |= fingerprint_method(config.method)
        if accelerator.is_main_process:
            with write_atomically(folder / "config.yaml") as temporary:
                temporary.write_text(to_yaml(config), encoding="utf-8")
            write_json(folder / "manifest.json", manifest)
        finetune(config, folder, inputs.tasks, inputs.backbone, accelerator)
        track(config, folder, inputs, accelerator)
        if accelerator.is_main_process:
            write_json(folder / "finished.json", {"steps": list_snapshots(folder)})
    return folder


def main() -> None:
    """Run the configuration that the command line gives."""
    use_all_cores()
    run(load_config(sys.argv[1:]))
