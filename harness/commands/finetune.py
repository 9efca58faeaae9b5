"""Fine-tune a backbone on a task, take snapshots, then track those that are not tracked yet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from harness.commands.arguments import OverrideParser
from harness.commands.config import RUN_SETTINGS
from harness.config import (
    Config,
    check_tunable,
    load_config,
    tasks_in_order,
)
from harness.storage import SEND_LATER


def run(config: Config) -> Path:
    """Fine-tune, snapshot and track one run; return its folder."""
    check_tunable(config.backbone)
    # after the arguments are checked: torch takes seconds to import
    from harness.finetuning import (
        METHODS,
        adopt_training,
        build_accelerator,
        check_anchor,
        check_tasks,
        finetune,
        fingerprint_method,
        record_training,
    )
    from harness.runs import (
        begin_record,
        bind_to_plan,
        describe_run,
        finish_record,
        hold_run,
        load_inputs,
        run_folder,
    )
    from harness.tracking import (
        TrackedRun,
        prepare_start,
        save_model,
        track,
    )

    check_tasks(config.method, [task.name for task in tasks_in_order(config.task)])
    check_anchor(config)
    accelerator = build_accelerator(config.finetune)
    sends = accelerator.is_main_process and SEND_LATER not in os.environ
    folder = run_folder(config)
    with hold_run(folder) if accelerator.is_main_process else nullcontext():
        planned = bind_to_plan(config, folder)
        inputs = load_inputs(config, folder)
        manifest = describe_run(inputs) | planned  # checks the brains before hours of training
        manifest["fingerprints"] |= fingerprint_method(config.method)
        if accelerator.is_main_process:
            begin_record(config, folder, manifest)
            trained = adopt_training(config, folder, manifest)
            if trained is not None:
                print(f"fine-tuned already by {trained}: its snapshots are used (reuse=false trains again)")
        with TrackedRun(config, folder) if sends else nullcontext() as tracked:
            accelerator.wait_for_everyone()
            anchored = METHODS[config.method.name].anchors
            start = prepare_start(config, folder, inputs, accelerator) if anchored else None
            finetune(config, folder, inputs.tasks, inputs.backbone, accelerator, start)
            if accelerator.is_main_process:
                record_training(config, folder, manifest)
            track(config, folder, inputs, accelerator)
            if tracked is not None and config.mlflow.log_model:
                tracked.log_model(partial(save_model, config, folder, inputs))
            if accelerator.is_main_process:
                finish_record(folder)
    return folder


def main(argv: Sequence[str] | None = None) -> None:
    """Run the configuration that overrides resolve to."""
    parser = OverrideParser(
        "finetune",
        "Fine-tune a backbone, take snapshots, and track each: retention on probe tasks, fit to the brain, "
        "rewiring.\nOne process per GPU. The same command resumes an interrupted run.",
        (
            "finetune backbone=mini_clip task=digits method=full seed=0",
            "finetune backbone=dinov2_s14 task=eurosat method=lora brain=nsd brain.root=/data/nsd",
            "finetune task=[digits,textures]      # a sequence of tasks",
        ),
        RUN_SETTINGS,
    )
    run(load_config(parser.parse(argv).overrides))
